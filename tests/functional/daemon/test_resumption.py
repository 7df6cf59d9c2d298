"""A backup that was cut goes on where it was, by itself, and leaves nothing over."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import psutil
import pytest

from tests.functional.daemon.conftest import Cube

FILES, EACH = 48, 500_000
TOTAL = FILES * EACH
# What may be under way when the connection ends: pipes, frames, and a chunk or two in work.
UNDER_WAY = 4 << 20
pytestmark = pytest.mark.timeout(400)


def written(repository: Path) -> int:
    """Return how many bytes its segments have."""
    total = 0
    for path in repository.glob("data/*/*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total


def first_backup(cube: Cube, *extra: str) -> str:
    """Start the first backup of a tree of random files and return its job."""
    tree = cube.place / "tree"
    tree.mkdir()
    for number in range(FILES):
        (tree / f"{number:03d}").write_bytes(os.urandom(EACH))
    cube.ssh_client("alpha")
    cube.plan("tree", tree, client="alpha", extra=("--upload-ratelimit", "6000", *extra))
    return cube.begin("tree")


def wait_for_bytes(cube: Cube, job_id: str, share: float) -> None:
    """Wait until a share of all the bytes has reached the repository."""
    deadline = time.monotonic() + 90
    while written(cube.repository) < share * TOTAL:
        assert time.monotonic() < deadline, cube.call("job.show", id=job_id)
        time.sleep(0.005)


def clients_borg(cube: Cube, command: str = "create") -> psutil.Process:
    """Return the borg that runs on the client."""
    assert cube.sshd.pid is not None
    for process in psutil.Process(cube.sshd.pid).children(recursive=True):
        words = process.cmdline()
        if command in words:
            return process
    raise AssertionError("no borg runs on the client")


def nothing_is_left_over(cube: Cube, archives: int) -> None:
    assert cube.session_directories() == []
    cube.check_clean()
    listed = json.loads(cube.plain_borg("list", "--json", str(cube.repository)).stdout)
    names = [archive["name"] for archive in listed["archives"]]
    assert len(names) == archives and not any(".partial" in name for name in names), names


@pytest.mark.parametrize("share", [0.10, 0.50, 0.95])
def test_a_cut_connection_is_retried_and_uploads_only_what_is_missing(
    cube: Cube, share: float, record_property
) -> None:
    job_id = first_backup(cube, "--retries", "1", "--retry-delay", "2")
    wait_for_bytes(cube, job_id, share)
    cube.sshd.drop_connections()
    job = cube.ended(job_id)
    assert job["state"] == "failed" and job["cause"]["problem"] == "network", job["cause"]
    again = cube.until(str(int(job_id) + 1), lambda found: found["finished_at"])
    assert again["retry_of"] == job_id and again["state"] == "done", again["cause"]
    waited = again["started_at"] > again["not_before"] > again["created_at"]
    assert waited, again
    uploaded = again["result"]["bytes_received"]
    record_property("uploaded", uploaded)
    print(f"cut at {share:.0%} of {TOTAL}: the second run uploaded {uploaded} bytes")
    assert uploaded < (1 - share) * TOTAL + UNDER_WAY
    nothing_is_left_over(cube, archives=1)


def test_a_killed_borg_on_the_client_loses_nothing_that_was_sent(cube: Cube) -> None:
    job_id = first_backup(cube)
    wait_for_bytes(cube, job_id, 0.5)
    clients_borg(cube).kill()
    job = cube.ended(job_id)
    assert job["state"] == "failed" and job["cause"]["problem"] in ("client", "network"), job
    uploaded = cube.backup("tree")["result"]["bytes_received"]
    assert uploaded < TOTAL / 2 + UNDER_WAY
    nothing_is_left_over(cube, archives=1)


def test_a_cancelled_backup_is_used_by_the_next_one(cube: Cube) -> None:
    job_id = first_backup(cube)
    wait_for_bytes(cube, job_id, 0.5)
    cube.ok("job", "cancel", job_id)
    assert cube.ended(job_id)["state"] == "cancelled"
    assert cube.backup("tree")["result"]["bytes_received"] < TOTAL / 2 + UNDER_WAY
    nothing_is_left_over(cube, archives=1)
