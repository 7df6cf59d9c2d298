"""A home of 0.1.0 is opened by this version: seven honest archives, three poisoned ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import pytest

from borgcube.testing.poisoned import HONEST, Poisoned, load
from tests.functional.daemon.conftest import Cube


@pytest.fixture
def poisoned(bare: Cube) -> Iterator[Poisoned]:
    found = load()
    bare.home, bare.repository = found.home, found.repository
    try:
        yield found
    finally:
        bare.stop()
        found.remove()


@pytest.mark.timeout(600)  # many commands, each a process, on a machine that may be busy
def test_the_poisoned_are_named_and_everything_else_can_be_pruned(
    bare: Cube, poisoned: Poisoned
) -> None:
    cube = bare
    shared = cube.home / "engines/borg"
    (counter,) = shared.glob("base/.config/borg/security/*/nonce")
    claimed, nonce = counter.parent.name, int(counter.read_text(), 16)
    assert nonce and (shared / claimed).is_dir()
    cube.start()
    cube.ok("retention", "add", "one", "--last", "1", "--undo", "0")
    for plan in (*HONEST, "mallory"):
        cube.ok("retention", "attach", "one", plan)
    job = cube.ended(cube.call("prune.start", repository="main")["job_id"], timeout_s=200)
    assert job["state"] == "warning", job["cause"]
    log = "\n".join(cube.call("job.log", id=job["id"])["lines"])
    assert "10 archives were not written by this version" in log
    assert any("looking through archives" in entry for entry in job["phases"])

    # What 0.1.0 kept by the ID that a repository claims is kept by our record: the counter of
    # nonces first of all, which went on from where it was.
    own = cube.state_dir() / "base/.config/borg/security" / claimed / "nonce"
    assert int(own.read_text(), 16) > nonce
    assert (cube.state_dir() / claimed / "domains").is_dir()
    assert not counter.exists() and not (shared / claimed).exists()
    assert not list(shared.glob(f"base/.cache/borg/{claimed}"))

    archives = {one["name"]: one for one in cube.call("archive.list")}
    bad = {name for name, one in archives.items() if one["quarantine"]}
    assert bad == set(poisoned.poisoned.values())
    (told,) = [one for one in cube.call("doctor") if "in quarantine" in one["message"]]
    assert all(name in told["message"] for name in bad)

    # What a policy had chosen before it was known is back, named, and nobody's business any more.
    job = cube.ended(cube.call("prune.start", repository="main")["job_id"], timeout_s=200)
    for name in bad:
        assert any(text.startswith(name) and "quarantine" in text for text in job["warnings"])
    left = [name for name in archives if name not in bad]
    assert sorted(archives[name]["client"] for name in left) == sorted(HONEST)
    plans = {one["name"]: one for one in json.loads(cube.ok("plan", "list", "--json"))}
    assert set(plans) == {*HONEST, "mallory"}

    cube.ok("archive", "delete", *sorted(bad), "--now", "--yes", "--wait", timeout_s=200)
    cube.check_clean()
    for name in left:
        done = cube.plain_borg("extract", "--list", f"{cube.repository}::{name}")
        assert done.returncode == 0, done.stderr
        found = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in cube.place.rglob("trees/*/*") if archives[name]["client"] in path.parts
        }  # fmt: skip
        assert found == poisoned.tree(name)
