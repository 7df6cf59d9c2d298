"""The guard: looks at each new archive beside its plan's history, and holds the plan's pruning
when something stands out, until a person has looked. A prune that would let much more go than
is usual (``core.pruning``) holds its plan in the same way.

Called where archives are recorded, in the same transaction, so that no prune can come in
between. Judging is :mod:`borgcube.core.anomalies`; nothing here deletes or changes archives.
"""

from __future__ import annotations

from datetime import UTC, datetime

from borgcube.core import anomalies, events
from borgcube.core.errors import BorgCubeError, InvalidInput
from borgcube.core.events_keeping import ArchiveSuspicious, PlanReleased
from borgcube.core.model import Archive, Plan
from borgcube.core.pruning import decide
from borgcube.core.store import Root

LOOKED_AT = 2 * anomalies.HISTORY
MOST_ACCEPTED = 1000
MAX_HOLD = 500


def history_of(root: Root, archive: Archive) -> list[anomalies.Past]:
    """Return what an archive is compared with: older ones of its plan, newest first.

    Those that stood out and that nobody accepted are left out: they are not usual.
    """
    before = root.archives.number_of(archive)
    return [
        anomalies.Past(one.stats, bool(one.accepted_at))
        for one in root.archives.newest(LOOKED_AT, before=before, plan=archive.plan)
        if not one.suspicions or one.accepted_at
    ]


def look_at(root: Root, archive: Archive) -> None:
    """Judge a recorded archive; mark it and hold its plan when it stands out."""
    if not archive.plan or archive.suspicions:
        return
    found = anomalies.judge(archive.stats, history_of(root, archive))
    if not found:
        return
    archive.suspicions = tuple(one.as_data() for one in found)
    root.record(ArchiveSuspicious(
        archive=archive.name, id=archive.id, repository=archive.repository,
        client=archive.client, plan=archive.plan, job=archive.job,
        kinds=[one.kind for one in found], reasons=[one.words for one in found],
    ))  # fmt: skip
    plan = root.plans.find("name", archive.plan)
    if plan is not None:
        hold(root, plan, f"{archive.name}: {found[0].words}")


def hold(root: Root, plan: Plan, reason: str) -> None:
    """Hold the pruning of a plan until a person has looked; the first reason stays."""
    if not plan.prune_hold:
        root.held.add(plan.name)
        plan.prune_hold = reason[:MAX_HOLD]


def _going(root: Root, plan: Plan) -> int:
    try:
        return len(decide(root, plan, now=datetime.now(UTC)).going)
    except BorgCubeError:
        return 0  # without a policy nothing goes


def release(root: Root, plan: Plan, *, usual: bool) -> list[str]:
    """Let a plan be pruned again after a person has looked; return the accepted archives.

    With ``usual``, what stood out counts as usual from now on. Raises InvalidInput when the
    plan is not on hold.
    """
    if not plan.prune_hold:
        raise InvalidInput(f"Plan {plan.name} is not on hold.", field="plan")
    accepted = []
    if usual:
        for archive in root.archives.newest(MOST_ACCEPTED, plan=plan.name):
            if archive.suspicions and not archive.accepted_at:
                archive.accepted_at = events.now()
                accepted.append(str(archive.name))
    plan.prune_hold = ""
    if plan.name in root.held:
        root.held.remove(plan.name)
    plan.prune_looked = _going(root, plan)
    root.record(PlanReleased(plan=plan.name, accepted=accepted))
    return accepted
