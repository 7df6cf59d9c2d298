"""Holds a repository's vault for somebody on this server who reads a file of an archive.

Who reads is the console or the command line, and the data goes from the vault to them, not
through the daemon. While they read they keep a lock (flock) on a file that is made here, and
the kernel takes it from them when they end, however they end. The main loop calls
:meth:`Reads.step`; nothing here waits.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from borgcube.core import home as places
from borgcube.core import lifecycle
from borgcube.core.errors import BorgCubeError, FailureCause, TooMany, Unreadable
from borgcube.core.registry import Registry
from borgcube.core.store import Root
from borgcube.daemon.queue import needs_alone
from borgcube.daemon.vaults import Vault, Vaults

LOG = logging.getLogger(__name__)
AT_ONCE = 4
TAKE_LOCK_S = 60.0  # from the answer to the reader's lock


@dataclass
class Read:
    """One reader. ``future`` is answered with where to read from, when its vault is ready."""

    repository: str
    place: Path
    vault_by: float
    future: Future[dict[str, str]] = field(default_factory=Future)
    lock_by: float = 0.0

    @property
    def name(self) -> str:
        """Return the name under which the vault is held; no job has such a one."""
        return f"read {self.place.name}"


class Reads:
    """All readers of this daemon. ``start`` starts the vault of a repository by name."""

    def __init__(
        self, home: Path, *, registry: Registry, vaults: Vaults,
        start: Callable[[str], None], start_s: float,
    ) -> None:  # fmt: skip
        self._home, self._registry = home, registry
        self._vaults, self._start, self._start_s = vaults, start, start_s
        self._reads: list[Read] = []

    @property
    def busy(self) -> bool:
        """Whether somebody waits for a vault."""
        return any(not one.future.done() for one in self._reads)

    def check(self, root: Root, repository: str) -> None:
        """Raise TooMany, or Unreadable while a job has the repository to itself."""
        self.step()  # those that have ended make room
        if len(self._reads) >= AT_ONCE:
            raise TooMany(f"{AT_ONCE} files are being read already.",
                          next_step="Try again in a moment.")  # fmt: skip
        for state in lifecycle.ACTIVE:
            for job in root.jobs.newest(1000, state=state, repository=repository):
                if needs_alone(self._registry.job_types.get(job.type)):
                    raise Unreadable(f"Job {job.id} has the repository to itself.",
                                     next_step="Try again when it is over.")  # fmt: skip

    def open(self, repository: str) -> Future[dict[str, str]]:
        """Return what will be answered with ``socket``, the vault's, and ``lock``, the file to
        lock while it is read from."""
        directory = places.private_directory(places.runtime_dir(self._home) / "reads")
        place = directory / secrets.token_hex(8)
        os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        read = Read(repository, place, time.monotonic() + self._start_s)
        self._reads.append(read)
        self._try_vault(read)
        return read.future

    def step(self) -> None:
        """Answer those whose vault is ready, and let go of what nobody reads any more."""
        for read in list(self._reads):
            if not read.future.done():
                self._try_vault(read)
            elif read.future.exception() is not None or self._is_over(read):
                self._end(read)

    def _try_vault(self, read: Read) -> None:
        answer: Any = None
        try:
            try:
                answer = self._vaults.need(read.repository, read.name)
            except KeyError:
                self._start(read.repository)
        except (BorgCubeError, OSError) as error:
            read.future.set_exception(error)
            return
        if isinstance(answer, Vault):
            read.lock_by = time.monotonic() + TAKE_LOCK_S
            read.future.set_result({"socket": str(answer.socket), "lock": str(read.place)})
        elif isinstance(answer, FailureCause):
            read.future.set_exception(Unreadable(answer.message, next_step=answer.next_step))
        elif time.monotonic() > read.vault_by:
            read.future.set_exception(Unreadable(
                f"The vault of {read.repository} did not start in time.",
                next_step=f"See logs/vault-{read.repository}.log.",
            ))  # fmt: skip

    def _is_over(self, read: Read) -> bool:
        """Tell whether nobody has the lock any more, or did not take it in time."""
        try:
            handle = os.open(read.place, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return True  # its reader took it away at the end
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            read.lock_by = 0.0  # it was taken
            return False
        finally:
            os.close(handle)
        return time.monotonic() > read.lock_by

    def _end(self, read: Read) -> None:
        read.place.unlink(missing_ok=True)
        self._vaults.release(read.name)
        self._reads.remove(read)
