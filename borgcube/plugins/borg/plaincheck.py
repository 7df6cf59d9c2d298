"""Borg's own check of a repository, as a second opinion that shares no code with ours.

Runs ``borg check`` as a process while nobody else has the repository: the daemon starts this
job only then, without a vault. The passphrase comes to the worker on its standard input and
goes to borg on a descriptor of its own. Nothing is repaired.
"""

from __future__ import annotations

import configparser
import os
import sys
import time
from pathlib import Path
from typing import Any

from borgcube.core import memory
from borgcube.core.errors import FailureCause, JobFailed, Problem
from borgcube.core.home import repository_state_dir
from borgcube.core.jobs import JOB_DONE, JobContext, JobResult
from borgcube.core.untrusted import words
from borgcube.plugins.borg import clientend
from borgcube.plugins.borg.borgprocess import BorgProcess

MAX_SHOWN = 1000
MAX_CONFIG = 1 << 20
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


def memory_for(repository: Path) -> int:
    """Return the limit of address space for a borg that reads all of a repository: it makes
    each of its indexes anew, one beside the other."""
    files = repository.glob("index.*")
    wanted = 30 * sum(file.stat().st_size for file in files if file.is_file())
    # A file can say that it is of any size, and more than this machine has is no limit.
    return BASE_MEMORY + min(wanted, memory.of_machine())


def claimed_id(repository: Path) -> str:
    """Return the ID in a repository's configuration, empty when there is none to be read."""
    found = configparser.ConfigParser(interpolation=None)
    try:
        with (repository / "config").open(encoding="utf-8") as file:
            found.read_string(file.read(MAX_CONFIG))
        return found.get("repository", "id").strip()
    except (OSError, ValueError, configparser.Error):
        return ""


def check(context: JobContext, passphrase: str) -> JobResult:
    """Run it to its end; raises JobFailed when borg could not check at all."""
    order = context.order
    path = Path(str(order.repository["path"]))
    if path.is_dir() and not os.access(path, os.W_OK):
        raise JobFailed(
            "repository-read-only", Problem.REPOSITORY,
            f"The repository at {path} is read-only, and borg check has to write its lock.",
            next_step="BorgCube's own check reads it all the same: borgcube check run "
            f"{order.repository.get('name', 'REPOSITORY')}",
        )  # fmt: skip
    recorded, found = str(order.repository.get("id") or ""), claimed_id(path)
    if recorded and found and found != recorded:
        raise JobFailed(
            "repository-replaced", Problem.REPOSITORY,
            f"What lies at {path} is another repository than the one that BorgCube knows there.",
            next_step="Mount the storage that belongs there. To use what is there now, import it "
            "under another name.",
        )  # fmt: skip
    argv = command(str(path), dict(order.parameters))
    own = repository_state_dir(context.state_dir, str(order.repository["record"]))
    context.phase("checking")
    started = time.monotonic()
    problems: list[str] = []
    with memory.for_children(memory_for(path)):
        borg = BorgProcess(argv, own, passphrase, path=path)
    with borg:
        for message in borg.messages(context.check_cancelled):
            _take(context, message, problems)
        code = borg.wait()
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
    if code < 0 or code > 128:
        raise JobFailed(
            "borg-killed", Problem.SERVER,
            f"borg check was killed on this server by {clientend.signal_name(code)}.",
            next_step="Look at this server's memory and system log, then check again.",
        )  # fmt: skip
    raise JobFailed(
        "borg-failed", Problem.REPOSITORY,
        f"borg check ended with code {code}: {problems[-1] if problems else 'no message'}.",
        next_step="The job's log has all it said.",
    )  # fmt: skip


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
