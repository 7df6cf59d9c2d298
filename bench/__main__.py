"""The bench's command, `python -m bench SCENARIO`. See bench/README.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import prune
from bench.runners import Contestant, Cube, Result, Stock
from bench.scenarios import TARGETS, Runs, make_data, run_pairs
from bench.sshd import CIPHER, Sshd


def _median(runs: list[Result], value: Callable[[Result], float]) -> float:
    return statistics.median(value(run) for run in runs)


def _summary(runs: Runs) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, results in runs.items():
        peaks: dict[str, dict[str, int]] = {"client": {}, "server": {}}
        for run in results:
            for side, usage in (("client", run.client), ("server", run.server)):
                for label, size in usage.peak_rss.items():
                    peaks[side][label] = max(size, peaks[side].get(label, 0))
        found[name] = {
            "wall_seconds": _median(results, lambda run: run.wall_seconds),
            "client_cpu_seconds": _median(results, lambda run: run.client.cpu_seconds),
            "server_cpu_seconds": _median(results, lambda run: run.server.cpu_seconds),
            "peak_rss": peaks,
            "runs": [asdict(run) for run in results],
        }
    if {"stock", "borgcube"} <= runs.keys():
        pairs = list(zip(runs["borgcube"], runs["stock"], strict=True))
        found["wall_ratio"] = statistics.median(a.wall_seconds / b.wall_seconds for a, b in pairs)
        found["client_cpu_ratio"] = statistics.median(
            a.client.cpu_seconds / max(b.client.cpu_seconds, 0.01) for a, b in pairs
        )
    return found


def _print(console: Console, scenario: str, summary: dict[str, Any]) -> None:
    table = Table(title=f"{scenario} (median)")
    for head in ("", "wall s", "client CPU s", "server CPU s", "peak MB, client", "server"):
        table.add_column(head)
    for name in ("stock", "borgcube"):
        if name not in summary:
            continue
        row = summary[name]
        peaks = [
            "\n".join(
                f"{label} {size / 1e6:.0f}" for label, size in sorted(row["peak_rss"][s].items())
            )
            for s in ("client", "server")
        ]
        times = [
            f"{row[key]:.2f}"
            for key in ("wall_seconds", "client_cpu_seconds", "server_cpu_seconds")
        ]
        table.add_row(name, *times, *peaks, end_section=True)
    console.print(table)
    if "wall_ratio" in summary:
        console.print(
            f"wall {summary['wall_ratio']:.2f} x stock (goal: at most {TARGETS[scenario]}), "
            f"client CPU {summary['client_cpu_ratio']:.2f} x stock"
        )


def _machine() -> dict[str, Any]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    model = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    ssh = subprocess.run(["ssh", "-V"], capture_output=True, text=True, timeout=10, check=False)
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": model[0] if model else platform.machine(),
        "cores": os.cpu_count(),
        "memory_bytes": memory,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "borg": version("borgbackup"),
        "ssh": ssh.stderr.strip(),
        "cipher": CIPHER,
        "load_at_start": os.getloadavg(),
    }


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("scenario", choices=[*TARGETS, "all"],
                        help="or prune, which has options of its own")  # fmt: skip
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument(
        "--bytes", type=int, default=1_500_000_000, help="size of `first`, of all four in `many`"
    )
    parser.add_argument("--files", type=int, help="count for `unchanged`, `small` and `second`")
    parser.add_argument("--lock-wait", type=int, default=0, metavar="SECONDS",
                        help="in `many`: stock waits with this, not by flock")  # fmt: skip
    parser.add_argument("--archives", type=int, default=50, help="present in `second`")
    parser.add_argument("--encryption", choices=["repokey", "repokey-blake2"], default="repokey")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--workdir", type=Path, help="keep the data sets here for the next run")
    parser.add_argument("--only", choices=["stock", "borgcube"], help="run one side, no ratio")
    args = parser.parse_args(argv)
    if min(args.pairs, args.bytes, args.archives) < 1 or (
        args.files is not None and args.files < 1
    ):
        parser.error("--pairs, --bytes, --archives and --files must be at least 1")
    return args


def main(argv: list[str] | None = None) -> int:
    """Run the scenarios asked for; return 0, or 2 when one could not run."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["prune"]:  # no backup: it has other options
        return prune.main(words[1:])
    args = _parse(words)
    workdir = (args.workdir or Path(tempfile.mkdtemp(prefix="borgcube-bench-"))).resolve()
    workdir.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {
        "machine": _machine(),
        "encryption": args.encryption,
        "pairs": args.pairs,
        "scenarios": {},
    }
    console = Console(width=max(120, Console().width))
    wanted = list(TARGETS) if args.scenario == "all" else [args.scenario]
    try:
        for scenario in wanted:
            source = make_data(workdir, scenario, args)
            folder = Path(tempfile.mkdtemp(prefix=f"{scenario}-", dir=workdir))
            contestants: list[Contestant] = []
            sshd = Sshd(folder / "sshd")
            try:
                Stock.lock_wait_seconds = args.lock_wait
                for kind in (Stock, Cube):
                    if args.only in (None, kind.name):
                        contestants.append(kind(folder / kind.name, sshd, args.encryption))
                summary = _summary(run_pairs(scenario, contestants, source, args))
            finally:
                for one in contestants:
                    one.stop()
                sshd.stop()
            summary["data"] = source.name
            report["scenarios"][scenario] = summary
            _print(console, scenario, summary)
            shutil.rmtree(folder)  # kept, with its logs, when something failed
            if args.json:
                args.json.write_text(json.dumps(report, indent=2) + "\n")
    except (RuntimeError, subprocess.SubprocessError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    if args.workdir is None:
        shutil.rmtree(workdir)
    return 0


if __name__ == "__main__":
    sys.exit(main())
