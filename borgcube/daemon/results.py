"""What a worker's result means for the store: checked, then recorded."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from borgcube.core import (
    checks,
    clocks,
    events,
    events_keeping,
    lifecycle,
    quarantine,
    rereading,
)
from borgcube.core.errors import FailureCause, Problem
from borgcube.core.jobs import JobResult
from borgcube.core.model import Drill, Job
from borgcube.core.store import Root
from borgcube.core.untrusted import words
from borgcube.daemon import guard
from borgcube.daemon.archives import archive_from, archive_number
from borgcube.daemon.reconcile import record_found

ENDINGS = (lifecycle.DONE, lifecycle.WARNING, lifecycle.FAILED, lifecycle.CANCELLED)
MAX_WARNINGS = 1000
MAX_VIOLATIONS = 20
MAX_KIND = 50
MAX_ID = 64
MAX_PROBLEMS = 50


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
            archives_mended=[dict(entry) for entry in data.get("archives_mended", ())],
            quarantined={
                words(key, limit=MAX_ID): words(why)
                for key, why in dict(data.get("quarantined") or {}).items()
            },
            looked_through=bool(data.get("looked_through")),
            violations=[
                {"kind": words(one["kind"], limit=MAX_KIND), "details": words(one["details"])}
                for one in list(data.get("violations", ()))[:MAX_VIOLATIONS]
            ],
            checked=checks.clean_facts(dict(data.get("checked") or {})),
            damage=None if data.get("damage") is None else checks.clean_damage(data["damage"]),
            drill=dict(data.get("drill") or {}),
            cause=cause,
        )
        if result.state not in ENDINGS:
            raise ValueError(result.state)
        made = [*result.archives_added, *result.archives_mended]
        if any(not entry["id"] or not entry["name"] for entry in made):
            raise ValueError("an archive without ID or name")
    except (KeyError, TypeError, ValueError):
        return JobResult(state=lifecycle.FAILED, cause=FailureCause(
            "internal-error", Problem.SERVER, "The worker reported a result that makes no sense."
        ))  # fmt: skip
    if result.state == lifecycle.FAILED and cause is None:
        result.cause = FailureCause("failed", Problem.SERVER, "The job gave no reason.")
    return result


def record_violations(root: Root, job: Job, result: JobResult) -> None:
    """Announce what the job's client did that no honest one does."""
    for violation in result.violations:
        lifecycle.note_violation(root, job, **violation)
    if result.violations:
        rereading.offer(root, job.client)


def record_archives(root: Root, job: Job, result: JobResult) -> None:
    """Store the archives a job added and forget those it deleted."""
    for entry in result.archives_added:
        archive = archive_from(
            entry, client=job.client, plan=job.plan, repository=job.repository, job=job.id,
            begun_at=job.started_at,
        )  # fmt: skip
        archive.created_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        if lifecycle.add_archive(root, archive, number=archive_number(archive.at)):
            guard.look_at(root, archive)
            clocks.note(root, archive)
        rereading.note_archive(root, job)
    for key in result.archives_deleted:
        for field in ("name", "id"):
            for archive in root.archives.oldest(field, key):
                if archive.repository == job.repository:
                    lifecycle.remove_archive(root, archive, job=job.id)


def record_mended(root: Root, job: Job, result: JobResult) -> None:
    """Record archives that took the place of one in quarantine; what people set stays."""
    for entry in result.archives_mended:
        facts = dict(entry)
        was = str(facts.pop("was", ""))
        for archive in list(root.archives.oldest("id", was)):
            if archive.repository == job.repository:
                quarantine.end(
                    root, archive, quarantine.MENDED, job=job.id, became=str(facts["id"])
                )
                lifecycle.remove_archive(root, archive, job=job.id)
                record_found(root, job.repository, facts, before=archive)


def record_quarantine(root: Root, job: Job, result: JobResult) -> None:
    """Note which archives the job found to be in quarantine."""
    if job.repository and (result.quarantined or result.looked_through):
        quarantine.settle(
            root, job.repository, result.quarantined, complete=result.looked_through, job=job.id
        )


def record_checks(root: Root, job: Job, result: JobResult) -> None:
    """Keep what a check found with its repository, and announce what is new."""
    repository = root.repositories.find("name", job.repository)
    kind = str(result.checked.get("kind") or "")
    if repository is None or kind not in checks.KINDS:
        return
    proof = checks.proof_of(root, repository)
    if root.proofs.find("id", proof.id) is None:
        proof.created_at = events.now()
        root.proofs.add(proof)
    facts = {**result.checked, "job": job.id, "at": result.checked.get("at") or events.now()}
    proof.checked = {**proof.checked, kind: facts}
    if result.damage is None:
        return
    before, now = proof.damage, result.damage
    proof.damage = now
    if now and set(now["ids"]) - set(before.get("ids", ())):
        root.record(events_keeping.CheckDamageFound(
            repository=job.repository, job=job.id, check=kind, chunks=now["chunks"],
            archives=list(now["archives"]), files=checks.damaged_files(now),
            words=str(checks.damage_words(now)),
        ))  # fmt: skip
    elif before and not now:
        root.record(
            events_keeping.CheckDamageGone(repository=job.repository, job=job.id, check=kind)
        )


def record_drill(root: Root, job: Job, result: JobResult) -> None:
    """Keep the figures of a restore drill, and announce it with its report's digest."""
    facts = result.drill
    if not facts:
        return
    drill = Drill(
        created_at=events.now(), repository=job.repository, job=job.id,
        client=words(facts.get("client", "")), plan=words(facts.get("plan", "")),
        archive=words(facts.get("archive", "")), archive_id=words(facts.get("archive_id", "")),
        result=words(facts.get("result", "")), whole=bool(facts.get("whole")),
        files=int(facts.get("files") or 0), size=int(facts.get("size") or 0),
        seconds=float(facts.get("seconds") or 0),
        problems=tuple(words(one) for one in list(facts.get("problems") or ())[:MAX_PROBLEMS]),
        canary_sha256=words(facts.get("canary_sha256", "")),
        sha256=words(facts.get("sha256", "")),
    )  # fmt: skip
    root.drills.add(drill)
    root.record(events_keeping.DrillFinished(
        drill=drill.id, repository=drill.repository, client=drill.client, plan=drill.plan,
        archive=drill.archive, job=job.id, result=drill.result, files=drill.files,
        size=drill.size, sha256=drill.sha256,
    ))  # fmt: skip
