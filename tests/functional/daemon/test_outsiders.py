"""Crafted repositories are taken in: what import says, what stays usable, and nobody else suffers.

One daemon for all of them; plain borg is the judge of the repository that was here before.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from borgcube.core.errors import BorgCubeError
from tests.functional.borg import outsiders
from tests.functional.daemon.conftest import ROOT, STOCK_BORG, Cube, bare_cube, set_up

pytestmark = pytest.mark.timeout(600)
# The whole of the tool with Borg loaded takes about 60 MB; the bomb is eight times as large.
MOST_RSS = 300 << 20
# A child counts what its parent took when it was forked, so a small one measures.
MEASURED = """
import resource, subprocess, sys
subprocess.run([sys.executable, "-m", "borgcube.plugins.borg.tool"])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.fixture(scope="module")
def here() -> Iterator[Cube]:
    """A daemon with a repository and a backup, and the crafted ones beside it."""
    with bare_cube() as cube:
        set_up(cube)
        (cube.place / "source").mkdir()
        (cube.place / "source" / "file").write_bytes(os.urandom(300_000))
        (cube.place / "outside").mkdir()
        (cube.place / "crafted").mkdir()
        cube.local_client("box")
        cube.plan("box-data", cube.place / "source", client="box")
        cube.backup("box-data")
        subprocess.run(
            [sys.executable, "-m", "tests.functional.borg.outsiders", str(crafted(cube, "")),
             str(cube.repository)],
            env={**cube.env, "BORG_BASE_DIR": str(cube.place / "crafting"),
                 "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"},
            check=True, timeout=120, cwd=ROOT,
        )  # fmt: skip
        yield cube


def crafted(cube: Cube, name: str) -> Path:
    return cube.place / "crafted" / name


def take_in(cube: Cube, name: str, passphrase: str = outsiders.PASSPHRASE) -> dict[str, Any]:
    found: dict[str, Any] = cube.call(
        "repository.import", name=name, path=str(crafted(cube, name)), passphrase=passphrase
    )
    return found


def refusal(cube: Cube, name: str, passphrase: str = outsiders.PASSPHRASE) -> str:
    with pytest.raises(BorgCubeError) as caught:
        take_in(cube, name, passphrase)
    known = [one["name"] for one in cube.call("repository.list")]
    assert name not in known
    return caught.value.message


def digests(place: Path) -> dict[str, str]:
    return {
        str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(place.rglob("*")) if path.is_file()
    }  # fmt: skip


def test_what_is_no_repository_of_its_own_is_refused_in_words(here: Cube) -> None:
    before, engine = digests(here.repository), here.home / "engines/borg/repositories"
    kept = sorted(engine.iterdir())
    for name, secret in (("claims", outsiders.PASSPHRASE), ("copy", "correct horse")):
        assert "is a copy of main" in refusal(here, name, secret), name
    assert "data/0" in refusal(here, "links") and "link" in refusal(here, "links")
    assert "neither a file nor a directory" in refusal(here, "waits")
    assert "cannot be read" in refusal(here, "manifest")
    assert digests(here.repository) == before
    assert sorted(engine.iterdir()) == kept  # nothing is left of those that were refused
    here.backup("box-data")


def test_a_bomb_for_a_manifest_takes_no_memory(here: Cube) -> None:
    request = {
        "op": "inspect", "path": str(crafted(here, "manifest")),
        "passphrase": outsiders.PASSPHRASE, "state_dir": str(here.place / "look"),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", MEASURED], env=here.env, input=json.dumps(request).encode() + b"\n",
        capture_output=True, timeout=110, check=True,
    )  # fmt: skip
    answer, peak = map(json.loads, done.stdout.splitlines())
    assert "larger than a chunk may be" in answer["error"]["message"]
    assert peak << 10 < MOST_RSS


def test_what_is_whole_stays_usable_and_nothing_else_does(here: Cube) -> None:
    outside = digests(here.place / "outside")
    jobs, out = {}, here.place / "out"
    for name in outsiders.TAKEN:
        take_in(here, name)
        listed = {one["name"] for one in here.call("archive.list", repository=name)}
        assert listed == {"good", *(outsiders.NAMES if name == "names" else ("bad",))}
        jobs[name] = here.call("restore.start", archive=f"{name}::good", to_dir=str(out / name))
    for name, job in jobs.items():
        ended = here.ended(job["job_id"], timeout_s=120)
        assert ended["state"] == "done", (name, ended["cause"])
        assert (out / name / "note").read_bytes() == outsiders.content(name)
    for name in outsiders.TAKEN:
        bad = {one["name"]: one["quarantine"] for one in
               here.call("archive.list", repository=name) if one["quarantine"]}  # fmt: skip
        # A file that has lost its content spoils no more than itself.
        assert set(bad) == (set() if name in ("names", "hollow") else {"bad"}), (name, bad)
        if bad:
            with pytest.raises(BorgCubeError, match="quarantine"):
                here.call("restore.start", archive=f"{name}::bad", to_dir=str(out / "bad"))
    assert digests(here.place / "outside") == outside and not (out / "bad").exists()
    assert not list(here.place.rglob("planted"))


def test_archives_with_hostile_names_are_restored_and_listed(here: Cube) -> None:
    archives = {one["name"]: one for one in here.call("archive.list", repository="names")}
    jobs = [
        here.call("restore.start", archive=archives[name]["id"],
                  to_dir=str(here.place / "named" / str(number)))
        for number, name in enumerate(outsiders.NAMES)
    ]  # fmt: skip
    for number, name in enumerate(outsiders.NAMES):
        ended = here.ended(jobs[number]["job_id"], timeout_s=120)
        assert ended["state"] == "done", (name, ended["cause"])
        restored = here.place / "named" / str(number) / f"f{number}"
        assert restored.read_bytes() == os.fsencode(name)
    shown = here.ok("archive", "list", "--repository", "names")
    assert not set(shown) & {"\x1b", "\r", "\x07", "\N{RIGHT-TO-LEFT OVERRIDE}"}
    assert len(shown.strip().splitlines()) == len(outsiders.NAMES) + 2  # and "good", and a head
    for name in outsiders.NAMES:
        here.call("archive.delete", names=[archives[name]["id"]])


def test_a_vault_opens_only_the_repository_that_was_taken_in(here: Cube) -> None:
    take_in(here, "honest")
    crafted(here, "honest").rename(crafted(here, "away"))
    crafted(here, "swapped").rename(crafted(here, "honest"))
    before = digests(crafted(here, "honest"))
    never = str(here.place / "never")
    for start, more in (("restore.start", {"archive": "honest::good", "to_dir": never}),
                        ("check.start", {"repository": "honest", "kind": "borg"})):  # fmt: skip
        ended = here.ended(here.call(start, **more)["job_id"])
        assert ended["cause"]["kind"] == "repository-replaced", ended["cause"]
    assert digests(crafted(here, "honest")) == before


def test_nonces_go_on_when_a_repository_comes_back(here: Cube) -> None:
    def counter(name: str) -> int:
        (found,) = here.state_dir(name).glob("base/.config/borg/security/*/nonce")
        return int(found.read_text(), 16)

    old, place = here.place / "older", here.repository
    nonce = counter("main")
    here.stop()  # its vault lets go of it
    subprocess.run(["cp", "-a", str(place), str(old)], check=True)
    for path in (old / "nonce",):
        path.write_text(f"{1:016x}")
    here.start()
    here.call("repository.remove", name="main", with_plans=True)
    here.call("repository.import", name="back", path=str(old), passphrase="correct horse")
    assert counter("back") == nonce > 1
    here.stop()
    for repository in (place, old):
        for words in (("check", "--verify-data", str(repository)),):
            done = subprocess.run(
                [STOCK_BORG, *words],
                env={**here.env, "BORG_PASSPHRASE": "correct horse",
                     "BORG_BASE_DIR": str(here.place / "judge"),
                     "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes"},
                capture_output=True, text=True, timeout=110, check=False,
            )  # fmt: skip
            assert done.returncode == 0 and not done.stderr.strip(), done.stderr
