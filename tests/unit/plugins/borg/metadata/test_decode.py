"""What Borg writes is read, and anything that is written otherwise is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgpack
import pytest
from borg.crypto.key import AuthenticatedKey, Blake2AuthenticatedKey
from borg.helpers import StableDict
from borg.helpers import msgpack as borg_msgpack
from borg.item import ArchiveItem, Item, ManifestItem
from hypothesis import given, settings
from hypothesis import strategies as st

from borgcube.plugins.borg.metadata import decode as decoding
from borgcube.plugins.borg.metadata.decode import (
    ItemDecoder,
    decode_archive,
    decode_manifest,
    read_records,
)
from borgcube.plugins.borg.metadata.rules import ArchiveRefused
from borgcube.testing.fuzztargets import Finding
from tests.unit.plugins.borg.metadata.honest import (
    items,
    packed,
    plain_item,
    trees,
)

usual = settings(max_examples=100, deadline=None)


@usual
@given(trees(), st.integers(1, 200))
def test_what_borg_writes_is_read_however_it_is_cut(tree: list[Item], step: int) -> None:
    stream = b"".join(packed(item) for item in tree)
    pieces = [stream[n : n + step] for n in range(0, len(stream), step)]
    found = list(read_records(pieces))
    assert found == list(read_records([stream])) == list(read_records([stream], lenient=True))
    assert len(found) == len(tree)
    for item, record in zip(tree, found, strict=True):
        assert record.path.decode("utf-8", "surrogateescape") == item.path
        numbers = (record.mode, record.uid, record.gid, record.mtime)
        assert numbers == (item.mode, item.uid, item.gid, item.mtime)
        assert record.size == item.get("size", 0)
        assert len(record.chunks) == 36 * len(item.get("chunks") or ())


# One change of an honest item ------------------------------------------------------------


class Raw(bytes):
    """Bytes that are packed already."""


def pack(value: Any) -> bytes:
    """Pack a value as Borg does; a list of pairs is a map in that order."""
    if isinstance(value, Raw):
        return bytes(value)
    if isinstance(value, Pairs):
        parts = [pack(part) for pair in value for part in pair]
        return msgpack.Packer().pack_map_header(len(value)) + b"".join(parts)
    if isinstance(value, tuple):
        head = msgpack.Packer().pack_array_header(len(value))
        return bytes(head + b"".join(pack(one) for one in value))
    return bytes(msgpack.packb(value, use_bin_type=False))


class Pairs(list[tuple[Any, Any]]):
    """A map as pairs, so that a key may come twice and in any order."""

    def put(self, key: bytes, value: Any) -> Pairs:
        """Return it with another value for a key, which is added in order if need be."""
        kept = [pair for pair in self if pair[0] != key]
        return Pairs(sorted([*kept, (key, value)], key=lambda pair: pair[0]))


def pairs(item: Any) -> Pairs:
    """Return an honest item as pairs."""
    raw = msgpack.unpackb(packed(item), raw=True, use_list=False)
    return Pairs(
        (key, Pairs(one.items()) if type(one) is dict else one) for key, one in raw.items()
    )


HONEST = pairs(
    plain_item(
        xattrs=StableDict({b"user.a": b"1", b"user.b": None}),
        atime=5,
        acl_access=b"u::rwx\n",
        bsdflags=2,
        part=1,
    )
)
ID = bytes([1]) * 32
WRONG: dict[str, Pairs | bytes] = {
    "a key twice": Pairs([*HONEST, HONEST[-1]]),
    "a key twice, side by side": Pairs(sorted([*HONEST, (b"chunks", ())], key=lambda p: p[0])),
    "keys in another order": Pairs(reversed(HONEST)),
    "two keys that changed places": Pairs([HONEST[1], HONEST[0], *HONEST[2:]]),
    "a key as text of the new kind": Pairs([(Raw(b"\xd9\x0aacl_access"), b"x"), *HONEST[1:]]),
    "a key as binary": Pairs([(Raw(b"\xc4\x0aacl_access"), b"x"), *HONEST[1:]]),
    "a number as key": Pairs([*HONEST, (7, 7)]),
    "an unknown key": HONEST.put(b"zeal", 1),
    "a key of Borg 2": HONEST.put(b"hlid", b"x" * 32),
    "chunks_healthy": HONEST.put(b"chunks_healthy", ()),
    "a path as binary": HONEST.put(b"path", Raw(b"\xc4\x01a")),
    "a path as str8": HONEST.put(b"path", Raw(b"\xd9\x01a")),
    "a path as raw16 that fits raw5": HONEST.put(b"path", Raw(b"\xda\0\x01a")),
    "a number for a path": HONEST.put(b"path", 3),
    "nil for a path": HONEST.put(b"path", None),
    "an integer longer than need be": HONEST.put(b"mode", Raw(b"\xce\0\0\x81\xa4")),
    "a small integer in two bytes": HONEST.put(b"atime", Raw(b"\xcc\x05")),
    "a signed integer": HONEST.put(b"mtime", Raw(b"\xd3" + b"\0" * 7 + b"\x80")),
    "a negative time": HONEST.put(b"mtime", -1),
    "a time of more than 63 bits": HONEST.put(b"mtime", 1 << 63),
    "a time as bytes": HONEST.put(b"mtime", b"\0" * 8),
    "a float for a time": HONEST.put(b"mtime", 1.0),
    "a float for a mode": HONEST.put(b"mode", 33188.0),
    "true for a number": HONEST.put(b"uid", True),
    "true for a part": HONEST.put(b"part", True),
    "true for flags": HONEST.put(b"bsdflags", True),
    "nil for a number": HONEST.put(b"uid", None),
    "a negative owner": HONEST.put(b"uid", -1),
    "an owner of 33 bits": HONEST.put(b"uid", 1 << 32),
    "a mode of 17 bits": HONEST.put(b"mode", 1 << 16 | 0o100644),
    "a number for a name": HONEST.put(b"user", 1),
    "zero for a name": HONEST.put(b"user", 0),
    "an empty list for a name": HONEST.put(b"group", ()),
    "false for a name": HONEST.put(b"group", False),
    "a number for hardlink_master": HONEST.put(b"hardlink_master", 1),
    "nil for hardlink_master": HONEST.put(b"hardlink_master", None),
    "nil for chunks": HONEST.put(b"chunks", None),
    "a map for chunks": HONEST.put(b"chunks", Pairs()),
    "a pair for a chunk": HONEST.put(b"chunks", ((ID, 1000),)),
    "four values for a chunk": HONEST.put(b"chunks", ((ID, 1000, 1, 1),)),
    "a map for a chunk": HONEST.put(b"chunks", (Pairs([(1, 2)]),)),
    "a short chunk ID": HONEST.put(b"chunks", ((ID[1:], 1000, 1),)),
    "a chunk ID as binary": HONEST.put(b"chunks", ((Raw(b"\xc4\x20" + ID), 1000, 1),)),
    "a chunk of negative size": HONEST.put(b"chunks", ((ID, -1000, 1),)),
    "a stored size of 33 bits": HONEST.put(b"chunks", ((ID, 1000, 1 << 32),)),
    "a float for a chunk's size": HONEST.put(b"chunks", ((ID, 1000.0, 1),)),
    "true for a stored size": HONEST.put(b"chunks", ((ID, 1000, True),)),
    "a long array head": HONEST.put(b"chunks", Raw(b"\xdc\0\x01" + pack((ID, 1000, 1)))),
    "a size that is no sum": HONEST.put(b"size", 999),
    "a list for attributes": HONEST.put(b"xattrs", ()),
    "nil for attributes": HONEST.put(b"xattrs", None),
    "an attribute twice": HONEST.put(b"xattrs", Pairs([(b"a", b"1"), (b"a", b"2")])),
    "attributes in another order": HONEST.put(b"xattrs", Pairs([(b"b", b""), (b"a", b"")])),
    "a number for an attribute": HONEST.put(b"xattrs", Pairs([(b"a", 1)])),
    "a number names an attribute": HONEST.put(b"xattrs", Pairs([(1, b"a")])),
    "nil for an ACL": HONEST.put(b"acl_access", None),
    "a number for an ACL": HONEST.put(b"acl_access", 1),
    "an extension type": HONEST.put(b"acl_access", Raw(b"\xd4\x01\x00")),
    "a timestamp": HONEST.put(b"mtime", Raw(b"\xd6\xff\0\0\0\1")),
    "a device of 65 bits": Raw(pack(HONEST.put(b"rdev", Raw(b"\xc4\x09" + b"\1" * 9)))),
    "no map": b"\x93\x01\x02\x03",
    "nothing but nil": b"\xc0",
    "an item that is cut off": pack(HONEST)[:-1],
    "a byte after it": pack(HONEST) + b"\0",
    "an unused code": pack(HONEST) + b"\xc1",
    "a map head longer than need be": b"\xde\0" + bytes([len(HONEST)]) + pack(HONEST)[1:]
    if len(HONEST) < 16 else b"\xdf\0\0" + pack(HONEST)[1:],
}  # fmt: skip
for _key in (b"path", b"mode", b"uid", b"gid", b"user", b"group", b"mtime"):
    WRONG[f"no {_key.decode()}"] = Pairs(pair for pair in HONEST if pair[0] != _key)


def test_the_item_that_is_changed_below_is_accepted() -> None:
    assert len(list(read_records([pack(HONEST)]))) == 1


@pytest.mark.parametrize("change", WRONG)
@pytest.mark.parametrize("where", ["alone", "after another", "a byte at a time"])
def test_an_item_that_borg_would_not_write_is_refused(change: str, where: str) -> None:
    wrong = WRONG[change]
    data = bytes(wrong) if isinstance(wrong, bytes) else pack(wrong)
    assert data != pack(HONEST)
    if where == "after another":
        data = pack(HONEST) + data
    pieces: Sequence[bytes] = [data]
    if where == "a byte at a time":
        pieces = [data[n : n + 1] for n in range(len(data))]
    with pytest.raises(ArchiveRefused):
        list(read_records(pieces))


def test_the_check_of_the_packing_is_what_refuses_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above can fail: without the comparison, other forms come through."""
    monkeypatch.setattr(decoding, "packer", lambda: _Same)
    came_through = 0
    for change in WRONG.values():
        data = bytes(change) if isinstance(change, bytes) else pack(change)
        try:
            came_through += bool(list(read_records([data])))
        except ArchiveRefused:
            pass
    assert came_through > 5


class _Anything:
    """Equal to whatever it is compared with."""

    def __eq__(self, _other: object) -> bool:
        return True

    def __ne__(self, _other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]


def _Same(_item: Any) -> _Anything:
    return _Anything()


@settings(max_examples=300, deadline=None)
@given(items(), st.data())
def test_a_changed_byte_is_another_honest_item_or_refused(item: Item, data: Any) -> None:
    """What is accepted packs, as Borg packs what it reads, to the very bytes that came."""
    stream = bytearray(packed(item))
    for _ in range(data.draw(st.integers(1, 3))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = list(read_records([bytes(stream)]))
    except ArchiveRefused:
        return
    unpacker = borg_msgpack.Unpacker(object_hook=StableDict)
    unpacker.feed(bytes(stream))
    again = [borg_msgpack.packb(Item(internal_dict=one).as_dict()) for one in unpacker]
    if b"".join(again) != bytes(stream) or len(again) != len(found):
        raise Finding("something was accepted that Borg writes otherwise")


def test_an_item_that_is_refused_is_named_in_words() -> None:
    for change in WRONG.values():
        data = bytes(change) if isinstance(change, bytes) else pack(change)
        with pytest.raises(ArchiveRefused, match=r"\w+ \w+") as caught:
            list(read_records([data]))
        assert str(caught.value).isprintable() and len(str(caught.value)) < 200


# What is stored already, by whichever borg ------------------------------------------------


def test_archives_that_are_there_may_have_another_form_but_no_other_meaning() -> None:
    old = Pairs((key, one) for key, one in HONEST if key != b"size")  # of Borg before 1.1
    forms = {
        "keys in another order": Pairs(reversed(HONEST)),
        "a time as bytes": HONEST.put(b"mtime", (-1).to_bytes(8, "little", signed=True)),
        "a longer integer": HONEST.put(b"mode", Raw(b"\xce\0\0\x81\xa4")),
        "nil for chunks": HONEST.put(b"chunks", None).put(b"size", 0),
        "chunks_healthy": HONEST.put(b"chunks_healthy", ((ID, 1000, 1),)),
        "nil for chunks_healthy": HONEST.put(b"chunks_healthy", None),
    }
    for said, form in forms.items():
        (record,) = read_records([pack(form)], lenient=True)
        assert record.path == b"a/file", said
        with pytest.raises(ArchiveRefused):
            list(read_records([pack(form)]))
    (record,) = read_records([pack(old)], lenient=True)
    assert record.size == dict(HONEST)[b"size"]
    for change in (
        "a key twice", "a key twice, side by side", "an attribute twice", "a number as key",
        "a pair for a chunk", "four values for a chunk", "a float for a time",
        "true for a number", "nil for a path", "a size that is no sum",
    ):  # fmt: skip
        wrong = WRONG[change]
        assert isinstance(wrong, Pairs)
        with pytest.raises(ArchiveRefused):
            list(read_records([pack(wrong)], lenient=True))


@pytest.mark.parametrize(
    "item",
    [Pairs((key, one) for key, one in HONEST if key not in (b"uid", b"user")),
     Pairs((*HONEST, (b"surprise", 1)))],
    ids=["no owner", "a key that Borg does not know"],
)  # fmt: skip
def test_what_ends_borgs_own_reader_is_not_sound_but_can_be_mended(item: Pairs) -> None:
    with pytest.raises(ArchiveRefused):
        list(read_records([pack(item)], lenient=True))
    salvage = ItemDecoder(lenient=True, skip=True)
    assert len(list(salvage.read(pack(item)))) == 1 and not salvage.skipped


# The archive and the manifest -------------------------------------------------------------


def key_of(kind: Callable[..., Any]) -> Any:
    """Return a key as clients have it."""
    key = kind(None)
    key.init_from_random_data()
    key.init_ciphers()
    return key


def archive_item(**more: Any) -> dict[str, Any]:
    """Return the metadata of an archive, by Borg's own class."""
    made = ArchiveItem(
        version=1, name="a", comment="", items=[ID, bytes([2]) * 32], cmdline=["borg", "create"],
        hostname="h", username="u", time="2026-01-01T00:00:00.000001",
        time_end="2026-01-01T00:00:01.000000", chunker_params=("buzhash", 19, 23, 21, 4095),
        size=1, csize=1, nfiles=1, size_parts=0, csize_parts=0, nfiles_parts=0, cwd="/",
    )  # fmt: skip
    for name, value in more.items():
        setattr(made, name, value)
    found: dict[str, Any] = made.as_dict()
    return found


KEYS = [AuthenticatedKey, Blake2AuthenticatedKey]


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize(
    "more",
    [
        {}, {"items": []}, {"comment": "x" * 500}, {"hostname": "h\udcff"}, {"cmdline": []},
        {"chunker_params": ("fixed", 4096, 0)}, {"chunker_params": ("buzhash", 10, 23, 16, 4095)},
        {"time": "2026-01-01T00:00:00"}, {"time": "2026-01-01T00:00:00.000001+00:00"},
    ],
    ids=lambda more: str(more)[:40],
)  # fmt: skip
def test_the_metadata_of_an_archive_is_read(kind: Any, more: dict[str, Any]) -> None:
    made = archive_item(**more)
    plain = key_of(kind).pack_and_authenticate_metadata(made, context=b"archive")
    facts = decode_archive(plain, expected="a")
    assert list(facts.items) == list(made["items"])
    assert facts.time.replace(microsecond=0) == datetime(2026, 1, 1, tzinfo=UTC)
    assert [word.decode() for word in facts.cmdline] == list(made["cmdline"])
    assert facts.hostname == more.get("hostname", "h").encode("utf-8", "surrogateescape")
    chosen = more.get("chunker_params", ("buzhash", 19, 23, 21, 4095))
    assert facts.chunker_params == chosen
    without = borg_msgpack.packb(StableDict(made))
    assert decode_archive(without, expected="a") == facts


def raw_map(plain: bytes) -> Pairs:
    raw = msgpack.unpackb(plain, raw=True, use_list=False)
    return Pairs((k, Pairs(v.items()) if type(v) is dict else v) for k, v in raw.items())


ARCHIVE = raw_map(borg_msgpack.packb(archive_item()))
WRONG_ARCHIVES: dict[str, Pairs | bytes] = {
    "a key twice": Pairs(sorted([*ARCHIVE, (b"items", ())], key=lambda p: p[0])),
    "keys in another order": Pairs(reversed(ARCHIVE)),
    "an unknown key": ARCHIVE.put(b"zeal", 1),
    "a number as key": Pairs([*ARCHIVE, (1, 1)]),
    "keys of several types": Pairs([(None, 1), *ARCHIVE]),
    "items of Borg 2": ARCHIVE.put(b"item_ptrs", ()),
    "a key as binary": Pairs([(Raw(b"\xc4\x0echunker_params"), ()), *ARCHIVE[1:]]),
    "version 2": ARCHIVE.put(b"version", 2),
    "true for a version": ARCHIVE.put(b"version", True),
    "another name": ARCHIVE.put(b"name", b"b"),
    "a map for items": ARCHIVE.put(b"items", Pairs([(ID, ID)])),
    "a short ID": ARCHIVE.put(b"items", (ID[1:],)),
    "an ID as binary": ARCHIVE.put(b"items", (Raw(b"\xc4\x20" + ID),)),
    "a number for an ID": ARCHIVE.put(b"items", (1,)),
    "a long array head": ARCHIVE.put(b"items", Raw(b"\xdd\0\0\0\x01" + pack(ID))),
    "a number as time": ARCHIVE.put(b"time", 1),
    "a time zone": ARCHIVE.put(b"time", b"2026-01-01T00:00:00+05:00"),
    "a date": ARCHIVE.put(b"time", b"2026-01-01"),
    "no such day": ARCHIVE.put(b"time", b"2026-02-30T00:00:00"),
    "digits of another script": ARCHIVE.put(b"time", "٢026-01-01T00:00:00".encode()),
    "a line after the time": ARCHIVE.put(b"time", b"2026-01-01T00:00:00\n"),
    "an endless word": ARCHIVE.put(b"cmdline", (b"x" * (1 << 20 | 1),)),
    "too many words": ARCHIVE.put(b"cmdline", (b"",) * 10_001),
    "a number in the command line": ARCHIVE.put(b"cmdline", (1,)),
    "an endless host name": ARCHIVE.put(b"hostname", b"h" * (64 * 1024 + 1)),
    "nil for a host name": ARCHIVE.put(b"hostname", None),
    "no chunker": ARCHIVE.put(b"chunker_params", ()),
    "an unknown chunker": ARCHIVE.put(b"chunker_params", (b"zip", 1)),
    "a huge chunker": ARCHIVE.put(b"chunker_params", (b"buzhash", 1 << 32)),
    "many chunkers": ARCHIVE.put(b"chunker_params", (b"buzhash", 1, 2, 3, 4, 5)),
    "true for a chunker": ARCHIVE.put(b"chunker_params", (b"buzhash", True)),
    "no map": b"\x90",
    "a byte after it": pack(ARCHIVE) + b"\xc0",
    "cut off": pack(ARCHIVE)[:-1],
    "nothing": b"",
    "deep": b"\x81\xa3tam" + b"\x91" * 5000,
}
for _needed in (b"version", b"name", b"items", b"cmdline", b"hostname", b"username", b"time",
                b"time_end", b"chunker_params"):  # fmt: skip
    WRONG_ARCHIVES[f"no {_needed.decode()}"] = Pairs(p for p in ARCHIVE if p[0] != _needed)


@pytest.mark.parametrize("change", WRONG_ARCHIVES)
def test_metadata_of_an_archive_that_borg_would_not_write_is_refused(change: str) -> None:
    wrong = WRONG_ARCHIVES[change]
    assert len(decode_archive(pack(ARCHIVE), expected="a").items) == 2
    with pytest.raises(ArchiveRefused):
        decode_archive(bytes(wrong) if isinstance(wrong, bytes) else pack(wrong), expected="a")


def manifest_item(**more: Any) -> dict[str, Any]:
    entry = StableDict({"id": ID, "time": "2026-01-01T00:00:00.000000"})
    made = ManifestItem(
        version=1, archives=StableDict({"a": entry}), timestamp="2026-01-01T00:00:00.000000",
        config=StableDict(), item_keys=("path", "mode"),
    )  # fmt: skip
    return StableDict({**made.as_dict(), **more})


@pytest.mark.parametrize("kind", KEYS)
def test_a_manifest_is_read(kind: Any) -> None:
    plain = key_of(kind).pack_and_authenticate_metadata(manifest_item())
    assert decode_manifest(plain, expected="a") == ID


MANIFEST = raw_map(borg_msgpack.packb(manifest_item()))
ENTRY = Pairs([(b"id", ID), (b"time", b"t")])
WRONG_MANIFESTS: dict[str, Pairs | bytes] = {
    "an archive twice": MANIFEST.put(b"archives", Pairs([(b"a", ENTRY), (b"a", ENTRY)])),
    "another archive too": MANIFEST.put(b"archives", Pairs([(b"a", ENTRY), (b"b", ENTRY)])),
    "another archive": MANIFEST.put(b"archives", Pairs([(b"b", ENTRY)])),
    "no archive": MANIFEST.put(b"archives", Pairs()),
    "a list of archives": MANIFEST.put(b"archives", ()),
    "no archives": Pairs(pair for pair in MANIFEST if pair[0] != b"archives"),
    "archives twice": Pairs([MANIFEST[0], *MANIFEST]),
    "keys in another order": Pairs(reversed(MANIFEST)),
    "an unknown key": MANIFEST.put(b"zeal", 1),
    "an ID twice": MANIFEST.put(b"archives", Pairs([(b"a", Pairs([(b"id", ID), *ENTRY]))])),
    "a short ID": MANIFEST.put(b"archives", Pairs([(b"a", ENTRY.put(b"id", b"x"))])),
    "an ID as binary": MANIFEST.put(
        b"archives", Pairs([(b"a", ENTRY.put(b"id", Raw(b"\xc4\x20" + ID)))])
    ),
    "a number for an ID": MANIFEST.put(b"archives", Pairs([(b"a", ENTRY.put(b"id", 1))])),
    "no time": MANIFEST.put(b"archives", Pairs([(b"a", Pairs([(b"id", ID)]))])),
    "a list for an entry": MANIFEST.put(b"archives", Pairs([(b"a", (ID, b"t"))])),
    "an entry in another order": MANIFEST.put(b"archives", Pairs([(b"a", Pairs(ENTRY[::-1]))])),
    "no map": b"\x91\x90",
    "a byte after it": pack(MANIFEST) + b"\0",
    "nothing": b"",
}


@pytest.mark.parametrize("change", WRONG_MANIFESTS)
def test_a_manifest_that_borg_would_not_write_is_refused(change: str) -> None:
    wrong = WRONG_MANIFESTS[change]
    assert decode_manifest(pack(MANIFEST), expected="a") == ID
    with pytest.raises(ArchiveRefused):
        decode_manifest(bytes(wrong) if isinstance(wrong, bytes) else pack(wrong), expected="a")
