"""A segment file is read to its end whatever is damaged in it."""

from __future__ import annotations

import struct
import tempfile
import zlib
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from borgcube.plugins.borg.vault.segments import COMMIT, DELETE, MAGIC, PUT, entries


def entry(tag: int, key: bytes = b"", data: bytes = b"") -> bytes:
    rest = struct.pack("<IB", 9 + len(key) + len(data), tag) + key + data
    return struct.pack("<I", zlib.crc32(rest)) + rest


ENTRIES = st.lists(
    st.one_of(
        st.tuples(st.just(PUT), st.binary(max_size=200)),
        st.tuples(st.just(DELETE), st.just(b"")),
        st.tuples(st.just(COMMIT), st.just(b"")),
    ),
    max_size=12,
)


def build(parts: list[tuple[int, bytes]]) -> tuple[bytes, dict[int, bytes], dict[bytes, bytes]]:
    """Return a segment, its live objects (offset -> key) and what each has to be."""
    data, live, content = bytearray(MAGIC), {}, {}
    for number, (tag, plain) in enumerate(parts):
        key = b"" if tag == COMMIT else number.to_bytes(32, "big")
        if tag == PUT and number % 3:  # every third one was superseded
            live[len(data)] = key
            content[key] = plain
        data += entry(tag, key, plain)
    return bytes(data), live, content


def sound(data: bytes, live: dict[int, bytes]) -> tuple[dict[bytes, bytes], set[bytes]]:
    """Return the live objects that can be read, and those that are reported as damaged."""
    good, bad = {}, set()
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "17"
        path.write_bytes(data)
        for found in entries(path, live):
            if live.get(found.offset) != found.key or not found.key:
                continue
            if found.problem or not found.checksum_fits:
                bad.add(found.key)
            else:
                good[found.key] = found.raw[41:]
    return good, bad


@settings(max_examples=60)
@given(ENTRIES)
def test_every_live_object_of_a_sound_segment_is_read(parts):
    data, live, content = build(parts)
    assert sound(data, live) == (content, set())


@settings(max_examples=150)
@given(ENTRIES, st.data())
def test_a_flipped_byte_damages_what_it_is_in_and_nothing_else(parts, choose):
    data, live, content = build(parts)
    at = choose.draw(st.integers(len(MAGIC), max(len(MAGIC), len(data) - 1)))
    if at >= len(data):
        return
    spoiled = bytearray(data)
    spoiled[at] ^= choose.draw(st.integers(1, 255))
    good, bad = sound(bytes(spoiled), live)
    assert {**content, **good} == content, "damaged content passed for sound"
    assert set(good) | bad == set(content)
    hit = max((offset for offset in live if offset <= at), default=None)
    assert bad <= ({live[hit]} if hit is not None else set())


@settings(max_examples=60)
@given(ENTRIES, st.data())
def test_a_file_that_was_cut_short_loses_only_its_end(parts, choose):
    data, live, content = build(parts)
    length = choose.draw(st.integers(0, len(data)))
    good, bad = sound(data[:length], live)
    assert set(good) | bad == set(content) and not set(good) & bad
    for offset, key in live.items():
        whole = offset + 41 + len(content[key]) <= length
        assert (key in good) == whole
