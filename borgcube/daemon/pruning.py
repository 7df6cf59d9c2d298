"""Prune jobs in the daemon: what their order says, and who is asked when a window is over.

A prune has two halves. :func:`prepare` is the first one, in the transaction that makes the
job's order: it applies the policies, takes what goes out of sight and lists what is due. The
worker does the second: it deletes what is due through the repository's vault. Deciding and
deleting are apart, so that every archive can be brought back for a while.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from borgcube.core import events_keeping, lifecycle, trash
from borgcube.core.errors import QUARANTINE_NEXT_STEP, BorgCubeError
from borgcube.core.jobs import JobResult
from borgcube.core.model import Archive, Job, Plan
from borgcube.core.pruning import Decision, decide
from borgcube.core.store import Root
from borgcube.daemon import guard

if TYPE_CHECKING:
    from borgcube.daemon.main import Daemon

LOG = logging.getLogger(__name__)
PRUNE, COMPACT = "prune", "compact"
LOOK_EVERY_S = 60.0
AGAIN_AFTER_S = 3600.0  # a repository whose purge failed is left alone for so long
MAX_NAMED = 50  # archives in quarantine
MAX_SAID = 5000  # archives a job's log names one by one
COMPACT_MODES = ("auto", "always", "never")


def asked_for(parameters: Mapping[str, Any], name: str) -> bool:
    """Tell whether a flag of a job is set; ``job start --set`` gives text."""
    return parameters.get(name) in (True, "yes", "true", "1")


def _plans(root: Root, job: Job) -> list[Plan]:
    if job.plan:
        plan = root.plans.find("name", job.plan)
        return [plan] if plan is not None else []
    found = [p for p in root.plans.oldest("repository", job.repository) if p.retention]
    return sorted(found, key=lambda plan: str(plan.name))


def _hold(root: Root, job: Job, decision: Decision) -> None:
    root.record(
        events_keeping.PruneHeld(
            plan=decision.plan, client=decision.client, repository=decision.repository,
            policy=decision.policy, kind=decision.hold, reason=decision.held,
            next_step=decision.next_step, job=job.id,
        )
    )  # fmt: skip


def _find(root: Root, repository: str, archive_id: str) -> Archive | None:
    for archive in root.archives.oldest("id", archive_id):
        if archive.repository == repository:
            return archive  # type: ignore[no-any-return]
    return None


def prepare(root: Root, job: Job, *, now: datetime | None = None) -> dict[str, Any]:
    """Apply the policies of a prune job's plans and return the parameters of its order.

    Part of the transaction that makes the order. ``archives`` of it are names and IDs of what
    the worker deletes (measures, with ``dry_run``), ``plans`` says what became of each plan,
    ``notes`` are warnings. Raises InvalidInput or NotFound when the job's own plan has no
    policy.
    """
    now = now or datetime.now(UTC)
    asked = dict(job.parameters)
    dry_run, purge_only = asked_for(asked, "dry_run"), asked_for(asked, "purge_only")
    confirmed = [str(name) for name in asked.get("confirm") or ()]
    plans = [] if purge_only else _plans(root, job)
    summaries: list[dict[str, Any]] = []
    going: list[tuple[str, str]] = []
    archives: dict[str, str] = {}
    notes: list[str] = []
    for plan in plans:
        try:
            decision = decide(root, plan, now=now, confirmed=confirmed)
        except BorgCubeError as error:
            if job.plan:
                raise
            notes.append(f"Plan {plan.name}: {error}")
            continue
        if not decision.verdicts:
            notes.append(f"Plan {plan.name} has no archive for its policy {decision.policy}.")
            if not dry_run:
                root.record(events_keeping.RetentionMatchedNothing(
                    what="prune", repository=plan.repository, plan=plan.name,
                    policy=decision.policy, job=job.id,
                ))  # fmt: skip
        if decision.hold:
            notes.append(f"Plan {plan.name} is held: {decision.held} {decision.next_step}".strip())
            if not dry_run:
                _hold(root, job, decision)
                if decision.hold == "much-more":
                    guard.hold(root, plan, decision.held)
        elif not dry_run:
            plan.pruned, plan.pruned_at = len(decision.going), now.isoformat()
            plan.prune_looked = 0
        hidden = 0
        for verdict in decision.going if dry_run or not decision.hold else ():
            going.append((verdict.entry.name, verdict.why))
            hidden += 1
            archive = _find(root, plan.repository, verdict.entry.key)
            if archive is None:
                continue
            if dry_run:
                archives[archive.name] = archive.id
            else:
                trash.hide(
                    root, archive, hours=decision.undo_hours, because=verdict.why,
                    policy=decision.policy, job=job.id, now=now,
                )  # fmt: skip
        summaries.append({
            "plan": plan.name, "policy": decision.policy, "rules": decision.rules,
            "archives": len(decision.verdicts), "kept": decision.kept, "going": hidden,
            "hold": decision.hold, "held": decision.held,
        })  # fmt: skip
    by_person: list[str] = []
    if not dry_run:
        due = trash.due(root, now=now, repository=job.repository)
        archives = {a.name: a.id for a in due if trash.by_a_person(a) or not a.quarantine}
        by_person = [a.name for a in due if trash.by_a_person(a)]
    if not purge_only:
        notes += _quarantined(root, job)
    if not plans and not purge_only:
        notes.append(f"No plan of repository {job.repository} has a retention policy.")
        if not dry_run:
            root.record(
                events_keeping.RetentionMatchedNothing(
                    what="prune", repository=job.repository, job=job.id
                )
            )
    mode = str(asked.get("compact") or "auto")
    return {
        **asked, "dry_run": dry_run, "plans": summaries, "archives": archives, "notes": notes,
        "by_person": by_person,
        "going": going[:MAX_SAID], "compact": mode if mode in COMPACT_MODES else "auto",
    }  # fmt: skip


def _quarantined(root: Root, job: Job) -> list[str]:
    """Return, in words, what a prune leaves alone because it is in quarantine."""
    status = root.fleet.repository(job.repository)
    found = [root.archives.rows[status.archives[key]] for key in status.quarantined]
    if job.plan:
        found = [one for one in found if one.plan == job.plan]
    return [
        f"{one.name} stays, and no policy counts it: it is in quarantine: {one.quarantine}. "
        f"{QUARANTINE_NEXT_STEP.format(name=one.name)}"
        for one in found[:MAX_NAMED]
    ] + ([f"{len(found) - MAX_NAMED} more are in quarantine and stay."]
         if len(found) > MAX_NAMED else [])  # fmt: skip


def deleting(root: Root, archive: Archive) -> Job | None:
    """Return the prune job that is deleting an archive now, or None."""
    for state in lifecycle.ACTIVE:
        for job in root.jobs.oldest("state", state):
            if job.type == PRUNE and job.repository == archive.repository:
                listed = job.parameters.get("archives") or {}
                if not job.parameters.get("dry_run") and archive.name in listed:
                    found: Job = job
                    return found
    return None


def record_maintenance(root: Root, job: Job, result: JobResult) -> None:
    """Announce what a prune or compact job gave back to the storage."""
    freed = result.data.get("compacted_bytes")
    if job.type in (PRUNE, COMPACT) and type(freed) is int and freed > 0:
        root.record(
            events_keeping.RepositoryCompacted(
                repository=job.repository, job=job.id, freed_bytes=freed
            )
        )


class Purger:
    """Queues a prune of every repository that has archives whose undo window is over.

    It deletes only; policies are applied by prunes that a schedule or a person starts.
    """

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._look_at = 0.0
        self._tried: dict[str, float] = {}

    def wake(self) -> None:
        """Look at the next step."""
        self._look_at = 0.0

    def step(self) -> None:
        """Look now and then; never waits."""
        if time.monotonic() < self._look_at or self._daemon.dispatcher.stopping:
            return
        self._look_at = time.monotonic() + LOOK_EVERY_S
        if PRUNE not in self._daemon.registry.job_types:
            return
        with self._daemon.store.transact() as root:
            waiting = {archive.repository for archive in trash.due(root, now=datetime.now(UTC))}
            for repository in sorted(waiting - self._pruned_now(root)):
                tried = self._tried.get(repository)
                if tried is not None and time.monotonic() - tried < AGAIN_AFTER_S:
                    continue
                if root.repositories.find("name", repository) is None:
                    continue
                self._tried[repository] = time.monotonic()
                root.after_commit(self._daemon.dispatcher.wake)
                lifecycle.queue(root, Job(
                    type=PRUNE, repository=repository, parameters={"purge_only": True}
                ))  # fmt: skip

    @staticmethod
    def _pruned_now(root: Root) -> set[str]:
        return {
            job.repository
            for state in (lifecycle.QUEUED, *lifecycle.ACTIVE)
            for job in root.jobs.oldest("state", state)
            if job.type == PRUNE
        }
