"""The fuzz target ``agree``: our reader of metadata and borg's own must say the same.

A stream of items that we accept, and what we encode of it, is read by borg: its C reader, with
which borg makes its cache, must count exactly the references that we counted, and its items must
have the same fields before and after. What we refuse is nobody's problem. Beside bytes, the target
takes archives of the grammar (:mod:`borgcube.testing.grammar`): ``python -m borgcube.testing.fuzz
agree --generate N`` makes and reads N of them.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from borgcube.plugins.borg.metadata import form
from borgcube.plugins.borg.metadata.compare import Comparison
from borgcube.plugins.borg.metadata.decode import ItemDecoder
from borgcube.plugins.borg.metadata.encode import ItemEncoder, WrongSize
from borgcube.plugins.borg.metadata.form import ENTRY
from borgcube.plugins.borg.metadata.rules import ArchiveRefused, Links, check_record
from borgcube.testing.grammar.forge import Known, forge, some_names
from borgcube.testing.stockborg import counted_by_borg, items_of_borg

# The chunks that items may reference, with their sizes.
SIZES = {b"c" * 32: 4, b"d" * 32: 100, b"e" * 32: 1 << 20, b"f" * 32: 9}
CSIZE = 20  # of each of them
KNOWN = Known(
    own=tuple((b * 32, SIZES[b * 32], 20) for b in (b"c", b"d", b"e")),
    offered=(b"f" * 32, 9, 9),
    foreign=(b"z" * 32, 5, 5),
    witness="/witness",
)


class Disagreement(AssertionError):
    """We read something else than borg; ``data`` is the stream."""

    def __init__(self, message: str, data: bytes = b"") -> None:
        super().__init__(message)
        self.data = data


@dataclass(frozen=True)
class Reading:
    """What our reader accepted: references by chunk, and what would be stored."""

    counts: dict[bytes, int]
    stored: Sequence[bytes]


def _lookup(chunk_id: bytes) -> tuple[int, int]:
    try:
        return SIZES[chunk_id], CSIZE
    except KeyError:
        raise ArchiveRefused("foreign") from None


def read_by_us(pieces: Sequence[bytes], *, lenient: bool = False) -> Reading:
    """Return what we read in a stream, and how we encode it; raises ArchiveRefused."""
    counts: Counter[bytes] = Counter()
    decoder, encoder, links = ItemDecoder(lenient=lenient), ItemEncoder(), Links()
    stored = []
    for piece in pieces:
        for record in form.read_block(form.pack_block(list(decoder.read(piece)))):
            check_record(record, links)
            try:
                packed, ids = encoder.encode(record, _lookup)
            except WrongSize:
                raise ArchiveRefused("a chunk reference has the wrong size") from None
            if ids != [chunk_id for chunk_id, _ in ENTRY.iter_unpack(record.chunks)]:
                raise Disagreement("what is counted is not what is encoded")
            counts.update(ids)
            stored.append(packed)
    decoder.reader.finish()
    return Reading(dict(counts), stored)


def _compared(pieces: Sequence[bytes]) -> bool:
    """Tell whether both readers count the same in a stream that is stored already."""
    comparison, decoder = Comparison(), ItemDecoder(lenient=True)
    try:
        for piece in pieces:
            comparison.take(piece, decoder)
        decoder.reader.finish()
        comparison.figures()
    except ArchiveRefused:
        return False
    return True


def _fields(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return items without what we say ourselves: the stored sizes of chunks."""
    for item in items:
        for key in ("chunks", "chunks_healthy"):
            if item.get(key) is not None:
                item[key] = [tuple(entry)[:2] for entry in item[key]]
    return items


def _as_mended(item: dict[str, Any]) -> dict[str, Any]:
    """Return an item of an older borg with what we add and leave out when we write it anew."""
    made = {key: value for key, value in item.items() if value is not None}
    made = {"user": None, "group": None, "uid": 0, "gid": 0, **made}
    if "chunks" in made:
        made.setdefault("size", sum(entry[1] for entry in made["chunks"]))
    return made


def compare(pieces: Sequence[bytes], *, lenient: bool = False) -> bool:
    """Read a stream twice; return whether we accepted it. Raises Disagreement.

    With ``lenient`` as one that is in a repository already and is to be written anew.
    """
    data = b"".join(pieces)
    try:
        ours = read_by_us(pieces, lenient=lenient)
    except ArchiveRefused as error:
        if not str(error):
            raise Disagreement("a refusal without words", data) from error
        return False
    if lenient and not _compared(pieces):
        return False
    try:
        counted = counted_by_borg(ours.stored)
        as_sent = counted_by_borg(pieces)
    except ValueError as error:
        raise Disagreement(f"borg's cache refuses what we accept: {error}", data) from error
    if {key: entry[0] for key, entry in counted.items()} != ours.counts:
        raise Disagreement("borg counts other references", data)
    if any(entry[1:] != (SIZES[key], CSIZE) for key, entry in counted.items()):
        raise Disagreement("borg reads other sizes", data)
    if {key: entry[:2] for key, entry in counted.items()} != {
        key: entry[:2] for key, entry in as_sent.items()
    }:
        raise Disagreement("borg counts other references in what was sent", data)
    try:
        items, sent = _fields(items_of_borg(ours.stored)), _fields(items_of_borg(pieces))
    except Exception as error:
        raise Disagreement(f"borg cannot read what we accept: {error!r}", data) from error
    if items != ([_as_mended(item) for item in sent] if lenient else sent):
        raise Disagreement("borg reads other fields in what we write", data)
    return True


def agree(data: bytes) -> None:
    """Read bytes as a stream in three pieces: as one that a client sends, and as one that is
    stored already."""
    third = len(data) // 3
    pieces = [data[:third], data[third : 2 * third], data[2 * third :]]
    if compare(pieces) and not compare(pieces, lenient=True):
        raise Disagreement("what is accepted of a client is refused when it is stored", data)


def generated(seed: int) -> tuple[list[str], list[bytes]]:
    """Return an archive of the grammar: the names of its faults and its item stream."""
    rng = random.Random(seed)
    names = [name for name in some_names(rng) if not name.startswith(("archive:", "manifest:"))]
    if not rng.randrange(8):
        names = []
    return names, forge(rng, KNOWN, names).pieces()


def generate(count: int, first: int) -> dict[str, int]:
    """Read so many archives of the grammar; return how many we accepted, and findings by kind.

    Prints the seed and the faults of the first findings of each kind.
    """
    found: Counter[str] = Counter()
    for seed in range(first, first + count):
        names, pieces = generated(seed)
        try:
            found["accepted" if compare(pieces) else "refused"] += 1
            found["accepted as stored"] += compare(pieces, lenient=True)
        except Disagreement as error:
            kind = str(error)[:100]
            found[kind] += 1
            found["findings"] += 1
            if found[kind] <= 3:
                print(f"seed {seed}: {kind}; {names}", flush=True)
    return dict(found)
