"""Following a job to its end: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from borgcube.cli import output
from borgcube.cli.control import Control
from borgcube.core.errors import DaemonUnreachable

EXIT_CODES = {"done": 0, "warning": 1}
LOOK_S = 0.25
PLAIN_EVERY_S = 5.0
PATIENCE_S = 30.0  # a daemon that restarts is waited for
SHOWN_WARNINGS = 10


class Speed:
    """Bytes a second over the last few seconds."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, int]] = []

    def update(self, read: int) -> float:
        """Note a new total and return the speed."""
        now = time.monotonic()
        self._seen.append((now, read))
        while len(self._seen) > 2 and now - self._seen[0][0] > 5:
            self._seen.pop(0)
        first_at, first = self._seen[0]
        return max(0.0, (read - first) / (now - first_at)) if now - first_at > 0.2 else 0.0


def expected_bytes(control: Control, job: dict[str, Any]) -> int:
    """Return what the plan's last archive held, as an estimate; 0 when there is none."""
    if job["type"] != "backup":
        return 0
    archives = control.call(
        "archive.list", client=job["client"], repository=job["repository"], limit=50
    )
    for archive in archives:
        if archive["plan"] == job["plan"]:
            return int(archive["stats"].get("size") or 0)
    return 0


def _figures(job: dict[str, Any], speed: Speed) -> str:
    progress = job["progress"]
    read = progress.get("bytes_read") or 0
    parts = [
        f"{output.count(progress.get('files') or 0)} files",
        f"{output.size(read)} {'read' if job['type'] == 'backup' else 'written'}",
    ]
    if job["type"] == "backup":
        parts.append(f"{output.size(progress.get('bytes_new') or 0)} new")
    parts.append(f"{output.size(speed.update(read))}/s")
    return "  ".join(parts)


def _picture(job: dict[str, Any], speed: Speed, total: int) -> Table:
    progress = job["progress"]
    read = progress.get("bytes_read") or 0
    running = job["state"] in ("starting", "running")
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    bar = Table.grid(padding=(0, 1))
    known = bool(total and running)
    bar.add_row(
        Text(job["plan"] or job["type"], style="bold"),
        Text(job["phase"] or job["state"], style="cyan"),
        ProgressBar(
            # A first backup has no known size; the estimate of a later one may be short.
            total=total if known else None, completed=min(read, int(total * 0.99)),
            width=24, pulse=not known,
        ),
        Text(_figures(job, speed)),
    )  # fmt: skip
    grid.add_row(bar)
    path = output.harmless(progress.get("path") or "")
    grid.add_row(Text(path, style="dim", overflow="ellipsis", no_wrap=True))
    return grid


def follow(control: Control, job_id: str) -> int:
    """Follow a job to its end, report it, and return the exit code.

    Raises KeyboardInterrupt as it comes; the job does not mind.
    """
    job = control.call("job.show", id=job_id)
    total = expected_bytes(control, job)
    speed = Speed()
    if sys.stderr.isatty():
        screen = output.console(stderr=True)
        screen.soft_wrap = False
        with Live(console=screen, refresh_per_second=8, transient=True) as live:
            while not job["finished_at"]:
                live.update(_picture(job, speed, total or job["progress"].get("bytes_total", 0)))
                job = _next(control, job)
    else:
        phase, said = "", time.monotonic()
        while not job["finished_at"]:
            if job["phase"] != phase or time.monotonic() - said > PLAIN_EVERY_S:
                phase, said = job["phase"], time.monotonic()
                line = f"{job['plan'] or job['type']}: {phase or job['state']}  "
                print(line + _figures(job, speed), file=sys.stderr, flush=True)
            job = _next(control, job)
    report(job)
    return EXIT_CODES.get(job["state"], 2)


def _next(control: Control, job: dict[str, Any]) -> dict[str, Any]:
    time.sleep(LOOK_S)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            shown: dict[str, Any] = control.call("job.show", id=job["id"])
        except DaemonUnreachable:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)
        else:
            return shown


def report(job: dict[str, Any]) -> None:
    """Print how a job ended, in a few lines."""
    out = output.console()
    head = Text(f"{job['plan'] or job['type']}: ", style="bold")
    head.append_text(output.state_text(job["state"]))
    took = output.duration(job["started_at"], job["finished_at"])
    result = job["result"]
    if took != "-":
        head.append(f" in {took}", style="not bold")
    out.print(head)
    if job["type"] == "backup" and "size" in result:
        output.say(
            f"  archive {result['archive']}: {output.count(result['files'])} files, "
            f"{output.size(result['size'])}, {output.size(result['new_size'])} stored anew"
        )
    elif job["type"] == "restore" and "files" in result:
        output.say(
            f"  {output.count(result['files'])} files, {output.size(result['size'])} "
            f"below {result['target']}"
        )
    if job["cause"] and job["state"] not in ("done", "warning"):
        output.complain(job["cause"]["message"], job["cause"]["next_step"])
    warnings = job["warnings"]
    for warning in warnings[:SHOWN_WARNINGS]:
        output.say(f"  warning: {warning}")
    if len(warnings) > SHOWN_WARNINGS:
        output.say(f"  and {len(warnings) - SHOWN_WARNINGS} more: borgcube job show {job['id']}")
