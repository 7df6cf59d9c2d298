"""A restore as root into a directory of somebody else: possible, asked for, and led nowhere."""

from __future__ import annotations

import os

import pytest

from tests.functional.daemon.conftest import DEBIAN_BORG, Cube

NOBODY = 65534


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user on this machine")
def test_a_restore_into_somebodys_home_follows_no_link_of_theirs(cube: Cube) -> None:
    cube.place.chmod(0o755)
    home, victim = cube.place / "somebody", cube.place / "victim"
    for one in (home, home / "docs", victim):
        one.mkdir()
        os.chown(one, NOBODY, NOBODY)
    os.chown(victim, 0, 0)
    (home / "docs" / "letter").write_text("dear")
    os.chown(home / "docs" / "letter", NOBODY, NOBODY)
    cube.ssh_client("alpha", borg=DEBIAN_BORG)
    cube.plan("home", home, client="alpha")
    archive = cube.backup("home")["result"]["archive"]

    # Back to where it was, with a link in place of a directory.
    (home / "docs").rename(home / "docs.mine")
    (home / "docs").symlink_to(victim)
    inside = str(home / "docs" / "letter").lstrip("/")
    cube.ok("restore", archive, inside, "--to-client", "alpha:/", "--wait")
    assert list(victim.iterdir()) == [], "root wrote where somebody's link led"
    letter = home / "docs" / "letter"
    assert letter.read_text() == "dear" and letter.stat().st_uid == NOBODY
    assert not (home / "docs").is_symlink() and (home / "docs.mine" / "letter").exists()

    # To a directory that is theirs: only if it is meant.
    target = f"alpha:{home}/restored"
    refused = cube.cli("restore", archive, "--to-client", target, "--wait")
    assert refused.returncode == 2 and "--shared-target" in refused.stderr
    cube.ok("restore", archive, "--to-client", target, "--shared-target", "--wait")
    found = home / "restored" / inside
    assert found.read_text() == "dear"
    left = [name for place in (home, home.parent, home / "restored")
            for name in os.listdir(place) if name.startswith(".borgcube")]  # fmt: skip
    assert left == [] and not list(home.parents[1].glob(".borgcube-*"))
