"""The vaults: one process for each repository in use, started on demand, ended when idle.

Nothing here waits: the main loop calls :meth:`Vaults.step` and asks :meth:`Vaults.need`.
A vault that opened its repository is first asked, in a thread, which archives there are; jobs
get it when the store agrees with the answer.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from borgcube.core import home as places
from borgcube.core.errors import FailureCause, Problem
from borgcube.daemon.pulse import Pulse
from borgcube.daemon.spawn import give, spawn

LOG = logging.getLogger(__name__)
MAX_READY_LINE = 1 << 16
FRESH_S = 10.0
# When the daemon ends, or a job was cancelled: a vault that moves is waited for, others not.
STILL_S = 10.0
KILL_S = 3.0  # a process that can be killed is gone by then
# One that may not write is not kept: the next job may find the repository writable again.
READ_ONLY_IDLE_S = 2.0
STARTING, LISTING, READY, STOPPING = "starting", "listing", "ready", "stopping"
Lister = Callable[[], Sequence[dict[str, Any]]]


class Listing(threading.Thread):
    """Asks a vault for its archives; ``found`` or ``error`` is set when it is over."""

    def __init__(self, lister: Lister) -> None:
        super().__init__(name="listing", daemon=True)
        self._lister = lister
        self.found: Sequence[dict[str, Any]] | None = None
        self.error = ""
        self.start()

    def run(self) -> None:
        """Ask."""
        try:
            self.found = self._lister()
        except Exception as error:
            LOG.exception("a vault did not list its archives")
            self.error = str(error) or type(error).__name__


def rotate(path: Path, *, max_bytes: int, keep: int) -> None:
    """Move a log that has grown beyond ``max_bytes`` aside, keeping ``keep`` old ones."""
    if not path.exists() or path.stat().st_size < max_bytes:
        return
    for number in range(keep - 1, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        if older.exists():
            os.replace(older, path.with_name(f"{path.name}.{number + 1}"))
    os.replace(path, path.with_name(f"{path.name}.1"))


@dataclass
class Vault:
    """One vault process."""

    repository: str
    socket: Path
    process: subprocess.Popen[bytes]
    deadline: float
    lister: Lister
    state: str = STARTING
    listing: Listing | None = None
    said: bytes = b""
    jobs: set[str] = field(default_factory=set)
    retiring: bool = False
    read_only: bool = False
    served: bool = False
    lost: FailureCause | None = None  # it was killed, and why; it may not end even so
    lost_at: float = 0.0
    idle_since: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.pulse = Pulse(self.process.pid)


def _cause(kind: str, message: str, next_step: str) -> FailureCause:
    return FailureCause(kind, Problem.REPOSITORY, message, next_step)


def _hung(vault: Vault) -> FailureCause:
    return _cause(
        "vault-hung",
        f"The vault of {vault.repository} {vault.pulse.why}: nothing of it has moved for "
        f"{vault.pulse.still_s:.0f} s.",
        "Look at the disk of the repository, and whether somebody stopped the process; "
        f"logs/vault-{vault.repository}.log may say more. A slow disk needs a larger "
        "vault.hang_seconds.",
    )


class Vaults:
    """All vaults of this daemon, by repository name."""

    def __init__(
        self, home: Path, *, idle_s: float, start_s: float, hang_s: float, log_max_bytes: int,
        log_keep: int,
    ) -> None:  # fmt: skip
        self._home = home
        self._log_max_bytes, self._log_keep = log_max_bytes, log_keep
        # Told which archives a repository has; it may raise, and is then told again.
        self.on_listed: Callable[[str, Sequence[dict[str, Any]]], None] = lambda name, found: None
        self._idle_s = idle_s
        self._start_s, self._hang_s = start_s, hang_s
        # Told of the jobs of a vault that was given up, by ID, and why.
        self.on_hung: Callable[[FailureCause, frozenset[str]], None] = lambda cause, jobs: None
        # Why a repository's last vault was of no use, until one is.
        self.problems: dict[str, FailureCause] = {}
        self._vaults: dict[str, Vault] = {}
        self._failed: dict[str, tuple[FailureCause, float]] = {}

    def socket_for(self, identity: str) -> Path:
        """Return the socket path of a repository's vault, by the identity of our record."""
        return places.runtime_dir(self._home) / f"vault-{identity}.sock"

    def need(self, name: str, job_id: str) -> Vault | FailureCause | None:
        """Return the ready vault with ``job_id`` noted in it, why it failed, or None while
        it is starting; ``KeyError`` when there is none and :meth:`start` is to be called."""
        cause, at = self._failed.pop(name, (None, 0.0))
        # A failure that nobody waited for any more says nothing of a new start.
        if cause is not None and time.monotonic() - at < FRESH_S:
            return cause
        vault = self._vaults[name]
        if (lost := self.lost(name)) is not None:
            return lost
        if vault.state != READY or vault.process.poll() is not None:
            return None
        if vault.read_only and vault.served and not vault.jobs:
            # The repository may be writable again: each job looks anew.
            self._terminate(vault)
            return None
        vault.jobs.add(job_id)
        vault.served = True
        return vault

    def lost(self, name: str) -> FailureCause | None:
        """Return why a repository has a vault that was given up and cannot be ended."""
        vault = self._vaults.get(name)
        if vault is None or vault.lost is None or time.monotonic() - vault.lost_at < KILL_S:
            return None
        return vault.lost

    def start(
        self, name: str, *, argv: Sequence[str], socket: Path, passphrase: str, lister: Lister
    ) -> None:
        """Start a vault; it becomes ready or fails later."""
        socket.unlink(missing_ok=True)
        path = places.log_dir(self._home) / f"vault-{name}.log"
        rotate(path, max_bytes=self._log_max_bytes, keep=self._log_keep)
        with path.open("ab") as log:
            process = spawn(argv, stdout=subprocess.PIPE, stderr=log)
        give(process, passphrase.encode() + b"\n")
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        self._vaults[name] = Vault(name, socket, process, time.monotonic() + self._start_s, lister)
        LOG.info("vault %s: started as process %d", name, process.pid)

    def socket_of(self, job_id: str) -> Path | None:
        """Return the socket of the vault that a job uses, None when it is gone."""
        for vault in self._vaults.values():
            if job_id in vault.jobs and vault.process.poll() is None:
                return vault.socket
        return None

    def still_s(self, job_id: str) -> float:
        """Return for how many seconds the vault that a job uses has stood still."""
        return max(
            (vault.pulse.still_s for vault in self._vaults.values() if job_id in vault.jobs),
            default=0.0,
        )

    def release(self, job_id: str) -> None:
        """Note that a job no longer uses its vault."""
        for vault in self._vaults.values():
            if job_id in vault.jobs:
                vault.jobs.discard(job_id)
                vault.idle_since = time.monotonic()

    def names(self) -> frozenset[str]:
        """Return the repositories that have a vault, in whatever state."""
        return frozenset(self._vaults)

    def retire(self, name: str) -> None:
        """Let a vault end as soon as no job uses it: what it was started with has changed."""
        if name in self._vaults:
            self._vaults[name].retiring = True

    def step(self) -> None:
        """Look after all vaults; called often, never blocks."""
        for name, vault in list(self._vaults.items()):
            if vault.state == STARTING:
                self._read_ready(vault)
            elif vault.state == LISTING:
                self._read_listing(vault)
            if vault.state != STARTING:
                self._hear(vault)
            code = vault.process.poll()
            if code is not None:
                self._ended(vault, code)
            elif vault.state in (STARTING, LISTING) and time.monotonic() > vault.deadline:
                self._give_up(vault, _cause(
                    "vault-timeout", f"The vault of {name} did not start in time.",
                    f"See logs/vault-{name}.log; another program may hold the lock.",
                ))  # fmt: skip
                self._fail(name, vault.lost or _hung(vault))
            elif (
                vault.state != STARTING and vault.lost is None
                and vault.pulse.look() > self._hang_s
            ):  # fmt: skip
                self._give_up(vault, _hung(vault))
                self.on_hung(vault.lost or _hung(vault), frozenset(vault.jobs))
            elif (
                vault.state == READY
                and not vault.jobs
                and (vault.retiring or time.monotonic() - vault.idle_since > self._patience(vault))
            ):
                LOG.info("vault %s: idle, ending", name)
                self._terminate(vault)

    def _patience(self, vault: Vault) -> float:
        return min(self._idle_s, READ_ONLY_IDLE_S) if vault.read_only else self._idle_s

    def _give_up(self, vault: Vault, cause: FailureCause) -> None:
        """Kill a vault. One that waits in the kernel for its disk stays until that answers."""
        LOG.error("vault %s: %s", vault.repository, cause.message)
        vault.lost = self.problems[vault.repository] = cause
        vault.lost_at = time.monotonic()
        vault.state = STOPPING
        vault.process.kill()

    def _read_ready(self, vault: Vault) -> None:
        assert vault.process.stdout is not None
        try:
            data = os.read(vault.process.stdout.fileno(), MAX_READY_LINE)
        except BlockingIOError:
            return
        vault.said += data
        if b"\n" not in vault.said and len(vault.said) < MAX_READY_LINE:
            return
        try:
            answer: dict[str, Any] = json.loads(vault.said.split(b"\n", 1)[0])
            if answer.get("ready") is True:
                vault.state, vault.listing = LISTING, Listing(vault.lister)
                vault.read_only = bool(answer.get("read_only"))
                vault.said = vault.said.partition(b"\n")[2]
                return
            cause = FailureCause.from_data(answer["error"])
        except (ValueError, KeyError, TypeError, AttributeError):
            cause = _cause(
                "vault-protocol",
                f"The vault of {vault.repository} did not answer as a vault does.",
                f"See logs/vault-{vault.repository}.log.",
            )
        self._fail(vault.repository, cause)
        self._terminate(vault)

    def _hear(self, vault: Vault) -> None:
        """Take its beats, and send nobody any more to a vault that says that it gives up."""
        assert vault.process.stdout is not None
        try:
            vault.said += os.read(vault.process.stdout.fileno(), MAX_READY_LINE)
        except BlockingIOError:
            return
        *lines, vault.said = vault.said.split(b"\n")
        vault.said = vault.said[-MAX_READY_LINE:]
        for line in lines:
            try:
                said = json.loads(line)
                if "beat" in said:
                    vault.pulse.hear(float(said["beat"]["still_s"]))
                    continue
                cause = FailureCause.from_data(said["error"])
            except (ValueError, KeyError, TypeError):
                cause = _cause("vault-failed", "The vault gave up.",
                               f"See logs/vault-{vault.repository}.log.")  # fmt: skip
            if vault.state == LISTING:
                self._fail(vault.repository, cause)
            LOG.error("vault %s: gives up: %s", vault.repository, cause.message)
            vault.state = STOPPING

    def _read_listing(self, vault: Vault) -> None:
        assert vault.listing is not None
        if vault.listing.error:
            self._fail(vault.repository, _cause(
                "vault-failed",
                f"The vault of {vault.repository} did not list its archives.",
                f"See logs/vault-{vault.repository}.log.",
            ))  # fmt: skip
            self._terminate(vault)
        elif vault.listing.found is not None:
            self.on_listed(vault.repository, vault.listing.found)
            vault.state, vault.idle_since = READY, time.monotonic()
            self.problems.pop(vault.repository, None)
            LOG.info("vault %s: ready%s", vault.repository, ", to read" * vault.read_only)

    def _fail(self, name: str, cause: FailureCause) -> None:
        LOG.error("vault %s: %s", name, cause.message)
        self._failed[name] = cause, time.monotonic()
        self.problems[name] = cause

    def _terminate(self, vault: Vault) -> None:
        vault.state = STOPPING
        if vault.process.poll() is None:
            vault.process.send_signal(signal.SIGTERM)

    def _ended(self, vault: Vault, code: int) -> None:
        if vault.state in (STARTING, LISTING) and vault.repository not in self._failed:
            self._fail(vault.repository, _cause(
                "vault-failed", f"The vault of {vault.repository} ended with code {code}.",
                f"See logs/vault-{vault.repository}.log.",
            ))  # fmt: skip
        elif vault.state == READY:
            # Its jobs notice that the socket is gone and fail with a cause of their own.
            LOG.error("vault %s: died with code %d", vault.repository, code)
        assert vault.process.stdout is not None
        vault.process.stdout.close()
        del self._vaults[vault.repository]

    def describe(self) -> list[dict[str, Any]]:
        """Return the vaults as plain data."""
        return [
            {"repository": v.repository, "state": v.state, "pid": v.process.pid,
             "jobs": sorted(v.jobs)} for v in self._vaults.values()
        ]  # fmt: skip

    def stop_all(self, *, timeout_s: float) -> None:
        """End all vaults and wait for them; they are killed after ``timeout_s``, or as soon as
        they stand still."""
        for vault in self._vaults.values():
            self._terminate(vault)
        deadline = time.monotonic() + timeout_s
        left = list(self._vaults.values())
        while left:
            for vault in list(left):
                self._hear(vault)
                if vault.process.poll() is not None:
                    left.remove(vault)
                elif time.monotonic() > deadline or vault.pulse.look() > STILL_S:
                    LOG.error("vault %s: does not end, killed", vault.repository)
                    vault.process.kill()
                    left.remove(vault)
                    try:
                        vault.process.wait(2)
                    except subprocess.TimeoutExpired:
                        LOG.error("vault %s: waits for its disk, and is left", vault.repository)
            time.sleep(0.05)
        self._vaults.clear()
