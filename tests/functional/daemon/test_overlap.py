"""Two clients at the same time in one repository."""

from __future__ import annotations

import os
import re

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


def test_an_unchanged_client_is_audited_while_it_walks(cube: Cube) -> None:
    """From the third backup on: the second one's items name the sizes that the server offers."""
    tree = cube.place / "tree"
    make_mixed(tree, 1 << 20, seed=3)
    cube.ssh_client("web")
    cube.plan("p", tree, client="web")
    for _ in range(3):
        last = cube.backup("p")
    (log,) = (cube.home / "logs").glob("vault-*.log")
    said = re.findall(r"(\d+) of (\d+) items were judged ahead", log.read_text())
    assert len(said) == 3 and said[2] == (said[0][1], said[0][1])
    cube.check_clean()
    done = cube.plain_borg("extract", f"{cube.repository}::{last['result']['archive']}")
    assert done.returncode == 0, done.stderr
    assert compare_trees(tree, cube.place / str(tree).lstrip("/")) == []
