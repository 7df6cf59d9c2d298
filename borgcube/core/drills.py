"""Restore drills: where reports are, and what their words are.

For the worker that restores, the daemon, the console and the command line; which archive is next
is in ``drillchoice``, which reads the store. Reports are files in the home,
``drills/JOB/report.json`` and ``report.html``; the store keeps their figures and the SHA-256
of the first, and the journal has it as well.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import threading
from pathlib import Path
from typing import Any

from borgcube.core import home as places

PASSED, REMARKS, FAILED = "passed", "remarks", "failed"
# As a report and the command line say it.
IN_WORDS = {PASSED: "passed", REMARKS: "passed with remarks", FAILED: "failed"}
DEFAULT_FILES = 50
MAX_FILES = 10_000
# A sample stops here, so that a drill of a few huge files is still a matter of minutes.
DEFAULT_BYTES = 4 << 30
JSON_NAME, HTML_NAME = "report.json", "report.html"
FORMS = {"html": HTML_NAME, "json": JSON_NAME}
MAX_REPORT = 8 << 20


def report_dir(home: Path, job_id: str) -> Path:
    """Return the directory of a drill's report (not created here)."""
    return home / "drills" / job_id


def scratch_dir(home: Path, job_id: str) -> Path:
    """Return where a drill restores to (not created here); removed with the job."""
    return home / "scratch" / job_id


def read_report(home: Path, job_id: str, sha256: str) -> dict[str, Any]:
    """Return ``report`` (None when it is gone), the ``directory``, and ``genuine``: whether
    the file is the one whose digest the journal has."""
    directory = report_dir(home, job_id)
    try:
        with (directory / JSON_NAME).open("rb") as file:
            data = file.read(MAX_REPORT)
        report = json.loads(data)
    except (OSError, ValueError):
        return {"report": None, "directory": str(directory), "genuine": False}
    genuine = hashlib.sha256(data).hexdigest() == sha256
    return {"report": report, "directory": str(directory), "genuine": genuine}


def clear_scratch(home: Path, job_id: str = "") -> None:
    """Remove what a drill restored, or what all did; safe to repeat.

    Restored directories may forbid their own user to change them, and may be thousands deep: the
    system's own tools follow no link on their way, and go down any number of steps.
    """
    place = scratch_dir(home, job_id) if job_id else home / "scratch"
    if not place.exists():
        return
    for argv in (["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
        subprocess.run([*argv, "--", str(place)], check=False, stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip


def clear_scratch_later(home: Path, job_id: str = "") -> None:
    """Remove it in a thread, if there is anything: of a drill whose worker was killed."""
    place = scratch_dir(home, job_id) if job_id else home / "scratch"
    if place.exists():
        threading.Thread(
            target=clear_scratch, args=(home, job_id), name="scratch", daemon=True
        ).start()


def make_report_dir(home: Path, job_id: str) -> Path:
    """Make and return the directory of a drill's report."""
    places.private_directory(home / "drills")
    return places.private_directory(report_dir(home, job_id))
