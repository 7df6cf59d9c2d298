"""The nonce checker: its arithmetic against counting block by block, and its parser."""

from __future__ import annotations

import itertools
import struct
import zlib
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from borgcube.testing.nonces import Findings, Use, find_overlaps, read_segment


def use(start: int, blocks: int, digest: bytes) -> Use:
    return Use(start, blocks, Path("segment"), 0, 0, digest)


@given(
    st.lists(
        st.builds(use, st.integers(0, 60), st.integers(0, 5), st.sampled_from([b"a", b"b"])),
        max_size=12,
    )
)
def test_an_overlap_is_found_exactly_when_counting_blocks_finds_one(uses: list[Use]) -> None:
    def overlap(one: Use, other: Use) -> bool:
        shared = set(range(one.start, one.end)) & set(range(other.start, other.end))
        copies = (one.start, one.blocks, one.digest) == (other.start, other.blocks, other.digest)
        return bool(shared) and not copies

    expected = any(overlap(*pair) for pair in itertools.combinations(uses, 2))
    assert bool(list(find_overlaps(uses))) == expected


def entry(tag: int, identity: bytes, data: bytes) -> bytes:
    body = struct.pack("<IB", 9 + len(identity) + len(data), tag) + identity + data
    return struct.pack("<I", zlib.crc32(body)) + body


def envelope(nonce: int, ciphertext: bytes) -> bytes:
    return b"\x03" + bytes(32) + struct.pack(">Q", nonce) + ciphertext


def read(path: Path, data: bytes) -> Findings:
    path.write_bytes(data)
    findings = Findings()
    read_segment(path, findings)
    return findings


def test_every_kind_of_entry_is_read(tmp_path: Path) -> None:
    identity = bytes(range(32))
    fixed = struct.pack("<IB", 9 + 32 + 8 + 57, 3) + identity + bytes(8)
    put2 = struct.pack("<I", zlib.crc32(fixed)) + fixed + envelope(9, b"y" * 16)
    data = b"BORG_SEG" + entry(0, identity, envelope(5, b"x" * 33)) + entry(1, identity, b"")
    data += put2 + entry(0, identity, b"\x07plain") + entry(2, b"", b"")
    found = read(tmp_path / "1", data)
    assert [(one.start, one.blocks) for one in found.uses] == [(5, 3), (9, 1)]
    assert (found.plain, found.torn, found.unreadable) == (1, 0, [])


def test_a_torn_write_counts_with_the_length_it_was_to_have(tmp_path: Path) -> None:
    whole = entry(0, bytes(32), envelope(7, b"z" * 160))
    found = read(tmp_path / "1", b"BORG_SEG" + whole[:-100])
    assert [(one.start, one.blocks, one.torn) for one in found.uses] == [(7, 10, True)]
    again = read(tmp_path / "2", b"BORG_SEG" + whole)
    assert list(find_overlaps([*found.uses, *again.uses])) == []
    other = read(tmp_path / "3", b"BORG_SEG" + entry(0, bytes(32), envelope(16, b"q" * 16)))
    assert len(list(find_overlaps([*found.uses, *other.uses]))) == 1


def test_a_changed_byte_is_not_taken_for_a_clean_segment(tmp_path: Path) -> None:
    data = bytearray(b"BORG_SEG" + entry(0, bytes(32), envelope(7, b"z" * 160)))
    data[80] ^= 1
    assert not read(tmp_path / "1", bytes(data)).clean
