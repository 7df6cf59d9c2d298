"""When something runs: the contract of schedule plugins, and the rules around them.

Pure: everything is computed from what is given, and no clock is read. A schedule plugin
says at which instants something is due (:class:`ScheduleKind`); :class:`Rule` puts windows,
blackouts, spreading and catching up around it. ``core.planning`` fills rules from the
store, the daemon's scheduler acts on them.
"""

from __future__ import annotations

import hashlib
import heapq
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Protocol

from borgcube.core.errors import InvalidInput
from borgcube.core.windows import Weekly, Windows

# What becomes of a run that could not start at its time.
ONCE, SKIP, WHEN_REACHABLE = "once", "skip", "when-reachable"
CATCH_UP: Mapping[str, str] = {
    ONCE: "run once, as soon as possible",
    SKIP: "leave it out",
    WHEN_REACHABLE: "run once, as soon as the client answers",
}
# A run that starts this much after its time has still started on time.
ON_TIME_S = 300
MAX_TRIES = 500
MAX_LOOKED_AT = 200
MAX_JITTER_S = 86_400
KEPT_DURATIONS = 9
LOOK_AHEAD, RUNS_AHEAD = timedelta(days=366), 15
UNKNOWN_DURATION_S = 600
INSTANT = timedelta(microseconds=1)


class ScheduleKind(Protocol):
    """A kind of schedule, registered by name; pure."""

    name: str

    def check(self, spec: str, *, zone: str) -> str:
        """Return ``spec`` in its plain form; raises InvalidInput with the field ``spec`` for
        what is no schedule or never comes, and ``zone`` for an unknown zone."""

    def next_after(self, spec: str, moment: datetime, *, zone: str) -> datetime | None:
        """Return the first instant (aware, UTC) after ``moment``, or None for never."""

    def previous(self, spec: str, moment: datetime, *, zone: str) -> datetime | None:
        """Return the last instant (aware, UTC) not after ``moment``, or None."""

    def describe(self, spec: str) -> str:
        """Return the schedule in words, without its zone."""


@dataclass(frozen=True)
class Rule:
    """A schedule, ready to be asked. Spans are in seconds."""

    name: str
    kind: ScheduleKind
    spec: str
    zone: str
    windows: Windows
    jitter_s: int = 0
    stagger: bool = False
    catch_up: str = ONCE
    grace_s: int = 3600

    def next_after(self, moment: datetime) -> datetime | None:
        """Return the first due instant after ``moment`` that is inside a window.

        Blackouts do not count here: what falls into one is due, and waits for its end.
        """
        for _ in range(MAX_TRIES):
            due = self.kind.next_after(self.spec, moment, zone=self.zone)
            if due is None or self.windows.allows(due):
                return due
            allowed = self.windows.next_allowed(due)
            if allowed is None:
                return None
            moment = allowed - INSTANT
        return None

    def previous(self, moment: datetime) -> datetime | None:
        """Return the last due instant not after ``moment`` that is inside a window."""
        for _ in range(MAX_TRIES):
            due = self.kind.previous(self.spec, moment, zone=self.zone)
            if due is None or self.windows.allows(due):
                return due
            moment = due - INSTANT
        return None

    def due_between(
        self, begin: datetime, end: datetime, *, most: int = 1000
    ) -> Iterator[datetime]:
        """Yield due instants after ``begin`` and not after ``end``, at most ``most``."""
        for _ in range(most):
            due = self.next_after(begin)
            if due is None or due > end:
                return
            yield due
            begin = due

    def longest_gap_s(self, now: datetime) -> int:
        """Return the longest time between two of the next due instants, in seconds."""
        due = [now, *self.due_between(now, now + LOOK_AHEAD, most=RUNS_AHEAD)]
        gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(due[1:])]
        if not gaps:  # rarer than a year
            return int(LOOK_AHEAD.total_seconds())
        return int(max(gaps))

    def offset_s(self, key: str) -> int:
        """Return how many seconds after its due instants ``key`` starts, of the jitter: always
        the same for one key, and spread evenly over many."""
        if self.jitter_s <= 0:
            return 0
        digest = hashlib.sha256(f"{self.name}\0{key}".encode()).digest()
        return int.from_bytes(digest[:8], "big") % (self.jitter_s + 1)


def check_rule(rule: Rule, now: datetime) -> None:
    """Raise InvalidInput, with the field at fault, for a rule that would never run."""
    if rule.catch_up not in CATCH_UP:
        raise InvalidInput(f"There is no way {rule.catch_up!r} to catch up.", field="catch_up",
                           next_step=f"One of: {', '.join(CATCH_UP)}.")  # fmt: skip
    if not 0 <= rule.jitter_s <= MAX_JITTER_S:
        raise InvalidInput("The jitter is 0 to 86400 seconds.", field="jitter_s")
    if not 0 <= rule.grace_s <= 366 * 86_400:
        raise InvalidInput("The grace is 0 seconds to 366 days.", field="grace_s")
    if rule.kind.next_after(rule.spec, now, zone=rule.zone) is None:
        raise InvalidInput(f"{rule.spec!r} never comes.", field="spec")
    due = rule.next_after(now)
    if due is None:
        raise InvalidInput(
            f"No run of {rule.spec!r} falls into a window.", field="windows",
            next_step="Widen the windows, or choose other times.",
        )  # fmt: skip
    weekly = tuple(span for span in rule.windows.closed if isinstance(span, Weekly))
    always = Windows(rule.windows.zone, rule.windows.allowed, weekly)
    for _ in range(MAX_LOOKED_AT):
        if due is None or always.is_open(due):
            return
        due = rule.next_after(due)
    raise InvalidInput(
        f"Every run of {rule.spec!r} falls into a blackout.", field="blackouts",
        next_step="Shorten the blackouts, or choose other times.",
    )  # fmt: skip


def predicted_s(durations: Sequence[float]) -> float:
    """Return how long a run will probably take, in seconds: the median of the last ones."""
    return float(statistics.median(durations)) if durations else float(UNKNOWN_DURATION_S)


def staggered(durations: Mapping[str, float], *, lanes: int) -> dict[str, int]:
    """Return for each key how many seconds after the common time it should start, so that
    about ``lanes`` run at once: the longest first, each in the lane that is free first
    (R. L. Graham, Bounds on Multiprocessing Timing Anomalies, 1969)."""
    free = [(0.0, lane) for lane in range(max(1, lanes))]
    found: dict[str, int] = {}
    for key, duration in sorted(durations.items(), key=lambda pair: (-pair[1], pair[0])):
        begin, lane = heapq.heappop(free)
        found[key] = int(begin)
        heapq.heappush(free, (begin + max(1.0, duration), lane))
    return found


def deadline(
    rule: Rule, *, last: datetime, offset_s: float, duration_s: float,
    held_until: datetime | None = None,
) -> datetime | None:  # fmt: skip
    """Return the instant by which something that last succeeded at ``last`` should have
    succeeded again, or None when it is never due.

    That is the first due instant after it, or where a pause (``held_until``) or a blackout
    ends, plus what spreading adds, how long it takes, and the grace.
    """
    due = rule.next_after(last)
    if due is None:
        return None
    if held_until is not None and held_until > due:
        due = held_until
    begin = rule.windows.next_open(due + timedelta(seconds=offset_s))
    if begin is None:
        return None
    return begin + timedelta(seconds=duration_s + rule.grace_s)
