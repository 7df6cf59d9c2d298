"""The journal: the durable list of lifecycle events, with gapless sequence numbers.

An entry is appended in the transaction of the change it tells of, so that neither
exists without the other.
"""

from __future__ import annotations

from typing import Any

from BTrees.LOBTree import LOBTree
from persistent import Persistent

from borgcube.core.events import Envelope, Event

MAX_SINCE = 1000


class Journal(Persistent):  # type: ignore[misc]  # persistent has no types
    """Envelopes by ``seq``, from 1."""

    def __init__(self) -> None:
        super().__init__()
        self.entries = LOBTree()
        self.last = 0

    def append(self, event: Event) -> Envelope:
        """Give the event the next number and keep it; returns its envelope."""
        self.last += 1
        envelope = Envelope.of(event, seq=self.last)
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
