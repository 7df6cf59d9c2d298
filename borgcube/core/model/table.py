"""A table: records by number, in order, with an index for each field that is asked for.

Everything is a BTree, so that listing the newest few of a million costs as little as of
ten. Nothing here iterates over all rows: filters that are combined leap over what does not
match and give up after a bounded number of leaps; what is counted often has a counter; the
search for a piece of a name walks an index of short texts and touches no record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from BTrees.LLBTree import LLSet, LLTreeSet
from BTrees.LOBTree import LOBTree
from BTrees.OLBTree import OLBTree
from BTrees.OOBTree import OOBTree
from persistent import Persistent

from borgcube.core.model.records import Record

MAX_LEAPS = 20_000
MAX_DIGITS = 18
Where = Callable[[Any], bool]


@dataclass(frozen=True)
class Found:
    """One page of records, newest first. ``before`` is what to ask for to get the next one;
    None when there is none. A page can be short, or empty, and yet have a next one: then
    the search was cut short."""

    records: list[Any] = field(default_factory=list)
    before: int | None = None


def _leap(
    sets: list[Any], bound: int | None, left: int | None
) -> tuple[int | None, bool, int | None]:
    """Find the largest number up to ``bound`` that all sets have, each leaping to where the
    last one stopped. Returns how far it came, whether that is it, and the leaps left."""
    number, agreed = bound, 0
    while agreed < len(sets):
        for one in sets:
            try:
                found = int(one.maxKey(number))
            except ValueError:
                return None, False, left
            agreed = agreed + 1 if found == number else 1
            number = found
            if agreed == len(sets):
                break
        if left is not None:
            left -= len(sets)
            if left < 0 and agreed < len(sets):
                return number, False, left
    return number, True, left


class Table(Persistent):  # type: ignore[misc]  # persistent has no types
    """Records by ascending number. ``fields`` are the indexed ones; change those of a
    stored record only through :meth:`change`.

    ``counted`` are indexed fields with few values whose records are counted; ``words`` are
    the fields whose text is searched, the first of them the record's name.
    """

    def __init__(
        self, *fields: str, counted: tuple[str, ...] = (), words: tuple[str, ...] = ()
    ) -> None:
        super().__init__()
        self.fields, self.counted, self.words = fields, counted, words
        self.rows = LOBTree()
        # (field, value) -> the one number, or a set of them once there are several. An ID
        # that is the number itself is not kept.
        self.index = OOBTree()
        self.counts = OLBTree()
        self.texts = OOBTree()
        self.last = 0
        self.size = 0

    def add(self, record: Record, *, number: int | None = None) -> int:
        """Store ``record`` and return its number: ``number`` or the next free above it."""
        chosen = self.last + 1 if number is None else number
        while chosen in self.rows:
            chosen += 1
        self.rows[chosen] = record
        self.last = max(self.last, chosen)
        self.size += 1
        if not record.id:
            record.id = str(chosen)
        self._enter_all(record, chosen)
        return chosen

    def remove(self, record: Record) -> None:
        """Take a stored record out; raises ``KeyError`` when it is not here."""
        number = self.number_of(record)
        for name in self.fields:
            self._leave(name, getattr(record, name), number)
        if self.words:
            self.texts.pop(self._name(record), None)
        del self.rows[number]
        self.size -= 1

    def change(self, record: Record, **values: Any) -> None:
        """Set fields of a stored record and keep the indexes true."""
        number = self.number_of(record)
        for name, value in values.items():
            if name in self.fields:
                self._leave(name, getattr(record, name), number)
                self._enter(name, value, number)
            setattr(record, name, value)
        if not values.keys().isdisjoint(self.words):
            self.texts[self._name(record)] = self._text(record)

    def rebuild(
        self, fields: Iterable[str], *, counted: tuple[str, ...] = (), words: tuple[str, ...] = ()
    ) -> None:
        """Make all indexes anew, for other fields. Walks all rows: for evolution steps."""
        self.fields, self.counted, self.words = tuple(fields), counted, words
        self.index, self.counts, self.texts = OOBTree(), OLBTree(), OOBTree()
        self.size = 0
        for number, record in self.rows.items():
            self._enter_all(record, number)
            self.size += 1

    def number_of(self, record: Record) -> int:
        """Return the number of a stored record; raises ``KeyError``."""
        for number in self._numbers("id", record.id):
            if self.rows[number] is record:
                return number
        raise KeyError(record.id)

    def find(self, field: str, value: str) -> Any:
        """Return the first record whose indexed ``field`` is ``value``, or None."""
        for number in self._numbers(field, value):
            return self.rows[number]
        return None

    def numbers(self, field: str, value: str) -> list[int]:
        """Return the numbers of the records with that value, ascending; reads no record."""
        return [int(number) for number in self._numbers(field, value)]

    def oldest(self, field: str, value: str) -> Iterator[Any]:
        """Yield records with that value in ascending order; safe against changes."""
        for number in list(self._numbers(field, value)):
            if number in self.rows:
                yield self.rows[number]

    def newest(
        self, limit: int, where: Where | None = None, /, *, before: int | None = None, **equal: str
    ) -> list[Any]:
        """Return up to ``limit`` records, newest first, whose indexed fields match; with
        ``before``, only those with a lower number, for the next page. ``where`` leaves out
        what it is false of; each record left out is read."""
        return self._page(limit, before, None, None, equal, where).records

    def page(
        self, limit: int, where: Where | None = None, /, *, before: int | None = None,
        above: int | None = None, leaps: int | None = MAX_LEAPS, **equal: str,
    ) -> Found:  # fmt: skip
        """Return up to ``limit`` records, newest first, whose indexed fields match, and of
        which ``where`` is true.

        ``before`` and ``above`` bound their numbers, exclusively. With several fields it
        leaps in turn through their sets, so that it costs no more than the smallest; after
        ``leaps`` it stops where it is, and :attr:`Found.before` says so.
        """
        return self._page(limit, before, above, leaps, equal, where)

    def walk(self, *, before: int | None = None, **equal: str) -> Iterator[int]:
        """Yield the numbers of records whose indexed fields match, the largest first; reads
        no record."""
        sets: list[Any] = [self._set(*pair) for pair in equal.items()] or [self.rows]
        if any(found is None for found in sets):
            return
        bound = None if before is None else before - 1
        while True:
            number, _, _ = _leap(sets, bound, None)
            if number is None:
                return
            yield number
            bound = number - 1

    def _page(
        self, limit: int, before: int | None, above: int | None, leaps: int | None,
        equal: dict[str, str], where: Where | None,
    ) -> Found:  # fmt: skip
        sets: list[Any] = [self._set(*pair) for pair in equal.items()] or [self.rows]
        if any(found is None for found in sets):
            return Found()
        records: list[Any] = []
        bound = None if before is None else before - 1  # None asks for the largest of all
        left = leaps
        while True:
            number, agreed, left = _leap(sets, bound, left)
            if number is None or (above is not None and number <= above):
                return Found(records)
            if not agreed or len(records) == limit:
                return Found(records, number + 1)
            record = self.rows[number]
            if where is None or where(record):
                records.append(record)
            elif left is not None:
                left -= 1
            bound = number - 1

    def count(self, **equal: str) -> int:
        """Return how many records have that value of one indexed field, or all there are.

        Costs nothing for a counted field, else a walk over the index's buckets.
        """
        for name, value in equal.items():
            if name in self.counted:
                return int(self.counts.get((name, value), 0))
            found = self._set(name, value)
            return 0 if found is None else len(found)
        return int(self.size)

    def values(self, field: str, *, after: str = "", least: str = "") -> Iterator[str]:
        """Yield the values of an indexed field in order, those above ``after``, or from
        ``least`` on."""
        begin = (field, after or least)
        for name, value in self.index.keys(min=begin, excludemin=bool(after)):
            if name != field:
                return
            yield value

    def named(self, limit: int, *, after: str = "", find: str = "") -> list[str]:
        """Return up to ``limit`` names above ``after`` in their order; with ``find``, of
        records that have these letters, whatever their case, in a searched field."""
        wanted = find.casefold()
        found: list[str] = []
        for name, text in self.texts.items(min=after, excludemin=bool(after)):
            if wanted in text:
                if len(found) == limit:
                    break
                found.append(name)
        return found

    def _name(self, record: Record) -> str:
        return str(getattr(record, self.words[0]))

    def _text(self, record: Record) -> str:
        return "\n".join(str(getattr(record, name)) for name in self.words).casefold()

    def _numbers(self, field: str, value: str) -> Iterable[int]:
        if field == "id" and value.isdecimal() and len(value) <= MAX_DIGITS:
            row = self.rows.get(int(value))
            if row is not None and row.id == value:
                return (int(value),)
        known = self.index.get((field, value))
        if known is None:
            return ()
        return (known,) if isinstance(known, int) else known

    def _set(self, field: str, value: str) -> Any:
        if field == "id":
            found = self._numbers(field, value)
            return LLSet(found) if found else None
        known = self.index.get((field, value))
        return LLSet((known,)) if isinstance(known, int) else known

    def _enter_all(self, record: Record, number: int) -> None:
        for name in self.fields:
            self._enter(name, getattr(record, name), number)
        if self.words:
            self.texts[self._name(record)] = self._text(record)

    def _enter(self, name: str, value: str, number: int) -> None:
        if name == "id" and value == str(number):
            return
        known = self.index.get((name, value))
        if known is None:
            self.index[(name, value)] = number
        elif isinstance(known, int):
            self.index[(name, value)] = LLTreeSet((known, number))
        else:
            known.add(number)
        if name in self.counted:
            self.counts[(name, value)] = self.counts.get((name, value), 0) + 1

    def _leave(self, name: str, value: str, number: int) -> None:
        if name == "id" and value == str(number):
            return
        known = self.index[(name, value)]
        if not isinstance(known, int):
            known.remove(number)
        if isinstance(known, int) or not known:
            del self.index[(name, value)]
        if name in self.counted:
            left = self.counts[(name, value)] - 1
            if left:
                self.counts[(name, value)] = left
            else:
                del self.counts[(name, value)]
