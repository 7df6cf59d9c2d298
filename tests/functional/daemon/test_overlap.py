"""Two clients at the same time in one repository."""

from __future__ import annotations

import os

from borgcube.testing.trees import compare_trees, make_mixed
from tests.functional.daemon.conftest import Cube


def test_two_clients_overlap_and_both_archives_are_whole(cube: Cube) -> None:
    trees = {"alpha": cube.place / "a", "beta": cube.place / "b"}
    for seed, tree in enumerate(trees.values()):
        make_mixed(tree, 6 << 20, seed=seed)
        (tree / "shared").write_bytes(b"shared" * 400_000)
        (tree / "own").write_bytes(os.urandom(3 << 20))
    cube.ssh_client("alpha")
    cube.local_client("beta")
    for name, tree in trees.items():
        cube.plan(name, tree, client=name, extra=("--upload-ratelimit", "2048"))
    ids = [cube.begin(name) for name in trees]
    jobs = [cube.ended(job_id) for job_id in ids]
    assert [job["state"] for job in jobs] == ["done", "done"]
    begun, over = [j["started_at"] for j in jobs], [j["finished_at"] for j in jobs]
    assert max(begun) < min(over), "they did not overlap"
    cube.check_clean()
    for job in jobs:
        done = cube.plain_borg("extract", f"{cube.repository}::{job['result']['archive']}")
        assert done.returncode == 0, done.stderr
        tree = trees[job["client"]]
        assert compare_trees(tree, cube.place / str(tree).lstrip("/")) == []
