"""The vault process: open one repository, serve sessions on a unix socket until SIGTERM."""

from __future__ import annotations

import argparse
import ctypes
import json
import logging
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from borgcube.core.budget import Room
from borgcube.core.errors import FailureCause, JobFailed, Problem
from borgcube.plugins.borg import borgenv
from borgcube.plugins.borg.malloc import keep_large_buffers
from borgcube.plugins.borg.metadata.readers import Readers
from borgcube.plugins.borg.vault.audit import Budget
from borgcube.plugins.borg.vault.limits import Accounts, FreeSpace
from borgcube.plugins.borg.vault.memory import Memory
from borgcube.plugins.borg.vault.sessions import Session, Sessions
from borgcube.plugins.borg.vault.watch import Heart

if TYPE_CHECKING:
    from borgcube.plugins.borg.vault.domains import Domain
    from borgcube.plugins.borg.vault.uploads import Sealing

log = logging.getLogger("borgcube.vault")
REMEMBERED = 1000  # results of jobs whose worker may be gone
SEALING_BYTES = 128 << 20  # of chunks that wait to be encrypted, of all sessions
END_WAIT_S = 30.0
BACKLOG = 1024  # a worker does not wait to connect: it fails when nobody has room for it
UPKEEP_S = 3600.0  # how often a vault that is always in use looks for what is over


class Vault:
    """The opened repository and its sessions."""

    def __init__(
        self, opened: Any, state_dir: Path, *, space: FreeSpace, partial_age: timedelta,
        readers: Readers | None = None,
    ) -> None:  # fmt: skip
        from borgcube.plugins.borg.vault.known import Known
        from borgcube.plugins.borg.vault.ledger import Ledger
        from borgcube.plugins.borg.vault.verified import State

        self.ledger = Ledger(opened)
        self.state_dir = state_dir
        self.readers = readers or Readers()
        self.known = self.ledger.known = Known(self.ledger, state_dir, self.readers)
        if opened.hidden:
            self.known.note_uncounted()
        for archive_id, reason in opened.unreadable.items():
            self.known.note_unreadable(archive_id, reason)
        self.partial_age = partial_age  # unfinished backups are given up after it
        self.pool = ThreadPoolExecutor(max(2, os.cpu_count() or 2), thread_name_prefix="seal")
        self.sealing: dict[bytes, Sealing] = {}  # under the ledger's lock
        self.sessions = Sessions(self.ledger.lock)
        self.admitted: OrderedDict[str, dict[str, Any]] = OrderedDict()
        # Partial archives to delete once no session may rely on their chunks, by name.
        self.superseded: dict[str, Domain] = {}
        self.accounts = Accounts()
        self.ahead = Budget()
        self.memory = Memory()
        self.memory.indexes(self.ledger)
        self.sealing_room = Room(SEALING_BYTES)
        self.space = space
        space.commit_bytes = self.ledger.repository.commit_bytes
        self.maintenance = threading.Lock()  # one prune or compaction at a time
        self.broken: FailureCause | None = None
        self._failing = threading.Lock()
        self.stopping = False
        self.read_only: bool = opened.read_only
        self.verifying = threading.Lock()
        # Damaged chunks that are mended when a client uploads them again.
        self.damaged = State.load(state_dir).heals()

    def check_alive(self) -> None:
        """Raise when the vault is shutting down or broken."""
        self.check_sound()
        if self.stopping:
            raise JobFailed(
                "vault-stopped",
                Problem.SERVER,
                "The vault is stopping.",
                next_step="Run the backup again.",
            )

    def check_sound(self) -> None:
        """Raise when the counts in memory may be wrong, and must reach no commit."""
        if self.broken is not None:
            cause = self.broken
            raise JobFailed(cause.kind, cause.problem, cause.message, next_step=cause.next_step)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Change counts or stored chunks; whatever is raised meanwhile ends the vault.

        That is noted before the ledger's lock is free again: nobody who waits for it can
        commit what is half changed. Raises JobFailed when somebody else failed so.
        """
        with self.ledger.lock:
            self.check_sound()
            try:
                yield
            except BaseException as error:
                self.fail(error)
                raise

    def check_writable(self) -> None:
        """Raise JobFailed when the repository was opened only to be read."""
        from borgcube.plugins.borg.vault.opened import read_only_cause

        if self.read_only:
            path = Path(self.ledger.repository.path)
            raise read_only_cause(path, still=not os.access(path, os.W_OK))

    def remember(self, job: str, archive: dict[str, Any]) -> None:
        """Keep what a job admitted, in case its worker does not live to report it."""
        with self.ledger.lock:
            self.admitted[job] = archive
            while len(self.admitted) > REMEMBERED:
                self.admitted.popitem(last=False)

    def commit(
        self, *, finishing: Session | None, remove: Iterable[str] = (),
        change: Callable[[], None] | None = None, compact: Collection[int] = (),
        before: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        """Commit, with the chunks of every other open session referenced; under the lock.

        ``before`` changes something before those are referenced.

        ``remove`` are partial archives to delete in the same commit, and ``change`` does more
        of the kind. Their chunks that an open session uploaded too are referenced by then.
        ``compact`` are segments to compact with it. A failure ends the vault.
        """
        self.check_writable()
        self.ledger.begin()  # fails before anything is changed
        with self.changing():
            if before is not None:
                before()
            partials = [one for one in self.sessions.others(finishing) if one.write_partial()]
            for name in remove:
                self.ledger.remove_archive(name)
            if change is not None:
                change()
            for session in partials:
                session.intend_partial()
            self.ledger.commit(compact=compact)
            self.memory.indexes(self.ledger)
        for session in partials:
            self.derive(session.remember_partial)

    def derive(self, work: Callable[[], None]) -> None:
        """Write what only makes the next run cheaper; a failure is logged, not raised.

        What is committed stays committed. The next start of the vault makes it good.
        """
        try:
            work()
        except Exception:
            log.exception("derived data could not be written; it is made again later")

    def remove_superseded(self) -> None:
        """Delete partial archives whose domain has no session left; under the lock."""
        present = self.ledger.manifest.archives
        due = {
            name: domain
            for name, domain in self.superseded.items()
            if not self.sessions.offered(domain.path)
        }
        free = [name for name in due if name in present]
        if free and self.broken is None:
            self.commit(finishing=None, remove=free)
        for name, domain in due.items():
            del self.superseded[name]
            self.derive(partial(domain.forget, [name]))

    def fail(self, error: BaseException) -> None:
        """Give up after a failed write: uncommitted chunks are gone, sessions are retried.

        Data connections are cut; each worker hears the cause when it asks how it ended.
        """
        from borgcube.plugins.borg.vault.causes import cause_of

        with self._failing:
            first, self.broken = self.broken is None, self.broken or cause_of(error)
        if first:
            log.error("giving up: %s", error, exc_info=error)
            try:
                # The daemon sends no further job here.
                print(json.dumps({"error": self.broken.as_data()}), flush=True)
            except (OSError, ValueError):
                log.warning("nobody hears that the vault gives up")
        self.sessions.cut()


def _die_with_parent() -> None:
    """Ask Linux for SIGTERM when the parent dies (prctl(2), PR_SET_PDEATHSIG)."""
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)
    except (AttributeError, OSError):
        log.debug("no parent death signal on this system")


def _open(
    path: Path, state_dir: Path, passphrase: str, *, partial_days: int, space: FreeSpace,
    repository_id: str = "",
) -> Vault:  # fmt: skip
    from borgcube.plugins.borg.vault import recovery
    from borgcube.plugins.borg.vault.causes import home_writes
    from borgcube.plugins.borg.vault.opened import OpenedRepository

    with home_writes():
        recovery.break_dead_lock(path, state_dir)
    readers = Readers()
    opened = OpenedRepository(
        path, passphrase, repository_id=repository_id,
        hide=lambda opened, thorough: _look_first(opened, state_dir, readers, thorough),
    )  # fmt: skip
    try:
        vault_dir = state_dir / opened.repository.id_str
        with home_writes():
            if not opened.read_only:
                opened.note_key(state_dir)
                recovery.note_holder(state_dir, opened)
            vault_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.rmtree(vault_dir / "sessions", ignore_errors=True)
        vault = Vault(
            opened, vault_dir, space=space, partial_age=timedelta(days=partial_days),
            readers=readers,
        )  # fmt: skip
        with vault.ledger.lock:
            recovery.take_stock(vault)
    except BaseException:
        opened.close()
        raise
    return vault


def _look_first(opened: Any, state_dir: Path, readers: Readers, thorough: bool) -> list[str]:
    """Return the names of archives in quarantine, after looking through all that are not known:
    Borg is about to make its cache from them. ``thorough`` has all
    lists of files read again."""
    from borgcube.plugins.borg.vault.causes import home_writes
    from borgcube.plugins.borg.vault.known import Known
    from borgcube.plugins.borg.vault.ledger import Source

    directory = state_dir / opened.repository.id_str
    with home_writes():
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    known = Known(Source(opened), directory, readers)
    for archive_id, name in known.unknown().items():
        try:
            known.require(archive_id, name)
        except JobFailed as error:
            if not known.reason(archive_id):  # its reader did not live
                known.note_unreadable(archive_id, str(error))
    for info in opened.manifest.archives.list() if thorough else ():
        known.check_whole(info.id)
    opened.unreadable = known.unreadable()
    return [info.name for info in opened.manifest.archives.list() if known.reason(info.id)]


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old_mask = os.umask(0o177)
    server.bind(str(path))
    os.umask(old_mask)
    server.listen(BACKLOG)
    server.settimeout(0.5)
    return server


def keep_up(vault: Vault) -> None:
    """Give up what is over, unless somebody works with the ledger: then the next time."""
    from borgcube.plugins.borg.vault import recovery

    if not vault.ledger.lock.acquire(blocking=False):
        return
    try:
        recovery.give_up_partials(vault)
    except Exception as error:
        vault.fail(error)
    finally:
        vault.ledger.lock.release()


def serve(
    path: Path, listen: Path, state_dir: Path, passphrase: str, *, space: FreeSpace,
    partial_days: int = 14, repository_id: str = "",
) -> int:  # fmt: skip
    """Open the repository and serve ``listen``; returns the exit code."""
    from borgcube.plugins.borg.vault.causes import as_answer

    try:
        Memory(enforced=True).opening(path)
        vault = _open(
            path, state_dir, passphrase, partial_days=partial_days, space=space,
            repository_id=repository_id,
        )  # fmt: skip
        vault.memory.enforce()
        server = _listen(listen)
    except Exception as error:
        log.warning("cannot open %s: %s", path, error, exc_info=not isinstance(error, JobFailed))
        print(json.dumps(as_answer(error)), flush=True)
        return 2

    def stop(_signal: int, _frame: Any) -> None:
        vault.stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print(json.dumps({"ready": True, "read_only": vault.read_only}), flush=True)
    Heart(lambda: (vault.ledger.lock, vault.ledger.sealer.lock)).start()
    receive(vault, server)
    listen.unlink(missing_ok=True)
    close(vault)
    return 2 if vault.broken is not None else 0


def receive(vault: Vault, server: socket.socket) -> None:
    """Serve connections, each in a thread, until the vault stops or breaks; then end them."""
    from borgcube.plugins.borg.vault.server import SessionServer

    threads: list[threading.Thread] = []
    upkeep_at = time.monotonic() + UPKEEP_S
    while not vault.stopping and vault.broken is None:
        if time.monotonic() > upkeep_at:
            upkeep_at = time.monotonic() + UPKEEP_S
            keep_up(vault)
        try:
            sock, _ = server.accept()
        except TimeoutError:
            continue
        sock.settimeout(None)
        thread = threading.Thread(target=SessionServer(vault, sock).run, daemon=True)
        thread.start()
        threads = [*(one for one in threads if one.is_alive()), thread]
    server.close()
    if vault.broken is not None:
        # Let the workers hear why; they ask as soon as their gate has ended.
        deadline = time.monotonic() + END_WAIT_S
        while len(vault.sessions) and not vault.stopping and time.monotonic() < deadline:
            time.sleep(0.05)
    vault.sessions.close()
    deadline = time.monotonic() + END_WAIT_S
    for thread in threads:
        thread.join(timeout=max(0.0, deadline - time.monotonic()))
    vault.readers.close()


def close(vault: Vault) -> None:
    """Release the repository, unless a thread that cannot be ended still works with it.

    The lock is kept for good: whoever waits for it must find no closed repository.
    """
    if not vault.ledger.lock.acquire(timeout=END_WAIT_S):
        log.error("a thread still works with the repository; what it did not commit is lost")
        return
    vault.ledger.opened.close(clean_up=vault.broken is not None)


def main() -> int:
    """Entry point of ``python -m borgcube.plugins.borg.vault.main``."""
    parser = argparse.ArgumentParser(prog="borgcube-vault")
    parser.add_argument("--name", required=True)
    parser.add_argument("--path", type=Path, required=True)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--partial-days", type=int, default=14)
    parser.add_argument("--free-floor", type=int, default=0, metavar="BYTES")
    parser.add_argument("--id", default="", help="the only ID that is opened")
    options = parser.parse_args()
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    keep_large_buffers()
    _die_with_parent()
    passphrase = sys.stdin.readline().rstrip("\n")
    os.umask(0o077)
    borgenv.prepare(options.state_dir)
    return serve(
        options.path, options.socket, options.state_dir, passphrase,
        partial_days=options.partial_days, repository_id=options.id,
        space=FreeSpace(options.path, name=options.name, floor=options.free_floor),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
