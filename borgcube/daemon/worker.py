"""The worker: runs one job and reports to the daemon.

The order comes as JSON on standard input. A thread owns the socket: it sends what the job
reports and hears a cancellation; the job itself runs in the main thread.
"""

from __future__ import annotations

import json
import logging
import queue
import signal
import sys
import threading
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import zmq

from borgcube.core import config, hostkeys, memory
from borgcube.core import home as places
from borgcube.core.errors import (
    ARCHIVE_QUARANTINED,
    BorgCubeError,
    FailureCause,
    JobCancelled,
    JobFailed,
    Problem,
)
from borgcube.core.jobs import JobOrder, JobResult
from borgcube.core.registry import Registry
from borgcube.core.transports import Connection, TransportContext
from borgcube.daemon.joblog import JobLog

HOOKS = ("register_job_types", "register_transports", "register_engines")
PROGRESS_EVERY_S = 0.2
REPEAT_AFTER_S = 0.4
HEARTBEAT_S = 10.0
# What a worker may take: lists that are bounded elsewhere, streams, some threads.
MEMORY_BYTES = 2 << 30
# What a worker's own modules may say on its standard error, of what they meet on the network.
MAX_SAID = 1 << 20


class Said(logging.StreamHandler[TextIO]):
    """Standard error up to so many bytes: a server can make paramiko warn without end."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self._left = MAX_SAID

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or nothing any more."""
        if self._left > 0:
            self._left -= len(self.format(record).encode("utf-8", "replace")) + 1
            super().emit(record)


class Reporter(threading.Thread):
    """The thread that talks with the daemon."""

    def __init__(self, endpoint: str, identity: str) -> None:
        super().__init__(name="reporter", daemon=True)
        self.cancelled = threading.Event()
        self._endpoint = endpoint
        self._identity = identity.encode()
        self._outbox: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._figures: dict[str, Any] = {}
        self._fresh = False
        self._ending = threading.Event()
        self._lock = threading.Lock()

    def send(self, **message: Any) -> None:
        """Send a message soon, in order."""
        self._outbox.put(message)

    def figures(self, figures: dict[str, Any]) -> None:
        """Set the latest progress figures."""
        with self._lock:
            self._figures = {**self._figures, **figures}
            self._fresh = True

    def finish(self) -> None:
        """Send what is left and end (waits at most 10 seconds)."""
        self._ending.set()
        self.join(10)

    def run(self) -> None:
        """Send and hear until the end."""
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        socket = context.socket(zmq.DEALER)
        socket.setsockopt(zmq.IDENTITY, self._identity)
        socket.setsockopt(zmq.LINGER, 5000)
        socket.connect(self._endpoint)
        last = beat = time.monotonic()
        while True:
            ending = self._ending.is_set()
            while not self._outbox.empty():
                socket.send(json.dumps(self._outbox.get()).encode())
                beat = time.monotonic()
            now = time.monotonic()
            wait = PROGRESS_EVERY_S if self._fresh else REPEAT_AFTER_S
            if self._figures and (now - last >= wait or (ending and self._fresh)):
                with self._lock:
                    figures, self._fresh = self._figures, False
                socket.send(json.dumps({"type": "progress", "progress": figures}).encode())
                last = beat = now
            if now - beat > HEARTBEAT_S:
                socket.send(b'{"type":"heartbeat"}')
                beat = now
            if ending:
                break
            if socket.poll(50) and json.loads(socket.recv()).get("type") == "cancel":
                self.cancelled.set()
        socket.close()
        context.term()


class WorkerContext:
    """The JobContext of :mod:`borgcube.core.jobs`."""

    def __init__(self, start: dict[str, Any], registry: Registry, *, log: JobLog) -> None:
        self.order = JobOrder.from_data(start["order"])
        self.home = Path(start["home"])
        self.runtime_dir = Path(start["runtime_dir"])
        self._engine_name = self.order.repository.get("engine", "")
        self.state_dir = places.engine_state_dir(self.home, self._engine_name or "none")
        self._registry = registry
        self._log = log
        self._passphrase = str(start.get("passphrase") or "")
        self._connections: list[Connection] = []
        self.reporter = Reporter(start["endpoint"], f"{self.order.job_id}.{start['token']}")

    def phase(self, name: str) -> None:
        """Enter a phase."""
        self.log("info", f"phase: {name}")
        self.reporter.send(type="phase", phase=name)
        self.check_cancelled()

    def progress(self, **figures: Any) -> None:
        """Report figures."""
        self.reporter.figures(figures)

    def log(self, level: str, message: str, **fields: Any) -> None:
        """Write to the job's log."""
        self._log.write(level, message, fields)

    def check_cancelled(self) -> None:
        """Raise JobCancelled when the job is to stop."""
        if self.reporter.cancelled.is_set():
            raise JobCancelled("The job was cancelled.")

    def connect(self) -> Connection:
        """Log in to the order's client."""
        if self.order.client is None:
            raise JobFailed("no-client", Problem.CONFIGURATION, "This job has no client.")
        transport = self._registry.transports.get(self.order.client.transport)
        if transport is None:
            raise JobFailed(
                "transport-missing", Problem.CONFIGURATION,
                f"There is no transport {self.order.client.transport!r}.",
                next_step="See `borgcube plugins` for plugins in quarantine.",
            )  # fmt: skip
        connection: Connection = transport.connect(
            self.order.client,
            TransportContext(
                hostkeys.known_hosts_for(self.order.client, self.home, self.runtime_dir),
                self.runtime_dir,
            ),
        )
        self._connections.append(connection)
        return connection

    def passphrase(self) -> str:
        """Return the passphrase of the repository that this job has to itself."""
        if not self._passphrase:
            raise JobFailed(
                "no-passphrase", Problem.SERVER, "This job does not get the passphrase.",
                next_step="Only a job that has its repository alone does.",
            )  # fmt: skip
        return self._passphrase

    def engine(self) -> Any:
        """Return the engine of the order's repository."""
        engine = self._registry.engines.get(self._engine_name)
        if engine is None:
            raise JobFailed(
                "engine-missing", Problem.CONFIGURATION,
                f"There is no engine {self._engine_name!r}.",
                next_step="See `borgcube plugins` for plugins in quarantine.",
            )  # fmt: skip
        return engine

    def close(self) -> None:
        """End all logins."""
        for connection in self._connections:
            try:
                connection.close()
            except Exception as error:
                self.log("warning", f"closing the connection: {error}")


def run_job(context: WorkerContext, registry: Registry) -> JobResult:
    """Run the job type to a result, whatever happens in it."""
    result = _run(context, registry)
    if result.cause is not None and result.cause.kind == ARCHIVE_QUARANTINED:
        try:
            found = context.engine().quarantined(Path(context.order.vault_socket))
            result.quarantined, result.looked_through = dict(found[0]), found[1]
        except Exception as error:
            context.log("warning", f"which archives are in quarantine is not known: {error}")
    return result


def _run(context: WorkerContext, registry: Registry) -> JobResult:
    violations: list[dict[str, str]] = []
    try:
        job_type = registry.job_types.get(context.order.type)
        if job_type is None:
            raise JobFailed(
                "job-type-missing", Problem.CONFIGURATION,
                f"There is no job type {context.order.type!r}.",
                next_step="See `borgcube plugins` for plugins in quarantine.",
            )  # fmt: skip
        result: JobResult = job_type.run(context)
        return result
    except JobCancelled:
        return JobResult(state="cancelled")
    except JobFailed as error:
        cause = error.cause
        violations = [error.violation.as_data()] if error.violation else []
    except BorgCubeError as error:
        cause = FailureCause("refused", Problem.SERVER, error.message, error.next_step)
    except MemoryError:
        cause = FailureCause(
            "worker-memory", Problem.SERVER,
            f"The job needed more than the {MEMORY_BYTES >> 20} MiB of memory that a worker has.",
            "Run it again. If it ends like this again, please report it.",
        )  # fmt: skip
    except Exception as error:
        context.log("error", traceback.format_exc())
        cause = FailureCause(
            "internal-error", Problem.SERVER,
            f"BorgCube made a mistake ({type(error).__name__}).",
            f"See `borgcube job log {context.order.job_id}`.",
        )  # fmt: skip
    if context.reporter.cancelled.is_set():
        # What broke because of the cancellation is not a failure of its own.
        return JobResult(state="cancelled", violations=violations)
    context.log("error", f"{cause.message} {cause.next_step}".strip())
    return JobResult(state="failed", cause=cause, violations=violations)


def main() -> int:
    """Read the order, run the job, report."""
    start = json.loads(sys.stdin.buffer.read())
    sys.stdin.close()
    memory.limit(MEMORY_BYTES)
    logging.basicConfig(handlers=[Said()], level=logging.WARNING)
    home = Path(start["home"])
    log = JobLog(places.job_dir(home, start["order"]["job_id"]), start["log_max_bytes"])
    settings = config.load(home)
    registry = Registry.load(disabled=settings.plugins.disabled, hooks=HOOKS)
    context = WorkerContext(start, registry, log=log)
    signal.signal(signal.SIGTERM, lambda *_: context.reporter.cancelled.set())
    context.reporter.send(type="hello")
    context.reporter.start()
    try:
        result = run_job(context, registry)
    finally:
        context.close()
    context.log("info", f"ended: {result.state}")
    context.reporter.send(type="result", result=asdict(result))
    context.reporter.finish()
    log.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
