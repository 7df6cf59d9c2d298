"""SIGKILL of every process in the middle of a backup: nothing is lost, nothing is stuck."""

from __future__ import annotations

import os
import time

import psutil
import pytest

from tests.functional.daemon.conftest import Cube

PARTS = {
    "worker": "daemon.worker",
    "gate": "plugins.borg.gate.main",
    "vault": "plugins.borg.vault.main",
}


def _ready(cube: Cube) -> str:
    """Start a slow backup and return its job once it sends."""
    tree = cube.place / "tree"
    tree.mkdir()
    for number in range(8):
        (tree / str(number)).write_bytes(os.urandom(1 << 20))
    cube.ssh_client("alpha")
    cube.plan("good", tree, client="alpha")
    cube.plan("slow", tree, client="alpha", extra=("--upload-ratelimit", "1024"))
    job_id = cube.begin("slow")
    cube.transferring(job_id)
    return job_id


def _nothing_runs_on(cube: Cube) -> None:
    """Wait until no process of a session is left; the directory goes with the next run."""
    marks = ("/rsh", "borgcube-" + cube.call("ping")["server_id"])
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        left = [
            process.info["cmdline"]
            for process in psutil.process_iter(["cmdline"])
            if any(mark in " ".join(process.info["cmdline"] or ()) for mark in marks[1:])
        ]
        if not left:
            return
        time.sleep(0.2)
    raise AssertionError(f"still running on the client: {left}")


def _recovers(cube: Cube) -> None:
    _nothing_runs_on(cube)
    job = cube.backup("good")
    assert cube.session_directories() == []
    cube.check_clean()
    out = cube.plain_borg("extract", "--dry-run", f"{cube.repository}::{job['result']['archive']}")
    assert out.returncode == 0, out.stderr


@pytest.mark.parametrize("part", PARTS)
def test_killed_part_fails_the_job_with_its_cause(cube: Cube, part: str) -> None:
    job_id = _ready(cube)
    cube.part(PARTS[part]).kill()
    job = cube.ended(job_id)
    assert job["state"] == "failed"
    assert job["cause"]["kind"] and job["cause"]["message"], job
    assert job["cause"]["problem"] in ("server", "repository", "network"), job["cause"]
    _recovers(cube)


def test_killed_daemon_makes_the_job_lost(cube: Cube) -> None:
    job_id = _ready(cube)
    assert cube.daemon is not None
    cube.daemon.kill()
    cube.daemon.wait()
    cube.start()
    job = cube.ended(job_id)
    assert job["state"] == "lost"
    _recovers(cube)


def test_stopped_daemon_cancels_and_ends_cleanly(cube: Cube) -> None:
    job_id = _ready(cube)
    cube.stop()
    cube.start()
    assert cube.call("job.show", id=job_id)["state"] == "cancelled"
    _recovers(cube)


def test_cut_connection_is_named_and_reused(cube: Cube) -> None:
    job_id = _ready(cube)
    time.sleep(2)
    cube.sshd.drop_connections()
    job = cube.ended(job_id)
    assert job["state"] == "failed" and job["cause"]["problem"] == "network", job["cause"]
    _recovers(cube)
