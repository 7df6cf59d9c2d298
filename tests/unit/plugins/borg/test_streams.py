"""The stored stream of a plan: whatever becomes of the file, a wrong chunk is never given."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path

import pytest
import zstandard

from borgcube.plugins.borg.vault import streams
from borgcube.plugins.borg.vault.streams import HEAD, StoredStream, StreamWriter


def hashed(plain: bytes) -> bytes:
    return hashlib.sha256(plain).digest()


CHUNKS = [random.Random(n).randbytes(40) * (n + 1) for n in range(8)]


def written(path: Path, chunks: list[bytes] = CHUNKS) -> Path:
    writer = StreamWriter(path)
    for chunk in chunks:
        writer.add(hashed(chunk), chunk)
    writer.commit()
    return path


def test_chunks_come_back_in_their_order(tmp_path: Path) -> None:
    stream = StoredStream(written(tmp_path / "s"), hashed)
    assert list(stream.chunks()) == [(hashed(one), one) for one in CHUNKS]
    assert list(stream.sizes()) == [(hashed(one), len(one)) for one in CHUNKS]
    assert stream.get(bytes(32)) is None
    stream.close()
    stream.close()
    assert stream.get(hashed(CHUNKS[0])) is None


def test_a_missing_file_has_no_chunks(tmp_path: Path) -> None:
    stream = StoredStream(tmp_path / "none", hashed)
    assert list(stream.chunks()) == list(stream.sizes()) == []
    stream.close()


def test_a_torn_file_has_the_chunks_before_the_tear(tmp_path: Path) -> None:
    whole = written(tmp_path / "s").read_bytes()
    for end in range(0, len(whole), 7):
        (tmp_path / "s").write_bytes(whole[:end])
        stream = StoredStream(tmp_path / "s", hashed)
        found = [chunk for _, chunk in stream.chunks()]
        assert found == CHUNKS[: len(found)]
        assert len(found) == len(list(stream.sizes()))
        stream.close()


def test_a_flipped_byte_costs_a_chunk_and_never_gives_a_wrong_one(tmp_path: Path) -> None:
    whole = written(tmp_path / "s").read_bytes()
    rng, lost = random.Random(1), 0
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= rng.randint(1, 255)
        (tmp_path / "s").write_bytes(damaged)
        stream = StoredStream(tmp_path / "s", hashed)
        for chunk_id, _ in list(stream.sizes()):
            chunk = stream.get(chunk_id)
            assert chunk is None or hashed(chunk) == chunk_id
            lost += chunk is None
        stream.close()
    assert lost > len(whole) / 2


def test_no_room_is_made_for_what_a_damaged_frame_claims(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frame's own word for its size is what zstd makes room for."""
    packed = zstandard.ZstdCompressor().compress(bytes(64 << 20))
    path = tmp_path / "s"
    path.write_bytes(HEAD.pack(hashed(b"x"), 1, len(packed)) + packed)

    def never(*_: object, **_how: object) -> None:
        raise AssertionError("it is unpacked")

    monkeypatch.setattr(streams.zstandard, "ZstdDecompressor", never)
    stream = StoredStream(path, hashed)
    assert [size for _, size in stream.sizes()] == [1]
    assert stream.get(hashed(b"x")) is None
    stream.close()


@pytest.mark.parametrize("length", [0, streams.MAX_CHUNK + 1, (1 << 32) - 1])
def test_a_chunk_of_no_possible_length_ends_the_file(tmp_path: Path, length: int) -> None:
    packed = zstandard.compress(b"x")
    path = written(tmp_path / "s")
    path.write_bytes(path.read_bytes() + HEAD.pack(hashed(b"x"), length, len(packed)) + packed)
    stream = StoredStream(path, hashed)
    assert len(list(stream.sizes())) == len(CHUNKS)
    stream.close()


def test_a_stream_over_its_bound_keeps_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks = [random.Random(n).randbytes(1000) for n in range(30)]
    monkeypatch.setattr(streams, "MAX_BYTES", 10_000)
    path = written(tmp_path / "s", chunks)
    assert path.stat().st_size <= 10_000
    stream = StoredStream(path, hashed)
    found = [chunk for _, chunk in stream.chunks()]
    assert found == chunks[: len(found)] and 7 <= len(found) < 10
    stream.close()


def test_a_chunk_is_copied_as_it_lies_there(tmp_path: Path) -> None:
    stream = StoredStream(written(tmp_path / "s"), hashed)
    writer = StreamWriter(tmp_path / "next")
    for chunk in CHUNKS[2:5] * 2:
        stream.copy(hashed(chunk), writer)
    stream.copy(bytes(32), writer)  # one that is not there
    writer.commit()
    stream.close()
    again = StoredStream(tmp_path / "next", hashed)
    assert [chunk for _, chunk in again.chunks()] == CHUNKS[2:5]
    again.close()


def test_a_disk_that_does_not_read_costs_only_the_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = StoredStream(written(tmp_path / "s"), hashed)
    writer = StreamWriter(tmp_path / "next")

    def fails(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", fails)
    stream.copy(hashed(CHUNKS[0]), writer)
    assert stream.get(hashed(CHUNKS[0])) is None
    writer.discard()
    writer.discard()
    stream.close()
    assert not (tmp_path / "next").exists() and not (tmp_path / "next.new").exists()


def test_nothing_counts_before_it_is_committed(tmp_path: Path) -> None:
    written(tmp_path / "s")
    writer = StreamWriter(tmp_path / "s")
    writer.add(hashed(b"new"), b"new")
    writer.discard()
    stream = StoredStream(tmp_path / "s", hashed)
    assert [chunk for _, chunk in stream.chunks()] == CHUNKS
    stream.forget()
    stream.close()
    assert not (tmp_path / "s").exists()
