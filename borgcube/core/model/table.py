"""A table: records by number, in order, with an index for each field that is asked for.

Everything is a BTree, so that listing the newest few of a million costs as little as of
ten. Nothing here iterates over all rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from BTrees.LLBTree import LLTreeSet
from BTrees.LOBTree import LOBTree
from BTrees.OOBTree import OOBTree
from persistent import Persistent

from borgcube.core.model.records import Record


class Table(Persistent):  # type: ignore[misc]  # persistent has no types
    """Records by ascending number. ``fields`` are the indexed ones; change those of a
    stored record only through :meth:`change`."""

    def __init__(self, *fields: str) -> None:
        super().__init__()
        self.fields = fields
        self.rows = LOBTree()
        self.index = OOBTree()
        self.last = 0

    def add(self, record: Record, *, number: int | None = None) -> int:
        """Store ``record`` and return its number: ``number`` or the next free above it."""
        chosen = self.last + 1 if number is None else number
        while chosen in self.rows:
            chosen += 1
        self.rows[chosen] = record
        self.last = max(self.last, chosen)
        if not record.id:
            record.id = str(chosen)
        for name in self.fields:
            self._enter(name, getattr(record, name), chosen)
        return chosen

    def remove(self, record: Record) -> None:
        """Take a stored record out; raises ``KeyError`` when it is not here."""
        number = self.number_of(record)
        for name in self.fields:
            self._leave(name, getattr(record, name), number)
        del self.rows[number]

    def change(self, record: Record, **values: Any) -> None:
        """Set fields of a stored record and keep the indexes true."""
        number = self.number_of(record)
        for name, value in values.items():
            if name in self.fields:
                self._leave(name, getattr(record, name), number)
                self._enter(name, value, number)
            setattr(record, name, value)

    def number_of(self, record: Record) -> int:
        """Return the number of a stored record; raises ``KeyError``."""
        for number in self.index.get(("id", record.id), ()):
            if self.rows[number] is record:
                return int(number)
        raise KeyError(record.id)

    def find(self, field: str, value: str) -> Any:
        """Return the first record whose indexed ``field`` is ``value``, or None."""
        for number in self.index.get((field, value), ()):
            return self.rows[number]
        return None

    def oldest(self, field: str, value: str) -> Iterator[Any]:
        """Yield records with that value in ascending order; safe against changes."""
        for number in list(self.index.get((field, value), ())):
            if number in self.rows:
                yield self.rows[number]

    def newest(self, limit: int, *, before: int | None = None, **equal: str) -> list[Any]:
        """Return up to ``limit`` records, newest first, whose indexed fields match; with
        ``before``, only those with a lower number, for the next page."""
        sets = [self.index.get(pair) for pair in equal.items()]
        if any(found is None for found in sets):
            return []
        walked = sets[0] if sets else self.rows
        found: list[Any] = []
        bound = None if before is None else before - 1  # None asks for the largest of all
        while len(found) < limit:
            try:
                number = walked.maxKey(bound)
            except ValueError:
                break
            bound = number - 1
            if all(number in other for other in sets[1:]):
                found.append(self.rows[number])
        return found

    def count(self, **equal: str) -> int:
        """Return how many records have that value of one indexed field, or all there are.

        Costs a walk over the index's buckets, not over records.
        """
        for pair in equal.items():
            found = self.index.get(pair)
            return 0 if found is None else len(found)
        return len(self.rows)

    def _enter(self, name: str, value: str, number: int) -> None:
        known = self.index.get((name, value))
        if known is None:
            known = self.index[(name, value)] = LLTreeSet()
        known.add(number)

    def _leave(self, name: str, value: str, number: int) -> None:
        known = self.index[(name, value)]
        known.remove(number)
        if not known:
            del self.index[(name, value)]
