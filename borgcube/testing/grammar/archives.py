"""What can be wrong with the archive's own map, its list of chunks, and the manifest."""

from __future__ import annotations

import copy
import random
from typing import Any

from borgcube.testing.grammar.forge import Forged, mutation
from borgcube.testing.grammar.nodes import (
    INT_FORMS,
    RAW_FORMS,
    STRANGE,
    Array,
    Int,
    Map,
    Node,
    Raw,
    below,
    node_of,
)

KEYS = (
    b"version", b"name", b"time", b"time_end", b"cmdline", b"hostname", b"username", b"comment",
    b"chunker_params", b"items", b"tam", b"size", b"csize", b"nfiles", b"size_parts",
    b"csize_parts", b"nfiles_parts", b"recreate_cmdline", b"recreate_source_id",
    b"recreate_args", b"recreate_partial_chunks",
)  # fmt: skip


def _edited(where: str, name: str, change: Any) -> None:
    @mutation(f"{where}: {name}")
    def _(rng: random.Random, forged: Forged) -> None:
        # Drawn now, applied when the map is there.
        seed = rng.randrange(1 << 32)
        edits = forged.edits if where == "archive" else forged.listing
        edits.append(lambda made: change(random.Random(seed), made))


def _again(rng: random.Random, made: Map) -> None:
    made.pairs.insert(rng.randint(0, len(made.pairs)), copy.deepcopy(rng.choice(made.pairs)))


def _again_otherwise(rng: random.Random, made: Map) -> None:
    key = copy.deepcopy(rng.choice(made.pairs)[0])
    value = rng.choice([rng.choice(made.pairs)[1], *STRANGE])
    made.pairs.insert(rng.randint(0, len(made.pairs)), (key, copy.deepcopy(value)))


def _form(rng: random.Random, made: Map) -> None:
    one = rng.choice(below(made))
    if isinstance(one, Raw):
        one.form = rng.choice(
            [form for form in RAW_FORMS if len(one.data) < 256 or "8" not in form]
        )
    elif isinstance(one, Int):
        one.form = rng.choice(INT_FORMS)
    elif isinstance(one, Array):
        one.form = rng.choice(["array16", "array32"])
    elif isinstance(one, Map):
        one.form = rng.choice(["map16", "map32"])


def _any(rng: random.Random, made: Map) -> None:
    place = rng.randrange(len(made.pairs))
    made.pairs[place] = (made.pairs[place][0], copy.deepcopy(rng.choice(STRANGE)))


def _add(rng: random.Random, made: Map) -> None:
    keys: list[Node] = [*map(Raw, KEYS), Raw(b"surprise"), Raw(b""), Int(7)]
    made.pairs.append((rng.choice(keys), copy.deepcopy(rng.choice(STRANGE))))


def _missing(rng: random.Random, made: Map) -> None:
    made.pairs.pop(rng.randrange(len(made.pairs)))


def _order(rng: random.Random, made: Map) -> None:
    rng.shuffle(made.pairs)


def _time(rng: random.Random, made: Map) -> None:
    texts = [b"", b"now", b"2026-11-30T00:00:00", b"2026-13-01T00:00:00.000000",
             b"0001-01-01T00:00:00.000000", b"9999-12-31T23:59:59.999999", b"1969-12-31T23:59:59",
             b"2026-11-30 00:00:00.000000", b"2026-11-30T00:00:00.000000+00:00"]  # fmt: skip
    made.put(rng.choice([b"time", b"time_end", b"timestamp"]), Raw(rng.choice(texts)))


for _where in ("archive", "manifest"):
    _edited(_where, "a key twice with one value", _again)
    _edited(_where, "a key twice with two values", _again_otherwise)
    _edited(_where, "another form", _form)
    _edited(_where, "a value of any type", _any)
    _edited(_where, "another key", _add)
    _edited(_where, "a key that is missing", _missing)
    _edited(_where, "keys in another order", _order)
    _edited(_where, "another time", _time)


def _words(rng: random.Random, made: Map) -> None:
    words = [b"", b"\xff", b"a\0b", b"\x1b[2J\n", b"x" * 70_000, b"borg"]
    made.put(b"cmdline", Array([Raw(rng.choice(words)) for _ in range(rng.randint(0, 3))]))
    made.put(rng.choice([b"hostname", b"username", b"comment"]), Raw(rng.choice(words)))


_edited("archive", "odd words", _words)


def _params(rng: random.Random, made: Map) -> None:
    values: list[Any] = [[], ["fixed", 4096, 0], ["buzhash", 1, 2, 3, 4], [19, 23, 21, 4095],
                         ["x" * 300], [None], [["a"]], ["buzhash", -1, 1 << 63, 0, 0]]  # fmt: skip
    made.put(b"chunker_params", node_of(rng.choice(values)))


_edited("archive", "odd chunker parameters", _params)


def _two(rng: random.Random, made: Map) -> None:
    archives = made.get(b"archives")
    if isinstance(archives, Map) and archives.pairs:
        name, entry = copy.deepcopy(archives.pairs[0])
        name = rng.choice([name, Raw(b"good-1"), Raw(b"")])
        archives.pairs.insert(rng.randint(0, 1), (name, entry))


_edited("manifest", "two archives", _two)


@mutation("another list of metadata chunks")
def _(rng: random.Random, forged: Forged) -> None:
    known = forged.known
    more = [known.own[0][0], known.foreign[0], known.offered[0], b"\x05" * 32, bytes(32), b"short",
            bytes(33), b""]  # fmt: skip
    kind, extra = rng.randint(0, 4), rng.choice(more)

    def change(ids: list[Node]) -> list[Node]:
        if kind == 0:
            return ids * 2
        if kind == 1:
            return [*ids, Raw(extra)]
        if kind == 2:
            return [Raw(extra), *ids]
        if kind == 3:
            return ids[::-1]
        return []

    forged.ids.append(change)


@mutation("a list of metadata chunks in another form")
def _(rng: random.Random, forged: Forged) -> None:
    form = rng.choice(RAW_FORMS)
    value = copy.deepcopy(rng.choice(STRANGE))

    def change(ids: list[Node]) -> list[Node]:
        for one in ids:
            if isinstance(one, Raw):
                one.form = form
        return ids

    if rng.randint(0, 2):
        forged.ids.append(change)
    else:
        forged.ids.append(lambda ids: [*ids, value])
