"""What holds for every input of the pure parts that judge a client."""

from __future__ import annotations

import lzma
import tracemalloc
import zlib
from datetime import UTC, datetime, timedelta
from typing import Any

import lz4.block
import msgpack
import pytest
import zstandard
from borg.compress import Compressor
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from borgcube.plugins.borg.gate.rpc import RequestParser
from borgcube.plugins.borg.gate.verify import (
    MAX_PLAIN,
    Rejected,
    blake2b_id,
    decompress,
    hmac_sha256_id,
)
from borgcube.plugins.borg.metadata.decode import decode_archive, read_records
from borgcube.plugins.borg.metadata.rules import ArchiveRefused
from borgcube.plugins.borg.metadata.stream import LARGE_ITEM, MAX_ITEM, PIECE, read_items
from borgcube.plugins.borg.vault import admission
from borgcube.testing import fuzztargets
from borgcube.testing.hostile import at, file_item

BORG = Compressor("none")
plains = st.binary(min_size=1, max_size=3000) | st.binary(min_size=1, max_size=8).map(
    lambda part: part * 400
)
objects = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.binary(max_size=40)
    | st.floats() | st.sampled_from([b"path", b"chunks", b"items", b"time", b"archives", b"id"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.binary(max_size=8) | st.integers(0, 9), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


def compressions(plain: bytes) -> list[bytes]:
    return [
        b"\0\0" + plain,
        b"\1\0" + lz4.block.compress(plain, store_size=False),
        b"\2\0" + lzma.compress(plain, preset=0),
        b"\3\0" + zstandard.ZstdCompressor().compress(plain),
        zlib.compress(plain),
    ]


@given(plains)
def test_what_borg_compresses_is_read_as_it_was(plain: bytes) -> None:
    for packed in compressions(plain):
        assert decompress(packed) == plain == BORG.decompress(packed)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_what_the_gate_accepts_borg_reads_in_the_same_way(data: st.DataObject) -> None:
    """Otherwise a chunk could be sound for the gate and spoiled for whoever restores it."""
    pieces = data.draw(st.lists(plains, min_size=1, max_size=3))
    kind = data.draw(st.integers(0, 4))
    packed = bytearray(compressions(pieces[0])[kind])
    for piece in pieces[1:]:
        packed += compressions(piece)[kind][0 if kind == 4 else 2 :]
    packed += data.draw(st.binary(max_size=4))
    for _ in range(data.draw(st.integers(0, 2))):
        packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        ours = decompress(bytes(packed))
    except Rejected:
        return
    assume(ours)  # an empty chunk is refused one step later
    assert BORG.decompress(bytes(packed)) == ours


@given(st.binary(max_size=500))
def test_chunk_ids_are_those_of_borg(plain: bytes) -> None:
    from borg.crypto.key import AuthenticatedKey, Blake2AuthenticatedKey

    for kind, ours in ((AuthenticatedKey, hmac_sha256_id), (Blake2AuthenticatedKey, blake2b_id)):
        key = kind(None)
        key.id_key = bytes(range(32)) * (1 if kind is AuthenticatedKey else 4)
        assert ours(key.id_key)(plain) == key.id_hash(plain)


@pytest.mark.parametrize("size", [MAX_PLAIN, MAX_PLAIN + 1, 4 * MAX_PLAIN])
def test_content_is_bounded_to_the_byte(size: int) -> None:
    for packed in compressions(bytes(size)):
        if size <= MAX_PLAIN:
            assert len(decompress(packed)) == size
        else:
            with pytest.raises(Rejected):
                decompress(packed)


@given(st.lists(objects, max_size=3), st.integers(1, 50))
@example([[None, 0, b"", None], None], 1)
def test_requests_in_any_pieces_parse_alike_or_are_refused(made: list[Any], step: int) -> None:
    """A request that came before what is refused was answered, whatever the pieces."""
    stream = b"".join(msgpack.packb(one) for one in made)

    def parse(size: int) -> list[Any]:
        parser, found = RequestParser(), []
        try:
            for start in range(0, len(stream), size):
                for request in parser.feed(stream[start : start + size]):
                    found.append(request)  # one by one, as the gate takes them: none is lost
        except Rejected:
            found.append("refused")
        return found

    assert repr(parse(step)) == repr(parse(len(stream) or 1))


@pytest.mark.parametrize("target", sorted(fuzztargets.TARGETS))
def test_random_structures_are_accepted_or_refused(target: str) -> None:
    @settings(max_examples=150, deadline=None)
    @given(st.lists(objects, min_size=1, max_size=3) | st.binary(max_size=300))
    def check(made: Any) -> None:
        data = made if isinstance(made, bytes) else b"".join(msgpack.packb(one) for one in made)
        fuzztargets.TARGETS[target](data)

    check()


keys = st.sampled_from(
    ["path", "source", "mode", "uid", "mtime", "ctime", "size", "chunks", "chunks_healthy",
     "xattrs", "rdev", "bsdflags", "hardlink_master", "part", "acl_access"]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(keys, objects, max_size=3), st.integers(1, 64))
def test_items_in_any_pieces_keep_the_rules_or_are_refused(change: Any, step: int) -> None:
    chunk = (fuzztargets.CHUNK, fuzztargets.CHUNK_SIZE, 4)
    item = dict(sorted({**file_item("a/b", [chunk]), **change}.items()))
    stream = msgpack.packb(item, use_bin_type=False)
    fuzztargets.items(stream)
    fuzztargets.items(msgpack.packb(item, use_bin_type=True))
    pieces = [stream[n : n + step] for n in range(0, len(stream), step)]
    # By their form: there are numbers that are not equal to themselves.
    assert repr(list(read_items(pieces))) == repr(list(read_items([stream])))


@pytest.mark.parametrize("references", [3, LARGE_ITEM // 20, 200_000])
def test_a_long_list_of_chunks_is_read_whatever_its_pieces(references: int) -> None:
    chunk = (fuzztargets.CHUNK, fuzztargets.CHUNK_SIZE, 70_000)
    made = [file_item("big", [chunk] * references), file_item("after", [chunk])]
    made = [dict(sorted(item.items())) for item in made]
    stream = b"".join(msgpack.packb(item, use_bin_type=False) for item in made * 2)
    for size in (len(stream), PIECE + 1, 100_000):
        pieces = [stream[n : n + size] for n in range(0, len(stream), size)]
        found = list(read_items(pieces))
        assert [item[b"path"] for item in found] == [b"big", b"after"] * 2
        records = list(read_records(pieces))
        assert [one.size for one in records] == [4 * references, 4] * 2
        assert [len(one.chunks) // 36 for one in records] == [references, 1] * 2


BOMBS = {
    "empty maps for chunks": b"\x81\xa6chunks\xdd\x02\0\0\0" + b"\x80" * (32 << 20),
    "short lists": b"\x81\xa6xattrs\xdd\x01\0\0\0" + b"\x91\x01" * (16 << 20),
    "a list with a claim": b"\x81\xa6chunks\xdd\xff\xff\xff\xff" + b"\x80" * (8 << 20),
    "a map with a claim": b"\xdf\xff\xff\xff\xff" + b"\x01\x80" * (4 << 20),
    "one long path": b"\x81\xa4path\xc6\x06\0\0\0" + b"x" * (96 << 20),
    "nearly chunks": b"\x81\xa6chunks\xdd\x00\x10\0\0" + (b"\x93\xc4\x20" + bytes(33) + b"\x90")
    * (1 << 20),
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_an_item_takes_no_more_memory_than_its_bound(bomb: str) -> None:
    stream = BOMBS[bomb]
    pieces = [stream[n : n + (20 << 20)] for n in range(0, len(stream), 20 << 20)]
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveRefused):
            list(read_items(pieces))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * MAX_ITEM


def archive_metadata(**more: Any) -> bytes:
    """Return the metadata of an archive, as Borg packs it."""
    metadata = {
        "version": 1, "name": "a", "items": [], "time": "2026-01-01T00:00:00", "hostname": "h",
        "time_end": "2026-01-01T00:00:00", "username": "u", "cmdline": [],
        "chunker_params": ["buzhash", 19, 23, 21, 4095], **more,
    }  # fmt: skip
    packed: bytes = msgpack.packb(dict(sorted(metadata.items())), use_bin_type=False)
    return packed


@given(st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29)))  # noqa: DTZ001
def test_a_clock_is_right_within_a_day_and_wrong_beyond(moment: datetime) -> None:
    now = datetime(2026, 6, 1, 12, tzinfo=UTC)
    said = at(moment.replace(tzinfo=UTC))
    judged = decode_archive(archive_metadata(time=said, time_end=said), expected="a")
    right = abs(moment.replace(tzinfo=UTC) - now) <= timedelta(days=1)
    if right:
        admission.check_clock(judged, began=now, now=now)
    else:
        with pytest.raises(ArchiveRefused) as caught:
            admission.check_clock(judged, began=now, now=now)
        assert caught.value.kind == "client-clock" and caught.value.keep


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_words_in_metadata_are_printable(host: bytes, user: bytes) -> None:
    plain = archive_metadata(hostname=host, username=user, cmdline=[host, user])
    real = admission.real_metadata(decode_archive(plain, expected="a"), name="a", comment="c")
    for text in (real["hostname"], real["username"], *real["cmdline"]):
        assert text.isprintable()
