"""The vault's heartbeat: what it says of itself on its standard output, once a second.

A beat means that the process runs. In it, ``still_s`` says for how long those who hold the
ledger's lock, or that of the nonces, have not moved at all: used no processor, read and wrote
nothing, and were not even woken. So a commit, a compaction or a check may take hours, on the
slowest disk, as long as something of it moves; one that waits for a disk that does not answer
stands still, and everybody behind the lock with it. Without a lock, only who waits in the
kernel for a disk can stand still.

The daemon (``daemon/vaults.py``) decides; here is only looked. No beat is written while the
reader leaves unread what there is.
"""

from __future__ import annotations

import array
import fcntl
import json
import os
import re
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

BEAT_S = 1.0
UNREAD_BYTES = 16 << 10  # of a pipe of 64 KiB
_OWNER = re.compile(r" owner=(\d+) ")
_SWITCHES = re.compile(r"ctxt_switches:\s+(\d+)")
Moved = tuple[Any, ...]


def owner_of(lock: Any) -> int:
    """Return the ident of the thread that holds an RLock, 0 for none.

    Taken from its ``repr``: a lock of our own would cost each chunk of each client something.
    """
    found = _OWNER.search(repr(lock))
    return int(found.group(1)) if found else 0


def _native(ident: int) -> int:
    for thread in threading.enumerate():
        if thread.ident == ident:
            return thread.native_id or 0
    return 0


def movement(thread: int, *, process: str = "self") -> Moved:
    """Return what changes when a thread, by its number in the kernel, does anything: its
    processor time, the bytes it read and wrote, how often it was woken (proc(5))."""
    place = Path("/proc") / process / "task" / str(thread)
    try:
        times = (place / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[11:13]
        woken = _SWITCHES.findall((place / "status").read_text("utf-8", "replace"))
    except OSError:
        return ()
    try:
        moved = (place / "io").read_bytes()
    except OSError:
        moved = b""  # this kernel does not count them, or does not tell
    return (*times, *woken, moved)


def waiting_for_disks(process: str = "self") -> list[int]:
    """Return the threads that wait in the kernel and cannot be interrupted, as for a disk."""
    found = []
    for place in Path("/proc", process, "task").iterdir():
        try:
            state = (place / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0]
        except (OSError, IndexError):
            continue
        if state == "D":
            found.append(int(place.name))
    return found


class Stillness:
    """For how long nobody has moved who must: the holders of the locks that work is done under,
    of whom one may wait for the other, and each that waits for a disk without a lock, as a
    check does."""

    def __init__(
        self, locks: Callable[[], Iterable[Any]], *,
        clock: Callable[[], float] = time.monotonic,
        moved: Callable[[int], Moved] = movement,
        waiting: Callable[[], Iterable[int]] = waiting_for_disks,
    ) -> None:  # fmt: skip
        self._locks, self._clock, self._moved, self._waiting = locks, clock, moved, waiting
        # Threads (the holders of locks together, others alone) -> what they did, since when.
        self._seen: dict[tuple[int, ...], tuple[tuple[Moved, ...], float]] = {}

    def look(self) -> float:
        """Return the seconds; called regularly."""
        now = self._clock()
        owners = {owner_of(lock) for lock in self._locks()}
        # The thread that looks is not waited for, even if it holds a lock.
        holders = sorted({_native(one) for one in owners - {0, threading.get_ident()}} - {0})
        groups = {tuple(holders), *((thread,) for thread in self._waiting())} - {()}
        seen = {}
        for threads in groups:
            moved = tuple(self._moved(thread) for thread in threads)
            before, since = self._seen.get(threads, ((), now))
            if all(moved):
                seen[threads] = (moved, since if moved == before else now)
        self._seen = seen
        if tuple(holders) in seen:
            # Who has a lock may wait for somebody who has another: together they move or not.
            seen = {key: one for key, one in seen.items()
                    if key == tuple(holders) or not set(key) <= set(holders)}  # fmt: skip
        return max((now - since for _, since in seen.values()), default=0.0)


class Heart(threading.Thread):
    """Writes the beats until the process ends."""

    def __init__(self, locks: Callable[[], Iterable[Any]], *, descriptor: int = -1) -> None:
        super().__init__(name="heart", daemon=True)
        self._still = Stillness(locks)
        self._descriptor = descriptor if descriptor >= 0 else sys.stdout.fileno()

    def run(self) -> None:
        """Beat."""
        while True:
            time.sleep(BEAT_S)
            still = self._still.look()
            line = json.dumps({"beat": {"still_s": round(still, 1)}}).encode() + b"\n"
            try:
                if self._unread() < UNREAD_BYTES:
                    os.write(self._descriptor, line)
            except OSError:
                return  # nobody is left to hear it

    def _unread(self) -> int:
        count = array.array("i", [0])
        try:
            fcntl.ioctl(self._descriptor, termios.FIONREAD, count)
        except OSError:
            return 0  # no pipe: it does not fill up
        return count[0]
