"""A real daemon in a process of its own, with the fake plugin, and a plain client."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from borgcube.core.home import bus_endpoint, control_endpoint, init_home

ROOT = Path(__file__).parents[3]
CODE = (
    "import sys; from pathlib import Path; from borgcube.daemon.main import serve; "
    "sys.exit(serve(Path(sys.argv[1])))"
)
# The built-in plugins have names of their own; this daemon has only the fake ones.
DISABLED = [
    "borg",
    "backup",
    "restore",
    "prune",
    "transport_openssh",
    "transport_paramiko",
    "transport_local",
    "console",
]


class Refused(Exception):
    """An answer that is an error."""


class RunningDaemon:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.context = zmq.Context()
        self.start()

    def start(self) -> None:
        path = f"{ROOT}:{Path(__file__).parent / 'fakeplugin'}"
        self.process = subprocess.Popen(
            [sys.executable, "-c", CODE, str(self.home)],
            env={**os.environ, "PYTHONPATH": path},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.control = self.context.socket(zmq.DEALER)
        self.control.connect(control_endpoint(self.home))
        self.bus = self.context.socket(zmq.SUB)
        self.bus.subscribe(b"")
        self.bus.connect(bus_endpoint(self.home))
        self.call("ping")

    def call(self, method: str, **params: Any) -> Any:
        request = {"v": 1, "id": uuid.uuid4().hex, "method": method, "params": params}
        return self.exchange(json.dumps(request).encode())

    def exchange(self, payload: bytes) -> Any:
        self.control.send(payload)
        assert self.control.poll(15_000), "no answer"
        answer = json.loads(self.control.recv())
        if not answer["ok"]:
            raise Refused(answer["error"])
        return answer["result"]

    def ended(self, job_id: str, *, timeout_s: float = 20) -> dict[str, Any]:
        return self.until(job_id, lambda job: job["finished_at"], timeout_s=timeout_s)

    def until(self, job_id: str, condition: Any, *, timeout_s: float = 20) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            job = self.call("job.show", id=job_id)
            if condition(job):
                return job
            time.sleep(0.05)
        raise AssertionError(f"job stays {job}; {self.call('job.log', id=job_id)}")

    def published(self) -> list[tuple[str, dict[str, Any]]]:
        found = []
        while self.bus.poll(300):
            topic, payload = self.bus.recv_multipart()
            found.append((topic.decode(), json.loads(payload)))
        return found

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        code = self.process.wait(40)
        self.process.stderr.close()
        self.control.close(0)
        self.bus.close(0)
        return code


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    home = init_home(tmp_path / "home")
    (home / "borgcube.toml").write_text(
        f"[plugins]\ndisabled = {json.dumps(DISABLED)}\n"
        "[vault]\nidle_seconds = 1\n[daemon]\ngrace_seconds = 1\n"
    )
    running = RunningDaemon(home)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.stop()
        running.context.destroy(0)


@pytest.fixture
def backup(daemon: RunningDaemon, tmp_path: Path) -> Any:
    """Return a function that starts a backup whose job does what the comment says."""
    daemon.call("repository.create", name="main", path=str(tmp_path / "repo"), passphrase="right")
    daemon.call("client.add", name="web", transport="local")

    def start(comment: str = "", *, retries: int = 0, retry_delay_s: int = 0) -> str:
        plan = f"plan-{comment or 'plain'}"
        daemon.call(
            "plan.add",
            name=plan,
            client="web",
            repository="main",
            paths=["/etc"],
            comment=comment,
            retries=retries,
            retry_delay_s=retry_delay_s,
        )
        return daemon.call("backup.start", plan=plan)["job_id"]

    return start
