"""The repository of 0.1.0 with three poisoned archives: what it is, as stock borg sees it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

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
