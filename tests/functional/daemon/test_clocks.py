"""Clients whose clock is off, and clients whose files were changed unseen: real borg, real SSH."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from borgcube.testing.hostileborg import install
from tests.functional.daemon import clockshift
from tests.functional.daemon.conftest import STOCK_BORG, Cube, bare_cube, set_up

MINUTE, HOUR = 60, 3600


@pytest.fixture(scope="module")
def cube() -> Iterator[Cube]:
    with bare_cube() as made:
        yield set_up(made)


class Shifted:
    """A client "web" with the plan "tree", whose borg goes by a clock of its own."""

    def __init__(self, cube: Cube, name: str, *, frozen: int = 0, **options: str) -> None:
        self.cube, self.name, self.place = cube, name, cube.place / name
        self.tree = self.place / "tree"
        self.tree.mkdir(parents=True)
        (self.tree / "file").write_bytes(b"first")
        (self.tree / "newest").write_bytes(b"as files caches leave out the newest")
        library = clockshift.build(self.place)
        borg = clockshift.shifted_borg(self.place, library, stock=STOCK_BORG, frozen=frozen)
        self.set(0)
        cube.ssh_client(name, borg=str(borg))
        words = [word for pair in options.items() for word in (f"--{pair[0]}", pair[1])]
        cube.plan(name, self.tree, client=name, extra=tuple(words))

    def set(self, seconds: int) -> None:
        (self.place / "shift").write_text(str(seconds))

    def backup(self, seconds: int, state: str) -> dict[str, Any]:
        self.set(seconds)
        return self.cube.backup(self.name, state=state)

    def newest(self) -> dict[str, Any]:
        found: dict[str, Any] = self.cube.call("archive.list", plan=self.name)[0]
        return found


@pytest.mark.parametrize(
    ("off", "said"),
    [(10 * MINUTE, "10 minutes ahead of"), (-10 * MINUTE, "10 minutes behind"),
     (23 * HOUR, "23 h ahead of"), (-23 * HOUR, "23 h behind")],
    ids=["10 min ahead", "10 min behind", "23 h ahead", "23 h behind"],
)  # fmt: skip
def test_a_clock_that_is_off_is_a_warning_and_orders_nothing(
    off: int, said: str, cube: Cube
) -> None:
    name = f"web{off}".replace("-", "m")
    web = Shifted(cube, name)
    job = web.backup(off, "warning")
    words = f"Client {name} has a clock that is {said} this server's."
    assert job["warnings"] == [words] and job["cause"]["message"] == words
    assert job["cause"]["kind"] == "client-clock-off" and "NTP" in job["cause"]["next_step"]
    assert job["result"]["clock_offset_s"] == pytest.approx(off, abs=60)
    archive = web.newest()
    # Ours orders; Borg's own is kept as it is.
    assert archive["begun_at"] == job["started_at"] and archive["start"][:13] != job["started_at"]
    assert words in cube.cli("doctor").stdout.replace("\n", " ")
    shown = cube.ok("archive", "show", archive["name"])
    assert "borg's time" in shown and "clock offset s" in shown
    # The next one is the newest, whatever the first one says.
    right = web.backup(0, "done")
    assert right["cause"] is None and abs(right["result"]["clock_offset_s"]) < 60
    assert web.newest()["job"] == right["id"]
    assert name not in cube.cli("doctor").stdout
    cube.ok("retention", "add", f"one-{name}", "--last", "1")
    cube.ok("retention", "attach", f"one-{name}", name)
    preview = json.loads(cube.ok("retention", "preview", name, "--json"))
    rows = {row["archive"]: row["keep"] for row in preview["archives"]}
    assert rows == {right["result"]["archive"]: True, archive["name"]: False}


@pytest.mark.parametrize("off", [2 * 24 * HOUR, -2 * 24 * HOUR], ids=["ahead", "behind"])
def test_a_clock_that_is_off_by_days_is_refused_with_what_to_do(off: int, cube: Cube) -> None:
    web = Shifted(cube, f"days{off}".replace("-", "m"))
    job = web.backup(off, "failed")
    assert job["cause"]["kind"] == "client-clock" and not cube.call("archive.list", plan=web.name)
    # It may be a fault, and may be somebody's doing: all its files are offered to be read again.
    assert f"borgcube backup {web.name} --reread" in job["cause"]["next_step"]
    web.backup(0, "done")


def _held(cube: Cube, archive: str, tree: Path, target: Path) -> bytes:
    cube.ok("restore", archive, "--to-dir", str(target), "--wait")
    return (target / str(tree / "file").lstrip("/")).read_bytes()


@pytest.mark.parametrize("by", ["ctime", "mtime"])
def test_a_reread_reads_a_file_whose_change_was_hidden(by: str, cube: Cube) -> None:
    """The same size, and the times set back: what the files cache goes by says nothing."""
    options = {"files-cache": "mtime,size"} if by == "mtime" else {}
    web = Shifted(cube, f"hidden-{by}", frozen=len(b"first") if by == "ctime" else 0, **options)
    file = web.tree / "file"
    os.utime(file, (10**9, 10**9))
    web.backup(0, "done")
    web.backup(0, "done")
    file.write_bytes(b"EVIL!")
    os.utime(file, (10**9, 10**9))
    unseen = web.backup(0, "done")
    place = web.place / "restored"
    held = _held(cube, unseen["result"]["archive"], web.tree, place / "1")
    assert held == b"first"
    reread = cube.cli("backup", web.name, "--reread", "--wait", "--json")
    (job,) = json.loads(reread.stdout)
    assert job["state"] == "done" and job["parameters"]["reread"] is True
    assert _held(cube, job["result"]["archive"], web.tree, place / "2") == b"EVIL!"
    assert "all files" in cube.ok("job", "show", job["id"])
    later = web.backup(0, "done")
    assert later["parameters"]["files_cache"] != "disabled" and "reread" not in later["parameters"]


def test_after_a_violation_a_reread_is_offered_until_one_succeeded(cube: Cube) -> None:
    tree = cube.place / "honest-tree"
    tree.mkdir()
    (tree / "file").write_bytes(b"content")
    borg = cube.place / "evil"
    cube.ssh_client("mallory", borg=str(borg))
    cube.plan("evil", tree, client="mallory", extra=("--idle-timeout", "6"))
    install(borg, "saves a key", stock=STOCK_BORG)
    job = cube.backup("evil", state="failed")
    offer = "borgcube backup evil --reread"
    assert offer in job["cause"]["next_step"]
    assert offer in cube.cli("doctor").stdout.replace("\n", " ")
    borg.write_text(f'#!/bin/sh\nexec {STOCK_BORG} "$@"\n')
    cube.backup("evil")
    assert offer in cube.cli("doctor").stdout.replace("\n", " ")  # an ordinary one is not enough
    cube.ok("backup", "evil", "--reread", "--wait")
    assert offer not in cube.cli("doctor").stdout.replace("\n", " ")
