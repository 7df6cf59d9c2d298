"""A dry run lists what a backup would take, stores nothing and leaves nothing behind."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def tree(place: Path) -> Path:
    root = place / "tree"
    for name, size in (
        ("a/one", 1000),
        ("a/two", 3_000_000),
        ("b/cache/three", 50),
        ("b/x.tmp", 7),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x" * size)
    (root / "link").symlink_to("a/one")
    (root / "<b>\x1b[2J\nodd").write_text("odd")
    return root


def test_a_dry_run_lists_what_a_backup_would_take_and_stores_nothing(cube: Any) -> None:
    root = tree(cube.place)
    cube.ssh_client("web")
    cube.plan("p", root, root / "absent", client="web",
              extra=("--exclude", "*.tmp", "--exclude", "*/cache"))  # fmt: skip
    before = sorted(p.name for p in (cube.repository / "data" / "0").iterdir())
    job = cube.until(cube.call("plan.dry_run", plan="p")["job_id"], lambda j: j["finished_at"])
    assert job["state"] == "warning" and len(job["warnings"]) == 1
    assert f"{root}/absent" in job["warnings"][0]
    result = job["result"]
    assert (result["files"], result["directories"], result["measured"]) == (4, 3, True)
    assert (result["size"], result["excluded"], result["cut"]) == (3_001_003, 2, False)
    assert result["largest"][0] == {"path": f"{root}/a/two", "size": 3_000_000}

    def listed(**asked: Any) -> list[tuple[str, str, int | None]]:
        page = cube.call("job.listing", id=job["id"], **asked)
        return [(e["path"].removeprefix(f"{root}/"), e["kind"], e["size"]) for e in page["entries"]]

    assert ("a/two", "file", 3_000_000) in listed(find="TWO")
    assert {path for path, _, _ in listed(kind="excluded")} == {"b/cache", "b/x.tmp"}
    assert ("link", "other", None) in listed()
    assert ("<b>\\x1b[2J\\nodd", "file", 3) in listed()
    assert len(listed(limit=2)) == 2 and listed(start=2, limit=2) == listed()[2:4]
    # Nothing was stored, no vault was needed, nothing is left on the client.
    assert sorted(p.name for p in (cube.repository / "data" / "0").iterdir()) == before
    assert cube.call("archive.list") == []
    assert "vault" not in (cube.home / "logs" / "borgcubed.log").read_text()
    assert [n for n in os.listdir(cube.clients_tmp) if n.startswith("borgcube-")] == []


def test_the_command_prints_the_list_and_what_it_comes_to(cube: Any) -> None:
    root = tree(cube.place)
    cube.local_client("here")
    cube.plan("p", root, client="here", extra=("--exclude", "*.tmp"))
    said = cube.ok("plan", "dry-run", "p")
    assert f"2.9 MiB  {root}/a/two" in said and "x.tmp" not in said and "\x1b" not in said
    assert "1 are left out" in said and "would take" in said
    assert "matches the exclusion" not in said
    assert f"left out  {root}/b/x.tmp" in cube.ok("plan", "dry-run", "p", "--all")
    assert json.loads(cube.ok("plan", "dry-run", "p", "--json"))["result"]["excluded"] == 1
    # Of a plan that is not there yet; it is not there afterwards either.
    said = cube.ok("plan", "add", "q", "--client", "here", "--repository", "main",
                   "--path", str(root / "b"), "--exclude", "*/cache", "--dry-run")  # fmt: skip
    assert "x.tmp" in said and "a/two" not in said and "1 are left out" in said
    assert [plan["name"] for plan in cube.call("plan.list")] == ["p"]


def test_an_exclusion_that_matches_nothing_is_named_until_it_matches_or_goes(cube: Any) -> None:
    root = tree(cube.place)
    cube.ssh_client("web")
    cube.plan("p", root, client="web", extra=("--exclude", "*.tmp", "--exclude", "*/cahce"))
    dry = cube.until(cube.call("plan.dry_run", plan="p")["job_id"], lambda j: j["finished_at"])
    assert dry["result"]["exclusions"]["unused"] == ["*/cahce"]
    first = cube.backup("p")
    assert first["result"]["exclusions"]["unused"] == ["*/cahce"], "a remark, not a warning"
    assert "no path matches the exclusion */cahce" in cube.ok("backup", "p", "--wait")
    (root / "b" / "cahce").mkdir()
    assert cube.backup("p")["result"]["exclusions"]["unused"] == []
    # From now on borg need not say what it leaves out.
    archive = cube.backup("p")["result"]["archive"]
    stats = cube.call("archive.show", name=archive)["stats"]
    assert stats["exclusions"]["unused"] == [] and stats["exclusions"]["digest"]
    assert "'--exclude=*/cahce'" in stats["command_line"] and "--list" not in stats["command_line"]
    assert "--exclude=*/cahce" in cube.ok("archive", "show", archive)
