"""Commands that list files: what a backup of a plan would take."""

from __future__ import annotations

import argparse
from typing import Any

from borgcube.cli import output
from borgcube.cli.control import Control
from borgcube.cli.follow import EXIT_CODES, follow, report, unused_lines

PAGE = 1000


def plan_dry_run(control: Control, options: argparse.Namespace) -> int:
    """List what a backup of a plan would take; nothing is stored."""
    return dry_run(control, options, plan=options.name)


def dry_run(control: Control, given: argparse.Namespace, /, **asked: Any) -> int:
    """List what a backup would take: of a saved ``plan``, or with ``options`` of none."""
    job_id = control.call("plan.dry_run", **asked)["job_id"]
    follow(control, [job_id], quiet=True)
    job: dict[str, Any] = control.call("job.show", id=job_id)
    if given.json:
        output.as_json(job)
    elif job["state"] not in ("done", "warning"):
        report(job)
    else:
        _print(control, job, every=getattr(given, "all", False))
    return EXIT_CODES.get(job["state"], 2)


def _print(control: Control, job: dict[str, Any], *, every: bool) -> None:
    """Print the list, then what it comes to."""
    start = 0
    while True:
        page = control.call("job.listing", id=job["id"], kind="" if every else "included",
                            start=start, limit=PAGE)  # fmt: skip
        for entry in page["entries"]:
            kind = {"excluded": "left out", "directory": "directory"}.get(entry["kind"])
            size = kind or output.size(entry["size"])
            output.say(f"{size:>10}  {output.harmless(entry['path'])}")
        start += PAGE
        if start >= page["matches"]:
            break
    result = job["result"]
    for warning in job["warnings"]:
        output.say(f"warning: {warning}")
    size = f", {output.size(result['size'])}" if result["measured"] else ", sizes not known"
    output.say(
        f"A backup would take {output.count(result['included'])} files and directories{size}; "
        f"{output.count(result['excluded'])} are left out."
    )
    for line in unused_lines(result):
        output.say(f"note: {line}")
    if result["cut"]:
        output.say(f"The list has the first {output.count(result['kept'])} of them only.")
