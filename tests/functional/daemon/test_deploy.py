"""Clients without a borg: the server sends a fitting one along, and nothing of it stays."""

from __future__ import annotations

import json
import os
import tarfile
import time
from pathlib import Path

import psutil
import pytest

from borgcube.testing.trees import compare_trees, make_nasty_tree
from tests.functional.daemon.conftest import Cube


@pytest.mark.timeout(600)
def test_client_without_borg_is_backed_up_and_restored(cube: Cube) -> None:
    tree = cube.place / "tree"
    make_nasty_tree(tree, big_bytes=6 << 20, small_files=50)
    time.sleep(0.1)
    (tree / "newest").write_text("Borg never trusts the newest file\n")
    cube.ssh_client("alpha", borg="deploy")
    cube.plan("tree", tree, client="alpha", extra=("--upload-ratelimit", "2000"))
    built = json.loads(cube.ok("borg", "build", "--json", timeout_s=400))
    assert built["platform"].startswith("linux-") and built["bytes"] > 5 << 20
    # It has what Borg runs at its start to test itself, and nothing that only developers run.
    with tarfile.open(built["path"]) as tar:
        parts = {name.split("/")[2] for name in tar.getnames() if name.count("/") > 1}
    assert "msgpack" in parts and not parts & {"setuptools", "pytest", "pkg_resources"}
    assert "sent along" in cube.ok("client", "test", "alpha")
    job_id = cube.begin("tree")
    cube.transferring(job_id)
    (directory,) = cube.session_directories()
    assert cube.sshd.pid is not None
    running = psutil.Process(cube.sshd.pid).children(recursive=True)
    assert any(Path(process.exe()).is_relative_to(directory) for process in running)
    first = cube.ended(job_id)
    assert first["state"] == "done", first["cause"]
    assert cube.session_directories() == []
    time.sleep(1.1)
    again = cube.backup("tree")["result"]
    assert again["files"] == first["result"]["files"] and again["bytes_received"] < 200_000
    target = cube.place / "restored"
    cube.ok("restore", again["archive"], "--to-client", f"alpha:{target}", "--wait")
    assert compare_trees(tree, target / str(tree).lstrip("/")) == []
    assert cube.session_directories() == []
    assert "--borg" not in cube.ok("borg", "list")
    cube.check_clean()


def test_borg_of_another_platform_is_stored_and_does_not_fit(cube: Cube) -> None:
    program = cube.place / "borg-freebsd"
    program.write_bytes(b"\x7fELF not for here")
    made = json.loads(
        cube.ok(
            *("borg", "add", str(program), "--platform", "freebsd-riscv64"),
            *("--borg-version", "1.4.5", "--json"),
        )
    )
    with tarfile.open(made["path"]) as tar:
        member = tar.getmember("borg/borg")
    assert member.mode & 0o777 == 0o755 and member.size == program.stat().st_size
    assert "freebsd-riscv64" in cube.ok("borg", "list")
    for wrong in ("Linux", "linux-x86_64-glibc", "../../x-y", ""):
        cube.refused("borg", "add", str(program), "--platform", wrong, "--borg-version", "1")
    cube.refused("borg", "add", "/nowhere", "--platform", "linux-mips", "--borg-version", "1")
    stored = sorted(os.listdir(cube.home / "engines" / "borg" / "binaries"))
    assert stored == ["freebsd-riscv64", "lock"]
