"""The fuzz target ``agree``: our reader of metadata and borg's own must say the same.

A stream of items that we accept is read once more by borg: its C reader, with which borg makes
its cache, must count exactly the references that we counted, and its items must have the fields
that we read. What we refuse is nobody's problem. Beside bytes, the target takes archives of the
grammar (:mod:`borgcube.testing.grammar`): ``python -m borgcube.testing.fuzz agree --generate N``
makes and reads N of them.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from borgcube.plugins.borg.vault.items import ArchiveRefused, as_ns, check_item, read_items
from borgcube.testing.grammar.forge import Known, forge, some_names
from borgcube.testing.stockborg import counted_by_borg, items_of_borg

TIMES = ("mtime", "atime", "ctime", "birthtime")
# The chunks that items may reference, with their sizes.
SIZES = {b"c" * 32: 4, b"d" * 32: 100, b"e" * 32: 1 << 20, b"f" * 32: 9}
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
    """What our reader accepted: references by chunk, the items, and what would be stored."""

    counts: dict[bytes, int]
    items: list[dict[str, Any]]
    stored: Sequence[bytes]


def _size(chunk_id: bytes) -> int:
    try:
        return SIZES[chunk_id]
    except KeyError:
        raise ArchiveRefused("foreign") from None


def read_by_us(pieces: Sequence[bytes]) -> Reading:
    """Return what we read in a stream; raises ArchiveRefused."""
    counts: Counter[bytes] = Counter()
    items = []
    for item in read_items(pieces):
        check_item(item, _size)
        counts.update(entry[0] for entry in item.get(b"chunks") or ())
        items.append({key.decode(): _ours(key.decode(), value) for key, value in item.items()})
    return Reading(dict(counts), items, pieces)


def _ours(key: str, value: Any) -> Any:
    if key in TIMES:
        return as_ns(value)
    if key in ("chunks", "chunks_healthy"):
        return None if value is None else [tuple(entry) for entry in value]
    return value


def _borgs(key: str, value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if key in ("chunks", "chunks_healthy"):
        return None if value is None else [tuple(entry) for entry in value]
    return dict(value) if key == "xattrs" else value


def compare(pieces: Sequence[bytes]) -> bool:
    """Read a stream twice; return whether we accepted it. Raises Disagreement."""
    data = b"".join(pieces)
    try:
        ours = read_by_us(pieces)
    except ArchiveRefused as error:
        if not str(error):
            raise Disagreement("a refusal without words", data) from error
        return False
    try:
        counted = counted_by_borg(ours.stored)
    except ValueError as error:
        raise Disagreement(f"borg's cache refuses what we accept: {error}", data) from error
    if {key: entry[0] for key, entry in counted.items()} != ours.counts:
        raise Disagreement("borg counts other references", data)
    if any(entry[1] != SIZES[key] for key, entry in counted.items()):
        raise Disagreement("borg reads another size", data)
    try:
        items = items_of_borg(ours.stored)
    except Exception as error:
        raise Disagreement(f"borg cannot read what we accept: {error!r}", data) from error
    theirs = [{key: _borgs(key, value) for key, value in item.items()} for item in items]
    if theirs != ours.items:
        raise Disagreement("borg reads other fields", data)
    return True


def agree(data: bytes) -> None:
    """Read bytes as a stream in three pieces, twice."""
    third = len(data) // 3
    compare([data[:third], data[third : 2 * third], data[2 * third :]])


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
        except Disagreement as error:
            kind = str(error)[:100]
            found[kind] += 1
            found["findings"] += 1
            if found[kind] <= 3:
                print(f"seed {seed}: {kind}; {names}", flush=True)
    return dict(found)
