"""The workers: spawns one for each running job, hears what it reports, reaps it.

What a worker says is checked against the token it was given; states are changed by the
dispatcher, through the callbacks given here.
"""

from __future__ import annotations

import hmac
import json
import logging
import secrets
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import zmq

from borgcube.core import drills
from borgcube.core import home as places
from borgcube.core.jobs import JobOrder
from borgcube.daemon.spawn import give, spawn

LOG = logging.getLogger(__name__)
MAX_MESSAGE = 16 << 20  # a result may carry the facts of many archives


class Listener(Protocol):
    """Who acts on what workers report."""

    def worker_hello(self, job_id: str) -> None:
        """The worker runs."""

    def worker_phase(self, job_id: str, phase: str) -> None:
        """The job entered a phase."""

    def worker_progress(self, job_id: str, figures: dict[str, Any]) -> None:
        """Figures of the job."""

    def worker_ended(self, job_id: str, result: dict[str, Any] | None, code: int) -> None:
        """The process is gone; ``result`` is what it reported before, if anything."""


@dataclass
class Worker:
    """One worker process."""

    job_id: str
    token: str
    process: subprocess.Popen[bytes]
    runtime_dir: Path
    address: bytes = b""
    result: dict[str, Any] | None = None
    kill_at: float = 0.0
    cancelled: bool = False
    reported: float = field(default_factory=time.monotonic)
    exited: float = 0.0


class Supervisor:
    """All workers of this daemon, by job ID."""

    def __init__(self, home: Path, socket: zmq.Socket[bytes], listener: Listener) -> None:
        self._home = home
        self._socket = socket
        self._listener = listener
        self._workers: dict[str, Worker] = {}

    def __len__(self) -> int:
        return len(self._workers)

    def start(self, order: JobOrder, *, log_max_bytes: int, passphrase: str = "") -> None:
        """Spawn the worker of a job. ``passphrase``, of a repository that it has to itself,
        goes with the order to its standard input and nowhere else."""
        runtime = places.runtime_dir(self._home) / f"job-{order.job_id}"
        shutil.rmtree(runtime, ignore_errors=True)
        places.private_directory(runtime)
        directory = places.job_dir(self._home, order.job_id)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        token = secrets.token_hex(16)
        with (directory / "worker.err").open("ab") as errors:
            process = spawn(
                [sys.executable, "-m", "borgcube.daemon.worker"],
                stdout=subprocess.DEVNULL, stderr=errors,
            )  # fmt: skip
        start = {
            "order": order.as_data(),
            "token": token,
            "endpoint": places.workers_endpoint(self._home),
            "home": str(self._home),
            "runtime_dir": str(runtime),
            "log_max_bytes": log_max_bytes,
            "passphrase": passphrase,
        }
        give(process, json.dumps(start).encode())
        self._workers[order.job_id] = Worker(order.job_id, token, process, runtime)

    def cancel(self, job_id: str, *, grace_s: float) -> None:
        """Ask a worker to stop; SIGTERM follows after ``grace_s``, then SIGKILL."""
        worker = self._workers.get(job_id)
        if worker is None or worker.cancelled:
            return
        worker.cancelled = True
        worker.kill_at = time.monotonic() + grace_s
        if worker.address:
            self._send_cancel(worker)

    def _send_cancel(self, worker: Worker) -> None:
        try:
            message = [worker.address, json.dumps({"type": "cancel"}).encode()]
            self._socket.send_multipart(message, zmq.NOBLOCK)
        except zmq.ZMQError:
            pass  # it is going or gone; the signal follows

    def receive(self) -> None:
        """Take all waiting messages."""
        while True:
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            worker = self._sender(frames[0])
            if worker is None or len(frames) != 2:
                LOG.warning("a message of an unknown worker was dropped")
                continue
            try:
                self._handle(worker, frames[0], json.loads(frames[1]))
            except (ValueError, KeyError, TypeError, AttributeError):
                LOG.exception("job %s: a bad message of its worker", worker.job_id)

    def _sender(self, address: bytes) -> Worker | None:
        job_id, _, token = address.decode("ascii", "replace").partition(".")
        worker = self._workers.get(job_id)
        if worker and hmac.compare_digest(token.encode(), worker.token.encode()):
            return worker
        return None

    def _handle(self, worker: Worker, address: bytes, message: dict[str, Any]) -> None:
        worker.reported = time.monotonic()
        kind = message["type"]
        if kind == "hello":
            worker.address = address
            self._listener.worker_hello(worker.job_id)
            if worker.cancelled:
                self._send_cancel(worker)
        elif kind == "phase":
            self._listener.worker_phase(worker.job_id, str(message["phase"])[:100])
        elif kind == "progress":
            self._listener.worker_progress(worker.job_id, dict(message["progress"]))
        elif kind == "result":
            worker.result = dict(message["result"])

    def step(self) -> None:
        """Reap what ended and push what does not want to end."""
        now = time.monotonic()
        for worker in list(self._workers.values()):
            code = worker.process.poll()
            if code is None:
                if worker.kill_at and now > worker.kill_at:
                    overdue = now > worker.kill_at + 10
                    worker.process.kill() if overdue else worker.process.terminate()
                continue
            # Its last message may still be on the way through the socket.
            worker.exited = worker.exited or now
            if worker.result is None and now - worker.exited < 0.5:
                continue
            try:
                self._listener.worker_ended(worker.job_id, worker.result, code)
            except Exception:
                # It stays, and is told again: a job whose end nobody took would never end.
                LOG.exception("job %s: its end was not taken", worker.job_id)
                continue
            del self._workers[worker.job_id]
            shutil.rmtree(worker.runtime_dir, ignore_errors=True)
            drills.clear_scratch_later(self._home, worker.job_id)

    def stop_all(self, *, grace_s: float) -> None:
        """Cancel every worker; the caller goes on calling receive and step."""
        for job_id in list(self._workers):
            self.cancel(job_id, grace_s=grace_s)
