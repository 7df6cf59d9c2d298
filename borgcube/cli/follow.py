"""Following jobs to their ends: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group
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
KEEPING = ("prune", "compact", "archive-delete", "archive-mend")
# Figures of what comes before: done, of how many, what was done.
LOOKED = (("archives_looked_at", "archives_to_look_at", "looked through"),
          ("archives_counted", "archives_to_count", "counted anew"))  # fmt: skip
ROOMY = 110  # columns that bar and figures need on one line


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
    if job["type"] in KEEPING:
        return _kept_figures(progress)
    read = progress.get("bytes_read") or 0
    parts = [
        f"{output.count(progress.get('files') or 0)} files",
        f"{output.size(read)} {'read' if job['type'] == 'backup' else 'written'}",
    ]
    if job["type"] == "backup":
        parts.append(f"{output.size(progress.get('bytes_new') or 0)} new")
    parts.append(f"{output.size(speed.update(read))}/s")
    return "  ".join(parts)


def _kept_figures(progress: dict[str, Any]) -> str:
    parts = []
    for done, total, words in LOOKED:
        if total in progress:
            return (f"{output.count(progress.get(done) or 0)} of {output.count(progress[total])} "
                    f"archives {words}")  # fmt: skip
    if "items" in progress:
        parts.append(f"{output.count(progress['items'])} items")
    if "archives_total" in progress:
        parts.append(f"{output.count(progress.get('archives_done') or 0)} of "
                     f"{output.count(progress['archives_total'])} archives")  # fmt: skip
    if progress.get("bytes_freed"):
        parts.append(f"{output.size(progress['bytes_freed'])} given back")
    if progress.get("waiting"):
        parts.append("waits for others that use the repository")
    return "  ".join(parts)


def _picture(job: dict[str, Any], speed: Speed, total: int, *, width: int) -> Table:
    progress = job["progress"]
    read = progress.get("bytes_read") or 0
    running = job["state"] in ("starting", "running")
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    bar = Table.grid(padding=(0, 1))
    known = bool(total and running)
    figures = Text(_figures(job, speed), no_wrap=True, overflow="ellipsis")
    bar.add_row(
        Text(job["plan"] or job["type"], style="bold"),
        Text(job["phase"] or job["state"], style="cyan"),
        ProgressBar(
            # A first backup has no known size; the estimate of a later one may be short.
            total=total if known else None, completed=min(read, int(total * 0.99)),
            width=24, pulse=not known,
        ),
        *(() if width < ROOMY else (figures,)),
    )  # fmt: skip
    grid.add_row(bar)
    if width < ROOMY:
        grid.add_row(figures)
    path = output.harmless(progress.get("path") or "")
    grid.add_row(Text(path, style="dim", overflow="ellipsis", no_wrap=True))
    return grid


@dataclass
class Watched:
    """A job that is followed, as last seen."""

    job: dict[str, Any]
    total: int
    speed: Speed = field(default_factory=Speed)
    said_phase: str = ""
    said_at: float = field(default_factory=time.monotonic)

    @property
    def ended(self) -> bool:
        """Whether the job has ended."""
        return bool(self.job["finished_at"])

    def picture(self, *, width: int) -> Table:
        """Return the live lines for a terminal of that width."""
        total = self.total or int(self.job["progress"].get("bytes_total") or 0)
        return _picture(self.job, self.speed, total, width=width)

    def plain_line(self) -> str:
        """Return a line when there is something to say: a new phase, or after a while."""
        phase, now = self.job["phase"] or self.job["state"], time.monotonic()
        if self.ended or (phase == self.said_phase and now - self.said_at < PLAIN_EVERY_S):
            return ""
        self.said_phase, self.said_at = phase, now
        return f"{self.job['plan'] or self.job['type']}: {phase}  {_figures(self.job, self.speed)}"


def follow(control: Control, job_ids: Sequence[str], *, quiet: bool = False) -> int:
    """Follow jobs to their ends, report each unless ``quiet``, and return the worst exit code.

    Raises KeyboardInterrupt as it comes; the jobs do not mind.
    """
    watched = []
    for job_id in job_ids:
        job = control.call("job.show", id=job_id)
        watched.append(Watched(job, expected_bytes(control, job)))

    # An end is seen at once; the figures are fetched now and then.
    endings = control.subscribe("job.finished", "job.lost")

    def look() -> bool:
        if endings.poll(int(LOOK_S * 1000)):
            endings.recv_multipart()
        for one in watched:
            if not one.ended:
                one.job = _look(control, one.job["id"])
        return not all(one.ended for one in watched)

    if all(one.ended for one in watched):
        pass
    elif sys.stderr.isatty():
        screen = output.console(stderr=True)
        screen.soft_wrap = False
        with Live(console=screen, refresh_per_second=8, transient=True) as live:
            going = True
            while going:
                pictures = [one.picture(width=screen.width) for one in watched if not one.ended]
                live.update(Group(*pictures))
                going = look()
    else:
        going = True
        while going:
            for one in watched:
                line = one.plain_line()
                if line:
                    print(output.harmless(line), file=sys.stderr, flush=True)
            going = look()
    endings.close(linger=0)
    for one in watched if not quiet else ():
        report(one.job)
    return max(EXIT_CODES.get(one.job["state"], 2) for one in watched)


def _look(control: Control, job_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            shown: dict[str, Any] = control.call("job.show", id=job_id)
        except DaemonUnreachable:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)
        else:
            return shown


def _archives(number: int) -> str:
    return "1 archive" if number == 1 else f"{output.count(number)} archives"


def kept_lines(result: dict[str, Any]) -> list[str]:
    """Return what a prune or a compaction did, in words."""
    lines = []
    if "would_free_bytes" in result:
        lines.append(f"{_archives(result.get('going', 0))} would go and free "
                     f"{output.size(result['would_free_bytes'])}")  # fmt: skip
    if "pruned" in result:
        lines.append(f"{_archives(result['pruned'])} pruned now; "
                     f"{_archives(result['deleted'])} deleted for good")  # fmt: skip
    if "compacted_bytes" in result:
        lines.append(f"{output.size(result['compacted_bytes'])} given back to the storage")
    elif result.get("unused_bytes"):
        lines.append(f"{output.size(result['unused_bytes'])} are unused now, until a compaction")
    return lines


def unused_lines(result: dict[str, Any]) -> list[str]:
    """Return what there is to say of exclusions that matched nothing."""
    found = (result.get("exclusions") or {}).get("unused") or []
    return [f"no path matches the exclusion {output.harmless(text)}" for text in found[:20]]


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
    elif job["type"] in ("prune", "compact") and result:
        for line in kept_lines(result):
            output.say(f"  {line}")
    elif job["type"] == "archive-mend" and "items" in result:
        output.say(
            f"  archive {result['archive']}: {output.count(result['items'])} items written anew, "
            f"{output.count(result['left_out'])} left out"
        )
    elif job["type"] == "check" and "slice_bytes" in result:
        output.say(
            f"  {output.size(result['slice_bytes'])} in {output.count(result['slice_chunks'])} "
            f"objects read; {output.size(result['bytes_verified'])} of "
            f"{output.size(result['bytes_total'])} are verified by now"
        )
    elif job["type"] == "check" and "slice_items" in result:
        output.say(
            f"  {output.count(result['slice_items'])} files and directories of "
            f"{output.count(result['slice_archives'])} archives looked up"
        )
    elif job["type"] == "borg-check" and "sound" in result:
        output.say("  borg found nothing wrong" if result["sound"] else "  borg found problems")
    elif job["type"] == "drill" and "files" in result:
        output.say(
            f"  {result['archive']}: {output.count(result['files'])} files, "
            f"{output.size(result['size'])} restored in {result['seconds']:.1f} s and compared: "
            f"{result['result']}"
        )
    for line in unused_lines(result):
        output.say(f"  {line}")
    if job["cause"] and job["state"] not in ("done", "warning"):
        output.complain(job["cause"]["message"], job["cause"]["next_step"])
    warnings = job["warnings"]
    for warning in warnings[:SHOWN_WARNINGS]:
        output.say(f"  warning: {warning}")
    if len(warnings) > SHOWN_WARNINGS:
        output.say(f"  and {len(warnings) - SHOWN_WARNINGS} more: borgcube job show {job['id']}")
