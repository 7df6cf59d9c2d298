"""A repository on read-only storage is read all the same, and refuses writers in words."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functional.daemon.conftest import Cube
from tests.functional.daemon.test_faults import MIB, failed, files

pytestmark = pytest.mark.timeout(300)


@contextlib.contextmanager
def read_only(path: Path) -> Iterator[None]:
    """Mount a directory onto itself, read-only."""
    done = subprocess.run(
        ["mount", "--bind", str(path), str(path)], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"the kernel allows no mount here: {done.stderr.decode().strip()}")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(path)], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_read_only_repository_is_read_and_takes_no_backup(cube: Cube) -> None:
    tree = files(cube.place / "tree", count=3)
    cube.local_client("here")
    cube.plan("tree", tree, client="here")
    archive = cube.backup("tree")["result"]["archive"]
    with contextlib.ExitStack() as stack:
        cube.stop()
        stack.enter_context(read_only(cube.repository))
        cube.start()
        target = cube.place / "restored"
        cube.ok("restore", archive, "--to-dir", str(target), "--wait")
        back = target / str(tree).lstrip("/")
        for path in tree.iterdir():
            assert (back / path.name).read_bytes() == path.read_bytes()
        cube.ok("drill", "run", "--plan", "tree", "--wait")
        cube.ok("check", "run", "main", "--wait")
        got = subprocess.run(
            ["python3", "-m", "borgcube", "archive", "cat", archive, str(tree / "f0")],
            env=cube.env, capture_output=True, check=False, timeout=60,
        )  # fmt: skip
        assert got.stdout == (tree / "f0").read_bytes(), got.stderr
        # Writers are refused, each with the reason and what to do.
        (tree / "new").write_bytes(bytes(MIB))
        for job_id in (
            cube.begin("tree"),
            str(cube.call("archive.delete", names=[archive])["job_id"]),
            str(cube.call("compact.start", repository="main")["job_id"]),
            str(cube.call("job.start", type="borg-check", repository="main")["job_id"]),
        ):
            failed(cube.ended(job_id), "repository-read-only", "repository", "read-only")
        said = [one["message"] for one in cube.call("doctor") if "main" in one["message"]]
        assert len(said) == 1 and "is read-only" in said[0] and "restores" in said[0], said
    # What a job said of it stays until something was written.
    assert any("read-only" in one["message"] for one in cube.call("doctor")), cube.call("doctor")
    cube.backup("tree")
    assert not [one for one in cube.call("doctor") if "main" in one["message"]]
    cube.check_clean()


def test_a_lock_left_on_read_only_storage_keeps_nobody_from_reading(cube: Cube) -> None:
    tree = files(cube.place / "tree", count=2)
    cube.local_client("here")
    cube.plan("tree", tree, client="here")
    archive = cube.backup("tree")["result"]["archive"]
    cube.part("plugins.borg.vault.main").kill()
    cube.stop()
    assert (cube.repository / "lock.exclusive").exists()
    with read_only(cube.repository):
        cube.start()
        cube.ok("restore", archive, "--to-dir", str(cube.place / "restored"), "--wait")
        cube.stop()
    cube.start()
    cube.backup("tree")
    cube.check_clean()
