"""The scenarios: which data, and what of it is timed. Called by the command only."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from bench.runners import Contestant, Result
from borgcube.testing.trees import make_many_small, make_mixed, make_unchanged

SEED = 1
TARGETS = {"first": 1.0, "unchanged": 0.7, "small": 1.2, "many": 0.8, "second": 1.0}
CLIENTS = ("one", "two", "three", "four")
SHARED_PART = 4  # a quarter of what each of the four has is the same everywhere
SECOND_PART = 30  # what a second client brings, as a part of --bytes
Runs = dict[str, list[Result]]


def _count(scenario: str, args: argparse.Namespace) -> int:
    found: int = args.files or {"unchanged": 100_000, "small": 50_000, "second": 2_000}.get(
        scenario, 0
    )
    return found


def _make_many(path: Path, total: int) -> None:
    each = total // len(CLIENTS)
    for number, name in enumerate(CLIENTS):
        make_mixed(path / name / "shared", each // SHARED_PART, seed=SEED)
        make_mixed(path / name / "own", each - each // SHARED_PART, seed=SEED + 1 + number)


def _make_second(path: Path, files: int, total: int, rounds: int) -> None:
    make_many_small(path / "old", files, seed=SEED)
    for number in range(rounds):
        make_mixed(path / f"new-{number}", max(1, total // SECOND_PART), seed=SEED + 1 + number)


def make_data(workdir: Path, scenario: str, args: argparse.Namespace) -> Path:
    """Return the scenario's data, made once per work directory and size."""
    count = _count(scenario, args)
    make: dict[str, Callable[[Path], None]] = {
        "first": lambda path: make_mixed(path, args.bytes, seed=SEED),
        "unchanged": lambda path: make_unchanged(path, files=count, seed=SEED),
        "small": lambda path: make_many_small(path, count, seed=SEED),
        "many": lambda path: _make_many(path, args.bytes),
        "second": lambda path: _make_second(path, count, args.bytes, args.pairs + 1),
    }
    size: object = args.bytes if scenario in ("first", "many") else count
    if scenario == "second":
        size = f"{count}-{args.bytes}-{args.pairs}"
    path = workdir / "data" / f"{scenario}-{size}-{SEED}"
    if not path.exists():
        # Renamed when whole, so that an interrupted run leaves no half data set.
        part = path.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        part.parent.mkdir(parents=True, exist_ok=True)
        make[scenario](part)
        part.rename(path)
    return path


def run_pairs(
    scenario: str, contestants: list[Contestant], source: Path, args: argparse.Namespace
) -> Runs:
    """Warm up once, then run alternating pairs; who begins changes from pair to pair."""
    if scenario == "second":
        for one in contestants:
            _fill(one, source / "old", args.archives)
    runs: Runs = {one.name: [] for one in contestants}
    for number in range(args.pairs + 1):
        order = contestants if number % 2 else contestants[::-1]
        for one in order:
            result = _once(scenario, one, source, number)
            if number:  # pair 0 warms up, and for `unchanged` is the first backup
                runs[one.name].append(result)
            print(f"{scenario} {number} {one.name}: {result.wall_seconds:.2f} s", file=sys.stderr)
    return runs


def _once(scenario: str, one: Contestant, source: Path, number: int) -> Result:
    if scenario == "many":
        label = f"many-{number}"
        one.new_repository(label, source / CLIENTS[0])
        for name in CLIENTS[1:]:
            one.add_source(label, source / name, client=name)
        return one.backup(label, clients=("", *CLIENTS[1:]))
    if scenario == "second":
        # Each time another client, to which the repository is new.
        client = f"new-{number}"
        one.add_source("second", source / client, client=client)
        return one.backup("second", clients=(client,))
    keep = scenario == "unchanged"
    label = f"{scenario}-{0 if keep else number}"
    if number == 0 or not keep:
        one.new_repository(label, source)
    return one.backup(label)


def _fill(one: Contestant, source: Path, archives: int) -> None:
    """Let one client make that many archives; a file of it changes each time."""
    one.new_repository("second", source)
    for number in range(archives):
        (source / "changing").write_text(f"state {number}\n" * 100)
        one.backup("second")
    print(f"second: {archives} archives of {one.name} are there", file=sys.stderr)
