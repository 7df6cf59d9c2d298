"""Who reads a file of an archive holds its vault, and no longer than they read."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from borgcube.core.errors import Unreadable
from borgcube.core.model import Job
from borgcube.core.store import Store
from borgcube.daemon.reads import Reads
from tests.unit.daemon.conftest import Refused, RunningDaemon

READER = "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_SH); input()"


def wait_for(look: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not look():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


def download(daemon: RunningDaemon, passphrase: str = "right") -> dict[str, str]:
    daemon.call("repository.import", name="old", path=f"{daemon.home}/old", passphrase=passphrase)
    found: dict[str, str] = daemon.call("archive.download", repository="old", id="e1", key="a")
    return found


def vaults(daemon: RunningDaemon) -> list[str]:
    log = (daemon.home / "logs" / "borgcubed.log").read_text()
    return [line for line in log.splitlines() if "vault old: idle, ending" in line]


def test_a_vault_stays_for_as_long_as_its_reader_lives(daemon: RunningDaemon) -> None:
    held = download(daemon)
    assert held["engine"] == "fake" and Path(held["socket"]).exists()
    with subprocess.Popen(
        [sys.executable, "-c", READER, held["lock"]], stdin=subprocess.PIPE
    ) as reader:
        locked = f":{os.stat(held['lock']).st_ino} "
        wait_for(lambda: locked in Path("/proc/locks").read_text())
        # Other readers come and go meanwhile, and a vault ends after a second without any.
        until = time.monotonic() + 2
        while time.monotonic() < until:
            daemon.call("ping")
            time.sleep(0.1)
        assert Path(held["lock"]).exists() and not vaults(daemon)
        reader.kill()
    wait_for(lambda: not Path(held["lock"]).exists())
    wait_for(lambda: vaults(daemon))


def test_there_are_no_more_than_four_readers_and_a_vault_that_fails_says_why(
    daemon: RunningDaemon,
) -> None:
    with pytest.raises(Refused, match="The passphrase is wrong"):
        download(daemon, "wrong")
    daemon.call("repository.remove", name="old")
    download(daemon)
    for _ in range(3):
        daemon.call("archive.download", repository="old", id="e1", key="a")
    with pytest.raises(Refused, match="4 files are being read already"):
        daemon.call("archive.download", repository="old", id="e1", key="a")
    with pytest.raises(Refused, match="no archive"):
        daemon.call("archive.download", repository="old", id="e2", key="a")


def test_nobody_reads_while_a_job_has_the_repository_to_itself(tmp_path: Path) -> None:
    kinds = {
        "borg-check": SimpleNamespace(needs_repository_alone=True), "backup": SimpleNamespace()
    }  # fmt: skip
    reads = Reads(
        tmp_path, registry=SimpleNamespace(job_types=kinds), vaults=None, start=None, start_s=1
    )
    store = Store.open("memory://")
    with store.transact() as root:
        for kind, repository, state in (
            ("borg-check", "main", "running"), ("borg-check", "other", "queued"),
            ("backup", "other", "running"),
        ):  # fmt: skip
            root.jobs.add(Job(type=kind, repository=repository, state=state))
        with pytest.raises(Unreadable, match="has the repository to itself"):
            reads.check(root, "main")
        reads.check(root, "other")
    store.close()
