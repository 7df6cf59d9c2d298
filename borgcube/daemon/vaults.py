"""The vaults: one process for each repository in use, started on demand, ended when idle.

Nothing here waits: the main loop calls :meth:`Vaults.step` and asks :meth:`Vaults.need`.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from borgcube.core import home as places
from borgcube.core.errors import FailureCause, Problem
from borgcube.daemon.spawn import give, spawn

LOG = logging.getLogger(__name__)
MAX_READY_LINE = 1 << 16
STARTING, READY, STOPPING = "starting", "ready", "stopping"


@dataclass
class Vault:
    """One vault process."""

    repository: str
    socket: Path
    process: subprocess.Popen[bytes]
    deadline: float
    state: str = STARTING
    said: bytes = b""
    jobs: set[str] = field(default_factory=set)
    idle_since: float = field(default_factory=time.monotonic)


def _cause(kind: str, message: str, next_step: str) -> FailureCause:
    return FailureCause(kind, Problem.REPOSITORY, message, next_step)


class Vaults:
    """All vaults of this daemon, by repository name."""

    def __init__(self, home: Path, *, idle_s: float, start_s: float) -> None:
        self._home = home
        self._idle_s = idle_s
        self._start_s = start_s
        self._vaults: dict[str, Vault] = {}
        self._failed: dict[str, FailureCause] = {}

    def socket_for(self, repository_id: str) -> Path:
        """Return the socket path of a repository's vault."""
        return places.runtime_dir(self._home) / f"vault-{repository_id[:12]}.sock"

    def need(self, name: str, job_id: str) -> Vault | FailureCause | None:
        """Return the ready vault with ``job_id`` noted in it, why it failed, or None while
        it is starting; ``KeyError`` when there is none and :meth:`start` is to be called."""
        if name in self._failed:
            return self._failed.pop(name)
        vault = self._vaults[name]
        if vault.state != READY:
            return None
        vault.jobs.add(job_id)
        return vault

    def start(self, name: str, *, argv: Sequence[str], socket: Path, passphrase: str) -> None:
        """Start a vault; it becomes ready or fails later."""
        socket.unlink(missing_ok=True)
        with (places.log_dir(self._home) / f"vault-{name}.log").open("ab") as log:
            process = spawn(argv, stdout=subprocess.PIPE, stderr=log)
        give(process, passphrase.encode() + b"\n")
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        self._vaults[name] = Vault(name, socket, process, time.monotonic() + self._start_s)
        LOG.info("vault %s: started as process %d", name, process.pid)

    def release(self, job_id: str) -> None:
        """Note that a job no longer uses its vault."""
        for vault in self._vaults.values():
            if job_id in vault.jobs:
                vault.jobs.discard(job_id)
                vault.idle_since = time.monotonic()

    def step(self) -> None:
        """Look after all vaults; called often, never blocks."""
        for name, vault in list(self._vaults.items()):
            if vault.state == STARTING:
                self._read_ready(vault)
            code = vault.process.poll()
            if code is not None:
                self._ended(vault, code)
            elif vault.state == STARTING and time.monotonic() > vault.deadline:
                vault.process.kill()
                self._fail(name, _cause(
                    "vault-timeout", f"The vault of {name} did not start in time.",
                    f"See logs/vault-{name}.log; another program may hold the lock.",
                ))  # fmt: skip
                vault.state = STOPPING
            elif (
                vault.state == READY
                and not vault.jobs
                and (time.monotonic() - vault.idle_since > self._idle_s)
            ):
                LOG.info("vault %s: idle, ending", name)
                self._terminate(vault)

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
                vault.state, vault.idle_since = READY, time.monotonic()
                LOG.info("vault %s: ready", vault.repository)
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

    def _fail(self, name: str, cause: FailureCause) -> None:
        LOG.error("vault %s: %s", name, cause.message)
        self._failed[name] = cause

    def _terminate(self, vault: Vault) -> None:
        vault.state = STOPPING
        if vault.process.poll() is None:
            vault.process.send_signal(signal.SIGTERM)

    def _ended(self, vault: Vault, code: int) -> None:
        if vault.state == STARTING and vault.repository not in self._failed:
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
        """End all vaults and wait for them; they are killed after ``timeout_s``."""
        for vault in self._vaults.values():
            self._terminate(vault)
        deadline = time.monotonic() + timeout_s
        for vault in self._vaults.values():
            try:
                vault.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                LOG.error("vault %s: does not end, killed", vault.repository)
                vault.process.kill()
                vault.process.wait(5)
        self._vaults.clear()
