"""What was verified when, what is due next, and how fast a slice may go.

The state of one vault's checks is a file in its directory. ``verification.py`` and
``archivewalk.py`` work through what is due; nothing here reads the repository.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from borgcube.plugins.borg.vault.causes import home_writes

DAY_S = 86400
FILE_NAME = "verification.json"
LEAST_SLICE_BYTES = 1 << 30
MAX_DAMAGED = 100_000
Report = Callable[..., None]


@dataclass(frozen=True)
class Order:
    """What one slice is to do: ``budget_s`` seconds at most (0: no limit), so much that every
    byte is verified within ``days``, at most ``bytes_per_s`` (0: no limit)."""

    kind: str = "data"
    budget_s: float = 0
    days: int = 30
    bytes_per_s: int = 0
    full: bool = False


def now_text() -> str:
    """Return the time as an ISO 8601 string in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def epoch_text(epoch: float) -> str:
    """Return seconds since 1970 as an ISO 8601 string in UTC."""
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="seconds")


@dataclass
class State:
    """What was verified when, and what is damaged; times in seconds since 1970.

    ``damaged`` maps a chunk ID (hex) to ``why``, ``at`` and ``heals``: whether a client that
    uploads the same chunk again mends it. ``slack`` counts damaged entries nobody refers to.
    """

    path: Path
    segments: dict[str, list[int]] = field(default_factory=dict)  # number -> [when, bytes]
    archives: dict[str, int] = field(default_factory=dict)
    damaged: dict[str, dict[str, Any]] = field(default_factory=dict)
    slack: dict[str, str] = field(default_factory=dict)  # segment -> what is wrong
    slices: dict[str, int] = field(default_factory=dict)  # kind -> when the last one began
    affected: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, directory: Path) -> State:
        """Read the state of a vault's directory; a missing or damaged file is an empty one."""
        made = cls(directory / FILE_NAME)
        try:
            data = json.loads(made.path.read_text())
            for name in ("segments", "archives", "damaged", "slack", "slices", "affected"):
                value = data.get(name)
                if isinstance(value, dict):
                    setattr(made, name, value)
        except (OSError, ValueError, AttributeError):
            return cls(made.path)
        return made

    def save(self) -> None:
        """Write it, whole or not at all."""
        data = {key: value for key, value in vars(self).items() if key != "path"}
        temporary = self.path.with_suffix(".new")
        with home_writes():
            with temporary.open("w") as file:
                json.dump(data, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)

    def note(self, chunk_id: bytes, why: str, *, heals: bool = False) -> None:
        """Note a damaged or missing chunk."""
        if len(self.damaged) < MAX_DAMAGED:
            known = self.damaged.get(chunk_id.hex(), {})
            self.damaged[chunk_id.hex()] = {
                "why": why, "at": known.get("at") or now_text(), "heals": heals
            }  # fmt: skip

    def heals(self) -> set[bytes]:
        """Return the damaged chunks that an upload mends."""
        return {bytes.fromhex(key) for key, one in self.damaged.items() if one.get("heals")}


def share_due(total: float, *, days: int, since_last_days: float) -> float:
    """Return how much of ``total`` a slice has to do to get through all of it in ``days``.

    Spread evenly: the part of a day's slice, times the days since the last one.
    """
    return total * min(1.0, max(1.0, since_last_days) / max(1, days))


def due_segments(
    sizes: Mapping[int, int], verified: Mapping[int, int], *, days: int, now: float,
    gap_days: float,
) -> list[int]:  # fmt: skip
    """Return the segments that a slice verifies, in order: those verified longest ago first.

    As many as an even share of all bytes needs, and every one that would be verified too long
    ago before the next slice, which is ``gap_days`` away as the last one was; a small
    repository as a whole.
    """
    queue = sorted(sizes, key=lambda number: (verified.get(number, 0), number))
    share = share_due(sum(sizes.values()), days=days, since_last_days=gap_days)
    target = max(share, LEAST_SLICE_BYTES)
    due_before = now - (days - max(1.0, gap_days)) * DAY_S
    planned, total = [], 0
    for number in queue:
        when = verified.get(number, 0)
        if total >= target and not 0 < when < due_before:
            continue
        planned.append(number)
        total += sizes[number]
    return planned


class Pace:
    """Keeps a slice below its rate and within its budget."""

    def __init__(self, order: Order, step: Callable[[], None]) -> None:
        self._order, self._step = order, step
        self._begin = time.monotonic()
        self._bytes = 0

    @property
    def spent(self) -> float:
        """Return the seconds since the beginning."""
        return time.monotonic() - self._begin

    @property
    def over(self) -> bool:
        """Whether the budget of time is used up."""
        return bool(self._order.budget_s) and self.spent >= self._order.budget_s

    def took(self, count: int) -> None:
        """Count bytes that were read; waits when it went too fast."""
        self._step()
        self._bytes += count
        if self._order.bytes_per_s:
            while (ahead := self._bytes / self._order.bytes_per_s - self.spent) > 0:
                time.sleep(min(ahead, 0.2))
                self._step()
