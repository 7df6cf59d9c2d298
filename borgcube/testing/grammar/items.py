"""What can be wrong with items: their form on the wire, fields, paths, links, references."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from typing import Any

from borgcube.testing.grammar.forge import Forged, fields, file, mutation
from borgcube.testing.grammar.nodes import (
    INT_FORMS,
    NIL,
    RAW_FORMS,
    STRANGE,
    Array,
    Int,
    Map,
    Node,
    Other,
    Raw,
    below,
    node_of,
)

ZEROS = (bytes(32), 0, 0)
REGULAR, DIRECTORY, LINK = 0o100644, 0o040755, 0o120777
KEYS = (
    b"path", b"source", b"rdev", b"chunks", b"chunks_healthy", b"hardlink_master", b"mode",
    b"user", b"group", b"uid", b"gid", b"mtime", b"atime", b"ctime", b"birthtime", b"size",
    b"xattrs", b"bsdflags", b"acl_nfs4", b"acl_access", b"acl_default", b"acl_extended", b"part",
)  # fmt: skip
NUMBERS = (b"mode", b"uid", b"gid", b"mtime", b"ctime", b"size", b"rdev", b"bsdflags", b"part")


def _item(rng: random.Random, forged: Forged) -> Map:
    maps = forged.maps()
    return rng.choice(maps) if maps else Map()


def _of_kind(rng: random.Random, forged: Forged, kind: int) -> Map:
    found = [
        item for item in forged.maps()
        if isinstance(item.get(b"mode"), Int) and item.get(b"mode").value >> 12 == kind >> 12
    ]  # fmt: skip
    return rng.choice(found) if found else _item(rng, forged)


def _with_chunks(rng: random.Random, forged: Forged) -> tuple[Map, list[Node]]:
    found = [
        item for item in forged.maps()
        if isinstance(item.get(b"chunks"), Array) and item.get(b"chunks").parts
    ]  # fmt: skip
    item = rng.choice(found) if found else _item(rng, forged)
    chunks = item.get(b"chunks")
    return item, chunks.parts if isinstance(chunks, Array) else []


def _insert(rng: random.Random, item: Map, pair: tuple[Node, Node]) -> None:
    item.pairs.insert(rng.randint(0, len(item.pairs)), pair)


# Forms on the wire ------------------------------------------------------------------------


@mutation("a key twice with one value")
def _(rng: random.Random, forged: Forged) -> None:
    item = _item(rng, forged)
    if item.pairs:
        _insert(rng, item, copy.deepcopy(rng.choice(item.pairs)))


@mutation("a key twice with two values")
def _(rng: random.Random, forged: Forged) -> None:
    item = _item(rng, forged)
    if item.pairs:
        key, value = copy.deepcopy(rng.choice(item.pairs))
        other = rng.choice([one for one in forged.maps() if one.pairs])
        _insert(rng, item, (key, copy.deepcopy(rng.choice([rng.choice(other.pairs)[1], value]))))


@mutation("chunks twice")
def _(rng: random.Random, forged: Forged) -> None:
    item, _ = _with_chunks(rng, forged)
    known = forged.known
    other = node_of([rng.choice([*known.own, known.offered])] * rng.randint(0, 3))
    _insert(rng, item, (Raw(b"chunks", rng.choice(["", "str8", "bin8"])), other))


@mutation("an attribute twice")
def _(rng: random.Random, forged: Forged) -> None:
    values = [Raw(b"1"), Raw(b"2")]
    _item(rng, forged).put(b"xattrs", Map([(Raw(b"user.k"), one) for one in values]))


def _raws(rng: random.Random, forged: Forged) -> list[Raw]:
    return [one for one in below(_item(rng, forged)) if isinstance(one, Raw)]


@mutation("bytes in another form")
def _(rng: random.Random, forged: Forged) -> None:
    found = _raws(rng, forged)
    if found:
        one = rng.choice(found)
        one.form = rng.choice([f for f in RAW_FORMS if len(one.data) < 256 or "8" not in f])


@mutation("a chunk ID in another form")
def _(rng: random.Random, forged: Forged) -> None:
    _, parts = _with_chunks(rng, forged)
    if parts:
        chunk = rng.choice(parts)
        assert isinstance(chunk, Array)
        if chunk.parts and isinstance(chunk.parts[0], Raw):
            chunk.parts[0].form = rng.choice(RAW_FORMS)


@mutation("an integer in another form")
def _(rng: random.Random, forged: Forged) -> None:
    found = [one for one in below(_item(rng, forged)) if isinstance(one, Int)]
    if found:
        one = rng.choice(found)
        fit = [
            form for form in INT_FORMS
            if (one.value >= 0 or not form.startswith("u"))
            and one.value.bit_length() <= int(form.lstrip("uint")) - (not form.startswith("u"))
        ]  # fmt: skip
        one.form = rng.choice(fit or ["int64"])


@mutation("a list or map in another form")
def _(rng: random.Random, forged: Forged) -> None:
    found = [one for one in below(_item(rng, forged)) if isinstance(one, Array | Map)]
    if found:
        one = rng.choice(found)
        names = ("array16", "array32") if isinstance(one, Array) else ("map16", "map32")
        one.form = rng.choice(names)


@mutation("a value of any type")
def _(rng: random.Random, forged: Forged) -> None:
    _item(rng, forged).put(rng.choice(KEYS), copy.deepcopy(rng.choice(STRANGE)))


@mutation("a nil")
def _(rng: random.Random, forged: Forged) -> None:
    item = _item(rng, forged)
    if item.pairs:
        place = rng.randrange(len(item.pairs))
        item.pairs[place] = (item.pairs[place][0], NIL)


@mutation("a key that nobody knows")
def _(rng: random.Random, forged: Forged) -> None:
    names = (b"surprise", b"", b"Path", b"chunks\0", b"nlink", b"deleted", b"p" * 300)
    keys: list[Node] = [Int(0), NIL, *map(Raw, names)]
    _insert(rng, _item(rng, forged), (rng.choice(keys), copy.deepcopy(rng.choice(STRANGE))))


@mutation("keys in another order")
def _(rng: random.Random, forged: Forged) -> None:
    rng.shuffle(_item(rng, forged).pairs)


@mutation("an item that is none")
def _(rng: random.Random, forged: Forged) -> None:
    place = rng.randint(0, len(forged.items))
    forged.items.insert(place, copy.deepcopy(rng.choice(STRANGE)))


@mutation("bytes that are flipped")
def _(rng: random.Random, forged: Forged) -> None:
    forged.flips.append((rng.randrange(1 << 16), rng.randint(1, 255)))


# Chunks -----------------------------------------------------------------------------------


@mutation("a chunk entry of another length")
def _(rng: random.Random, forged: Forged) -> None:
    _, parts = _with_chunks(rng, forged)
    if parts:
        chunk = rng.choice(parts)
        assert isinstance(chunk, Array)
        if rng.randint(0, 1):
            chunk.parts.append(copy.deepcopy(rng.choice(STRANGE)))
        elif chunk.parts:
            chunk.parts.pop(rng.randrange(len(chunk.parts)))


@mutation("a chunk entry of other types")
def _(rng: random.Random, forged: Forged) -> None:
    _, parts = _with_chunks(rng, forged)
    if parts:
        chunk = rng.choice(parts)
        assert isinstance(chunk, Array)
        if chunk.parts:
            place = rng.randrange(len(chunk.parts))
            chunk.parts[place] = copy.deepcopy(rng.choice(STRANGE))


@mutation("a size that is not the chunk's")
def _(rng: random.Random, forged: Forged) -> None:
    _number_in_chunk(rng, forged, 1)


@mutation("a stored size that is a lie")
def _(rng: random.Random, forged: Forged) -> None:
    _number_in_chunk(rng, forged, 2)


def _number_in_chunk(rng: random.Random, forged: Forged, place: int) -> None:
    _, parts = _with_chunks(rng, forged)
    if parts:
        chunk = rng.choice(parts)
        assert isinstance(chunk, Array)
        if len(chunk.parts) == 3:
            chunk.parts[place] = Int(rng.choice([0, 1, -1, 1 << 31, 1 << 32, 1 << 63, -(1 << 62)]))


@mutation("references to any chunk")
def _(rng: random.Random, forged: Forged) -> None:
    known = forged.known
    item, _ = _with_chunks(rng, forged)
    chunks = [
        rng.choice([*known.own, known.offered, known.foreign, (b"\x05" * 32, 4, 4), ZEROS])
        for _ in range(rng.randint(0, 4))
    ]
    item.put(b"chunks", node_of(chunks))
    item.put(b"size", Int(sum(one[1] for one in chunks)))


@mutation("a healthy copy of other chunks")
def _(rng: random.Random, forged: Forged) -> None:
    known = forged.known
    chunks = [rng.choice([*known.own, known.foreign]) for _ in range(rng.randint(0, 3))]
    _item(rng, forged).put(b"chunks_healthy", rng.choice([node_of(chunks), NIL]))


@mutation("a size that is not the content's")
def _(rng: random.Random, forged: Forged) -> None:
    value = rng.choice([0, 1, 12, 1 << 40, (1 << 63) - 1, -1])
    _of_kind(rng, forged, REGULAR).put(b"size", Int(value))


# Fields -----------------------------------------------------------------------------------


@mutation("a field that is missing")
def _(rng: random.Random, forged: Forged) -> None:
    item = _item(rng, forged)
    if item.pairs:
        item.pairs.pop(rng.randrange(len(item.pairs)))


@mutation("all but a few fields missing")
def _(rng: random.Random, forged: Forged) -> None:
    item = _item(rng, forged)
    kept = {b"path", b"mtime", b"mode", rng.choice(KEYS)}
    item.pairs = [pair for pair in item.pairs if isinstance(pair[0], Raw) and pair[0].data in kept]


MISSING = {
    "a symbolic link without a target": (LINK, b"source"),
    "a device without a number": (0o020666, b"rdev"),
    "a file without content": (REGULAR, b"chunks"),
    "an item without a mode": (0, b"mode"),
    "an item without a user": (0, b"user"),
    "an item without a group": (0, b"group"),
    "an item without a user's number": (0, b"uid"),
    "an item without a time": (0, b"mtime"),
}


def _missing(rng: random.Random, forged: Forged, kind: int, key: bytes) -> None:
    (_of_kind(rng, forged, kind) if kind else _item(rng, forged)).drop(key)


for _name, (_kind, _key) in MISSING.items():
    mutation(_name)(
        lambda rng, forged, kind=_kind, key=_key: _missing(rng, forged, kind, key)  # type: ignore[misc]
    )


@mutation("a field of another type of file")
def _(rng: random.Random, forged: Forged) -> None:
    known = forged.known
    value: dict[bytes, Any] = {
        b"chunks": [rng.choice(known.own)], b"source": rng.choice(["d/one", "d", "absent"]),
        b"rdev": 259, b"hardlink_master": True, b"size": 13, b"part": 1,
    }  # fmt: skip
    key = rng.choice(sorted(value))
    _item(rng, forged).put(key, node_of(value[key]))


@mutation("another mode")
def _(rng: random.Random, forged: Forged) -> None:
    kinds = [0, 0o010000, 0o020000, 0o030000, 0o040000, 0o060000, 0o070000, 0o100000, 0o110000,
             0o120000, 0o140000, 0o150000, 0o160000, 0o170000]  # fmt: skip
    _item(rng, forged).put(b"mode", Int(rng.choice(kinds) | rng.choice([0, 0o644, 0o7777])))


@mutation("a number out of its range")
def _(rng: random.Random, forged: Forged) -> None:
    value = rng.choice([-1, -(1 << 63), (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 48,
                        (1 << 63) - 1, 1 << 63, (1 << 64) - 1])  # fmt: skip
    _item(rng, forged).put(rng.choice(NUMBERS), Int(value))


@mutation("a time as bytes")
def _(rng: random.Random, forged: Forged) -> None:
    value = rng.choice(
        [b"\xff" * 8, bytes(8), b"\x01" * 9, b"\xff" * 16, b"\0" * 16, b"\x80" + b"\0" * 7]
    )
    _item(rng, forged).put(rng.choice([b"mtime", b"ctime", b"atime", b"birthtime"]), Raw(value))


@mutation("an odd name of an owner")
def _(rng: random.Random, forged: Forged) -> None:
    words = (b"", b"\xff\xfe", b"a\0b", b"\n\x1b[2J", b"u" * 5000)
    names: list[Node] = [NIL, *map(Raw, words)]
    _item(rng, forged).put(rng.choice([b"user", b"group"]), rng.choice(names))


@mutation("odd attributes")
def _(rng: random.Random, forged: Forged) -> None:
    names = [b"", b"user.x", b"user." + b"n" * 300, b"trusted.overlay.x", b"nonsense", b"user.\0",
             b"security.capability", b"system.posix_acl_access", b"\xff", b"user.\xff"]  # fmt: skip
    values: list[Node] = [Raw(b""), NIL, Raw(b"v", "bin8"), Int(1), Array(), Raw(b"v" * 70_000)]
    _item(rng, forged).put(b"xattrs", Map([(Raw(rng.choice(names)), rng.choice(values))]))


@mutation("an odd access list")
def _(rng: random.Random, forged: Forged) -> None:
    value = rng.choice(
        [b"", b"nonsense", b"user::rwx", b"\0", b"\xff\n", b"user:root:rwx:0\n" * 2000]
    )
    key = rng.choice([b"acl_access", b"acl_default", b"acl_extended", b"acl_nfs4"])
    _item(rng, forged).put(key, Raw(value))


# Paths and links --------------------------------------------------------------------------

PATHS: tuple[bytes, ...] = (
    b"", b".", b"..", b"/", b"./d", b"d/.", b"d/./one", b"d//one", b"d/", b"/etc/x", b"d/../one",
    b"../x", b"d/..", b"...", b".d", b"d\0e", b"\n\x1b[2J", b"\xff\xfe", b"x" * 255, b"x" * 256,
    b"x" * 1020, b"x" * 1021, b"y/" + b"x" * 1021, b"/".join([b"a" * 200] * 20),
    b"/".join([b"b" * 100] * 162), b"x" * (16 << 10), b"x" * ((16 << 10) + 1), b"a/" * 2000 + b"b",
    b"~", b"-rf", b"d/one/below", b"d/link/below", "\u202e".encode(), b"CON", b"a\\..\\b",
)  # fmt: skip


@mutation("another path")
def _(rng: random.Random, forged: Forged) -> None:
    _item(rng, forged).put(b"path", Raw(rng.choice(PATHS)))


@mutation("another source of a hard link")
def _(rng: random.Random, forged: Forged) -> None:
    sources = [*PATHS, b"d/slave", b"d/one", b"d/three", b"e/sub/\xff\xfe", b"d", b"d/link",
               b"e/fifo", b"e/null", b"absent", b"d/./master", b"d//master",
               forged.known.witness.encode().lstrip(b"/") + b"/file",
               forged.known.witness.encode() + b"/file"]  # fmt: skip
    item = _of_kind(rng, forged, rng.choice([REGULAR, 0o010644, 0o020666]))
    for key in (b"chunks", b"size", b"hardlink_master"):
        item.drop(key)
    item.put(b"source", Raw(rng.choice(sources)))


@mutation("a hard link before its source")
def _(rng: random.Random, forged: Forged) -> None:
    place = rng.randint(0, len(forged.items))
    forged.items.insert(place, node_of(fields("d/early", REGULAR, source="d/master")))


@mutation("a hard link to a link out of the tree")
def _(rng: random.Random, forged: Forged) -> None:
    forged.items += [
        node_of(fields("way", LINK, source=forged.known.witness)),
        node_of(fields("hard", REGULAR, source=rng.choice(["way/file", "./way/file", "way"]))),
    ]


def _chain(*items: dict[str, Any]) -> Sequence[Node]:
    return [node_of(item) for item in items]


@mutation("what is below a link out of the tree")
def _(rng: random.Random, forged: Forged) -> None:
    witness, chunk = forged.known.witness, rng.choice(forged.known.own)
    place = rng.choice(["way", "d/way"])
    spellings = [place, f"./{place}", f"{place}/", f".//{place}", place.replace("/", "/./")]
    target = rng.choice([witness, f"{witness}/directory", ".."])
    way, spelling = rng.choice(spellings), rng.choice(spellings)
    # What leaves nothing in a directory that borg has then seen.
    gone = fields(f"{place}/x", REGULAR, source="absent")
    inside = rng.choice([fields(f"{place}/", DIRECTORY), file(f"{place}/x", chunk), gone, gone])
    before = rng.choice([(), (fields(place, DIRECTORY), inside), (inside,), (inside,)])
    name = rng.choice(["file", "new", "directory/file", "directory"])
    below = f"{spelling}/{name}"
    last = rng.choice([
        file(below, chunk), fields(below, DIRECTORY), fields(below, LINK, source="e"),
        fields(below, 0o104777, source="d/master"),
    ])  # fmt: skip
    forged.items += _chain(*before, fields(way, LINK, source=target), last)


@mutation("a path twice with two types")
def _(rng: random.Random, forged: Forged) -> None:
    chunk, witness = rng.choice(forged.known.own), forged.known.witness
    kinds = [
        file("twice", chunk), fields("twice", DIRECTORY), fields("twice", LINK, source=witness),
        fields("twice", LINK, source="."), fields("twice", 0o010644),
        fields("twice", REGULAR, source="d/master"), file("twice/below", chunk),
    ]  # fmt: skip
    forged.items += _chain(*(rng.choice(kinds) for _ in range(rng.randint(2, 4))))


@mutation("the root's own item of another kind")
def _(rng: random.Random, forged: Forged) -> None:
    chunk = rng.choice(forged.known.own)
    kind = rng.choice([fields(".", LINK, source=forged.known.witness), file(".", chunk),
                       fields(".", REGULAR, source="d/master"), fields(".", 0o010644)])  # fmt: skip
    forged.items.insert(rng.randint(0, len(forged.items)), node_of(kind))


@mutation("items in another order")
def _(rng: random.Random, forged: Forged) -> None:
    if rng.randint(0, 1):
        forged.items.reverse()
    else:
        rng.shuffle(forged.items)


@mutation("an item twice")
def _(rng: random.Random, forged: Forged) -> None:
    if forged.items:
        forged.items.insert(
            rng.randint(0, len(forged.items)), copy.deepcopy(rng.choice(forged.items))
        )


@mutation("no items")
def _(_rng: random.Random, forged: Forged) -> None:
    forged.items = [Other(b"")]
    forged.tail = forged.tail or packed_file()


def packed_file() -> bytes:
    """Return a single empty file."""
    from borgcube.testing.grammar.nodes import packed

    return packed(node_of(file("alone")))


@mutation("an item cut anywhere")
def _(rng: random.Random, forged: Forged) -> None:
    forged.cuts += [rng.randrange(1 << 16) for _ in range(rng.randint(1, 5))]


@mutation("bytes after the last item")
def _(rng: random.Random, forged: Forged) -> None:
    forged.tail += rng.choice([b"\x80", b"\xc0", b"\x81", b"\xa4pa", b"\x00", b"\xc1", b"\x91"])
