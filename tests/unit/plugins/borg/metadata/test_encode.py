"""What is stored are the bytes that Borg would write, cut where Borg would cut them."""

from __future__ import annotations

import random
import stat
from types import SimpleNamespace
from typing import Any

import pytest
from borg.archive import CacheChunkBuffer
from borg.cache import ChunkListEntry
from borg.crypto.key import AuthenticatedKey
from borg.helpers import StableDict
from borg.item import Item
from hypothesis import given, settings
from hypothesis import strategies as st

from borgcube.plugins.borg.metadata import form
from borgcube.plugins.borg.metadata.decode import read_records
from borgcube.plugins.borg.metadata.encode import ItemEncoder, ItemStream, WrongSize
from borgcube.plugins.borg.metadata.rules import Links, check_record
from tests.unit.plugins.borg.metadata.honest import CHUNKS, items, packed, plain_item, trees

ID = bytes([1]) * 32
usual = settings(max_examples=200, deadline=None)


@usual
@given(trees())
def test_an_honest_item_is_encoded_as_borg_wrote_it(tree: list[Item]) -> None:
    encoder, links = ItemEncoder(), Links()
    for item in tree:
        (record,) = read_records([packed(item)])
        check_record(record, links)
        data, ids = encoder.encode(record, CHUNKS.__getitem__)
        assert data == packed(item)
        assert ids == [entry.id for entry in item.get("chunks") or ()]


@usual
@given(items(), st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 32) - 1))
def test_stored_sizes_are_those_that_we_know(item: Item, claimed: int, known: int) -> None:
    """The client's word for how much a chunk takes counts for nothing."""
    if "chunks" not in item:
        return
    chunks = list(item.chunks)
    item.chunks = [ChunkListEntry(one.id, one.size, claimed) for one in chunks]
    (record,) = read_records([packed(item)])
    data, _ = ItemEncoder().encode(record, lambda one: (CHUNKS[one][0], known))
    item.chunks = [ChunkListEntry(one.id, one.size, known) for one in chunks]
    assert data == packed(item)


def test_an_item_with_a_healthy_list_of_its_chunks_keeps_it() -> None:
    """Only archives that are in a repository already have one."""
    two = bytes([2]) * 32
    item = plain_item(
        chunks_healthy=[ChunkListEntry(two, *CHUNKS[two])], xattrs=StableDict({b"a": None}),
        birthtime=3, atime=4, acl_nfs4=b"x", acl_extended=b"y",
    )  # fmt: skip
    (record,) = read_records([packed(item)], lenient=True)
    data, ids = ItemEncoder().encode(record, CHUNKS.__getitem__)
    assert data == packed(item) and ids == [ID]


@pytest.mark.parametrize("more", [{}, {"atime": 1}], ids=["usual", "rare"])
def test_a_size_that_is_wrong_is_refused_and_leaves_nothing_behind(more: dict[str, int]) -> None:
    (wrong,) = read_records([packed(plain_item(**more))])
    encoder = ItemEncoder()
    with pytest.raises(WrongSize):
        encoder.encode(wrong, lambda _one: (999, 1))
    encoder.reset()
    assert encoder.encode(wrong, CHUNKS.__getitem__)[0] == packed(plain_item(**more))


def test_a_foreign_chunk_is_refused_by_who_is_asked() -> None:
    (record,) = read_records([packed(plain_item())])

    def lookup(_chunk_id: bytes) -> tuple[int, int]:
        raise LookupError("foreign")

    with pytest.raises(LookupError):
        ItemEncoder().encode(record, lookup)


# The stream -------------------------------------------------------------------------------


class Cache:
    """As much of Borg's cache as its buffer uses."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.repository = SimpleNamespace(async_response=lambda **_how: None)

    def add_chunk(self, chunk_id: bytes, chunk: bytes, *_: Any, **_how: Any) -> Any:
        self.chunks.append(bytes(chunk))
        return chunk_id, len(chunk), 0


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("joined", [1, 3, 5000], ids=["by item", "by three", "all at once"])
def test_a_stream_is_cut_where_borg_cuts_it(seed: int, joined: int) -> None:
    """Whether items come one by one or joined, as blocks that were judged ahead do."""
    rng = random.Random(seed)
    key = AuthenticatedKey(None)
    key.id_key, key.chunk_seed = bytes(32), rng.getrandbits(31)
    cache = Cache()
    borgs = CacheChunkBuffer(cache, key, None)
    made: list[bytes] = []
    ours = ItemStream(key, lambda chunk: (made.append(chunk), key.id_hash(chunk))[1])
    waiting: list[bytes] = []
    for number in range(12_000):
        item = plain_item(path=f"dir/{number}/" + "x" * rng.randint(1, 900), mtime=number)
        if number % 3000 == 2999:  # one that is larger than the whole buffer, or zeros only
            item.xattrs = StableDict({b"user.big": bytes(9 << 20) if number < 6000 else None})
        borgs.add(item)
        waiting.append(packed(item))
        if len(waiting) == joined:
            ours.add_encoded(b"".join(waiting))
            waiting.clear()
    ours.add_encoded(b"".join(waiting))
    borgs.flush(flush=True)
    assert list(ours.finish()) == borgs.chunks
    assert made == cache.chunks and len(made) > 30


def test_a_stream_of_nothing_has_no_chunk() -> None:
    key = AuthenticatedKey(None)
    key.chunk_seed = 0
    assert ItemStream(key, lambda _chunk: b"").finish() == ()


def test_every_flag_has_a_key_or_is_none() -> None:
    """So that the count of keys, which is in the head of the map, is right for all of them."""
    assert form.ALL_FLAGS.bit_count() == 19
    assert stat.S_IFMT(plain_item().mode) == stat.S_IFREG
