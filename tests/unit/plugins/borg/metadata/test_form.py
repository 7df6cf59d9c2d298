"""Records survive their packed form, and no block does more to the vault than be refused."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from borgcube.plugins.borg.metadata import form
from borgcube.plugins.borg.metadata.form import (
    COUNT,
    ENTRY,
    HEAD,
    BadBlock,
    Record,
    pack_block,
    pack_xattrs,
    read_block,
    read_xattrs,
)

RARE = form.HEALTHY | form.XATTRS | sum(form.ACLS)
u32, u64 = st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 64) - 1)
s64 = st.integers(-(1 << 63), (1 << 63) - 1)
texts = st.binary(max_size=30)
entries = st.lists(st.tuples(st.binary(min_size=32, max_size=32), u32), max_size=4).map(
    lambda found: b"".join(ENTRY.pack(*one) for one in found)
)
xattrs = st.dictionaries(st.binary(max_size=9), st.binary(max_size=9) | st.none(), max_size=4)


@st.composite
def records(draw: st.DrawFn) -> Record:
    flags = draw(st.integers(0, form.ALL_FLAGS))
    rare = bool(flags & RARE)
    return Record(
        flags, draw(u32), draw(u32), draw(u32), draw(u32), draw(u64), draw(u64), draw(u64),
        draw(s64), draw(s64), draw(s64), draw(s64),
        draw(texts), draw(texts), draw(texts), draw(texts), draw(entries),
        draw(entries) if rare else b"", pack_xattrs(draw(xattrs)) if rare else b"",
        tuple(draw(texts) if rare else b"" for _ in range(4)),  # type: ignore[arg-type]
    )  # fmt: skip


def parts(record: Record) -> tuple[bytes, bytes]:
    """Return the head and the body of a record, made by nothing but the form's own words."""
    numbers: list[Any] = [*record[:5]]
    lengths = [
        len(record.path), len(record.user), len(record.group), len(record.source),
        len(record.chunks) // 36, len(record.healthy) // 36, len(record.xattrs),
        *map(len, record.acls),
    ]  # fmt: skip
    head = HEAD.pack(*numbers, *lengths, *record[5:12])
    return head, b"".join((*record[12:19], *record.acls))


@settings(max_examples=60, deadline=None)
@given(st.lists(records(), max_size=5))
def test_records_come_back_as_they_went(made: list[Record]) -> None:
    assert list(read_block(pack_block([parts(one) for one in made]))) == made


@settings(max_examples=60, deadline=None)
@given(xattrs)
def test_attributes_come_back_as_they_went(made: dict[bytes, bytes | None]) -> None:
    assert list(read_xattrs(pack_xattrs(made)).items()) == list(made.items())


@settings(max_examples=60, deadline=None)
@given(st.lists(records(), min_size=1, max_size=3))
def test_a_block_that_is_cut_off_or_goes_on_is_refused(made: list[Record]) -> None:
    block = pack_block([parts(one) for one in made])
    for end in range(len(block)):
        with pytest.raises(BadBlock):
            list(read_block(block[:end]))
    for more in (b"\0", HEAD.pack(*[0] * 23), block):
        with pytest.raises(BadBlock):
            list(read_block(block + more))


@settings(max_examples=100, deadline=None)
@given(st.lists(records(), min_size=1, max_size=3), st.integers(0, 2), st.integers(5, 15), u32)
def test_no_length_is_trusted(made: list[Record], which: int, field: int, claim: int) -> None:
    """Fields 5 to 15 of a head are lengths; one that is a lie is refused or reads elsewhere."""
    block = bytearray(pack_block([parts(one) for one in made]))
    at = COUNT.size + min(which, len(made) - 1) * HEAD.size + 4 * field
    (true,) = struct.unpack_from("<I", block, at)
    for lie in (claim, (1 << 32) - 1, 1 << 31, true + 1):
        if lie == true or lie >> 32:
            continue
        struct.pack_into("<I", block, at, lie)
        flags = made[min(which, len(made) - 1)].flags
        if field < 10 or flags & RARE:
            with pytest.raises(BadBlock):
                list(read_block(bytes(block)))
        else:  # lengths that count for nothing where no such value is said to be there
            assert list(read_block(bytes(block))) == made


@pytest.mark.parametrize("count", [1, 1 << 16, (1 << 32) - 1])
def test_no_count_is_trusted(count: int) -> None:
    with pytest.raises(BadBlock):
        list(read_block(COUNT.pack(count)))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400) | st.binary(max_size=300).map(lambda b: COUNT.pack(1) + b))
def test_bytes_of_any_kind_are_a_block_or_a_bad_one(data: bytes) -> None:
    for read in (lambda one: list(read_block(one)), read_xattrs):
        try:
            read(data)
        except BadBlock:
            pass


@settings(max_examples=60, deadline=None)
@given(st.lists(records(), min_size=1, max_size=3), st.data())
def test_a_flipped_bit_is_another_record_or_a_bad_block(made: list[Record], data: Any) -> None:
    block = bytearray(pack_block([parts(one) for one in made]))
    block[data.draw(st.integers(0, len(block) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = list(read_block(bytes(block)))
    except BadBlock:
        return
    assert all(0 <= one.flags <= form.ALL_FLAGS for one in found)


def test_an_unknown_flag_is_refused() -> None:
    with pytest.raises(BadBlock):
        list(read_block(pack_block([(HEAD.pack(1 << 19, *[0] * 22), b"")])))


@pytest.mark.parametrize(
    "data",
    [
        pack_xattrs({b"a": b"1"}) * 2,
        pack_xattrs({b"a": b"1"})[:-1],
        pack_xattrs({b"a": b"1"}) + b"\0",
        form.XATTR.pack((1 << 32) - 1, 0),
        form.XATTR.pack(1, (1 << 31) - 1) + b"a",
    ],
    ids=["twice", "cut off", "goes on", "long name", "long value"],
)
def test_malformed_attributes_are_refused(data: bytes) -> None:
    with pytest.raises(BadBlock):
        read_xattrs(data)


def test_a_record_that_does_not_fit_is_not_even_given_out() -> None:
    """Who takes records one by one has not taken a part of one before the block is refused."""
    for field in range(5, 10):
        lengths = [0] * 23
        lengths[field] = 7
        given_out = read_block(pack_block([(HEAD.pack(*lengths), b"abc")]))
        with pytest.raises(BadBlock, match="does not fit"):
            next(given_out)
