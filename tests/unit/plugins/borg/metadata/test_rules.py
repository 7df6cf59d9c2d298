"""What an archive may say: one table a rule."""

from __future__ import annotations

from typing import Any

import pytest

from borgcube.plugins.borg.metadata import form
from borgcube.plugins.borg.metadata.form import ENTRY, Record
from borgcube.plugins.borg.metadata.rules import (
    LINK_BYTES,
    MAX_PATH,
    ArchiveRefused,
    Links,
    check_path,
    check_record,
    has_long_component,
    item_kind,
)
from tests.unit.plugins.borg.metadata.honest import (
    BLOCK,
    CHARACTER,
    DIRECTORY,
    LINK,
    PIPE,
    REGULAR,
)

GOOD_PATHS = [
    b".", b"a", b"a/b", b"...", b"..a", b"a..", b".a/.b", b"a/...", b"-rf", b" ", b"a\nb",
    b"\xff\xfe", b"a\\b", b"c:", b"x" * 1020, b"/".join([b"x" * 1020] * 16),
    b"/".join([b"a"] * 8192),
]  # fmt: skip
BAD_PATHS = [
    b"", b"/", b"/a", b"a/", b"a//b", b"//a", b"./a", b"./", b"a/.", b"a/./b", b"..", b"../a",
    b"a/..", b"a/../b", b"/..", b"a\0b", b"\0", b"a/\0", b"x" * 1021, b"a/" + b"x" * 1021,
    b"x" * 1021 + b"/a", b"/".join([b"x" * 1000] * 17), b"/".join([b"a"] * 8193), b"./.", b"a\n/..",
    b"a/b/..", b"a/b\n/.",
]  # fmt: skip


def record(
    mode: int, flags: int = 0, *, path: bytes = b"a", source: bytes = b"", **more: Any
) -> Record:
    found: dict[str, Any] = {
        "part": 0, "rdev": 0, "bsdflags": 0, "size": 0, "mtime": 0, "ctime": 0, "atime": 0,
        "birthtime": 0, "user": b"u", "group": b"g", "chunks": b"", "healthy": b"", "xattrs": b"",
        "acls": (b"", b"", b"", b""), "uid": 0, "gid": 0, **more,
    }  # fmt: skip
    return Record(flags=flags, mode=mode, path=path, source=source, **found)


FILE = form.CHUNKS | form.SIZE | form.MASTER


@pytest.mark.parametrize("path", GOOD_PATHS, ids=lambda path: repr(path[:12]))
def test_a_relative_path_in_normal_form_is_accepted(path: bytes) -> None:
    check_path(path)
    assert check_record(record(DIRECTORY, path=path), Links()) == "d"
    links = Links()
    links.add(path, "-")
    assert check_record(record(REGULAR, form.SOURCE, source=path), links) == "-"


@pytest.mark.parametrize("path", BAD_PATHS, ids=lambda path: repr(path[:12]))
def test_any_other_path_is_refused(path: bytes) -> None:
    with pytest.raises(ArchiveRefused, match="normal form"):
        check_path(path)
    with pytest.raises(ArchiveRefused, match="normal form"):
        check_record(record(DIRECTORY, path=path), Links())


@pytest.mark.parametrize("path", BAD_PATHS, ids=lambda path: repr(path[:12]))
def test_the_same_holds_for_the_source_of_a_hard_link(path: bytes) -> None:
    links = Links()
    links.add(path, "-")
    with pytest.raises(ArchiveRefused, match="normal form"):
        check_record(record(REGULAR, form.SOURCE, source=path), links)


def test_the_longest_path_is_as_long_as_it_may_be() -> None:
    path = b"/".join([b"x" * 1000] * 20)
    check_path(path[: MAX_PATH - 1] + b"x")
    with pytest.raises(ArchiveRefused):
        check_path(path[:MAX_PATH] + b"x")


@pytest.mark.parametrize(
    ("path", "long"),
    [(b"x" * 255, False), (b"x" * 256, True), (b"a/" + b"x" * 256, True),
     (b"/".join([b"x" * 255] * 9), False), (b"x" * 256 + b"/a", True)],
    ids=["255", "256", "below", "many", "above"],
)  # fmt: skip
def test_a_component_over_255_bytes_is_told(path: bytes, long: bool) -> None:
    assert has_long_component(path) is long


# Fields by kind ---------------------------------------------------------------------------

EVERY = (
    form.USER | form.GROUP | form.CTIME | form.ATIME | form.BIRTHTIME | form.BSDFLAGS | form.XATTRS
    | form.ACL_ACCESS | form.ACL_DEFAULT | form.ACL_EXTENDED | form.ACL_NFS4
)  # fmt: skip
NEEDED = {
    REGULAR: form.CHUNKS | form.SIZE, DIRECTORY: 0, LINK: form.SOURCE, PIPE: 0,
    CHARACTER: form.RDEV, BLOCK: form.RDEV,
}  # fmt: skip
FURTHER = {REGULAR: 0, PIPE: 0, CHARACTER: form.RDEV, BLOCK: form.RDEV}


@pytest.mark.parametrize("mode", NEEDED)
def test_a_kind_has_its_fields_and_no_others(mode: int) -> None:
    needed = NEEDED[mode]
    more = {
        REGULAR: form.MASTER | form.IS_MASTER | form.HEALTHY | form.PART, DIRECTORY: 0, LINK: 0,
        PIPE: form.MASTER | form.IS_MASTER, CHARACTER: form.MASTER | form.IS_MASTER,
        BLOCK: form.MASTER | form.IS_MASTER,
    }[mode]  # fmt: skip
    kind = item_kind(mode)
    for flags in (needed, needed | EVERY, needed | more, needed | EVERY | more):
        assert check_record(record(mode, flags, source=b"x"), Links()) == kind
    for bit in (1 << n for n in range(19)):
        if bit & needed:
            with pytest.raises(ArchiveRefused, match="fields"):
                check_record(record(mode, needed & ~bit, source=b"x"), Links())
        elif not bit & (EVERY | more | form.SOURCE):
            with pytest.raises(ArchiveRefused, match="fields"):
                check_record(record(mode, needed | bit, source=b"x"), Links())


@pytest.mark.parametrize("mode", FURTHER)
def test_a_further_name_of_a_hard_link_has_no_content_of_its_own(mode: int) -> None:
    kind, links = item_kind(mode), Links()
    links.add(b"first", kind)
    needed = form.SOURCE | FURTHER[mode]
    for flags in (needed, needed | EVERY):
        assert check_record(record(mode, flags, source=b"first"), links) == kind
    for bit in (1 << n for n in range(19)):
        if not bit & (EVERY | needed):
            with pytest.raises(ArchiveRefused, match="fields"):
                check_record(record(mode, needed | bit, source=b"first"), links)


@pytest.mark.parametrize("mode", [0, 0o644, 0o140644, 0o030644, 0o170644, 0o150000, 0o160000])
def test_a_mode_of_no_known_type_is_refused(mode: int) -> None:
    with pytest.raises(ArchiveRefused, match="no known type"):
        check_record(record(mode), Links())


def test_a_directory_is_no_further_name() -> None:
    links = Links()
    links.add(b"first", "d")
    with pytest.raises(ArchiveRefused, match="fields"):
        check_record(record(DIRECTORY, form.SOURCE, source=b"first"), links)


@pytest.mark.parametrize(
    "source", [b"x", b"/etc/passwd", b"../..", b"a//b", b".", b"x" * 4095, b"\xff"]
)
def test_a_symbolic_link_may_point_anywhere(source: bytes) -> None:
    assert check_record(record(LINK, form.SOURCE, source=source), Links()) == "l"


@pytest.mark.parametrize("source", [b"", b"a\0b", b"x" * (MAX_PATH + 1)])
def test_a_symbolic_link_that_cannot_be_is_refused(source: bytes) -> None:
    with pytest.raises(ArchiveRefused, match="malformed link"):
        check_record(record(LINK, form.SOURCE, source=source), Links())


@pytest.mark.parametrize("name", ["mtime", "ctime", "atime", "birthtime"])
def test_a_time_before_the_epoch_is_refused(name: str) -> None:
    check_record(record(DIRECTORY, **{name: (1 << 63) - 1}), Links())
    with pytest.raises(ArchiveRefused, match="time"):
        check_record(record(DIRECTORY, **{name: -1}), Links())


# Hard links -------------------------------------------------------------------------------


def further(path: bytes, source: bytes, mode: int = REGULAR, flags: int = 0) -> Record:
    return record(mode, form.SOURCE | flags, path=path, source=source)


def first(path: bytes, mode: int = REGULAR, flags: int = form.IS_MASTER) -> Record:
    needed = FILE if mode == REGULAR else NEEDED[mode] | form.MASTER
    return record(mode, needed | flags, path=path, chunks=ENTRY.pack(bytes(32), 1), size=1)


ARCHIVES: dict[str, tuple[list[Record], bool]] = {
    "an earlier file": ([first(b"a"), further(b"b", b"a")], True),
    "two further names": ([first(b"a"), further(b"b", b"a"), further(b"c", b"a")], True),
    "the same path again, from overlapping roots": ([first(b"a"), further(b"a", b"a")], True),
    "a pipe": ([first(b"a", PIPE), further(b"b", b"a", PIPE)], True),
    "a device": (
        [first(b"a", BLOCK), further(b"b", b"a", BLOCK, form.RDEV)], True,
    ),
    "a first name that does not say so": (
        [record(REGULAR, form.CHUNKS | form.SIZE, path=b"a"), further(b"b", b"a")], True,
    ),
    "itself": ([further(b"a", b"a")], False),
    "a later file": ([first(b"c"), further(b"b", b"a")], False),
    "nothing": ([first(b"a"), further(b"b", b"c")], False),
    "a further name": ([first(b"a"), further(b"b", b"a"), further(b"c", b"b")], False),
    "a file that is no first name": ([first(b"a", flags=0), further(b"b", b"a")], False),
    "a directory": ([record(DIRECTORY, path=b"a"), further(b"b", b"a")], False),
    "a symbolic link": (
        [record(LINK, form.SOURCE, path=b"a", source=b"x"), further(b"b", b"a")], False,
    ),
    "a pipe for a file": ([first(b"a", PIPE), further(b"b", b"a")], False),
    "a file for a pipe": ([first(b"a"), further(b"b", b"a", PIPE)], False),
    "a block device for a character device": (
        [first(b"a", BLOCK), further(b"b", b"a", CHARACTER, form.RDEV)], False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("said", ARCHIVES)
def test_a_hard_link_has_an_earlier_first_name_of_its_kind(said: str) -> None:
    links, (archive, accepted) = Links(), ARCHIVES[said]
    for one in archive if accepted else archive[:-1]:
        check_record(one, links)
    if not accepted:
        with pytest.raises(ArchiveRefused, match="hard link's source"):
            check_record(archive[-1], links)


def test_first_names_are_bounded_in_bytes_and_the_limit_is_ours() -> None:
    links = Links(most_bytes=100 * LINK_BYTES)
    for number in range(100):
        links.add(b"%d" % number, "-")
    with pytest.raises(ArchiveRefused) as caught:
        links.add(b"one more", "-")
    assert caught.value.kind == "archive-too-large" and caught.value.keep
