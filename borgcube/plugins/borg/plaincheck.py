"""Borg's own check of a repository, as a second opinion that shares no code with ours.

Runs ``borg check`` as a process while nobody else has the repository: the daemon starts this
job only then, without a vault. The passphrase comes to the worker on its standard input and
goes to borg on a descriptor of its own. Nothing is repaired.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from borgcube.core import memory
from borgcube.core.errors import FailureCause, JobFailed, Problem
from borgcube.core.jobs import JOB_DONE, JobContext, JobResult
from borgcube.core.untrusted import words

MAX_SHOWN = 1000
MAX_LINE = 1 << 20
BASE_MEMORY = 4 << 30
# Borg's exit codes with BORG_EXIT_CODES=legacy: sound, and damage found.
SOUND, DAMAGED = 0, 1
NEXT = "See the job's log, look at the disk, and docs/checks.md, Repair. Nothing was changed."


def command(path: str, parameters: dict[str, Any]) -> list[str]:
    """Return the argv of ``borg check``: everything, or as long as ``budget_s`` allows."""
    borg = str(Path(sys.executable).with_name("borg"))
    argv = [borg, "check", "--log-json", "--progress", "--info"]
    budget = int(parameters.get("budget_s") or 0)
    if budget:
        # Borg remembers where it was; only the check of the segments can be cut like that.
        argv += ["--repository-only", "--max-duration", str(budget)]
    elif parameters.get("full"):
        argv += ["--verify-data"]
    return [*argv, "--", path]


def environment(state_dir: Path, passphrase_fd: int) -> dict[str, str]:
    """Return borg's environment; the passphrase is not in it."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("BORG_")}
    return {
        **kept,
        "BORG_BASE_DIR": str(state_dir / "base"),
        "BORG_PASSPHRASE_FD": str(passphrase_fd),
        "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
        "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
        "BORG_EXIT_CODES": "legacy",
        "BORG_LOCK_WAIT": "60",
    }


def memory_for(repository: Path) -> int:
    """Return the limit of address space for a borg that reads all of a repository: it makes
    each of its indexes anew, one beside the other."""
    files = repository.glob("index.*")
    return BASE_MEMORY + 30 * sum(file.stat().st_size for file in files if file.is_file())


def check(context: JobContext, passphrase: str) -> JobResult:
    """Run it to its end; raises JobFailed when borg could not check at all."""
    order = context.order
    argv = command(str(order.repository["path"]), dict(order.parameters))
    context.phase("checking")
    reading, writing = os.pipe()
    started = time.monotonic()
    try:
        with memory.for_children(memory_for(Path(str(order.repository["path"])))):
            process = subprocess.Popen(
                argv, env=environment(context.state_dir, reading), pass_fds=(reading,),
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                cwd="/",
            )  # fmt: skip
        os.write(writing, passphrase.encode() + b"\n")
    finally:
        os.close(reading)
        os.close(writing)
    problems: list[str] = []
    try:
        for message in _messages(process):
            context.check_cancelled()
            _take(context, message, problems)
        code = process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)
        if process.stderr is not None:
            process.stderr.close()
    facts = {
        "kind": "borg", "sound": code == SOUND, "problems": len(problems),
        "seconds": round(time.monotonic() - started, 2),
        "whole": "--repository-only" not in argv, "verified_data": "--verify-data" in argv,
    }  # fmt: skip
    if code == SOUND:
        return JobResult(state=JOB_DONE, data=facts, checked=facts)
    if code == DAMAGED:
        said = problems[0] if problems else "it says no more than that"
        return JobResult(
            state="failed", data=facts, checked=facts, warnings=problems[:MAX_SHOWN],
            cause=FailureCause("borg-check-failed", Problem.REPOSITORY,
                               f"Borg's own check found problems: {said}.", NEXT),
        )  # fmt: skip
    raise JobFailed(
        "borg-failed", Problem.REPOSITORY,
        f"borg check ended with code {code}: {problems[-1] if problems else 'no message'}.",
        next_step="The job's log has all it said.",
    )  # fmt: skip


def _messages(process: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    assert process.stderr is not None
    while line := process.stderr.readline(MAX_LINE):
        try:
            message = json.loads(line)
        except ValueError:
            message = {"type": "log_message", "levelname": "WARNING",
                       "message": line.decode("utf-8", "replace").strip()}  # fmt: skip
        if isinstance(message, dict):
            yield message


def _take(context: JobContext, message: dict[str, Any], problems: list[str]) -> None:
    """Log a message, or show the progress that it tells of."""
    kind = message.get("type")
    if kind == "progress_percent" and not message.get("finished"):
        total = message.get("total")
        if isinstance(total, int) and total > 0:
            percent = 100 * int(message.get("current") or 0) // total
            context.progress(percent=percent, path=words(message.get("message") or ""))
    elif kind == "log_message":
        level = str(message.get("levelname", "INFO")).lower()
        text = words(message.get("message") or "")
        context.log(level if level in ("info", "warning", "error") else "error", text)
        if level in ("warning", "error", "critical") and len(problems) < MAX_SHOWN:
            problems.append(text)
