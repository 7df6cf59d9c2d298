"""Items as Borg itself makes and packs them, for the tests of what reads them."""

from __future__ import annotations

import stat
from typing import Any

from borg.cache import ChunkListEntry
from borg.helpers import StableDict
from borg.helpers import msgpack as borg_msgpack
from borg.item import Item
from hypothesis import strategies as st

# What a session may reference: chunk ID -> (size, stored size).
CHUNKS = {bytes([n]) * 32: (n * n * 1000, n * 700 + 31) for n in range(1, 40)}
REGULAR, DIRECTORY, LINK = stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK
PIPE, CHARACTER, BLOCK = stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK

components = (
    st.text(min_size=1, max_size=20).map(lambda text: text.encode("utf-8", "replace"))
    | st.binary(min_size=1, max_size=300)
).map(lambda part: part.replace(b"/", b"_").replace(b"\0", b"_")).filter(
    lambda part: part not in (b".", b"..")
)  # fmt: skip
paths = st.lists(components, min_size=1, max_size=5).map(b"/".join)
times = st.sampled_from([0, 1, 127, 128, 1 << 32, (1 << 63) - 1]) | st.integers(0, (1 << 63) - 1)
ids = st.sampled_from([0, 127, 128, 65535, 65536, 1 << 31, (1 << 32) - 1])
words = (
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
    | st.none()
)


def text(value: bytes) -> str:
    """Return bytes as Borg keeps them in an item."""
    return value.decode("utf-8", "surrogateescape")


def packed(item: Item) -> bytes:
    """Return an item as Borg packs it into its stream."""
    data: bytes = borg_msgpack.packb(item.as_dict())
    return data


def with_common(draw: st.DrawFn, item: Item, path: bytes, mode: int) -> Item:
    """Give an item what every kind has, and some of what every kind may have."""
    item.path = text(path)
    item.mode = mode | draw(st.integers(0, 0o7777))
    item.uid, item.gid = draw(ids), draw(ids)
    item.user, item.group = draw(words), draw(words)
    item.mtime = draw(times)
    for name in ("ctime", "atime", "birthtime"):
        if draw(st.booleans()):
            setattr(item, name, draw(times))
    if draw(st.integers(0, 5)) == 0:
        item.bsdflags = draw(ids)
    if draw(st.integers(0, 3)) == 0:
        values = st.binary(max_size=60) | st.none()
        names = st.binary(min_size=1, max_size=40)
        item.xattrs = StableDict(draw(st.dictionaries(names, values, max_size=6)))
    for name in ("acl_access", "acl_default", "acl_extended", "acl_nfs4"):
        if draw(st.integers(0, 6)) == 0:
            setattr(item, name, draw(st.binary(max_size=80)))
    return item


@st.composite
def items(draw: st.DrawFn) -> Item:
    """An item of any kind, that is no further name of a hard link."""
    path = draw(paths)
    kind = draw(st.sampled_from([REGULAR, REGULAR, DIRECTORY, LINK, PIPE, CHARACTER, BLOCK]))
    item = with_common(draw, Item(), path, kind)
    if kind == REGULAR:
        chosen = draw(st.lists(st.sampled_from(sorted(CHUNKS)), max_size=20))
        item.chunks = [ChunkListEntry(one, *CHUNKS[one]) for one in chosen]
        item.get_size(memorize=True)
        if draw(st.integers(0, 9)) == 0:
            item.part = draw(st.integers(1, 300))
    if kind == LINK:
        item.source = text(draw(paths) or b"x")
    if kind in (CHARACTER, BLOCK):
        item.rdev = draw(st.integers(0, (1 << 64) - 1))
    if kind not in (DIRECTORY, LINK):
        item.hardlink_master = draw(st.booleans())
    return item


@st.composite
def trees(draw: st.DrawFn) -> list[Item]:
    """Items of an archive, with further names of what may have some."""
    made: list[Item] = []
    for item in draw(st.lists(items(), min_size=1, max_size=8)):
        made.append(item)
        if item.get("hardlink_master") and draw(st.booleans()):
            again = with_common(draw, Item(), draw(paths), stat.S_IFMT(item.mode))
            again.source = item.path
            if "rdev" in item:
                again.rdev = item.rdev
            made.append(again)
    return made


def plain_item(**more: Any) -> Item:
    """Return the item of a regular file of one chunk; ``more`` adds to it or replaces."""
    chunk_id = bytes([1]) * 32
    item = Item(
        path="a/file", mode=REGULAR | 0o644, uid=1000, gid=1000, user="u", group="g", mtime=10**18,
        ctime=10**18 + 1, chunks=[ChunkListEntry(chunk_id, *CHUNKS[chunk_id])], size=1000,
        hardlink_master=False,
    )  # fmt: skip
    for name, value in more.items():
        setattr(item, name, value)
    return item
