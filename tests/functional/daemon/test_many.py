"""Eight clients at the same time in one repository, in mixed states: promise 6."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from borgcube.testing.trees import compare_trees, make_mixed
from tests.functional.daemon.conftest import STOCK_BORG, Cube

MIB = 1 << 20
SHARED = os.urandom(2 * MIB)
FIRST = ("first-1", "first-2", "first-3")
UNCHANGED = ("same-1", "same-2")
CANCELLED = ("stop-1",)
# Of these borg on the client dies, or does what no backup does.
FAILING = {
    "fail-1": f'#!/bin/sh\n[ "$1" = --version ] && exec {STOCK_BORG} --version\nexit 3\n',
    "fail-2": (
        f"#!/bin/sh\nfor a; do shift; case $a in *::*) a=${{a%%::*}}::mine;; esac; "
        f'set -- "$@" "$a"; done\nexec {STOCK_BORG} "$@"\n'
    ),
}
ALL = (*FIRST, *UNCHANGED, *CANCELLED, *FAILING)
SLOW = ("--upload-ratelimit", "600")


def grow(tree: Path, seed: int) -> Path:
    """Make data of which a part is the same at every client."""
    make_mixed(tree, 3 * MIB, seed=seed)
    (tree / "shared").write_bytes(SHARED)
    (tree / "own").write_bytes(os.urandom(2 * MIB))
    return tree


def test_eight_clients_in_mixed_states_each_end_as_they_should(cube: Cube) -> None:
    cube.stop()
    (cube.home / "borgcube.toml").write_text("[jobs]\nmax_running = 8\n")
    cube.start()
    trees = {name: grow(cube.place / name, seed // 2) for seed, name in enumerate(ALL)}
    for name, tree in trees.items():
        borg = STOCK_BORG
        if name in FAILING:
            program = cube.place / f"borg-{name}"
            program.write_text(FAILING[name])
            program.chmod(0o755)
            borg = str(program)
        cube.ssh_client(name, borg=borg)
        cube.plan(name, tree, client=name, extra=SLOW)
    before = {name: cube.backup(name)["result"]["archive"] for name in UNCHANGED}
    (trees["stop-1"] / "much").write_bytes(os.urandom(40 * MIB))
    ids = {name: cube.begin(name) for name in ALL}
    for name in FIRST:
        cube.until(ids[name], lambda job: job["started_at"])
    for name in CANCELLED:
        cube.transferring(ids[name])
        cube.call("job.cancel", id=ids[name])
    jobs = {name: cube.ended(job_id, timeout_s=300) for name, job_id in ids.items()}
    for name in (*FIRST, *UNCHANGED):
        assert jobs[name]["state"] == "done", jobs[name]["cause"]
    for name in CANCELLED:
        assert jobs[name]["state"] == "cancelled"
    for name in FAILING:
        assert (jobs[name]["state"], jobs[name]["cause"]["problem"]) == ("failed", "client")
    for name in UNCHANGED:
        assert jobs[name]["result"]["bytes_received"] < MIB, "unchanged data was sent again"
    long = [jobs[name] for name in (*FIRST, *CANCELLED)]
    begun, over = [job["started_at"] for job in long], [job["finished_at"] for job in long]
    assert max(begun) < min(over), "they did not overlap"
    made = {name: jobs[name]["result"]["archive"] for name in (*FIRST, *UNCHANGED)}
    listed = {archive["name"] for archive in cube.call("archive.list")}
    assert listed == {*made.values(), *before.values()}
    assert cube.session_directories() == []
    cube.check_clean()
    for name, archive in (*made.items(), *before.items()):
        done = cube.plain_borg("extract", f"{cube.repository}::{archive}")
        assert done.returncode == 0, done.stderr
        restored = cube.place / str(trees[name]).lstrip("/")
        assert compare_trees(trees[name], restored) == []
        shutil.rmtree(restored)
