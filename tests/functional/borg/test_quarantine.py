"""Archives that we did not encode: looked through, in quarantine, mended, let go."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from borgcube.core.errors import JobFailed
from borgcube.plugins.borg.vault.known import FILE_NAME
from borgcube.plugins.borg.vaultclient import ask, follow
from borgcube.testing.rig import PASSPHRASE, Rig
from tests.functional.borg.test_engine import random_files

KINDS = ["twice", "no-mode", "climbs"]


def poison(rig: Rig, source: str, name: str, kind: str) -> None:
    subprocess.run(
        [sys.executable, str(Path(__file__).with_name("poison.py")), str(rig.path), source, name,
         kind],
        env={**os.environ, "BORG_PASSPHRASE": PASSPHRASE,
             "BORG_BASE_DIR": str(rig.state_dir / "base")},
        check=True, timeout=120,
    )  # fmt: skip


@pytest.fixture
def poisoned(tmp_path: Path) -> Iterator[Rig]:
    """A repository of two clients' archives, and three that are poisoned."""
    rig = Rig(tmp_path / "rig")
    with rig:
        for client in ("a", "b"):
            source = random_files(tmp_path / client, count=15)
            rig.backup(f"{client}-1", source, plan=client, domain=f"client:{client}")
            (source / "more").write_bytes(os.urandom(30_000))
            rig.backup(f"{client}-2", source, plan=client, domain=f"client:{client}")
    for kind in KINDS:
        poison(rig, "b-1", f"bad-{kind}", kind)
    (rig.state_dir / rig.facts.id / FILE_NAME).unlink()  # as before it was known
    with rig:
        yield rig


def ids(rig: Rig) -> dict[str, str]:
    answer = ask(rig.socket, {"op": "archives", "known": []})
    return {str(entry["name"]): str(entry["id"]) for entry in answer["archives"]}


def run(rig: Rig, request: dict[str, Any]) -> dict[str, Any]:
    done: dict[str, Any] = follow(rig.socket, request, on_progress=lambda _f: None)["done"]
    return done


def prune(rig: Rig, *names: str, **more: Any) -> dict[str, Any]:
    known = ids(rig)
    return run(rig, {"op": "prune", "archives": {name: known[name] for name in names}, **more})


def clean(rig: Rig) -> None:
    """Stop the vault; plain borg finds nothing, with a cache of its own."""
    if rig.vault is not None and rig.vault.poll() is None:
        assert rig.stop_vault() == 0
    checked = rig.plain_borg("check", "--verify-data", str(rig.path))
    assert checked.returncode == 0, checked.stderr


def extracted(rig: Rig, name: str, target: Path) -> dict[str, bytes]:
    target.mkdir()
    done = subprocess.run(
        [str(Path(sys.executable).with_name("borg")), "extract", f"{rig.path}::{name}"],
        cwd=target, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "BORG_PASSPHRASE": PASSPHRASE, "BORG_BASE_DIR": str(rig.root / "plain")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {str(one.relative_to(target)): one.read_bytes()
            for one in sorted(target.rglob("*")) if one.is_file()}  # fmt: skip


def test_a_poisoned_archive_is_named_and_a_prune_of_the_others_harms_nothing(
    poisoned: Rig, tmp_path: Path
) -> None:
    done = prune(poisoned, "a-1", "b-1", "bad-twice")
    assert sorted(done["deleted"]) == ["a-1", "b-1"]
    assert "bad-twice" in done["failed"] and "quarantine" in done["failed"]["bad-twice"]
    known = ids(poisoned)
    assert set(done["quarantined"]) == {known[f"bad-{kind}"] for kind in KINDS}
    prune(poisoned, *(f"bad-{kind}" for kind in KINDS), also_quarantined=True)
    clean(poisoned)
    for name in ("a-2", "b-2"):
        found = extracted(poisoned, name, tmp_path / f"out-{name}")
        source = tmp_path / name[0]
        for file in source.rglob("*"):
            if file.is_file():
                assert found[str(file).lstrip("/")] == file.read_bytes()


def test_counts_that_a_poisoned_archive_left_wrong_are_set_right(poisoned: Rig) -> None:
    prune(poisoned, *(f"bad-{kind}" for kind in KINDS), also_quarantined=True)
    assert sorted(ids(poisoned)) == ["a-1", "a-2", "b-1", "b-2"]
    prune(poisoned, "b-1", "b-2")
    clean(poisoned)


def test_what_is_in_quarantine_is_not_restored(poisoned: Rig, tmp_path: Path) -> None:
    with pytest.raises(JobFailed) as caught:
        poisoned.restore("bad-climbs", tmp_path / "target")
    assert caught.value.cause.kind == "archive-quarantined"
    assert "archive mend" in caught.value.cause.next_step
    assert poisoned.restore("b-1", tmp_path / "other").state == "done"


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_is_mended_from_what_is_sound_of_it(
    poisoned: Rig, kind: str, tmp_path: Path
) -> None:
    done = run(poisoned, {"op": "mend", "archive": f"bad-{kind}"})
    assert done["left_out"] == 1 and len(done["names"]) == 1
    assert ids(poisoned)[f"bad-{kind}"] == done["id"] not in done["quarantined"]
    assert poisoned.restore(f"bad-{kind}", tmp_path / "target").state == "done"
    others = [f"bad-{one}" for one in KINDS if one != kind]
    prune(poisoned, *others, also_quarantined=True)
    clean(poisoned)


def test_what_was_looked_through_is_not_looked_through_again(poisoned: Rig) -> None:
    prune(poisoned, "a-1")
    poisoned.stop_vault()
    text = (poisoned.root / "vault.log").read_text()
    assert text.count("is sound: {") == 4 and text.count("is in quarantine") == 3
    poisoned.start_vault()
    prune(poisoned, "a-2")
    assert (poisoned.root / "vault.log").read_text().count("is sound: {") == 4


def test_an_archive_that_borg_cannot_read_makes_nobody_wait(tmp_path: Path) -> None:
    """Borg gives up making its cache at such an archive: nobody could use the repository."""
    rig = Rig(tmp_path / "rig")
    source = random_files(tmp_path / "a", count=5)
    with rig:
        rig.backup("a-1", source)
    poison(rig, "a-1", "bad", "short-id")
    (rig.state_dir / rig.facts.id / FILE_NAME).unlink()
    shutil.rmtree(rig.state_dir / "base" / ".cache")  # lost, so that it is made anew
    assert rig.plain_borg("create", f"{rig.path}::x", str(source)).returncode != 0
    with rig:
        (source / "more").write_bytes(b"new")
        assert rig.backup("a-2", source).state == "done"
        assert rig.restore("a-1", tmp_path / "target").state == "done"
        done = prune(rig, "bad", also_quarantined=True)
        assert done["deleted"] == ["bad"] and not done["quarantined"]
        prune(rig, "a-1")
    clean(rig)
    created = rig.plain_borg("create", f"{rig.path}::x", str(source))
    assert created.returncode == 0, created.stderr


def test_a_mending_that_nobody_waits_for_leaves_one_archive_of_the_name(poisoned: Rig) -> None:
    class Enough(Exception):
        """The worker goes away."""

    def leave(figures: dict[str, Any]) -> None:
        # What is written anew is committed already, the old one is not taken out yet.
        if figures.get("archives_to_count"):
            raise Enough

    prune(poisoned, "a-1")  # looked through and counted once
    bad = ids(poisoned)["bad-no-mode"]
    with pytest.raises(Enough):
        follow(poisoned.socket, {"op": "mend", "archive": "bad-no-mode"}, on_progress=leave)
    prune(poisoned, "a-2")  # waits until the vault is done with it
    left = ids(poisoned)
    assert left["bad-no-mode"] == bad and not any(name.endswith(".mended") for name in left)
    done = run(poisoned, {"op": "mend", "archive": "bad-no-mode"})
    assert ids(poisoned)["bad-no-mode"] == done["id"] != bad
    prune(poisoned, "bad-twice", "bad-climbs", also_quarantined=True)
    clean(poisoned)
