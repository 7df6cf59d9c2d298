"""A look at the disks of repositories that a disk which does not answer cannot hold up.

Each directory is looked at in a thread of its own, and no more than one such thread waits for
the same directory: one that hangs stays until its disk answers, and is named meanwhile.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

ANSWER_S = 3.0
MISSING, READ_ONLY, HANGS = "missing", "read-only", "hangs"


@dataclass(frozen=True)
class Seen:
    """What a directory is like: ``state`` is empty when all is well; bytes."""

    state: str = ""
    free: int = 0
    total: int = 0


def look_at(path: str) -> Seen:
    """Look; may take for ever."""
    try:
        if not os.path.isdir(path):
            return Seen(MISSING)
        usage = shutil.disk_usage(path)
        return Seen("" if os.access(path, os.W_OK) else READ_ONLY, usage.free, usage.total)
    except OSError:
        return Seen(MISSING)


class Storage:
    """Looks at directories; safe in any thread."""

    def __init__(self, look: Callable[[str], Seen] = look_at) -> None:
        self._look = look
        self._lock = threading.Lock()
        self._waiting: dict[str, threading.Thread] = {}

    def see(self, paths: Iterable[str], *, answer_s: float = ANSWER_S) -> dict[str, Seen]:
        """Return what is seen within ``answer_s``; a directory of which nothing was heard
        ``hangs``."""
        found: dict[str, Seen] = {}
        asked, wanted = [], list(dict.fromkeys(paths))
        for path in wanted:
            with self._lock:
                before = self._waiting.get(path)
                if before is not None and before.is_alive():
                    continue
                thread = threading.Thread(
                    target=self._see, args=(path, found), name="storage", daemon=True
                )
                self._waiting[path] = thread
            thread.start()
            asked.append(thread)
        deadline = time.monotonic() + answer_s
        for thread in asked:
            thread.join(max(0.0, deadline - time.monotonic()))
        with self._lock:
            self._waiting = {p: one for p, one in self._waiting.items() if one.is_alive()}
        return {path: found.get(path, Seen(HANGS)) for path in wanted}

    def _see(self, path: str, found: dict[str, Seen]) -> None:
        found[path] = self._look(path)
