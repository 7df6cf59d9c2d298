"""One restore drill: choose, restore, compare, report. Runs in a worker.

The restore is the engine's own, with the stock borg of this server; what is compared does not
come from that borg but from the archive's items, so that one checks the other. Scratch space
is in the home and goes away with the job; the daemon removes it when the worker was killed.
"""

from __future__ import annotations

import os
import shutil
import time
import traceback
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from borgcube.core import drills
from borgcube.core import home as places
from borgcube.core.errors import FailureCause, JobCancelled, JobFailed, Problem
from borgcube.core.expected import read_expected
from borgcube.core.jobs import JOB_DONE, JOB_WARNING, JobContext, JobResult
from borgcube.core.untrusted import words
from borgcube.plugins.drill.comparing import Compared, compare
from borgcube.plugins.drill.report import write_report

SPARE_BYTES = 1 << 30
SPARE_SHARE = 1.05  # blocks and directories take room as well
MAX_PROBLEMS = 200
SHOWN_FILES = 250


@dataclass
class Findings:
    """What a drill found so far."""

    began: str
    files: int = 0
    size: int = 0
    seconds: float = 0.0
    whole: bool = False
    archive_files: int = 0
    archive_size: int = 0
    repository_id: str = ""
    borg: str = ""
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    shown: list[Compared] = field(default_factory=list)
    canary: dict[str, Any] = field(default_factory=dict)
    cause: FailureCause | None = None

    @property
    def result(self) -> str:
        """Return the drill's result in words."""
        if self.problems:
            return drills.FAILED
        return drills.REMARKS if self.remarks else drills.PASSED


class _Within:
    """The job's context with other parameters: for the engine's restore."""

    def __init__(self, context: JobContext, parameters: dict[str, Any]) -> None:
        self._context = context
        self.order = replace(context.order, parameters=parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


def drill(context: JobContext) -> JobResult:
    """Run the drill of the order and file its report; a report is filed whatever happened."""
    parameters = context.order.parameters
    findings = Findings(began=_now(), whole=bool(parameters["whole"]))
    try:
        _restore_and_compare(context, findings)
    except JobCancelled:
        raise
    except JobFailed as error:
        findings.problems.append(f"{error.cause.message} {error.cause.next_step}".strip())
        findings.cause = error.cause
    except Exception as error:
        context.log("error", traceback.format_exc())
        findings.problems.append(f"BorgCube made a mistake ({type(error).__name__}).")
        findings.cause = FailureCause(
            "internal-error", Problem.SERVER, findings.problems[-1],
            f"See `borgcube job log {context.order.job_id}`.",
        )  # fmt: skip
    finally:
        drills.clear_scratch(context.home, context.order.job_id)
    context.phase("reporting")
    return _filed(context, findings)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _restore_and_compare(context: JobContext, findings: Findings) -> None:
    parameters, engine = context.order.parameters, context.engine()
    for text in parameters.get("skipped") or ():
        context.log("warning", text)
        findings.remarks.append(text)
    places.private_directory(context.home / "scratch")
    scratch = places.private_directory(drills.scratch_dir(context.home, context.order.job_id))
    _check_whole(scratch, parameters, findings)
    context.phase("choosing")
    expected = scratch / "expected"
    sample = engine.sample(
        context, archive=parameters["archive"], files=int(parameters["files"]),
        most_bytes=drills.DEFAULT_BYTES, canary=parameters["canary"],
        whole_into=str(expected) if findings.whole else "",
    )  # fmt: skip
    findings.archive_files, findings.archive_size = sample["files"], sample["size"]
    findings.repository_id = sample["repository_id"]
    size = sample["size"] if findings.whole else sum(one["size"] for one in sample["items"])
    check_space(scratch, size)
    target = scratch / "restored"
    target.mkdir()
    findings.borg = engine.probe(context.connect(), borg="borg", state_dir=context.state_dir)
    if findings.whole or sample["items"]:
        restore = _Within(context, {
            **parameters, "target": str(target),
            "paths": [] if findings.whole else [one["path"] for one in sample["items"]],
        })  # fmt: skip
        start = time.monotonic()
        done: JobResult = engine.restore(restore)
        findings.seconds = time.monotonic() - start
        findings.remarks += [f"borg says: {words(text)}" for text in done.warnings[:MAX_PROBLEMS]]
    context.phase("comparing")
    files = read_expected(expected) if findings.whole else iter(sample["items"])
    content_hash = engine.content_hash(sample["id_kind"], bytes.fromhex(sample["id_key"]))
    base = Path(os.path.realpath(target))
    for one in files:
        context.check_cancelled()
        compared = compare(base, one, content_hash)
        findings.files += 1
        findings.size += compared.size
        context.progress(files=findings.files, bytes_read=findings.size, path=words(one["path"]))
        findings.problems += [
            f"{words(compared.path)}: {why}" for why in compared.problems
        ][: max(0, MAX_PROBLEMS - len(findings.problems))]  # fmt: skip
        if compared.problems or len(findings.shown) < SHOWN_FILES:
            findings.shown = [*findings.shown, compared][-2 * SHOWN_FILES :]
        if one["path"] == parameters["canary"].strip("/"):
            findings.canary = {"path": words(one["path"]), "sha256": compared.sha256}
    _judge_canary(parameters, findings)
    if not findings.files:
        findings.remarks.append("The archive has no file, so that nothing was compared.")


def _check_whole(scratch: Path, parameters: dict[str, Any], findings: Findings) -> None:
    """Fall back to a sample when the whole archive's turn came and there is no room for it."""
    if findings.whole and not parameters.get("whole_asked"):
        try:
            check_space(scratch, int(parameters["archive_size"]))
        except JobFailed as error:
            findings.whole = False
            findings.remarks.append(
                f"The whole archive was to be restored this time. {error.cause.message} "
                "A sample was restored instead."
            )


def check_space(scratch: Path, size: int) -> None:
    """Raise JobFailed unless ``size`` bytes fit and a gigabyte stays free."""
    free, needed = shutil.disk_usage(scratch).free, int(size * SPARE_SHARE) + SPARE_BYTES
    if free < needed:
        raise JobFailed(
            "no-room-for-drill", Problem.SERVER,
            f"{scratch.parent} has {free / SPARE_BYTES:.1f} GiB free, the drill needs "
            f"{needed / SPARE_BYTES:.1f} GiB.",
            next_step="Make room in the home, or restore a sample.",
        )  # fmt: skip


def _judge_canary(parameters: dict[str, Any], findings: Findings) -> None:
    path = parameters["canary"]
    if not path:
        return
    if not findings.canary:
        findings.problems.append(f"The canary {words(path)} is not in the archive.")
        findings.canary = {"path": words(path), "sha256": ""}
    elif parameters["canary_sha256"] and findings.canary["sha256"] and \
            parameters["canary_sha256"] != findings.canary["sha256"]:  # fmt: skip
        findings.problems.append(
            f"The canary {words(path)} is not what it was at the last drill: somebody, or "
            "something, changed it on the client."
        )


def _filed(context: JobContext, findings: Findings) -> JobResult:
    """Write the report and return the job's result."""
    parameters = context.order.parameters
    sha256 = write_report(context, findings, ended=_now())
    canary_sha256 = str(findings.canary.get("sha256") or "")
    facts = {
        "client": parameters["of_client"], "plan": parameters["plan"],
        "archive": parameters["archive"], "archive_id": parameters["archive_id"],
        "result": findings.result, "whole": findings.whole, "files": findings.files,
        "size": findings.size, "seconds": round(findings.seconds, 3),
        "problems": [*findings.problems, *findings.remarks], "sha256": sha256,
        # One that changed is not what the next drill compares with, until a person says so.
        "canary_sha256": "" if findings.problems else canary_sha256,
    }  # fmt: skip
    shown = {key: facts[key] for key in ("archive", "result", "whole", "files", "size", "seconds")}
    result = JobResult(state=JOB_DONE, data=shown, drill=facts, warnings=list(findings.remarks))
    if findings.problems:
        for text in findings.problems:
            context.log("error", text)
        result.state = "failed"
        result.cause = findings.cause or FailureCause(
            "drill-failed", Problem.REPOSITORY,
            f"The restore drill found {len(findings.problems)} problems: {findings.problems[0]}",
            "See its report. Check the repository: borgcube check "
            f"{context.order.repository.get('name', 'REPOSITORY')} --wait",
        )  # fmt: skip
    elif findings.remarks:
        result.state = JOB_WARNING
        result.cause = FailureCause(
            "drill-remarks", Problem.SERVER, findings.remarks[0],
            "What was restored is as it was archived.",
        )  # fmt: skip
    return result
