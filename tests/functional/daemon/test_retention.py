"""From a repository that borgmatic made to plans that keep what they should, by the commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.functional.daemon.conftest import STOCK_BORG, Cube, set_up

BORGMATIC = str(Path(sys.executable).with_name("borgmatic"))


def make_with_borgmatic(bare: Cube, source: Path, *, archives: int) -> Path:
    """Back up as somebody did for years before BorgCube; the last archive has all files."""
    repository = bare.place / "old"
    config = bare.place / "borgmatic.yaml"
    config.write_text(json.dumps({  # JSON is YAML
        "source_directories": [str(source)],
        "repositories": [{"path": str(repository)}],
        "encryption_passphrase": "correct horse",
        "borg_base_directory": str(bare.place / "borgmatic-base"),
        "user_runtime_directory": str(bare.place / "run"),
        "user_state_directory": str(bare.place / "state"),
        "local_path": STOCK_BORG,
    }))  # fmt: skip
    env = {"PATH": os.environ["PATH"], "HOME": str(bare.place), "LANG": "C.UTF-8"}

    def borgmatic(*words: str) -> None:
        done = subprocess.run(
            [BORGMATIC, "--config", str(config), *words], env=env, capture_output=True, text=True,
            timeout=100, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    borgmatic("repo-create", "--encryption", "repokey")
    for number in range(archives):
        (source / f"file{number}").write_bytes(os.urandom(400_000))
        borgmatic("create")
    return repository


@pytest.mark.timeout(300)  # thirty commands, each a process, on a machine that may be busy
def test_a_repository_of_borgmatic_is_imported_pruned_and_restored(bare: Cube) -> None:
    source = bare.place / "data"
    source.mkdir()
    repository = make_with_borgmatic(bare, source, archives=3)
    cube = set_up(bare)
    secret = str(cube.place / "secret")
    cube.ok("repository", "import", "old", "--path", str(repository), "--passphrase-file", secret)
    cube.local_client("box")
    cube.ok("plan", "add", "box-all", "--client", "box", "--repository", "old",
            "--path", str(source))  # fmt: skip
    pattern = "{hostname}-{now:%Y-%m-%dT%H:%M:%S.%f}"
    words = ("repository", "map", "old", pattern, "--client", "box", "--plan", "box-all")
    wrong = cube.cli("repository", "map", "old", "{now}", "--plan", "box-all")
    assert wrong.returncode == 1 and "matches no archive" in wrong.stderr
    assert "3 archives would be given" in cube.ok(*words)
    assert "3 archives were given" in cube.ok(*words, "--apply")

    cube.ok("retention", "add", "two", "--last", "2", "--undo", "0")
    assert "would keep 2 of 3 archives" in cube.ok("retention", "attach", "two", "box-all")
    preview = json.loads(cube.ok("retention", "preview", "box-all", "--json"))
    assert [row["keep"] for row in preview["archives"]] == [True, True, False]
    # Each archive adds a file and keeps the others: only metadata is one archive's own.
    assert 0 < preview["would_free_bytes"] < 300_000
    cube.ok("prune", "box-all", "--compact", "always", "--wait")
    left = {a["name"] for a in json.loads(cube.ok("archive", "list", "--json"))}
    assert left == {row["archive"] for row in preview["archives"] if row["keep"]}

    newest = preview["archives"][0]["archive"]
    cube.ok("archive", "pin", newest, "--comment", "the last of borgmatic")
    assert "is pinned" in cube.refused("archive", "delete", newest)
    cube.ok("archive", "unpin", newest)
    assert "undelete" in cube.ok("archive", "delete", newest)
    assert newest in cube.ok("archive", "list", "--deleted")
    assert newest not in cube.ok("archive", "list")
    out = cube.place / "out"
    cube.ok("restore", newest, "--to-dir", str(out), "--wait")
    for path in source.iterdir():
        assert (out / str(path).lstrip("/")).read_bytes() == path.read_bytes()
    cube.ok("archive", "undelete", newest)
    cube.ok("backup", "box-all", "--wait")
    assert cube.cli("prune", "box-all", "--wait").returncode == 0
    cube.stop()
    check = cube.plain_borg("check", "--verify-data", str(repository))
    assert check.returncode == 0 and not check.stderr.strip(), check.stderr
    listed = cube.plain_borg("list", "--short", str(repository)).stdout.split()
    assert len(listed) == 2 and newest in listed
