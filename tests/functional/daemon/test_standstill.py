"""Processes and disks that stand still: nobody else is blamed, and nobody waits for ever."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from borgcube.testing.fakedisk import Disk
from tests.functional.daemon.conftest import Cube, set_up
from tests.functional.daemon.test_faults import MIB, failed, files, whole
from tests.functional.daemon.test_resumption import clients_borg, written

pytestmark = pytest.mark.timeout(300)
PARTS = {"vault": "plugins.borg.vault.main", "gate": "plugins.borg.gate.main"}
IDLE = ("--upload-ratelimit", "2000", "--idle-timeout", "3")


@contextlib.contextmanager
def stopped(process: psutil.Process) -> Iterator[None]:
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGCONT)


def violations(cube: Cube) -> list[dict[str, Any]]:
    return [one for one in cube.call("events.since") if one["type"] == "client.violation"]


def hang_after(cube: Cube, seconds: int) -> None:
    """Restart the daemon with another deadline for vaults that stand still."""
    cube.stop()
    config = cube.home / "borgcube.toml"
    config.write_text(
        config.read_text().replace("[vault]\n", f"[vault]\nhang_seconds = {seconds}\n", 1)
    )
    cube.start()


@pytest.mark.parametrize("part", PARTS)
def test_no_client_is_silent_while_the_server_stands_still(cube: Cube, part: str) -> None:
    tree = files(cube.place / "tree", count=8)
    cube.ssh_client("alpha")
    cube.plan("tree", tree, client="alpha", extra=IDLE)
    job_id = cube.begin("tree")
    cube.transferring(job_id)
    with stopped(cube.part(PARTS[part])):
        time.sleep(8)
    job = cube.ended(job_id)
    assert job["state"] == "done", job["cause"]
    assert violations(cube) == []
    whole(cube, [job["result"]["archive"]])


@pytest.fixture
def disk(bare: Cube) -> Disk:
    """The disk of the vault's repository; the daemon runs on another."""
    disk = Disk(bare.place / "disk", processes="borg.vault.main")
    bare.more_env = disk.environment
    set_up(bare)
    return disk


def test_no_client_is_silent_while_the_server_commits_slowly(bare: Cube, disk: Disk) -> None:
    """A commit that takes long although it moves: no hang, no silence, no violation."""
    cube = bare
    hang_after(cube, 10)
    tree = files(cube.place / "tree", count=6)
    cube.ssh_client("alpha")
    cube.plan("tree", tree, client="alpha", extra=IDLE)
    job_id = cube.begin("tree")
    cube.transferring(job_id)
    before = disk.waits
    with disk.slow():
        cube.until(job_id, lambda job: disk.waits > before)
        time.sleep(15)
        job = cube.call("job.show", id=job_id)
        assert job["state"] == "running", job["cause"]
    job = cube.ended(job_id)
    assert job["state"] == "done", job["cause"]
    assert violations(cube) == []


@pytest.mark.parametrize("how", ["disk", "stopped"])
def test_a_vault_that_hangs_is_noticed_and_named(bare: Cube, disk: Disk, how: str) -> None:
    cube = bare
    hang_after(cube, 5)
    tree = files(cube.place / "tree", count=4)
    cube.ssh_client("alpha")
    cube.plan("tree", tree, client="alpha", extra=IDLE)
    if how == "disk":
        with disk.hung():
            job = cube.ended(cube.begin("tree"), timeout_s=40)
        said = "waits for its storage"
    else:
        job_id = cube.begin("tree")
        cube.transferring(job_id)
        with stopped(cube.part(PARTS["vault"])):
            job = cube.ended(job_id, timeout_s=30)
        said = "is stopped"
    failed(job, "vault-hung", "repository", said)
    assert violations(cube) == []
    assert any(said in one["message"] for one in cube.call("doctor")), cube.call("doctor")
    done = cube.backup("tree")
    assert not [one for one in cube.call("doctor") if "main" in one["message"]]
    whole(cube, [done["result"]["archive"]])


@pytest.mark.parametrize("how", ["disk", "stopped"])
def test_a_job_of_a_vault_that_hangs_is_cancelled_in_seconds(
    bare: Cube, disk: Disk, how: str
) -> None:
    cube = bare
    tree = files(cube.place / "tree", count=8)
    cube.ssh_client("alpha")
    cube.plan("tree", tree, client="alpha", extra=("--upload-ratelimit", "2000"))
    job_id = cube.begin("tree")
    cube.transferring(job_id)
    deadline = time.monotonic() + 60
    while written(cube.repository) < 3 * MIB:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    vault = cube.part(PARTS["vault"])
    with disk.hung() if how == "disk" else stopped(vault):
        if how == "disk":
            clients_borg(cube).kill()  # so that the vault commits what it has
            disk.wait_until_used()
        began = time.monotonic()
        cube.call("job.cancel", id=job_id)
        assert cube.ended(job_id, timeout_s=30)["state"] == "cancelled"
        assert time.monotonic() - began < 20
        # And so does the daemon end, which waits for vaults that move.
        job_id = cube.begin("tree")
        time.sleep(1)
        began = time.monotonic()
        cube.stop()
        assert time.monotonic() - began < 30
    cube.more_env = {}
    cube.start()
    cube.backup("tree")
    assert written(cube.repository) > 7 * MIB
    cube.check_clean()


def test_a_gate_that_hangs_is_not_the_clients_fault(cube: Cube) -> None:
    tree = files(cube.place / "tree", count=8)
    cube.ssh_client("alpha")
    cube.plan("tree", tree, client="alpha", extra=IDLE)
    job_id = cube.begin("tree")
    cube.transferring(job_id)
    with stopped(cube.part(PARTS["gate"])):
        began = time.monotonic()
        cube.call("job.cancel", id=job_id)
        assert cube.ended(job_id)["state"] == "cancelled" and time.monotonic() - began < 15
    assert violations(cube) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_borg_that_is_killed_on_the_client_is_named_and_tried_again(
    cube: Cube, number: signal.Signals
) -> None:
    tree = files(cube.place / "tree", count=8)
    cube.ssh_client("alpha")
    extra = ("--upload-ratelimit", "2000", "--retries", "1", "--retry-delay", "0")
    cube.plan("tree", tree, client="alpha", extra=extra)
    job_id = cube.begin("tree")
    cube.transferring(job_id)
    clients_borg(cube).send_signal(number)
    job = cube.ended(job_id)
    failed(job, "borg-killed", "client", number.name, "goes on from here")
    again = cube.ended(str(int(job_id) + 1))
    assert (again["state"], again["retry_of"]) == ("done", job_id), again
    assert violations(cube) == []
    whole(cube, [again["result"]["archive"]])


def test_a_restore_whose_borg_is_killed_is_not_done(cube: Cube) -> None:
    tree = files(cube.place / "tree", count=40)
    cube.ssh_client("alpha")
    cube.plan("tree", tree, client="alpha")
    archive = cube.backup("tree")["result"]["archive"]
    target = cube.place / "back"
    to = {"client": "alpha", "directory": str(target)}
    job_id = str(cube.call("restore.start", archive=archive, to_client=to)["job_id"])
    deadline = time.monotonic() + 60
    while not target.exists() or not any(target.rglob("f*")):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    clients_borg(cube, "extract").kill()
    failed(cube.ended(job_id), "borg-killed", "client", "SIGKILL")
