"""Clocks of clients: how far one is from this server's, and which are off at the moment.

What orders or judges archives goes by the server's clock (:attr:`Archive.at`); the client's is a
fact that is kept and shown. One that is off is told of, because a client's own times, those of
its files included, are then wrong. ``root.clocks`` has the clients whose newest backup found it
so, as client -> seconds; only this module writes there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the vault measures, and has no store
    from borgcube.core.model import Archive
    from borgcube.core.store import Root

OFFSET = "clock_offset_s"  # its name among an archive's figures
WARN_S = 300  # beyond this a clock is off
KIND = "client-clock-off"
NEXT_STEP = "Set the client's clock, and have it kept right by NTP (chrony, systemd-timesyncd)."


def offset_s(*, start: datetime, end: datetime, began: datetime, received: datetime) -> float:
    """Return by how many seconds a client's clock is ahead of ours, negative when it is behind,
    as little as explains what was seen.

    ``start`` and ``end`` are when the client says that it read its files. By our clock it began
    after ``began`` and had ended before ``received``: its offset is at least the difference of
    the ends and at most that of the beginnings, whatever the time in between. A clock that was
    set meanwhile may break both; then the larger counts.
    """
    least, most = (end - received).total_seconds(), (start - began).total_seconds()
    off = [seconds for seconds, beyond in ((least, least > 0), (most, most < 0)) if beyond]
    return max(off, key=abs, default=0.0)


class Watch:
    """Times a client's work by our clock, from now until :meth:`stop`."""

    def __init__(self) -> None:
        self._began, self._ticks = datetime.now(UTC), time.monotonic()
        self.stop()

    def stop(self) -> None:
        """Take the time; the last one counts."""
        self._received, self._ran_s = datetime.now(UTC), time.monotonic() - self._ticks

    def offset_s(self, start: datetime, end: datetime) -> float:
        """Return :func:`offset_s` of what the client says, in tenths of a second; 0 when our own
        clock was set meanwhile, which says nothing about the client's."""
        passed_s = (self._received - self._began).total_seconds()
        if is_off(passed_s - self._ran_s):
            return 0.0
        return round(offset_s(start=start, end=end, began=self._began, received=self._received), 1)


def is_off(seconds: float) -> bool:
    """Tell whether a clock with such an offset is worth a warning."""
    return abs(seconds) > WARN_S


def offset_of(figures: Any) -> float:
    """Return the offset among an archive's or a job's figures, 0 where there is none that is a
    number."""
    found = figures.get(OFFSET) if isinstance(figures, dict) else None
    return float(found) if isinstance(found, int | float) and abs(found) < 1e12 else 0.0


def told(figures: Any) -> float:
    """Return the offset among some figures if it is worth a warning, else 0."""
    seconds = offset_of(figures)
    return seconds if is_off(seconds) else 0.0


def span(seconds: float) -> str:
    """Return the size of an offset in words, such as ``10 minutes`` or ``23 h 5 min``."""
    minutes = round(abs(seconds) / 60)
    if minutes < 120:
        return f"{minutes} minutes"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def words(who: str, seconds: float) -> str:
    """Return in words that a clock is off, and by how much; ``who`` is such as ``Client web``."""
    direction = "ahead of" if seconds > 0 else "behind"
    return f"{who} has a clock that is {span(seconds)} {direction} this server's."


def note(root: Root, archive: Archive) -> None:
    """Remember of an archive's client whether its clock is off, in the transaction that records
    the archive of a backup."""
    if not archive.client or OFFSET not in archive.stats:
        return
    seconds = offset_of(archive.stats)
    if is_off(seconds):
        root.clocks[archive.client] = round(seconds)
    else:
        forget(root, archive.client)


def forget(root: Root, client: str) -> None:
    """Forget what is known of a client's clock."""
    if client in root.clocks:
        del root.clocks[client]


def off(root: Root) -> Iterator[tuple[str, int]]:
    """Yield the clients whose clock is off, each with its seconds."""
    yield from root.clocks.items()
