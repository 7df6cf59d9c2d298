"""The life of a job: its states, the legal transitions, and one function for each.

Every function changes the job and journals its event in the same transaction. Only the
daemon calls them.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from borgcube.core import events, quarantine, rereading, standing, trash
from borgcube.core.errors import BorgCubeError, FailureCause
from borgcube.core.model import Archive, Job
from borgcube.core.store import Root

QUEUED, STARTING, RUNNING, CANCELLING = "queued", "starting", "running", "cancelling"
DONE, WARNING, FAILED, CANCELLED, LOST = "done", "warning", "failed", "cancelled", "lost"

TRANSITIONS: dict[str, frozenset[str]] = {
    "": frozenset({QUEUED}),
    QUEUED: frozenset({STARTING, CANCELLED, FAILED}),
    STARTING: frozenset({RUNNING, CANCELLING, FAILED, LOST}),
    RUNNING: frozenset({CANCELLING, DONE, WARNING, FAILED, CANCELLED, LOST}),
    CANCELLING: frozenset({DONE, WARNING, FAILED, CANCELLED, LOST}),
    DONE: frozenset(),
    WARNING: frozenset(),
    FAILED: frozenset(),
    CANCELLED: frozenset(),
    LOST: frozenset(),
}
ENDED = frozenset(state for state, following in TRANSITIONS.items() if not following)
ACTIVE = (STARTING, RUNNING, CANCELLING)
OPEN = (QUEUED, *ACTIVE)
WELL = (DONE, WARNING)
MEND = "archive-mend"  # the job type that rewrites an archive in quarantine
MAX_PHASES = 100
LONGEST_DELAY_S = 86_400


class IllegalTransition(BorgCubeError):
    """A job cannot go from its state to the one asked for."""


def _move(root: Root, job: Job, state: str) -> None:
    if state not in TRANSITIONS[job.state]:
        raise IllegalTransition(f"Job {job.id} is {job.state}; it cannot become {state}.")
    root.jobs.change(job, state=state)


def _who(job: Job) -> dict[str, str]:
    return {"job": job.id, "job_type": job.type, "client": job.client,
            "repository": job.repository, "plan": job.plan}  # fmt: skip


def queue(root: Root, job: Job) -> Job:
    """Store a new job as queued."""
    job.state, job.created_at = QUEUED, events.now()
    root.jobs.add(job)
    root.record(events.JobQueued(**_who(job), attempt=job.attempt, not_before=job.not_before))
    return job


def time_has_come(created_at: str, not_before: str, now: datetime) -> bool:
    """Tell whether ``now`` is not before ``not_before`` (empty: it always is).

    A clock that was set back behind ``created_at`` ends the wait: it says nothing any more.
    """
    if not not_before:
        return True
    queued, due = (datetime.fromisoformat(at) for at in (created_at, not_before))
    return now >= due or now < queued


def take(root: Root, job: Job) -> None:
    """Take a queued job up: its vault and worker are being started. No event."""
    _move(root, job, STARTING)


def start(root: Root, job: Job) -> None:
    """Note that the job's worker runs."""
    _move(root, job, RUNNING)
    job.started_at = events.now()
    root.record(events.JobStarted(**_who(job)))


def enter_phase(root: Root, job: Job, phase: str) -> None:
    """Note the phase of a running job."""
    job.phase = phase
    job.phases = (*job.phases, f"{events.now()} {phase}")[-MAX_PHASES:]
    root.record(events.JobPhase(job=job.id, phase=phase))


def request_cancel(root: Root, job: Job) -> None:
    """Ask a job to stop: a queued one is cancelled at once, an active one later."""
    if job.state in ENDED or job.state == CANCELLING:
        raise IllegalTransition(f"Job {job.id} is {job.state} already.")
    root.record(events.JobCancelRequested(job=job.id))
    if job.state == QUEUED:
        finish(root, job, CANCELLED)
    else:
        _move(root, job, CANCELLING)


def finish(
    root: Root, job: Job, state: str, *, cause: FailureCause | None = None,
    result: dict[str, Any] | None = None, warnings: tuple[str, ...] = (),
) -> None:  # fmt: skip
    """End a job as done, warning, failed or cancelled."""
    _move(root, job, state)
    job.finished_at = events.now()
    job.cause = cause.as_data() if cause else None
    job.result, job.warnings = result or {}, warnings
    root.record(events.JobFinished(**_who(job), state=state, cause=job.cause, result=job.result))


def lose(root: Root, job: Job) -> None:
    """Note that a job's worker is gone with the daemon that watched it."""
    _move(root, job, LOST)
    job.finished_at = events.now()
    root.record(events.JobLost(**_who(job)))


def requeue(root: Root, job: Job) -> Job | None:
    """Queue another attempt when the job's plan has retries left.

    It waits for the plan's ``retry_delay_s``, twice as long after each attempt, at most a
    day. The order of a backup is made anew, so that its archive has a name of its own (what it
    was asked to read again, it still is); any other job is asked for the same again.
    """
    plan = root.plans.find("name", job.plan) if job.plan else None
    if plan is None or job.attempt > plan.retries:
        return None
    delay_s = min(plan.retry_delay_s * 2 ** min(job.attempt - 1, 20), LONGEST_DELAY_S)
    due = datetime.fromisoformat(events.now()) + timedelta(seconds=delay_s)
    asked = rereading.parameters(reread=rereading.is_reread(job))
    again = Job(
        type=job.type, client=job.client, repository=job.repository, plan=job.plan,
        attempt=job.attempt + 1, retry_of=job.id, origin=job.origin, schedule=job.schedule,
        due=job.due, task=job.task,
        parameters=asked if job.type == "backup" else dict(job.parameters),
        not_before=due.isoformat(timespec="milliseconds") if delay_s else "",
    )  # fmt: skip
    return queue(root, again)


def note_violation(root: Root, job: Job, *, kind: str, details: str) -> None:
    """Record what the client of a job did; ``kind`` and ``details`` are checked text."""
    root.record(
        events.ClientViolation(
            client=job.client, job=job.id, repository=job.repository, plan=job.plan,
            kind=kind, details=details,
        )
    )  # fmt: skip


def add_archive(root: Root, archive: Archive, *, number: int | None = None) -> bool:
    """Record an archive; a known ID of the same repository is left as it is (False)."""
    known = root.archives.find("id", archive.id)
    if known is not None and known.repository == archive.repository:
        return False
    root.archives.add(archive, number=number)
    standing.archive_added(root, archive)
    root.record(
        events.ArchiveAdded(
            archive=archive.name, id=archive.id, repository=archive.repository,
            client=archive.client, plan=archive.plan, job=archive.job, stats=archive.stats,
        )
    )  # fmt: skip
    return True


def remove_archive(root: Root, archive: Archive, *, job: str = "") -> None:
    """Forget an archive that was deleted."""
    quarantine.end(root, archive, quarantine.DELETED, job=job)
    forget_archive(root, archive)
    root.record(
        events.ArchiveDeleted(
            archive=archive.name, id=archive.id, repository=archive.repository, job=job
        )
    )


def forget_archive(root: Root, archive: Archive) -> None:
    """Take an archive's record out without an event: it was not deleted."""
    trash.forget(root, archive)
    root.archives.remove(archive)
    standing.archive_removed(root, archive)
