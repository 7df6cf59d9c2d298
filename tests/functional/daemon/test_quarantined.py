"""Archives in quarantine as a person meets them: told everywhere, mended, deleted, never pruned."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.functional.daemon.conftest import Cube

POISON = Path(__file__).parents[1] / "borg" / "poison.py"


def archives(cube: Cube) -> dict[str, dict[str, Any]]:
    found: list[dict[str, Any]] = cube.call("archive.list")
    return {archive["name"]: archive for archive in found}


def poison(cube: Cube, source: str, kinds: dict[str, str]) -> None:
    """Write archives as a hostile client could through 0.1.0; nothing is known of any archive."""
    engine = cube.own_state_dir
    for name, kind in kinds.items():
        subprocess.run(
            [sys.executable, str(POISON), str(cube.repository), source, name, kind],
            env={**os.environ, "BORG_PASSPHRASE": "correct horse",
                 "BORG_BASE_DIR": str(engine / "base")},
            check=True, timeout=120,
        )  # fmt: skip
    for path in engine.rglob("known-archives.jsonl"):
        path.unlink()


def poisoned(cube: Cube) -> str:
    """Two good archives and three bad ones, of a plan whose policy keeps one; the newest good."""
    source = cube.place / "data"
    source.mkdir()
    for number in range(5):
        (source / f"file{number}").write_bytes(os.urandom(50_000))
    cube.local_client("box")
    cube.plan("box-data", source, client="box")
    first = cube.backup("box-data")["result"]["archive"]
    (source / "more").write_bytes(os.urandom(50_000))
    cube.backup("box-data")
    cube.stop()
    poison(cube, first, {"bad-twice": "twice", "bad-mode": "no-mode", "bad-climbs": "climbs"})
    cube.start()
    cube.ok("retention", "add", "one", "--last", "1", "--undo", "0")
    cube.ok("retention", "attach", "one", "box-data")
    return str(first)


@pytest.mark.timeout(600)  # many commands, each a process, on a machine that may be busy
def test_poisoned_archives_are_named_kept_mended_and_deleted(cube: Cube) -> None:
    first = poisoned(cube)
    cube.ok("prune", "box-data", "--wait")  # the vault lists them; nothing of a plan's is bad yet
    found = archives(cube)
    assert first not in found  # pruned
    bad = {name for name, one in found.items() if one["quarantine"]}
    assert bad == {"bad-twice", "bad-mode", "bad-climbs"}

    # Named with the reason by the commands and the doctor.
    listed = cube.ok("archive", "list")
    assert listed.count("in quarantine: ") == 3
    shown = json.loads(cube.ok("archive", "show", "bad-mode", "--json"))
    assert shown["quarantine"] and shown["quarantine"] in cube.ok("archive", "show", "bad-mode")
    conditions = [one for one in cube.call("doctor") if "quarantine" in one["message"]]
    assert len(conditions) == 1
    assert "3 archives are in quarantine" in conditions[0]["message"]
    assert all(name in conditions[0]["message"] for name in bad)
    assert "archive mend" in conditions[0]["next_step"]

    # Nobody restores or drills one.
    assert "is in quarantine" in cube.refused(
        "restore", "bad-mode", "--to-dir", str(cube.place / "out")
    )
    assert "is in quarantine" in cube.refused("drill", "run", "--archive", "bad-mode")

    # Given to the plan, pinned: a policy neither counts nor deletes them, and says so.
    cube.call("archive.map", repository="main", pattern="bad-*", client="box", plan="box-data",
              apply=True)  # fmt: skip
    cube.ok("archive", "pin", "bad-mode", "--comment", "evidence")
    preview = json.loads(cube.ok("retention", "preview", "box-data", "--json"))
    assert not bad & {row["archive"] for row in preview["archives"]}
    job = cube.ended(cube.call("prune.start", plan="box-data")["job_id"])
    assert job["state"] == "warning"
    for name in bad:
        assert any(text.startswith(name) and "quarantine" in text for text in job["warnings"])
    assert bad < set(archives(cube))

    # Mended: the same name, client, plan and pin, another ID, and restorable.
    was = archives(cube)["bad-mode"]
    done = cube.cli("archive", "mend", "bad-mode", "--wait")
    assert done.returncode == 1 and "1 left out" in done.stdout, (done.stdout, done.stderr)
    now = archives(cube)["bad-mode"]
    assert now["id"] != was["id"] and not now["quarantine"]
    assert (now["client"], now["plan"], now["pinned"]) == ("box", "box-data", "evidence")
    cube.ok("restore", "bad-mode", "--to-dir", str(cube.place / "mended"), "--wait")
    assert any(path.is_file() for path in (cube.place / "mended").rglob("*"))

    # Deleted by a person, at once and with a way back.
    cube.ok("archive", "delete", "bad-twice", "--now", "--yes", "--wait")
    cube.ok("archive", "delete", "bad-climbs", "--undo", "0")
    job = cube.ended(cube.call("prune.start", repository="main")["job_id"])
    assert set(archives(cube)) & {"bad-twice", "bad-climbs"} == set()
    assert not any("quarantine" in one["message"] for one in cube.call("doctor"))
    cube.check_clean()


@pytest.mark.timeout(600)
def test_a_restore_that_finds_one_bad_marks_it(cube: Cube) -> None:
    first = poisoned(cube)
    cube.ok("restore", first, "--to-dir", str(cube.place / "first"), "--wait")
    assert not any(one["quarantine"] for one in archives(cube).values())
    # Only this archive is read, then and there.
    job = cube.ended(cube.call("restore.start", archive="bad-twice",
                               to_dir=str(cube.place / "out"))["job_id"])  # fmt: skip
    assert job["state"] == "failed" and job["cause"]["kind"] == "archive-quarantined"
    marked = {name for name, one in archives(cube).items() if one["quarantine"]}
    assert marked == {"bad-twice"}
    assert "is in quarantine" in cube.refused(
        "restore", "bad-twice", "--to-dir", str(cube.place / "out")
    )
    # A check that walks all lists of files finds the others.
    cube.ok("check", "run", "main", "--kind", "archives", "--wait")
    marked = {name for name, one in archives(cube).items() if one["quarantine"]}
    assert marked == {"bad-twice", "bad-mode", "bad-climbs"}
