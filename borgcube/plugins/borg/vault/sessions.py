"""Who uses a repository right now: the sessions of a vault, and the one table of them.

**Lock discipline of the vault.** Locks are taken in this order, and none is ever waited for by
a thread that holds one further down:

1. ``Vault.maintenance`` and ``Vault.verifying``: one prune or compaction, one check at a time.
   Held for the whole work; what is reported to a worker meanwhile has a deadline.
2. ``Ledger.lock``: whatever changes what the repository holds, **and the table of sessions**.
3. Leaves, held for an instant and with no other lock behind them: a session's ``_turn``, the
   nonces, the budgets, the failing of the vault. A wire's writing is one too, but may wait for
   its peer: nobody sends while holding the ledger's lock.

The table is never changed in place: :meth:`Sessions.begin` and :meth:`Sessions.end` replace it,
under the ledger's lock. So any thread may *look* at any time, without a lock, and sees a table
that was true a moment ago. Whoever *decides* by it (may this archive go, is this chunk needed,
whose partial archives belong to this commit) holds the ledger's lock from the look to the deed.
A session is in the table before it is offered anything, and as long as it may need it.

Nobody waits for a peer, for a chunk that is being sealed or for the thread that judges ahead
while holding the ledger's lock: those threads need it.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from borgcube.core.errors import JobFailed, Problem
from borgcube.plugins.borg.wire import Wire

if TYPE_CHECKING:
    from borgcube.plugins.borg.vault.main import Vault

_token_lock = threading.Lock()
_last_token_time = 0


def make_token(repository_id: str) -> str:
    """Return a secret session name: repository, time in ns, randomness; all in hex.

    Tokens of one repository sort by the time they were made, so that a run can tell which
    directories on a client are older than itself.
    """
    global _last_token_time
    with _token_lock:
        _last_token_time = max(time.time_ns(), _last_token_time + 1)
        return f"{repository_id[:8]}{_last_token_time:016x}{secrets.token_hex(16)}"


class Session:
    """One user of the repository, as the rest of the vault sees it.

    A kind of session overrides what it has to say; as it stands here, it holds nothing.
    """

    number = 0  # given by the table; 0 is nobody
    over = False  # nothing of it is needed any more, although it is still in the table

    def __init__(
        self, token: str, archive: str, *, wire: Wire | None = None, job: str = ""
    ) -> None:
        self.token = token
        self.archive = archive
        self.job = job
        self.keep = True
        self.result: dict[str, Any] | None = None
        self._wire = wire  # the worker's
        self._data: Wire | None = None  # the gate's
        self._turn = threading.Lock()
        self._ending = False
        self._idle = threading.Event()
        self._idle.set()

    # Asked by others, under the ledger's lock -------------------------------------------

    def domains(self) -> frozenset[Path]:
        """Return the directories of the domains whose chunks it was offered."""
        return frozenset()

    def reads(self) -> str:
        """Return the archive that it reads and that has to stay, or nothing."""
        return ""

    def partial(self) -> str:
        """Return the name of the partial archive that is its own, or nothing."""
        return ""

    def relies_on(self, chunk_id: bytes) -> bool:
        """Tell whether a chunk that nothing references yet must stay for it."""
        return False

    def write_partial(self) -> bool:
        """Reference what was uploaded so far by its partial archive; False for nothing new."""
        return False

    def intend_partial(self) -> None:
        """Note the partial archive before the commit that makes it."""

    def remember_partial(self) -> None:
        """Offer what the partial archive has, after the commit that made it."""

    def left(self) -> None:
        """Hear that it has left the table."""

    # Its conversation -------------------------------------------------------------------

    def prepare(self) -> dict[str, Any]:
        """Get ready; return what the worker needs to know. Raises JobFailed."""
        return {}

    def figures(self) -> dict[str, int]:
        """Return what it stored so far."""
        return {"bytes_new": 0, "chunks_new": 0}

    def converse(self, wire: Wire) -> None:
        """Serve the data connection to its end; raises WireError."""

    def finish(self) -> None:
        """End without a result: keep what is to be kept, forget the rest."""

    def close(self) -> None:
        """Give files and memory back; safe to repeat."""

    # Its connections ----------------------------------------------------------------------

    def attach(self, wire: Wire) -> bool:
        """Take the one data connection; False when there was one, or when the end has begun.

        Who gets True calls :meth:`detach` when it will not touch the session any more.
        """
        with self._turn:
            if self._ending or self._data is not None:
                return False
            self._data = wire
            self._idle.clear()
            return True

    def detach(self) -> None:
        """Say that the thread of the data connection is done with the session."""
        self._idle.set()

    def stop_data(self) -> None:
        """End the data connection for good, and wait until its thread has left the session.

        Called without any lock.
        """
        with self._turn:
            self._ending = True
        self.cut()
        self._idle.wait()

    def cut(self) -> None:
        """Close the data connection, so that its thread ends; from any thread."""
        if self._data is not None:
            self._data.close()

    def hang_up(self) -> None:
        """Close all connections; from any thread."""
        self.cut()
        if self._wire is not None:
            self._wire.close()


class Reading(Session):
    """Something that reads an archive, which has to stay meanwhile."""

    def reads(self) -> str:
        """Return the archive."""
        return self.archive


@contextmanager
def reading(vault: Vault, wire: Wire, *, name: str = "", archive_id: str = "") -> Iterator[Reading]:
    """Keep an archive, given by name or by ID in hex, while it is read.

    When there is none by that ID, what is read has no name. Raises JobFailed when the vault
    takes no work any more.
    """
    with vault.ledger.lock:
        vault.check_alive()
        if archive_id:
            infos = vault.ledger.manifest.archives.list()
            name = next((info.name for info in infos if info.id.hex() == archive_id), "")
        session = Reading(make_token(vault.ledger.repository.id_str), name, wire=wire)
        vault.sessions.begin(session)
    try:
        yield session
    finally:
        vault.sessions.end(session)


class Sessions:
    """The table of sessions. See the top of this module for who may do what when."""

    def __init__(self, lock: threading.RLock) -> None:  # type: ignore[valid-type]
        self._lock: Any = lock
        self._table: tuple[Session, ...] = ()  # replaced as a whole, never changed
        self._closed = False
        self._last_number = 0

    # Changed under the ledger's lock ------------------------------------------------------

    def begin(self, session: Session) -> None:
        """Enter a session; raises JobFailed once the table is closed."""
        with self._lock:
            self._last_number += 1
            session.number = self._last_number
            self._table = (*self._table, session)
            # After the entry: either it is seen here, or :meth:`close` has seen the session.
            if self._closed:
                self.end(session)
                raise JobFailed(
                    "vault-stopped", Problem.SERVER, "The vault is stopping.",
                    next_step="Run the job again.",
                )  # fmt: skip

    def end(self, session: Session) -> None:
        """Take a session out; safe to repeat."""
        with self._lock:
            self._table = tuple(one for one in self._table if one is not session)
            session.left()

    # To look, from any thread -------------------------------------------------------------

    def __iter__(self) -> Iterator[Session]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)

    def get(self, token: str) -> Session | None:
        """Return the session of a token."""
        return next((one for one in self._table if one.token == token), None)

    def tokens(self, *, but: Session) -> list[str]:
        """Return the tokens of all other sessions."""
        return [one.token for one in self._table if one is not but]

    def has_job(self, job: str) -> bool:
        """Tell whether a session of a job is not over yet."""
        return any(one.job == job for one in self._table)

    def cut(self) -> None:
        """Close the data connections; each worker then asks how its session ended."""
        for one in self._table:
            one.cut()

    def close(self) -> None:
        """Take no session any more, and close every connection. Takes no lock: the one who
        holds the ledger's may wait for a disk that does not answer."""
        self._closed = True
        for one in self._table:
            one.hang_up()

    # To decide, under the ledger's lock ---------------------------------------------------

    def others(self, but: Session | None) -> Iterator[Session]:
        """Yield all sessions save one."""
        return (one for one in self._table if one is not but)

    def offered(self, domain: Path, *, but: Session | None = None) -> bool:
        """Tell whether another session was offered the chunks of a domain."""
        return any(domain in one.domains() for one in self.others(but))

    def rely_on(self, chunk_id: bytes, *, but: Session | None) -> bool:
        """Tell whether another session uploaded the same chunk, or is about to own it."""
        return any(one.relies_on(chunk_id) for one in self.others(but))

    def partials(self, *, but: Session | None = None) -> set[str]:
        """Return the names of partial archives that belong to other sessions."""
        return {name for one in self.others(but) if (name := one.partial())}

    def runs(self, number: int) -> bool:
        """Tell whether the session of a number may still get its archive."""
        return any(one.number == number and not one.over for one in self._table)

    def in_the_way(self) -> Callable[[str, set[Path]], bool]:
        """Return a test of an archive's name and domains: does a session need it?"""
        offered: set[Path] = set()
        for one in self._table:
            offered |= one.domains()
        read = {one.reads() for one in self._table}
        return lambda name, domains: name in read or not offered.isdisjoint(domains)
