"""A ``borg check`` that does not come to its end leaves no process and no lock."""

from __future__ import annotations

import os
import time

import psutil
import pytest

from tests.functional.daemon.conftest import Cube
from tests.functional.daemon.test_faults import failed

pytestmark = pytest.mark.timeout(300)
CHUNKS = 30_000  # each takes borg check some time, whatever the disk does


def borg_check(cube: Cube) -> psutil.Process | None:
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "check" in words and str(cube.repository) in words and any(
            word.endswith("/borg") for word in words
        ):  # fmt: skip
            return process
    return None


def locks(cube: Cube) -> list[str]:
    places = [cube.repository, *(cube.own_state_dir / "base/.cache/borg").glob("*")]
    return [str(one) for place in places for one in place.glob("lock.*")]


def checking(cube: Cube) -> tuple[str, psutil.Process]:
    """Start a check that takes long; return its job and its borg, which holds the lock."""
    cube.stop()
    source = cube.place / "source"
    source.write_bytes(os.urandom(CHUNKS * 512))
    done = cube.plain_borg(
        "create", "--chunker-params", "fixed,512", f"{cube.repository}::many", str(source)
    )
    assert done.returncode == 0, done.stderr
    cube.start()
    job_id = str(cube.call("check.start", repository="main", kind="borg", full=True)["job_id"])
    deadline = time.monotonic() + 60
    while (borg := borg_check(cube)) is None or not (cube.repository / "lock.exclusive").exists():
        assert time.monotonic() < deadline, cube.call("job.show", id=job_id)
        time.sleep(0.05)
    return job_id, borg


@pytest.mark.parametrize("how", ["cancelled", "hanging", "worker", "daemon", "borg"])
def test_a_check_that_is_cut_short_leaves_nothing(cube: Cube, how: str) -> None:
    job_id, borg = checking(cube)
    began = time.monotonic()
    if how == "hanging":
        borg.suspend()  # it says nothing more, as on a disk that does not answer
    if how in ("cancelled", "hanging"):
        cube.call("job.cancel", id=job_id)
        assert cube.ended(job_id)["state"] == "cancelled"
    elif how == "worker":
        cube.part("daemon.worker").kill()
        failed(cube.ended(job_id), "worker-died", "server")
    elif how == "daemon":
        assert cube.daemon is not None
        cube.daemon.kill()
        cube.daemon.wait()
        cube.daemon = None
    else:
        borg.kill()
        failed(cube.ended(job_id), "borg-killed", "server", "SIGKILL")
    while borg.is_running() and borg.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() - began < 20, "borg goes on"
        time.sleep(0.05)
    time.sleep(0.5)
    assert locks(cube) == []
    if cube.daemon is None:
        cube.start()
    job = str(cube.call("check.start", repository="main", kind="borg", budget_s=1)["job_id"])
    assert cube.ended(job)["state"] == "done"
