"""When something runs: the contract of schedule plugins."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Schedule(Protocol):
    """A kind of schedule, registered by name; pure."""

    name: str

    def next_after(self, spec: str, moment: datetime) -> datetime | None:
        """Return the next aware UTC time after ``moment``, or None for never."""
