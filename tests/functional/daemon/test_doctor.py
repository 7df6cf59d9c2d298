"""``borgcube doctor`` right after a failure that will repeat, and after it was seen to work."""

from __future__ import annotations

import pytest

from tests.functional.daemon.conftest import STOCK_BORG, Cube
from tests.functional.daemon.test_faults import failed, files

pytestmark = pytest.mark.timeout(300)


def says(cube: Cube, *words: str) -> bool:
    return any(all(word in one["message"] for word in words) for one in cube.call("doctor"))


def test_a_repository_that_is_not_there_is_named_until_it_works_again(cube: Cube) -> None:
    cube.local_client("here")
    cube.plan("tree", files(cube.place / "tree", count=1), client="here")
    cube.backup("tree")
    cube.stop()
    away = cube.repository.rename(cube.place / "away")
    cube.repository.mkdir(mode=0o700)  # as where a disk is not mounted
    cube.start()
    failed(cube.ended(cube.begin("tree")), "repository-missing", "repository")
    assert says(cube, "Repository main", "no Borg repository")
    cube.repository.rmdir()
    away.rename(cube.repository)
    assert says(cube, "Repository main", "no Borg repository")  # nobody has tried
    cube.stop()
    cube.start()
    assert says(cube, "Repository main", "no Borg repository")
    cube.backup("tree")
    assert not says(cube, "main")


def test_a_lock_that_somebody_left_is_named_until_it_is_gone(cube: Cube) -> None:
    cube.local_client("here")
    cube.plan("tree", files(cube.place / "tree", count=1), client="here")
    held = cube.repository / "lock.exclusive"
    held.mkdir()
    (held / "elsewhere@1234.99-0").touch()  # of another machine: Borg cannot tell if it lives
    job = cube.ended(cube.begin("tree"), timeout_s=110)
    failed(job, "repository-locked", "repository", "elsewhere@1234.99-0", "break-lock")
    assert says(cube, "Repository main", "holds the lock")
    (held / "elsewhere@1234.99-0").unlink()
    held.rmdir()
    cube.backup("tree")
    assert not says(cube, "main")


def test_a_client_without_borg_is_named_until_it_has_one(cube: Cube) -> None:
    cube.ssh_client("alpha", borg="/no/such/borg")
    cube.plan("tree", files(cube.place / "tree", count=1), client="alpha")
    failed(cube.ended(cube.begin("tree")), "borg-missing", "client")
    assert says(cube, "Client alpha", "no usable borg")
    done = cube.cli("doctor")
    assert done.returncode == 2 and "no usable borg" in done.stdout
    cube.ok("client", "set", "alpha", "--borg", STOCK_BORG)
    assert says(cube, "Client alpha")
    cube.backup("tree")
    assert not says(cube, "alpha")


def test_a_damaged_repository_is_not_the_fault_of_who_restores(cube: Cube) -> None:
    tree = files(cube.place / "tree", count=4)
    cube.ssh_client("alpha")
    cube.plan("tree", tree, client="alpha")
    archive = cube.backup("tree")["result"]["archive"]
    cube.stop()
    segment = max((cube.repository / "data").rglob("*"), key=lambda path: path.stat().st_size)
    with segment.open("r+b") as file:
        for number in range(1, 4):
            file.seek(number * segment.stat().st_size // 4)
            file.write(b"damage")
    cube.start()
    to = {"client": "alpha", "directory": str(cube.place / "back")}
    job_id = str(cube.call("restore.start", archive=archive, to_client=to)["job_id"])
    failed(cube.ended(job_id), "repository-damaged", "repository", "cannot be read")
    assert not [one for one in cube.call("events.since") if one["type"] == "client.violation"]
