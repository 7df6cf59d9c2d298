"""How much memory a vault may have: its limit follows from its indexes, and is raised with them.

A vault holds Borg's indexes of its repository, and for each session some of its client's. Those
are honest and may be of any size; what else it holds is bounded by what other rooms keep. So the
limit (``RLIMIT_AS``, which counts address space) is::

    BASE + INDEX_FACTOR x indexes
         + for each session: SESSION + OFFERED_FACTOR x its chunk index + UPLOAD for each chunk

``indexes`` are the bytes of the repository's index, of Borg's chunk counts and of what is not
committed yet. The factors have room for one that grows, which Borg copies; for what a commit, a
prune and a check hold beside them; and for the copies that a session makes of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from borgcube.core import memory
from borgcube.core.errors import Problem
from borgcube.plugins.borg.vault.limits import SessionStopped

BASE = 2 << 30
SPARE = 512 << 20
INDEX_FACTOR = 10
# Frames, chunks, stacks of threads, the longest item there may be.
SESSION = 768 << 20
OFFERED_FACTOR = 8
# A chunk that a session uploaded: in its own index, in what is not committed, in the
# repository's, in the order of arrival, each with room to grow.
UPLOAD = 400
# What one session's uploads may take. It then ends, and the plan's next run goes on from there.
UPLOADED_BYTES = 8 << 30
UPLOADS_AT_ONCE = 1 << 16  # the limit is raised for so many further chunks at a time


class Memory:
    """The limit of one vault, which its process takes if it is ``enforced``. Safe for threads."""

    def __init__(self, *, enforced: bool = False) -> None:
        self._enforced = enforced
        self._lock = threading.Lock()
        self._sessions: dict[str, int] = {}
        self._indexes = 0
        self.limit = 0

    def enforce(self) -> None:
        """Let this process, which is the vault's own, have no more from now on."""
        self._enforced = True
        self._apply()

    def opening(self, path: Path) -> None:
        """Take a limit before a repository is opened, by the files of its index.

        Where Borg's counts are not there they are made anew, and are as large as that.
        """
        files = sum(file.stat().st_size for file in path.glob("index.*") if file.is_file())
        # The files are not opened yet, and can say that they are of any size.
        self._indexes = min(3 * files, memory.of_machine() // INDEX_FACTOR)
        self._apply()

    def indexes(self, ledger: Any) -> None:
        """Take the indexes as they are now; under the ledger's lock."""
        index = ledger.repository.index
        self._indexes = (
            ledger.chunks.size() + ledger.fresh.size()
            # Between two transactions Borg has none, and loads it again at once.
            + (index.size() if index is not None else ledger.chunks.size())
        )  # fmt: skip
        self._apply()

    def session(self, token: str, *, offered: int = 0, uploads: int = 0) -> None:
        """Take a session with a chunk index of ``offered`` bytes, and its uploads so far."""
        with self._lock:
            self._sessions[token] = (
                SESSION + OFFERED_FACTOR * offered + UPLOAD * (uploads + UPLOADS_AT_ONCE)
            )
        self._apply()

    def uploads(self, token: str, count: int, *, offered: int) -> None:
        """Raise the limit for the ``count`` chunks of a session now and then; raises
        SessionStopped when the vault holds no more of them."""
        if count * UPLOAD >= UPLOADED_BYTES:
            raise SessionStopped(
                "session-full", Problem.SERVER,
                f"This backup uploaded {count:,} chunks, as many as the vault holds for one.",
                next_step="Run the backup again: it goes on from here.",
            )  # fmt: skip
        if count and count % UPLOADS_AT_ONCE == 0:
            self.session(token, offered=offered, uploads=count)

    def forget(self, token: str) -> None:
        """Take nothing for a session any more; safe to repeat."""
        with self._lock:
            self._sessions.pop(token, None)
        self._apply()

    def _apply(self) -> None:
        with self._lock:
            needed = BASE + INDEX_FACTOR * self._indexes + sum(self._sessions.values())
            # What was given back to nobody yet must not fail the next allocation, whoever asks:
            # then there is more, but never more than twice as much.
            self.limit = min(max(needed, memory.address_space() + SPARE), 2 * needed)
            if self._enforced:
                memory.limit(self.limit)


def out_of_memory() -> SessionStopped:
    """Return the end of a session for which the vault has too little memory."""
    return SessionStopped(
        "vault-memory", Problem.SERVER,
        "The vault needed more memory than its limit, which follows from the repository's size.",
        next_step="Run the job again, with fewer at once; what was stored is reused. If it ends "
        "like this again, please report it.",
    )  # fmt: skip


@contextmanager
def scarce() -> Iterator[None]:
    """End the session, and nothing else, when the memory does not suffice for what is inside:
    for what changes nothing."""
    try:
        yield
    except MemoryError:
        raise out_of_memory() from None
