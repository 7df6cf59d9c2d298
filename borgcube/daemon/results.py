"""What a worker's result means for the store: checked, then recorded."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from borgcube.core import lifecycle
from borgcube.core.errors import FailureCause, Problem
from borgcube.core.jobs import JobResult
from borgcube.core.model import Archive, Job
from borgcube.core.store import Root
from borgcube.core.untrusted import words

ENDINGS = (lifecycle.DONE, lifecycle.WARNING, lifecycle.FAILED, lifecycle.CANCELLED)
MAX_WARNINGS = 1000
MAX_VIOLATIONS = 20
MAX_KIND = 50


def result_of(data: dict[str, Any] | None, code: int, job_id: str) -> JobResult:
    """Return the checked result; a missing or odd one becomes a failure."""
    if data is None:
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return JobResult(state=lifecycle.FAILED, cause=FailureCause(
            "worker-died", Problem.SERVER, f"The worker {how} without a result.",
            f"See jobs/{job_id}/worker.err in the home directory.",
        ))  # fmt: skip
    try:
        cause = FailureCause.from_data(data["cause"]) if data.get("cause") else None
        result = JobResult(
            state=data["state"],
            data=dict(data["data"]),
            warnings=[str(text) for text in data["warnings"]][:MAX_WARNINGS],
            archives_added=[dict(entry) for entry in data["archives_added"]],
            archives_deleted=[str(name) for name in data["archives_deleted"]],
            violations=[
                {"kind": words(one["kind"], limit=MAX_KIND), "details": words(one["details"])}
                for one in list(data.get("violations", ()))[:MAX_VIOLATIONS]
            ],
            cause=cause,
        )
        if result.state not in ENDINGS:
            raise ValueError(result.state)
        if any(not entry["id"] or not entry["name"] for entry in result.archives_added):
            raise ValueError("an archive without ID or name")
    except (KeyError, TypeError, ValueError):
        return JobResult(state=lifecycle.FAILED, cause=FailureCause(
            "internal-error", Problem.SERVER, "The worker reported a result that makes no sense."
        ))  # fmt: skip
    if result.state == lifecycle.FAILED and cause is None:
        result.cause = FailureCause("failed", Problem.SERVER, "The job gave no reason.")
    return result


def archive_number(start: str) -> int:
    """Return an archive's place in time: microseconds since 1970, of now if unknown."""
    try:
        moment = datetime.fromisoformat(start)
    except ValueError:
        moment = datetime.now(UTC)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1_000_000)


def archive_from(entry: dict[str, Any], **owner: str) -> Archive:
    """Make a record of an engine's facts about an archive; what is left is statistics."""
    rest = dict(entry)
    start, end = str(rest.pop("start", "")), str(rest.pop("end", ""))
    identity, name = str(rest.pop("id")), str(rest.pop("name"))
    for known in ("client", "plan", "repository", "job"):
        rest.pop(known, None)
    return Archive(id=identity, name=name, start=start, end=end, stats=rest, **owner)


def record_violations(root: Root, job: Job, result: JobResult) -> None:
    """Announce what the job's client did that no honest one does."""
    for violation in result.violations:
        lifecycle.note_violation(root, job, **violation)


def record_archives(root: Root, job: Job, result: JobResult) -> None:
    """Store the archives a job added and forget those it deleted."""
    for entry in result.archives_added:
        archive = archive_from(
            entry, client=job.client, plan=job.plan, repository=job.repository, job=job.id
        )
        archive.created_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        lifecycle.add_archive(root, archive, number=archive_number(archive.start))
    for key in result.archives_deleted:
        for field in ("name", "id"):
            for archive in root.archives.oldest(field, key):
                if archive.repository == job.repository:
                    lifecycle.remove_archive(root, archive, job=job.id)
