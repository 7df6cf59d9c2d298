"""With BorgCube stopped, plain borg does everything; afterwards BorgCube goes on from there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from borgcube.testing.nonces import Findings, read_segment, segment_files
from borgcube.testing.trees import compare_trees
from tests.functional.daemon.conftest import DEBIAN_BORG, STOCK_BORG, Cube

OWN, FRESH = "own", "fresh"
pytestmark = pytest.mark.timeout(400)


def base_of(cube: Cube, which: str) -> Path:
    """Return Borg's base directory: the one that BorgCube keeps, or another."""
    return cube.own_state_dir / "base" if which == OWN else cube.place / "plain"


def borg(
    cube: Cube, which: str, *words: str, program: str = STOCK_BORG, cwd: Path | None = None,
    **more: str,
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    assert cube.daemon is None
    env = {
        **cube.env, "BORG_PASSPHRASE": "correct horse", "BORG_BASE_DIR": str(base_of(cube, which)),
        **more,
    }  # fmt: skip
    return subprocess.run(
        [program, *words], env=env, cwd=cwd or cube.place, capture_output=True, text=True,
        timeout=110, check=False,
    )  # fmt: skip


def silent(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0 and not done.stderr.strip(), (done.args, done.stderr)
    return done.stdout


def tree_of(cube: Cube, name: str, *, files: int = 6) -> Path:
    tree = cube.place / name
    tree.mkdir()
    for number in range(files):
        (tree / f"f{number}").write_bytes(os.urandom(400_000))
    return tree


def two_clients(cube: Cube) -> dict[str, Path]:
    """Back up two clients twice each and stop the daemon."""
    trees = {name: tree_of(cube, name) for name in ("alpha", "beta")}
    cube.ssh_client("alpha")
    cube.local_client("beta")
    for name, tree in trees.items():
        cube.plan(name, tree, client=name)
    for _turn in range(2):
        for job_id in [cube.begin(name) for name in trees]:
            assert cube.ended(job_id)["state"] == "done"
        time.sleep(1.1)
    return trees


def names_of(cube: Cube, plan: str) -> list[str]:
    return [a["name"] for a in cube.call("archive.list") if a["plan"] == plan]


@pytest.mark.parametrize("which", [OWN, FRESH])
def test_every_command_of_plain_borg_works_without_a_word(cube: Cube, which: str) -> None:
    trees = two_clients(cube)
    newest = {plan: names_of(cube, plan)[0] for plan in trees}
    cube.stop()
    place = str(cube.repository)
    listed = json.loads(silent(borg(cube, which, "list", "--json", place)))
    assert len(listed["archives"]) == 4
    # "info" and "prune" need the reference counts; with our cache there is nothing to make.
    info = borg(cube, which, "--debug", "info", place)
    assert info.returncode == 0
    assert ("Synchronizing" in info.stderr) == (which == FRESH), info.stderr
    silent(borg(cube, which, "info", f"{place}::{newest['alpha']}"))
    for plan, tree in trees.items():
        out = cube.place / f"out-{plan}"
        out.mkdir()
        silent(borg(cube, which, "extract", f"{place}::{newest[plan]}", cwd=out))
        assert compare_trees(tree, out / str(tree).lstrip("/")) == []
    silent(borg(cube, which, "check", "--verify-data", place))
    (trees["alpha"] / "new").write_bytes(os.urandom(100_000))
    silent(borg(cube, which, "create", f"{place}::by-hand", str(trees["alpha"])))
    silent(borg(cube, which, "prune", "--keep-last", "1", "--glob-archives", "beta*", place))
    silent(borg(cube, which, "compact", "--threshold", "0", place))
    listed = json.loads(silent(borg(cube, which, "list", "--json", place)))
    assert len(listed["archives"]) == 4, listed["archives"]
    silent(borg(cube, which, "check", "--verify-data", place))


@pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="no FUSE here")
def test_an_archive_can_be_mounted(cube: Cube) -> None:
    tree = tree_of(cube, "alpha")
    cube.ssh_client("alpha")
    cube.plan("alpha", tree, client="alpha")
    archive = cube.backup("alpha")["result"]["archive"]
    cube.stop()
    point = cube.place / "mounted"
    point.mkdir()
    # Debian's borg has FUSE support; the one from the package index would have to build it.
    done = borg(
        cube, FRESH, "mount", f"{cube.repository}::{archive}", str(point), program=DEBIAN_BORG
    )
    if "fuse: mount failed" in done.stderr or "Operation not permitted" in done.stderr:
        pytest.skip(f"the kernel allows no mount here: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
    try:
        seen = point / str(tree).lstrip("/")
        for path in tree.iterdir():
            assert (seen / path.name).read_bytes() == path.read_bytes()
    finally:
        unmount = borg(cube, FRESH, "umount", str(point), program=DEBIAN_BORG)
    assert unmount.returncode == 0, unmount.stderr


def events_after(cube: Cube, seq: int, kind: str) -> list[dict[str, Any]]:
    found = cube.call("events.since", seq=seq)
    return [event["data"] for event in found if event["type"] == kind]


def last_seq(cube: Cube) -> int:
    seq = 0
    while found := cube.call("events.since", seq=seq):
        seq = found[-1]["seq"]
    return seq


@pytest.mark.parametrize("which", [OWN, FRESH])
def test_what_plain_borg_changed_is_noticed_and_backups_go_on(cube: Cube, which: str) -> None:
    trees = two_clients(cube)
    alpha, beta = names_of(cube, "alpha"), names_of(cube, "beta")
    seq = last_seq(cube)
    cube.stop()
    place = str(cube.repository)
    silent(borg(cube, which, "delete", place, *alpha))
    silent(borg(cube, which, "create", f"{place}::by-hand", str(trees["beta"])))
    silent(borg(cube, which, "compact", "--threshold", "0", place))
    cube.start()
    # All that alpha had is gone: nothing of it may be offered or taken for unchanged.
    result = cube.backup("alpha")["result"]
    assert result["bytes_received"] > 6 * 400_000
    assert {e["archive"] for e in events_after(cube, seq, "archive.deleted")} == set(alpha)
    added = {e["archive"]: e for e in events_after(cube, seq, "archive.added")}
    assert added["by-hand"]["job"] == added["by-hand"]["client"] == ""
    assert set(added) == {"by-hand", result["archive"]}
    assert {a["name"] for a in cube.call("archive.list")} == {*beta, "by-hand", result["archive"]}
    unchanged = cube.backup("beta")["result"]
    assert unchanged["bytes_received"] < 900_000, "what others left alone is still known"
    cube.check_clean()


def test_what_a_repair_lost_is_uploaded_again_and_heals_the_archives(cube: Cube) -> None:
    tree = tree_of(cube, "alpha")
    cube.ssh_client("alpha")
    cube.plan("alpha", tree, client="alpha")
    old = cube.backup("alpha")["result"]["archive"]
    time.sleep(1.1)
    cube.stop()
    _damage(cube)
    place = str(cube.repository)
    repair = borg(
        cube, FRESH, "check", "--repair", "--verify-data", place,
        BORG_CHECK_I_KNOW_WHAT_I_AM_DOING="YES",
    )  # fmt: skip
    assert repair.returncode in (0, 1), repair.stderr
    cube.start()
    again = cube.backup("alpha")["result"]
    assert again["bytes_received"] > 200_000, "the lost chunk was read and sent again"
    archives = {a["name"]: a for a in cube.call("archive.list")}
    assert set(archives) == {old, again["archive"]}
    assert archives[old]["plan"] == archives[old]["client"] == "alpha"
    assert archives[old]["job"] == "1"
    cube.stop()
    repair = borg(cube, FRESH, "check", "--repair", place, BORG_CHECK_I_KNOW_WHAT_I_AM_DOING="YES")
    assert repair.returncode in (0, 1), repair.stderr
    for name in (old, again["archive"]):
        out = cube.place / f"out-{name}"
        out.mkdir()
        silent(borg(cube, FRESH, "extract", f"{place}::{name}", cwd=out))
        assert compare_trees(tree, out / str(tree).lstrip("/")) == []
    silent(borg(cube, FRESH, "check", "--verify-data", place))
    cube.start()
    assert cube.backup("alpha")["state"] == "done"
    cube.check_clean()


def _damage(cube: Cube) -> None:
    """Change one byte in the largest object of the repository."""
    found = Findings()
    for path in segment_files(cube.repository):
        read_segment(path, found)
    largest = max(found.uses, key=lambda use: use.length)
    data = bytearray(largest.segment.read_bytes())
    data[largest.at + largest.length // 2] ^= 0xFF
    copy = largest.segment.with_suffix(".new")
    copy.write_bytes(data)
    shutil.move(copy, largest.segment)
