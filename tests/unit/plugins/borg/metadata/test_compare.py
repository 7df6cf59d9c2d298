"""An archive whose references two readers count differently is counted by nobody."""

from __future__ import annotations

import msgpack
import pytest
from borg.hashindex import CacheSynchronizer, ChunkIndex
from borg.item import Item
from hypothesis import given, settings

from borgcube.plugins.borg.metadata import compare
from borgcube.plugins.borg.metadata.compare import Comparison, check_equal
from borgcube.plugins.borg.metadata.decode import ItemDecoder
from borgcube.plugins.borg.metadata.rules import ArchiveRefused
from tests.unit.plugins.borg.metadata.honest import CHUNKS, packed, plain_item, trees

ONE, TWO = bytes([1]) * 32, bytes([2]) * 32


def twice() -> bytes:
    """Return an item that has its list of chunks twice."""
    item = msgpack.unpackb(packed(plain_item()), raw=True, use_list=False)
    body = b"".join(
        msgpack.packb(key, use_bin_type=False) + msgpack.packb(value, use_bin_type=False)
        for key, value in item.items()
    )
    more = msgpack.packb(b"chunks", use_bin_type=False)
    more += msgpack.packb([(TWO, *CHUNKS[TWO])], use_bin_type=False)
    head: bytes = msgpack.Packer().pack_map_header(len(item) + 1)
    return head + more + body


def test_the_two_readers_of_borg_disagree_about_a_key_that_comes_twice() -> None:
    """The known fault that all this guards against; if Borg mends it, so much the better."""
    counted = ChunkIndex()
    CacheSynchronizer(counted).feed(twice())
    unpacked = msgpack.unpackb(twice(), raw=True, use_list=False)
    assert {entry[0] for entry in unpacked[b"chunks"]} == {ONE}
    assert TWO in counted and ONE in counted


def test_it_is_refused_by_the_decoder() -> None:
    comparison = Comparison()
    with pytest.raises(ArchiveRefused, match="twice"):
        comparison.take(twice(), ItemDecoder(lenient=True))
    with pytest.raises(ArchiveRefused, match="packed"):
        list(ItemDecoder().read(twice()))


class LastWins(ItemDecoder):
    """A decoder that does not look at keys: it reads as Python does."""

    def record(self, item: object, raw: bytes | bytearray) -> tuple[bytes, bytes]:
        return super().record(item, self._pack(item))


def test_and_the_count_would_notice_if_the_decoder_did_not() -> None:
    comparison = Comparison()
    comparison.take(twice(), LastWins(lenient=True))
    with pytest.raises(ArchiveRefused, match="counts other references"):
        comparison.figures()


@settings(max_examples=60, deadline=None)
@given(trees())
def test_honest_archives_are_counted_alike(tree: list[Item]) -> None:
    comparison, decoder = Comparison(), ItemDecoder(lenient=True)
    for item in tree:
        comparison.take(packed(item), decoder)
    ids = {entry.id for item in tree for entry in item.get("chunks") or ()}
    figures = comparison.figures()
    assert figures["items"] == len(tree) and figures["chunks"] == len(ids)


def test_a_stream_that_borg_does_not_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __init__(self, _index: object) -> None:
            pass

        def feed(self, _chunk: bytes) -> None:
            raise ValueError("cannot")

    monkeypatch.setattr(compare, "CacheSynchronizer", Broken)
    with pytest.raises(ArchiveRefused, match="Borg does not read"):
        Comparison().take(packed(plain_item()), ItemDecoder(lenient=True))


@pytest.mark.parametrize(
    ("ours", "borgs", "sizes", "equal"),
    [
        ({ONE: (1, 5, 0)}, {ONE: (1, 5, 9)}, True, True),
        ({ONE: (1, 5, 0)}, {ONE: (1, 6, 0)}, True, False),
        ({ONE: (1, 5, 0)}, {ONE: (1, 6, 0)}, False, True),
        ({ONE: (2, 5, 0)}, {ONE: (1, 5, 0)}, False, False),
        ({ONE: (1, 5, 0)}, {TWO: (1, 5, 0)}, False, False),
        ({ONE: (1, 5, 0)}, {}, False, False),
        ({}, {ONE: (1, 5, 0)}, False, False),
        ({}, {}, True, True),
    ],
)
def test_indexes_are_equal_or_the_archive_is_refused(
    ours: dict[bytes, tuple[int, int, int]],
    borgs: dict[bytes, tuple[int, int, int]],
    sizes: bool,
    equal: bool,
) -> None:
    indexes = ChunkIndex(), ChunkIndex()
    for index, entries in zip(indexes, (ours, borgs), strict=True):
        for chunk_id, entry in entries.items():
            index[chunk_id] = entry
    if equal:
        check_equal(*indexes, sizes=sizes)
    else:
        with pytest.raises(ArchiveRefused):
            check_equal(*indexes, sizes=sizes)
