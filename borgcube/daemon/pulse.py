"""Whether a vault still moves: its own beats, and what the kernel says while there are none.

A beat says for how long the vault's work has stood still. Without beats (it was stopped, or a
long call keeps every thread of it waiting) the process is looked at from outside: what it reads
and writes, and a fair share of a processor, is movement. Time in which nobody looked does not
count, so that neither a daemon that was stopped nor a machine that slept blames a vault.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

LATE_S = 3.0  # without a beat, until the process is looked at
LOOK_EVERY_S = 1.0
MOST_OF_A_GAP_S = 2.0
# Threads that only wait for their turn are woken all the time: that is no work.
LEAST_SHARE = 0.1
TICKS = os.sysconf("SC_CLK_TCK")


def process_state(pid: int) -> tuple[str, float, bytes]:
    """Return a process's state letter, its seconds of processor time and its counts of bytes,
    as far as the kernel tells (proc(5)); the letter is empty when it is gone."""
    place = Path("/proc") / str(pid)
    try:
        fields = (place / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return "", 0.0, b""
    try:
        counts = (place / "io").read_bytes()
    except OSError:
        counts = b""
    return fields[0], (int(fields[11]) + int(fields[12])) / TICKS, counts


class Pulse:
    """What is known of one process; ``look`` is to be called often."""

    def __init__(
        self, pid: int, *, clock: Callable[[], float] = time.monotonic,
        state: Callable[[int], tuple[str, float, bytes]] = process_state,
    ) -> None:  # fmt: skip
        self._pid, self._clock, self._state = pid, clock, state
        self._said_s = 0.0
        self._silent_s = 0.0
        self._looked_at = clock()
        self._sampled_at = 0.0
        self._sample: tuple[str, float, bytes] = ("", 0.0, b"")

    def hear(self, still_s: float) -> None:
        """Take a beat."""
        self._said_s, self._silent_s = max(0.0, still_s), 0.0

    def look(self) -> float:
        """Return for how many seconds the process has stood still."""
        now = self._clock()
        self._silent_s += min(now - self._looked_at, MOST_OF_A_GAP_S)
        self._looked_at = now
        if self._silent_s >= LATE_S and now - self._sampled_at >= LOOK_EVERY_S:
            before, passed = self._sample, now - self._sampled_at
            self._sample, self._sampled_at = self._state(self._pid), now
            worked = self._sample[1] - before[1] >= LEAST_SHARE * passed
            if before[0] and passed < 2 * LATE_S and (worked or self._sample[2] != before[2]):
                self._silent_s = LATE_S - LOOK_EVERY_S
                self._said_s = 0.0
        return self.still_s

    @property
    def still_s(self) -> float:
        """For how long it stood still when it was last looked at."""
        return max(self._said_s, self._silent_s if self._silent_s >= LATE_S else 0.0)

    @property
    def why(self) -> str:
        """Why it stands still, in words that follow its name."""
        if self._silent_s < LATE_S:
            return "waits for its storage, which does not answer"
        if self._state(self._pid)[0] in ("T", "t"):
            return "is stopped (SIGSTOP)"
        return "stands still"
