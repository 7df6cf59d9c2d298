"""The scenario `prune`: stock `borg prune` and `borg compact` against `borgcube prune`.

Both get a copy of the same repository with its cache in step, in turns. Stock is two commands on
the server itself, without ssh; BorgCube is the command a person types, with the start of the
worker and of the vault.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.prunedata import PASSPHRASE
from bench.sampler import Sampler

TARGET = 1.0
TIMEOUT_S = 3600


@dataclass(frozen=True)
class Run:
    """One timed prune with its compaction."""

    wall_seconds: float
    cpu_seconds: float
    peak_rss: int
    bytes_left: int
    archives_left: int


def _script(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in (path / "data").glob("*/*"))


def make_data(workdir: Path, args: argparse.Namespace) -> Path:
    """Return the directory with the repository; made once for each choice of sizes."""
    place = workdir / f"prune-{args.archives}-{args.chunks}"
    if not (place / "made").exists():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        done = subprocess.run(
            [sys.executable, "-m", "bench.prunedata", str(place), str(args.archives),
             str(args.chunks), "1"], check=True, capture_output=True, text=True, timeout=TIMEOUT_S,
        )  # fmt: skip
        (place / "made").write_text(done.stdout)
    return place


def _watched(commands: list[list[str]], env: dict[str, str], log: Path, roots: list[int]) -> Run:
    sampler = Sampler({"server": roots})
    sampler.start()
    before, begin = os.times(), time.perf_counter()
    with log.open("ab") as out:
        for command in commands:
            process = subprocess.Popen(
                command, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
            )
            sampler.add_root("server", process.pid)
            if process.wait(TIMEOUT_S) != 0:
                sampler.stop()
                raise RuntimeError(f"{command[0]} ended with {process.returncode}: see {log}")
    wall = time.perf_counter() - begin
    after = os.times()
    spent = after.children_user + after.children_system
    spent -= before.children_user + before.children_system
    usage = sampler.stop(waited_cpu={"server": spent})["server"]
    return Run(wall, usage.cpu_seconds, max(usage.peak_rss.values(), default=0), 0, 0)


def _left(repository: Path, env: dict[str, str], run: Run) -> Run:
    """Let plain borg look at what is left: the archives, and that nothing is wrong."""
    listed = subprocess.run(
        [_script("borg"), "list", "--short", str(repository)], env=env, check=True,
        capture_output=True, text=True, timeout=TIMEOUT_S,
    )  # fmt: skip
    subprocess.run(
        [_script("borg"), "check", "--repository-only", str(repository)], env=env, check=True,
        capture_output=True, timeout=TIMEOUT_S,
    )  # fmt: skip
    return Run(run.wall_seconds, run.cpu_seconds, run.peak_rss, _size(repository),
               len(listed.stdout.split()))  # fmt: skip


def _environment(place: Path) -> dict[str, str]:
    return {
        "PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", "HOME": str(place),
        "BORG_BASE_DIR": str(place / "base"), "BORG_PASSPHRASE": PASSPHRASE,
        "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
    }  # fmt: skip


def stock(data: Path, place: Path, keep: int) -> Run:
    """Time plain borg on a copy."""
    shutil.copytree(data, place)
    env, repository = _environment(place), str(place / "repository")
    # Its first command after a copy asks about the new place; that is not what is timed.
    subprocess.run([_script("borg"), "list", "--short", repository], env=env, check=True,
                   capture_output=True, timeout=TIMEOUT_S)  # fmt: skip
    run = _watched(
        [
            [_script("borg"), "prune", "--keep-last", str(keep), repository],
            [_script("borg"), "compact", repository],
        ],
        env, place / "log", [],
    )  # fmt: skip
    return _left(place / "repository", env, run)


def cube(data: Path, place: Path, keep: int) -> Run:
    """Time BorgCube on a copy, that it has imported before."""
    place.mkdir()
    shutil.copytree(data / "repository", place / "repository")
    env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(place), "LANG": "C.UTF-8",
           "BORGCUBE_HOME": str(place / "home")}  # fmt: skip
    if "PYTHONPATH" in os.environ:
        env["PYTHONPATH"] = os.environ["PYTHONPATH"]
    secret = place / "secret"
    secret.write_text(PASSPHRASE)

    def command(*words: str) -> None:
        subprocess.run([_script("borgcube"), *words], env=env, check=True, capture_output=True,
                       timeout=TIMEOUT_S)  # fmt: skip

    command("init")
    with (place / "serve.log").open("ab") as out:
        daemon = subprocess.Popen([_script("borgcube"), "serve"], env=env, stdout=out, stderr=out)
    try:
        end = time.monotonic() + 60
        while subprocess.run([_script("borgcube"), "repository", "list"], env=env,
                             capture_output=True).returncode:  # fmt: skip
            if time.monotonic() > end or daemon.poll() is not None:
                raise RuntimeError(f"the daemon did not answer: see {place / 'serve.log'}")
            time.sleep(0.2)
        command("repository", "import", "main", "--path", str(place / "repository"),
                "--passphrase-file", str(secret))  # fmt: skip
        (state,) = (place / "home/engines/borg/repositories").iterdir()
        shutil.copytree(data / "base", state / "base", dirs_exist_ok=True)
        command("client", "add", "alpha", "--transport", "local")
        command("plan", "add", "all", "--client", "alpha", "--repository", "main", "--path", "/srv")
        command("repository", "map", "main", "alpha-*", "--plan", "all", "--apply")
        command("retention", "add", "last", "--last", str(keep), "--undo", "0")
        command("retention", "attach", "last", "all")
        prune = [_script("borgcube"), "prune", "all", "--compact", "always", "--wait"]
        run = _watched([prune], env, place / "log", [daemon.pid])
    finally:
        daemon.terminate()
        daemon.wait(120)
    base = {**_environment(place), "BORG_BASE_DIR": str(state / "base")}
    return _left(place / "repository", base, run)


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench prune", description=__doc__)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--archives", type=int, default=600)
    parser.add_argument("--keep", type=int, default=100, help="the others are pruned")
    parser.add_argument("--chunks", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--workdir", type=Path, help="keep the repository here for the next run")
    parser.add_argument("--only", choices=["stock", "borgcube"], help="run one side, no ratio")
    args = parser.parse_args(argv)
    if args.pairs < 1 or not 0 < args.keep < args.archives or args.chunks < 10_000:
        parser.error("at least one pair, 10,000 chunks, and fewer to keep than there are")
    return args


def main(argv: list[str]) -> int:
    """Run the pairs; return 0, or 2 when one could not run."""
    args = _parse(argv)
    workdir = (args.workdir or Path(tempfile.mkdtemp(prefix="borgcube-bench-"))).resolve()
    workdir.mkdir(parents=True, exist_ok=True)
    runs: dict[str, list[Run]] = {"stock": [], "borgcube": []}
    sides = {"stock": stock, "borgcube": cube}
    try:
        data = make_data(workdir, args)
        for pair in range(args.pairs):
            order = list(sides) if pair % 2 == 0 else list(reversed(sides))
            for name in order:
                if args.only in (None, name):
                    place = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=workdir)) / "run"
                    runs[name].append(sides[name](data, place, args.keep))
                    shutil.rmtree(place.parent)  # kept, with its logs, when something failed
    except (RuntimeError, subprocess.SubprocessError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    _report(runs, args)
    if args.workdir is None:
        shutil.rmtree(workdir)
    return 0


def _report(runs: dict[str, list[Run]], args: argparse.Namespace) -> None:
    console = Console(width=max(100, Console().width))
    table = Table(title=f"prune of {args.archives - args.keep} archives, "
                  f"{args.chunks:,} chunks (median)")  # fmt: skip
    for head in ("", "wall s", "CPU s", "peak MB", "MB left", "archives left"):
        table.add_column(head)
    for name, found in runs.items():
        if found:
            table.add_row(
                name, f"{statistics.median(run.wall_seconds for run in found):.1f}",
                f"{statistics.median(run.cpu_seconds for run in found):.1f}",
                f"{max(run.peak_rss for run in found) / 1e6:.0f}",
                f"{found[-1].bytes_left / 1e6:.0f}", str(found[-1].archives_left),
            )  # fmt: skip
    console.print(table)
    report = {name: [asdict(run) for run in found] for name, found in runs.items()}
    if all(runs.values()):
        ratios = [a.wall_seconds / b.wall_seconds
                  for a, b in zip(runs["borgcube"], runs["stock"], strict=True)]  # fmt: skip
        ratio = statistics.median(ratios)
        console.print(f"wall {ratio:.2f} x stock (goal: at most {TARGET})")
        report["ratios"] = [{"wall": one} for one in ratios]
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")
