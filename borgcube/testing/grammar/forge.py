"""An honest archive as nodes, and what sends it: the ground that mutations spoil."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from borgcube.testing.grammar.nodes import Array, Map, Node, Raw, node_of, packed

Chunk = tuple[bytes, int, int]
# What the client uploads, of which its items are made.
CONTENTS = (b"first content", b"second content, which is longer", b"third" * 50)
MAX_MUTATIONS = 3


@dataclass(frozen=True)
class Known:
    """What a client knows: chunks of its own, offered ones, others', and where to aim.

    ``witness`` is a path outside of every target that nobody may change.
    """

    own: tuple[Chunk, ...]
    offered: Chunk
    foreign: Chunk
    witness: str


Edit = Callable[[Map], None]


@dataclass
class Forged:
    """An archive to be sent. ``edits`` change its map, ``listing`` the manifest's."""

    known: Known
    items: list[Node]
    cuts: list[int] = field(default_factory=list)
    tail: bytes = b""
    flips: list[tuple[int, int]] = field(default_factory=list)
    ids: list[Callable[[list[Node]], list[Node]]] = field(default_factory=list)
    edits: list[Edit] = field(default_factory=list)
    listing: list[Edit] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def maps(self) -> list[Map]:
        """Return the items that are maps, as honest ones are."""
        return [item for item in self.items if isinstance(item, Map)]

    def stream(self) -> bytes:
        """Return the item stream."""
        data = bytearray(b"".join(packed(item) for item in self.items) + self.tail)
        for place, mask in self.flips:
            data[place % len(data)] ^= mask
        return bytes(data)

    def pieces(self) -> list[bytes]:
        """Return the item stream in its pieces."""
        stream = self.stream()
        cuts = [0, *sorted({cut % len(stream) for cut in self.cuts} - {0}), len(stream)]
        return [stream[a:b] for a, b in pairwise(cuts)]

    def metadata(self, ids: list[bytes], honest: dict[str, Any]) -> bytes:
        """Return the archive's map; ``honest`` is what a borg would say, but for the items."""
        listed: list[Node] = [Raw(one) for one in ids]
        for change in self.ids:
            listed = change(listed)
        made = node_of(honest)
        assert isinstance(made, Map)
        made.put(b"items", Array(listed))
        for edit in self.edits:
            edit(made)
        return packed(made)

    def manifest(self, honest: dict[str, Any]) -> bytes:
        """Return the manifest's map."""
        made = node_of(honest)
        assert isinstance(made, Map)
        for edit in self.listing:
            edit(made)
        return packed(made)


def fields(path: str | bytes, mode: int, **more: Any) -> dict[str, Any]:
    """Return what every item has."""
    return {
        "path": path, "mode": mode, "uid": 0, "gid": 0, "user": "root", "group": "root",
        "mtime": 1_600_000_000_000_000_000, **more,
    }  # fmt: skip


def file(path: str | bytes, *chunks: Chunk, **more: Any) -> dict[str, Any]:
    """Return a regular file."""
    size = sum(one[1] for one in chunks)
    made = fields(path, 0o100644, chunks=list(chunks), size=size, hardlink_master=False)
    return {**made, "ctime": made["mtime"], "birthtime": made["mtime"], **more}


def honest_items(known: Known) -> list[dict[str, Any]]:
    """Return an item of each kind, as a stock borg writes them."""
    one, two, three = known.own
    return [
        fields(".", 0o040755),
        fields("d", 0o040755, xattrs={b"user.k": b"v"}),
        file("d/one", one),
        file("d/two", one, two, bsdflags=1),
        file("d/empty"),
        file("d/three", three, known.offered, xattrs={b"user.a": b"1", b"user.b": None},
             acl_access=b"user::rw-\ngroup::r--\nother::r--\n"),
        file("d/master", two, hardlink_master=True),
        fields("d/slave", 0o100644, source="d/master"),
        fields("d/link", 0o120777, source="one"),
        fields("e", 0o041777),
        fields("e/fifo", 0o010644, hardlink_master=False),
        fields("e/null", 0o020666, rdev=259, hardlink_master=False),
        fields("e/sub", 0o040700),
        file(b"e/sub/\xff\xfe", one, user=None, group=None, uid=1 << 31),
    ]  # fmt: skip


Mutation = Callable[[random.Random, Forged], None]
MUTATIONS: dict[str, Mutation] = {}


def mutation(name: str) -> Callable[[Mutation], Mutation]:
    """Name what spoils an archive."""

    def add(function: Mutation) -> Mutation:
        if name in MUTATIONS:
            raise KeyError(name)
        MUTATIONS[name] = function
        return function

    return add


def forge(rng: random.Random, known: Known, names: list[str]) -> Forged:
    """Return an archive, some of the honest items and each named mutation applied to it."""
    from borgcube.testing.grammar import archives, items

    assert archives and items
    made = honest_items(known)
    forged = Forged(known, [node_of(item) for item in made])
    for name in names:
        MUTATIONS[name](rng, forged)
        forged.names.append(name)
    return forged


def all_mutations() -> dict[str, Mutation]:
    """Return every mutation by its name."""
    from borgcube.testing.grammar import archives, items

    assert archives and items
    return MUTATIONS


def some_names(rng: random.Random) -> list[str]:
    """Return the names of one to three mutations."""
    every = sorted(all_mutations())
    return [rng.choice(every) for _ in range(rng.randint(1, MAX_MUTATIONS))]
