"""The repository of 0.1.0 with three poisoned archives: what it is, as stock borg sees it."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from borgcube.plugins.borg.engine import BorgEngine
from borgcube.plugins.borg.vaultclient import ask, follow
from borgcube.testing.judge import Judge
from borgcube.testing.poisoned import OUTSIDE, PASSPHRASE, Poisoned, load
from borgcube.testing.stockborg import StockBorg


@pytest.fixture
def poisoned() -> Iterator[Poisoned]:
    found = load()
    try:
        yield found
    finally:
        found.remove()


def test_the_judge_names_each_poison(poisoned: Poisoned, tmp_path: Path) -> None:
    with Judge(
        poisoned.repository, PASSPHRASE, cache=poisoned.cache, work=tmp_path / "judge"
    ) as judge:
        findings = judge.judge().findings
        assert set(judge.snapshot()) >= set(poisoned.honest)
    assert any("the vault counts" in found for found in findings), findings
    for poison, words in (("a way out", "warnings"), ("no owner", "does not list")):
        name = poisoned.poisoned[poison]
        assert any(found.startswith(name) and words in found for found in findings), findings
    assert not any(found.startswith(name) for found in findings for name in poisoned.honest)


def test_one_of_them_leaves_its_target(poisoned: Poisoned, tmp_path: Path) -> None:
    """Behind the judge's fence, with one directory beside the target left writable."""
    outside, target, base = tmp_path / OUTSIDE, tmp_path / "target", tmp_path / "base"
    for path in (outside, target, base):
        path.mkdir()
    place = f"{poisoned.repository}::{poisoned.poisoned['a way out']}"
    with StockBorg(PASSPHRASE) as borg:
        borg.run("extract", "--bypass-lock", place, base=base, cwd=target, writable=[outside])
    assert [path.name for path in outside.iterdir()] == ["written"]


def test_the_honest_ones_are_whole(poisoned: Poisoned, tmp_path: Path) -> None:
    assert len(poisoned.honest) == 7
    base = tmp_path / "base"
    base.mkdir()
    with StockBorg(PASSPHRASE) as borg:
        for number, name in enumerate(poisoned.honest):
            out = tmp_path / str(number)
            out.mkdir()
            place = f"{poisoned.repository}::{name}"
            done = borg.run("extract", "--bypass-lock", place, base=base, cwd=out)
            assert done.code == 0, done.err
            files = [path for path in out.rglob("*") if path.is_file()]
            assert poisoned.tree(name) == {
                path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files
            }


def test_nothing_in_the_home_names_the_place_where_it_was_made(poisoned: Poisoned) -> None:
    before = str(poisoned.facts["place"])
    for form in (before, before.replace("/", "%")):
        for path in poisoned.home.rglob("*"):
            assert form not in str(path)
            assert not path.is_file() or form.encode() not in path.read_bytes(), path


class Upgraded:
    """The vault of today on what 0.1.0 left."""

    def __init__(self, poisoned: Poisoned) -> None:
        self.poisoned = poisoned
        self.socket = poisoned.place / "vault.sock"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Upgraded:
        command = BorgEngine().vault_command(
            name="main", path=self.poisoned.repository, socket=self.socket,
            state_dir=self.poisoned.home / "engines" / "borg",
        )  # fmt: skip
        log = (self.poisoned.place / "vault.log").open("ab")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
        )
        log.close()
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(PASSPHRASE.encode() + b"\n")
        self.process.stdin.close()
        assert self.process.stdout.readline()
        return self

    def __exit__(self, *_exc: object) -> None:
        assert self.process is not None and self.process.stdout is not None
        self.process.terminate()
        self.process.wait(60)
        self.process.stdout.close()

    def prune(self, *names: str, **more: Any) -> dict[str, Any]:
        listed = ask(self.socket, {"op": "archives", "known": []})["archives"]
        known = {str(entry["name"]): str(entry["id"]) for entry in listed}
        request = {"op": "prune", "archives": {name: known[name] for name in names}, **more}
        done: dict[str, Any] = follow(self.socket, request, on_progress=lambda _figures: None)
        found: dict[str, Any] = done["done"]
        return found


def test_an_upgrade_names_the_three_and_prunes_everything_else(
    poisoned: Poisoned, tmp_path: Path
) -> None:
    bad = poisoned.poisoned
    newest = {name.partition("-")[0]: name for name in sorted(poisoned.honest)}
    old = [name for name in poisoned.honest if name not in newest.values()]
    assert len(old) == 4
    with Judge(
        poisoned.repository, PASSPHRASE, cache=poisoned.cache, work=tmp_path / "judge"
    ) as judge:
        before = {k: v for k, v in judge.snapshot().items() if k in newest.values()}
        with Upgraded(poisoned) as vault:
            done = vault.prune(*old, *bad.values())
        assert sorted(done["deleted"]) == sorted(old)
        assert set(done["failed"]) == set(bad.values()) and len(done["quarantined"]) == 3
        assert all("quarantine" in words for words in done["failed"].values())
        findings = judge.judge(unchanged=before).findings
        # What the judge still finds is of the three, which nobody counts down or restores.
        assert all(found.startswith(tuple(bad.values())) for found in findings), findings
        with Upgraded(poisoned) as vault:
            vault.prune(*bad.values(), also_quarantined=True)
        judge.judge(unchanged=before).require()
        assert set(judge.snapshot()) == set(newest.values())
