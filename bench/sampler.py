"""The stopwatch of the bench: CPU seconds and peak memory of trees of processes.

Reads /proc only, and only of the trees it is given, so that watching costs little.
The README tells how exited processes are counted.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_INTERVAL_SECONDS = 0.05


@dataclass(frozen=True)
class Usage:
    """What one side used: CPU seconds, and peak resident bytes by process label."""

    cpu_seconds: float
    peak_rss: dict[str, int]


@dataclass
class _Seen:
    """One process, told from another with its number by its start time."""

    start: int
    parent: int
    cpu: float
    peaks: dict[str, int] = field(default_factory=dict)


def children_of(pid: int) -> list[int]:
    """Return the numbers of the living children of `pid`, of all its threads."""
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def _read_stat(pid: int) -> tuple[int, int, float] | None:
    """Return start ticks, parent, and CPU seconds with those of children waited for."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may hold anything, so count from its end (proc(5)).
    fields = text[text.rindex(")") + 2 :].split()
    cpu = sum(int(value) for value in fields[11:15]) / _TICK
    return int(fields[19]), int(fields[1]), cpu


def _read_peak(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def _label(pid: int) -> str:
    """Name a process by its program and, for Python, its script or module and command."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    words = [word for word in raw.decode(errors="replace").split("\0") if word]
    if not words:
        return ""
    # sshd writes a title of many words over its arguments: "sshd: user [priv]".
    words[0] = words[0].split(":")[0].split(" ")[0]
    words = [os.path.basename(word) for word in words]
    if words[0].startswith("python"):
        if "-c" in words[1:3]:
            return "python -c"
        words = [word for word in words[1:] if not word.startswith("-")] or words
        return " ".join(words[:2])[:40]
    return words[0][:40]


class Sampler:
    """Follow the trees below `roots` (side to root processes) until `stop`."""

    def __init__(self, roots: dict[str, list[int]]) -> None:
        self._roots = {side: list(pids) for side, pids in roots.items()}
        self._seen: dict[str, dict[int, _Seen]] = {side: {} for side in roots}
        self._lost: dict[str, float] = dict.fromkeys(roots, 0.0)
        self._peaks: dict[str, dict[str, int]] = {side: {} for side in roots}
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._sample()
        self._base = {side: self._counted(side) for side in roots}
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def start(self) -> None:
        """Begin to sample, twenty times a second."""
        self._thread.start()

    def add_root(self, side: str, pid: int) -> None:
        """Count `pid`, started after the sampler, and all below it to `side`."""
        with self._lock:
            self._roots[side].append(pid)
        self._sample()

    def stop(self, *, waited_cpu: dict[str, float] | None = None) -> dict[str, Usage]:
        """End and return the usage of each side.

        `waited_cpu` adds the CPU seconds of roots that the caller waited for with
        `os.wait4`; these are exact, so what was sampled of those roots is dropped.
        """
        self._done.set()
        self._thread.join(10)
        self._sample()
        extra = waited_cpu or {}
        return {
            side: Usage(
                max(0.0, self._counted(side) - self._base[side]) + extra.get(side, 0.0),
                dict(self._peaks[side]),
            )
            for side in self._roots
        }

    def _run(self) -> None:
        while not self._done.wait(_INTERVAL_SECONDS):
            self._sample()

    def _counted(self, side: str) -> float:
        return sum(item.cpu for item in self._seen[side].values()) + self._lost[side]

    def _sample(self) -> None:
        with self._lock:
            for side in self._roots:
                self._sample_side(side)

    def _sample_side(self, side: str) -> None:
        seen = self._seen[side]
        # Everything ever seen stays a starting point: a process that detached itself
        # (ssh's connection master does) is no longer below its root.
        queue, visited = [*self._roots[side], *seen], set[int]()
        while queue:
            pid = queue.pop()
            if pid in visited:
                continue
            visited.add(pid)
            stat = _read_stat(pid)
            known = seen.get(pid)
            if stat is None or (known is not None and known.start != stat[0]):
                continue
            start, parent, cpu = stat
            seen[pid] = _Seen(start, parent, cpu)
            label = _label(pid)
            if label:
                peaks = self._peaks[side]
                peaks[label] = max(peaks.get(label, 0), _read_peak(pid))
            queue += children_of(pid)
        ended = {
            pid
            for pid, item in seen.items()
            if (stat := _read_stat(pid)) is None or stat[0] != item.start
        }
        self._lost[side] += sum(
            seen[pid].cpu for pid in ended if not self._is_passed_on(side, pid, ended)
        )
        for pid in ended:
            del seen[pid]

    def _is_passed_on(self, side: str, pid: int, ended: set[int]) -> bool:
        """Say whether the time of the ended `pid` is in that of a process still counted.

        A parent that waited for it has it, and passes it on when it ends itself; at the
        end of the line stands a living process or a root the caller waits for.
        """
        while pid in ended:
            if pid in self._roots[side]:
                return True
            pid = self._seen[side][pid].parent
        return pid in self._seen[side]
