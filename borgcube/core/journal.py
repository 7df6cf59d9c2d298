"""The journal: the durable list of lifecycle events, with gapless sequence numbers.

An entry is appended in the transaction of the change it tells of, so that neither
exists without the other.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from BTrees.LOBTree import LOBTree
from persistent import Persistent

from borgcube.core.events import Envelope, Event

MAX_SINCE = 1000


class Entries(LOBTree):  # type: ignore[misc]  # BTrees has no types
    """A tree with small leaves: each event writes one of them anew, and events are large."""

    max_leaf_size = 8
    max_internal_size = 250


class Journal(Persistent):  # type: ignore[misc]  # persistent has no types
    """Envelopes by ``seq``, from 1; the oldest may have been dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.entries = Entries()
        self.last = 0

    @property
    def first(self) -> int:
        """Return the number of the oldest event that is kept, or of the next when none is."""
        return int(self.entries.minKey()) if self.entries else self.last + 1

    def append(self, event: Event, *, at: str = "") -> Envelope:
        """Give the event the next number and keep it; returns its envelope.

        ``at`` is when it happened, if that is not now (ISO 8601, UTC).
        """
        self.last += 1
        envelope = Envelope.of(event, seq=self.last)
        if at:
            envelope = replace(envelope, at=at)
        self.entries[self.last] = envelope.as_data()
        return envelope

    def since(self, seq: int, limit: int = MAX_SINCE) -> list[dict[str, Any]]:
        """Return up to ``limit`` envelopes with a number above ``seq``, in order."""
        found: list[dict[str, Any]] = []
        for entry in self.entries.values(min=seq + 1):
            if len(found) >= min(limit, MAX_SINCE):
                break
            found.append(dict(entry))
        return found

    def drop(self, limit: int, *, before: str = "", most: int | None = None) -> int:
        """Drop up to ``limit`` of the oldest events: those from before ``before`` (ISO 8601),
        and those beyond ``most``. Returns how many were dropped."""
        dropped = 0
        while dropped < limit and self.entries:
            seq = self.entries.minKey()
            too_many = most is not None and self.last - seq + 1 > most
            if not too_many and not self.entries[seq]["at"] < before:
                break
            del self.entries[seq]
            dropped += 1
        return dropped

    def rebuild(self) -> None:
        """Copy all entries into a tree of the present kind: for an evolution step."""
        self.entries = Entries(self.entries)
