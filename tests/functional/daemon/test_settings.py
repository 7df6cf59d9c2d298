"""Limits and editing through the whole of BorgCube: command line, daemon, worker, vault."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.functional.daemon.conftest import Cube
from tests.functional.daemon.test_faults import failed, files

MIB = 1 << 20


def test_a_limit_is_set_hit_named_raised_and_the_backup_goes_on(cube: Cube) -> None:
    cube.ssh_client("alpha")
    cube.plan("one", files(cube.place / "tree", count=6), client="alpha")
    cube.ok("client", "set", "alpha", "--max-job-bytes", "4M", "--max-total-bytes", "9M")
    job = cube.ended(cube.begin("one"))
    failed(job, "limit-job-bytes", "client", "Client alpha", "4.0 MiB",
           "borgcube client set alpha --max-job-bytes SIZE")  # fmt: skip
    cube.ok("client", "set", "alpha", "--max-job-bytes", "0")
    job = cube.backup("one")
    assert job["result"]["bytes_received"] < 4 * MIB, "what was stored is reused"
    assert 6 * MIB < job["result"]["charged_size"] < 7 * MIB
    # What its archives hold counts: nine may be stored, six are.
    cube.plan("two", files(cube.place / "more", count=6), client="alpha")
    job = cube.ended(cube.begin("two"))
    failed(job, "limit-total-bytes", "client", "Client alpha", "9.0 MiB", "--max-total-bytes")
    assert job["parameters"]["limits"]["total_left"] < 3 * MIB
    types = [event["type"] for event in cube.call("events.since")]
    assert "client.violation" not in types, "a limit is no misdeed"
    assert types.count("client.changed") == 2
    cube.check_clean()


def test_settings_are_changed_and_things_removed_on_the_command_line(cube: Cube) -> None:
    tree = files(cube.place / "tree", count=1)
    cube.local_client("beta")
    cube.plan("b", tree, client="beta", extra=("--exclude", "*/no", "--exclude-caches"))
    cube.ok("plan", "set", "b", "--exclude", "", "--no-exclude-caches", "--path", str(tree),
            "--path", "/nowhere", "--max-duration", "600")  # fmt: skip
    shown = json.loads(cube.ok("plan", "show", "b", "--json"))
    assert (shown["excludes"], shown["exclude_caches"]) == ([], False)
    assert (shown["paths"], shown["max_duration_s"]) == ([str(tree), "/nowhere"], 600)
    cube.ok("repository", "set", "main", "--free-floor", "1.5G")
    shown = json.loads(cube.ok("repository", "show", "main", "--json"))
    assert shown["free_floor_bytes"] == 3 << 29
    assert "such as 500M" in cube.cli("repository", "set", "main", "--free-floor", "x").stderr
    assert "Nothing to change" in cube.refused("client", "set", "beta")
    archive = cube.backup("b", state="warning")["result"]["archive"]
    assert "plan remove b" in cube.refused("client", "remove", "beta")
    cube.ok("plan", "remove", "b")
    cube.ok("client", "remove", "beta")
    assert archive in cube.ok("archive", "list")
    cube.ok("restore", archive, "--to-dir", str(cube.place / "out"), "--wait")
    (restored,) = Path(cube.place / "out").rglob("f0")
    assert restored.read_bytes() == (tree / "f0").read_bytes()


def test_a_repository_below_its_floor_takes_no_backup_and_is_named(cube: Cube) -> None:
    cube.local_client("beta")
    cube.plan("b", files(cube.place / "tree", count=1), client="beta")
    facts = os.statvfs(cube.place)
    floor = facts.f_bavail * facts.f_frsize * 2
    cube.ok("repository", "set", "main", "--free-floor", str(floor))
    failed(cube.ended(cube.begin("b")), "repository-low-space", "repository",
           "Repository main", "borgcube repository set main --free-floor SIZE")  # fmt: skip
    said = cube.cli("doctor")
    assert said.returncode == 2 and "Repository main" in said.stdout, said.stdout
    cube.ok("repository", "set", "main", "--free-floor", "0")
    cube.backup("b")
