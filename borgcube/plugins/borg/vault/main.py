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
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
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

if TYPE_CHECKING:
    from borgcube.plugins.borg.vault.domains import Domain

log = logging.getLogger("borgcube.vault")
REMEMBERED = 1000  # results of jobs whose worker may be gone
SEALING_BYTES = 128 << 20  # of chunks that wait to be encrypted, of all sessions
END_WAIT_S = 30.0
UPKEEP_S = 3600.0  # how often a vault that is always in use looks for what is over


class Vault:
    """The opened repository and its sessions."""

    def __init__(
        self, opened: Any, state_dir: Path, *, space: FreeSpace, partial_age: timedelta
    ) -> None:
        from borgcube.plugins.borg.vault.known import Known
        from borgcube.plugins.borg.vault.ledger import Ledger
        from borgcube.plugins.borg.vault.verified import State

        self.ledger = Ledger(opened)
        self.state_dir = state_dir
        self.readers = Readers()
        self.known = self.ledger.known = Known(self.ledger, state_dir, self.readers)
        self.partial_age = partial_age  # unfinished backups are given up after it
        self.pool = ThreadPoolExecutor(max(2, os.cpu_count() or 2), thread_name_prefix="seal")
        self.sealing: dict[bytes, Future[None]] = {}
        self.sessions: dict[str, Any] = {}
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
        self.stopping = False
        self.verifying = threading.Lock()
        # Damaged chunks that are mended when a client uploads them again.
        self.damaged = State.load(state_dir).heals()

    def others_of_domain(self, path: Path, *, but: Any = None) -> bool:
        """Tell whether another session was offered the chunks of a domain."""
        return any(
            other is not but and getattr(getattr(other, "domain", None), "path", None) == path
            for other in self.sessions.values()
        )

    def relied_upon(self, chunk_id: bytes, *, but: Any) -> bool:
        """Tell whether another session uploaded the same chunk, or is about to own it."""
        return any(
            other.relies_on(chunk_id)
            for other in self.sessions.values()
            if other is not but and hasattr(other, "relies_on")
        )

    def check_alive(self) -> None:
        """Raise when the vault is shutting down or broken."""
        if self.broken is not None:
            cause = self.broken
            raise JobFailed(cause.kind, cause.problem, cause.message, next_step=cause.next_step)
        if self.stopping:
            raise JobFailed(
                "vault-stopped",
                Problem.SERVER,
                "The vault is stopping.",
                next_step="Run the backup again.",
            )

    def remember(self, job: str, archive: dict[str, Any]) -> None:
        """Keep what a job admitted, in case its worker does not live to report it."""
        self.admitted[job] = archive
        while len(self.admitted) > REMEMBERED:
            self.admitted.popitem(last=False)

    def commit(
        self, *, finishing: Any, remove: Iterable[str] = (),
        change: Callable[[], None] | None = None, compact: Collection[int] = (),
        before: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        """Commit, with the chunks of every other open session referenced; under the lock.

        ``before`` changes something before those are referenced.

        ``remove`` are partial archives to delete in the same commit, and ``change`` does more
        of the kind. Their chunks that an open session uploaded too are referenced by then.
        ``compact`` are segments to compact with it.
        """
        if before is not None:
            before()
        partials = [
            session
            for session in self.sessions.values()
            if session is not finishing
            and hasattr(session, "write_partial")
            and session.write_partial()
        ]
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
            if not self.others_of_domain(domain.path)
        }
        free = [name for name in due if name in present]
        if free and self.broken is None:
            self.ledger.begin()
            self.commit(finishing=None, remove=free)
        for name, domain in due.items():
            del self.superseded[name]
            self.derive(partial(domain.forget, [name]))

    def fail(self, error: BaseException) -> None:
        """Give up after a failed write: uncommitted chunks are gone, sessions are retried.

        Data connections are cut; each worker hears the cause when it asks how it ended.
        """
        from borgcube.plugins.borg.vault.causes import cause_of

        first, self.broken = self.broken is None, self.broken or cause_of(error)
        if first:
            # The daemon sends no further job here.
            print(json.dumps({"error": self.broken.as_data()}), flush=True)
        log.error("giving up: %s", error)
        for session in list(self.sessions.values()):
            for wire in session.wires[1:]:
                wire.close()


def _die_with_parent() -> None:
    """Ask Linux for SIGTERM when the parent dies (prctl(2), PR_SET_PDEATHSIG)."""
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)
    except (AttributeError, OSError):
        log.debug("no parent death signal on this system")


def _open(
    path: Path, state_dir: Path, passphrase: str, *, partial_days: int, space: FreeSpace
) -> Vault:
    from borgcube.plugins.borg.vault import recovery
    from borgcube.plugins.borg.vault.causes import home_writes
    from borgcube.plugins.borg.vault.opened import OpenedRepository

    with home_writes():
        recovery.break_dead_lock(path, state_dir)
    Memory().opening(path)
    opened = OpenedRepository(path, passphrase)
    try:
        vault_dir = state_dir / opened.repository.id_str
        with home_writes():
            recovery.note_holder(state_dir, opened)
            vault_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.rmtree(vault_dir / "sessions", ignore_errors=True)
        vault = Vault(opened, vault_dir, space=space, partial_age=timedelta(days=partial_days))
        with vault.ledger.lock:
            recovery.take_stock(vault)
    except BaseException:
        opened.close()
        raise
    return vault


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old_mask = os.umask(0o177)
    server.bind(str(path))
    os.umask(old_mask)
    server.listen(16)
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
    partial_days: int = 14,
) -> int:  # fmt: skip
    """Open the repository and serve ``listen``; returns the exit code."""
    from borgcube.plugins.borg.vault.causes import as_answer
    from borgcube.plugins.borg.vault.server import SessionServer

    try:
        vault = _open(path, state_dir, passphrase, partial_days=partial_days, space=space)
        server = _listen(listen)
    except Exception as error:
        log.warning("cannot open %s: %s", path, error, exc_info=not isinstance(error, JobFailed))
        print(json.dumps(as_answer(error)), flush=True)
        return 2

    def stop(_signal: int, _frame: Any) -> None:
        vault.stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print(json.dumps({"ready": True}), flush=True)
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
    if vault.broken is not None:
        # Let the workers hear why; they ask as soon as their gate has ended.
        deadline = time.monotonic() + END_WAIT_S
        while vault.sessions and not vault.stopping and time.monotonic() < deadline:
            time.sleep(0.05)
    for session in list(vault.sessions.values()):
        for wire in session.wires:
            wire.close()
    for thread in threads:
        thread.join(timeout=END_WAIT_S)
    listen.unlink(missing_ok=True)
    vault.readers.close()
    vault.ledger.opened.close(clean_up=vault.broken is not None)
    return 2 if vault.broken is not None else 0


def main() -> int:
    """Entry point of ``python -m borgcube.plugins.borg.vault.main``."""
    parser = argparse.ArgumentParser(prog="borgcube-vault")
    parser.add_argument("--name", required=True)
    parser.add_argument("--path", type=Path, required=True)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--partial-days", type=int, default=14)
    parser.add_argument("--free-floor", type=int, default=0, metavar="BYTES")
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
        partial_days=options.partial_days,
        space=FreeSpace(options.path, name=options.name, floor=options.free_floor),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
