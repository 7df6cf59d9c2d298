"""What a policy means for one plan of the store: who stays, who goes, or why nothing may go.

Decides only. The daemon acts on it (``daemon/pruning.py``); console and command line show it.
A plan's policy is about the archives of that plan, of its client, in its repository, and about
no others: whatever else is in the repository is never looked at.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from borgcube.core.errors import InvalidInput, NotFound
from borgcube.core.model import Archive, Plan, RetentionPolicy
from borgcube.core.quarantine import counts
from borgcube.core.retention import Entry, Verdict, judge, keeps_nothing, moment, zone_named
from borgcube.core.store import Root

# A prune that lets more go than so many times what is usual holds its plan, but never for a few.
MUCH_MORE, ALWAYS_FEW = 3, 10


@dataclass
class Decision:
    """What a prune of one plan would do. ``held`` says why it does nothing; empty: it may.

    ``hold`` is a stable word for it: ``plan-held``, ``newest-not-good``, ``keeps-nothing``,
    ``much-more``.
    """

    plan: str
    client: str
    repository: str
    policy: str
    rules: str
    zone: str
    undo_hours: int
    verdicts: list[Verdict] = field(default_factory=list)
    hold: str = ""
    held: str = ""
    next_step: str = ""

    @property
    def going(self) -> list[Verdict]:
        """Return what goes, even when the plan is held."""
        return [verdict for verdict in self.verdicts if not verdict.keep]

    @property
    def kept(self) -> int:
        """Return how many stay."""
        return sum(verdict.keep for verdict in self.verdicts)

    def as_data(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "plan": self.plan, "client": self.client, "repository": self.repository,
            "policy": self.policy, "rules": self.rules, "zone": self.zone,
            "undo_hours": self.undo_hours, "hold": self.hold, "held": self.held,
            "next_step": self.next_step, "kept": self.kept, "going": len(self.going),
            "archives": [
                {
                    "archive": verdict.entry.name, "id": verdict.entry.key,
                    "start": verdict.entry.time.isoformat(), "keep": verdict.keep,
                    "rule": verdict.rule, "number": verdict.number, "why": verdict.why,
                }
                for verdict in self.verdicts
            ],
        }  # fmt: skip


def archives_of(root: Root, plan: Plan) -> Iterator[Archive]:
    """Yield the archives that a plan's policy is about, also those that are hidden or in
    quarantine, which do not count."""
    for archive in root.archives.oldest("plan", plan.name):
        if archive.repository == plan.repository and archive.client == plan.client:
            yield archive


def when(archive: Archive) -> datetime:
    """Return when an archive was taken, by this server's clock as far as that is known."""
    for text in (archive.begun_at, archive.start, archive.created_at):
        try:
            return moment(text)
        except ValueError:
            continue
    raise InvalidInput(f"The archive {archive.name} has no time.")


def is_empty(archive: Archive) -> bool:
    """Tell whether there is nothing in an archive; one without figures, as plain borg leaves
    it, is taken for a good one."""
    return archive.stats.get("files") == 0 and not archive.stats.get("size")


def damaged_in(root: Root, repository: str) -> frozenset[str]:
    """Return the names of archives that the last check found damaged."""
    found = root.repositories.find("name", repository)
    return frozenset(getattr(found, "damage", {}).get("archives") or ())


def fault_of(archive: Archive, *, damaged: Collection[str] = ()) -> str:
    """Return what speaks against an archive as a backup, empty when it is a good one.

    What a person has looked at and accepted is good, unless it is ``damaged``.
    """
    if archive.name in damaged:
        return "a check found it damaged"
    if getattr(archive, "accepted_at", ""):
        return ""
    suspicions = getattr(archive, "suspicions", ())
    if suspicions:
        return f"it stood out: {suspicions[0].get('words', '')}"
    return "it is empty" if is_empty(archive) else ""


def policy_of(root: Root, plan: Plan) -> RetentionPolicy:
    """Return a plan's policy; raises InvalidInput or NotFound when there is none."""
    if not plan.retention:
        raise InvalidInput(
            f"Plan {plan.name} has no retention policy: nothing of it is ever pruned.",
            next_step=f"Give it one: borgcube retention attach POLICY {plan.name}",
        )
    policy: RetentionPolicy | None = root.policies.find("name", plan.retention)
    if policy is None:
        raise NotFound(f"There is no retention policy {plan.retention!r}.",
                       next_step="See: borgcube retention list")  # fmt: skip
    return policy


def decide(
    root: Root, plan: Plan, *, now: datetime, policy: RetentionPolicy | None = None,
    confirmed: Collection[str] = (),
) -> Decision:  # fmt: skip
    """Return what a prune of a plan would do, by its own policy or another to try out.

    ``confirmed`` are names of plans whose policy may keep nothing but the newest archive.
    Raises InvalidInput or NotFound when there is no policy.
    """
    policy = policy or policy_of(root, plan)
    found = [archive for archive in archives_of(root, plan) if counts(archive)]
    by_id = {archive.id: archive for archive in found}
    entries = [Entry(a.id, a.name, when(a), a.pinned) for a in found]
    damaged = damaged_in(root, plan.repository)
    newest_first = sorted(entries, key=lambda entry: (entry.time, entry.name), reverse=True)
    faults = {e.key: fault_of(by_id[e.key], damaged=damaged) for e in newest_first}
    good = next((key for key, fault in faults.items() if not fault), "")
    decision = Decision(
        plan.name, plan.client, plan.repository, policy.name, policy.rules.words(), policy.zone,
        policy.undo_hours,
        judge(entries, policy.rules, now=now, zone=zone_named(policy.zone), newest_good=good),
    )  # fmt: skip
    _hold(decision, plan, policy, by_id, confirmed=confirmed, damaged=damaged)
    return decision


def _hold(
    decision: Decision, plan: Plan, policy: RetentionPolicy, by_id: dict[str, Archive], *,
    confirmed: Collection[str], damaged: Collection[str],
) -> None:  # fmt: skip
    if reason := str(getattr(plan, "prune_hold", "")):
        decision.hold, decision.held = "plan-held", reason
        decision.next_step = f"Look at the plan, then: borgcube plan release {plan.name}"
        return
    if not decision.verdicts:
        return
    newest = by_id[decision.verdicts[0].entry.key]
    fault = fault_of(newest, damaged=damaged)
    # What merely stood out holds the plan itself, until a person lets it go.
    if fault and (newest.name in damaged or is_empty(newest)):
        decision.hold = "newest-not-good"
        decision.held = f"The newest archive, {newest.name}, is not a good one: {fault}."
        decision.next_step = "Back the plan up, or delete that archive; then prune again."
    elif (
        keeps_nothing(decision.verdicts)
        and decision.going
        and not policy.keeps_nothing
        and plan.name not in confirmed
    ):
        decision.hold = "keeps-nothing"
        decision.held = (
            f"No rule of {policy.name} ({decision.rules}) keeps any of the "
            f"{len(decision.verdicts)} archives of {plan.name}."
        )
        decision.next_step = f"If that is meant: borgcube prune {plan.name} --confirm {plan.name}"
    elif len(decision.going) > most_going(plan, by_id.values()) and plan.name not in confirmed:
        decision.hold = "much-more"
        decision.held = (
            f"{len(decision.going)} archives would go, and {plan.pruned} went when it was pruned"
            " last."
        )
        decision.next_step = f"Look at what would go, then: borgcube plan release {plan.name}"


def most_going(plan: Plan, archives: Iterable[Archive]) -> float:
    """Return how many archives of a plan a prune may let go before a person has looked.

    That is :data:`MUCH_MORE` times what the last prune let go or what was added since, whichever
    is more: after a long pause, as many go at once as came meanwhile. A few always may, and so
    may what a person has looked at. Without a last prune there is nothing to compare with.
    """
    if not plan.pruned_at:
        return math.inf
    since = moment(plan.pruned_at)
    added = sum(when(archive) > since for archive in archives)
    looked = plan.prune_looked + ALWAYS_FEW if plan.prune_looked else 0
    return max(ALWAYS_FEW, MUCH_MORE * plan.pruned, MUCH_MORE * added, looked)


def is_scheduled(root: Root, plan: Plan) -> bool:
    """Tell whether a task prunes a plan by itself: one for it, or for its repository."""
    tasks = (*root.tasks.oldest("plan", plan.name),
             *root.tasks.oldest("repository", plan.repository))  # fmt: skip
    return any(task.type == "prune" and task.plan in ("", plan.name) for task in tasks)


def unscheduled(root: Root) -> Iterator[Plan]:
    """Yield, for each repository, one plan whose policy no task applies, if there is one."""
    policies = [str(name) for name in root.policies.values("name")]
    for repository in root.plans.values("repository"):
        for policy in policies:
            found = root.plans.newest(
                1, lambda plan: not is_scheduled(root, plan), repository=repository,
                retention=policy,
            )  # fmt: skip
            if found:
                yield found[0]
                break
