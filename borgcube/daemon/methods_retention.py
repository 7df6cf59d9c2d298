"""Control methods for retention: policies, prunes, pins, the undo window, adopted archives."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from borgcube.core import events, events_keeping, lifecycle, trash
from borgcube.core.adoption import assign, propose
from borgcube.core.errors import InvalidInput
from borgcube.core.model import Job, RetentionPolicy
from borgcube.core.model.names import check_name
from borgcube.core.pruning import decide, is_scheduled
from borgcube.core.retention import Rules, zone_named
from borgcube.core.store import Root
from borgcube.daemon import checks
from borgcube.daemon.control import method
from borgcube.daemon.methods_jobs import find_archive
from borgcube.daemon.orders import find
from borgcube.daemon.pruning import COMPACT, COMPACT_MODES, PRUNE, deleting

if TYPE_CHECKING:
    from borgcube.daemon.main import Daemon

UNDO_HOURS = RetentionPolicy.undo_hours
WHAT = "retention policy"


def find_policy(root: Root, name: str) -> RetentionPolicy:
    """Return the policy of that name; raises NotFound."""
    found: RetentionPolicy = find(root.policies, name, what="retention")
    return found


def check_policy(data: dict[str, Any], *, confirm: str) -> bool:
    """Check a policy's fields; return whether it was confirmed that it keeps nothing.

    Raises InvalidInput.
    """
    check_name(data["name"], what=WHAT)
    rules = Rules(**{field.name: data[field.name] for field in fields(Rules)}).check()
    zone_named(data["zone"])
    if not 0 <= data["undo_hours"] <= trash.MAX_UNDO_HOURS:
        raise InvalidInput("undo_hours must be 0 (delete at once) to 10 years.",
                           field="undo_hours")  # fmt: skip
    if len(data["comment"]) > trash.MAX_COMMENT or not data["comment"].isprintable():
        raise InvalidInput("The comment must be one short line.", field="comment")
    if not rules.empty:
        return False
    if confirm != data["name"]:
        raise InvalidInput(
            f"The policy {data['name']} has no rule: a prune keeps only the newest archive.",
            field="daily",
            next_step=f"Give it a rule, or confirm it by its name: --confirm {data['name']}",
        )
    return True


class RetentionMethods:
    """retention.*, prune.*, compact.* and what of archive.* is about keeping them"""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    # Policies ---------------------------------------------------------------------------

    @method("retention.add")
    def add(
        self, *, name: str, within: str = "", last: int = 0, minutely: int = 0, hourly: int = 0,
        daily: int = 0, weekly: int = 0, monthly: int = 0, quarterly_13weekly: int = 0,
        quarterly_3monthly: int = 0, yearly: int = 0, zone: str = "",
        undo_hours: int = UNDO_HOURS, comment: str = "", confirm: str = "",
    ) -> dict[str, Any]:  # fmt: skip
        """Add a policy; one without a rule must be confirmed by its name."""
        policy = RetentionPolicy(
            name=name, within=within, last=last, minutely=minutely, hourly=hourly, daily=daily,
            weekly=weekly, monthly=monthly, quarterly_13weekly=quarterly_13weekly,
            quarterly_3monthly=quarterly_3monthly, yearly=yearly, zone=zone,
            undo_hours=undo_hours, comment=comment, created_at=events.now(),
        )  # fmt: skip
        policy.keeps_nothing = check_policy(policy.as_data(), confirm=confirm)
        with self._daemon.store.transact() as root:
            checks.refuse_duplicate(root.policies, name, what=WHAT)
            root.policies.add(policy)
            root.record(events_keeping.RetentionAdded(policy=name, rules=policy.rules.words()))
            return self._shown(root, policy)

    @method("retention.set")
    def set(
        self, *, name: str, within: str | None = None, last: int | None = None,
        minutely: int | None = None, hourly: int | None = None, daily: int | None = None,
        weekly: int | None = None, monthly: int | None = None,
        quarterly_13weekly: int | None = None, quarterly_3monthly: int | None = None,
        yearly: int | None = None, zone: str | None = None, undo_hours: int | None = None,
        comment: str | None = None, confirm: str = "", version: str = "",
    ) -> dict[str, Any]:  # fmt: skip
        """Change what is given of a policy; archives that are pruned already keep their time.

        ``version`` is that of the record the caller saw.
        """
        values = checks.given({
            "within": within, "last": last, "minutely": minutely, "hourly": hourly,
            "daily": daily, "weekly": weekly, "monthly": monthly,
            "quarterly_13weekly": quarterly_13weekly, "quarterly_3monthly": quarterly_3monthly,
            "yearly": yearly, "zone": zone, "undo_hours": undo_hours, "comment": comment,
        })  # fmt: skip
        with self._daemon.store.transact() as root:
            policy = find_policy(root, name)
            checks.check_version(policy, version, what=WHAT)
            nothing = check_policy({**policy.as_data(), **values}, confirm=confirm)
            changed = checks.change(root.policies, policy, values)
            policy.keeps_nothing = nothing
            if changed:
                root.record(events_keeping.RetentionChanged(
                    policy=name, rules=policy.rules.words(), fields=changed
                ))  # fmt: skip
            return self._shown(root, policy)

    @method("retention.remove")
    def remove(self, *, name: str, version: str = "") -> dict[str, Any]:
        """Forget a policy that no plan has."""
        with self._daemon.store.transact() as root:
            policy = find_policy(root, name)
            checks.check_version(policy, version, what=WHAT)
            plans = self._shown(root, policy)["plans"]
            if plans:
                raise InvalidInput(
                    f"Plans have the policy {name}: {', '.join(plans[:10])}.",
                    next_step="Give them another one first, or detach it.",
                )
            root.policies.remove(policy)
            root.record(events_keeping.RetentionRemoved(policy=name))
        return {"removed": name}

    @method("retention.list")
    def every(self) -> list[dict[str, Any]]:
        """Return all policies with their plans."""
        with self._daemon.store.transact() as root:
            found = [self._shown(root, p) for p in root.policies.newest(checks.MAX_LISTED)]
        return sorted(found, key=lambda data: str(data["name"]))

    @method("retention.show")
    def show(self, *, name: str) -> dict[str, Any]:
        """Return one policy with its plans."""
        with self._daemon.store.transact() as root:
            return self._shown(root, find_policy(root, name))

    @staticmethod
    def _shown(root: Root, policy: RetentionPolicy) -> dict[str, Any]:
        plans = [p.name for p in root.plans.newest(checks.MAX_LISTED)
                 if p.retention == policy.name]  # fmt: skip
        return {**policy.as_data(), "rules": policy.rules.words(), "plans": sorted(plans)}

    @method("retention.attach")
    def attach(self, *, plan: str, policy: str) -> dict[str, Any]:
        """Give a plan a policy, or none (empty). Nothing is pruned by this."""
        with self._daemon.store.transact() as root:
            found = find(root.plans, plan, what="plan")
            if policy:
                find_policy(root, policy)
            if found.retention != policy:
                root.plans.change(found, retention=policy)
                root.record(events_keeping.RetentionAttached(
                    plan=plan, policy=policy, client=found.client, repository=found.repository
                ))  # fmt: skip
            if not policy:
                return {"plan": plan, "policy": "", "kept": 0, "going": 0, "held": "",
                        "scheduled": False}  # fmt: skip
            decision = decide(root, found, now=datetime.now(UTC))
            return {"plan": plan, "policy": policy, "kept": decision.kept,
                    "going": len(decision.going), "held": decision.held,
                    "scheduled": is_scheduled(root, found)}  # fmt: skip

    @method("retention.preview", audited=False)
    def preview(self, *, plan: str, policy: str = "") -> dict[str, Any]:
        """Return what a prune of a plan would do with each archive, by its policy or another."""
        with self._daemon.store.transact() as root:
            found = find(root.plans, plan, what="plan")
            other = find_policy(root, policy) if policy else None
            return decide(root, found, now=datetime.now(UTC), policy=other).as_data()

    # Jobs -------------------------------------------------------------------------------

    def _queue(self, root: Root, job: Job) -> dict[str, str]:
        root.after_commit(self._daemon.dispatcher.wake)
        return {"job_id": lifecycle.queue(root, job).id}

    @method("prune.start")
    def prune(
        self, *, plan: str = "", repository: str = "", dry_run: bool = False,
        confirm: list[str] | None = None, compact: str = "auto",
    ) -> dict[str, str]:  # fmt: skip
        """Queue a prune of a plan, or of all plans of a repository that have a policy.

        A dry run changes nothing and measures what would be freed. ``confirm`` names plans of
        which no rule keeps an archive, if that is meant.
        """
        if bool(plan) == bool(repository):
            raise InvalidInput("Say what to prune: either plan or repository.")
        if compact not in COMPACT_MODES:
            raise InvalidInput(f"compact must be one of {', '.join(COMPACT_MODES)}.",
                               field="compact")  # fmt: skip
        parameters = {"dry_run": dry_run, "confirm": list(confirm or ()), "compact": compact}
        with self._daemon.store.transact() as root:
            if plan:
                found = find(root.plans, plan, what="plan")
                decide(root, found, now=datetime.now(UTC))  # refuses a plan without a policy
                return self._queue(root, Job(
                    type=PRUNE, plan=plan, client=found.client, repository=found.repository,
                    parameters=parameters,
                ))  # fmt: skip
            find(root.repositories, repository, what="repository")
            return self._queue(root, Job(
                type=PRUNE, repository=repository, parameters=parameters
            ))  # fmt: skip

    @method("compact.start")
    def compact(self, *, repository: str, threshold_percent: int = 10) -> dict[str, str]:
        """Queue a compaction: segments with more than so many percent of unused space."""
        if not 0 <= threshold_percent <= 99:
            raise InvalidInput("threshold_percent must be 0 to 99.", field="threshold_percent")
        with self._daemon.store.transact() as root:
            find(root.repositories, repository, what="repository")
            return self._queue(root, Job(
                type=COMPACT, repository=repository,
                parameters={"threshold_percent": threshold_percent},
            ))  # fmt: skip

    # Archives ---------------------------------------------------------------------------

    @method("archive.pin")
    def pin(self, *, name: str, comment: str) -> dict[str, Any]:
        """Keep an archive whatever its policy says; ``comment`` is why."""
        with self._daemon.store.transact() as root:
            archive = find_archive(root, name)
            trash.pin(root, archive, comment)
            return archive.as_data()

    @method("archive.unpin")
    def unpin(self, *, name: str) -> dict[str, Any]:
        """Let the policy decide about an archive again."""
        with self._daemon.store.transact() as root:
            archive = find_archive(root, name)
            trash.unpin(root, archive)
            return archive.as_data()

    @method("archive.hide")
    def hide(self, *, names: list[str], hours: int = UNDO_HOURS) -> list[dict[str, Any]]:
        """Delete archives, but let them be brought back for some hours."""
        if not names:
            raise InvalidInput("No archive was named.")
        if not 0 <= hours <= trash.MAX_UNDO_HOURS:
            raise InvalidInput("hours must be 0 to 10 years.", field="hours")
        with self._daemon.store.transact() as root:
            found = [find_archive(root, name) for name in names]
            for archive in found:
                trash.hide(root, archive, hours=hours, because=trash.BY_A_PERSON,
                           now=datetime.now(UTC))  # fmt: skip
            root.after_commit(self._daemon.purger.wake)
            return [archive.as_data() for archive in found]

    @method("archive.undelete")
    def undelete(self, *, name: str) -> dict[str, Any]:
        """Bring an archive back that was pruned or deleted and is not gone yet."""
        with self._daemon.store.transact() as root:
            archive = find_archive(root, name)
            job = deleting(root, archive)
            if job is not None:
                raise InvalidInput(
                    f"Job {job.id} is deleting the archive {archive.name} just now.",
                    next_step=f"Stop it, then try again: borgcube job cancel {job.id}",
                )
            trash.bring_back(root, archive)
            return archive.as_data()

    @method("archive.map")
    def map(
        self, *, repository: str, pattern: str, client: str = "", plan: str = "",
        apply: bool = False,
    ) -> dict[str, Any]:  # fmt: skip
        """Give archives without a plan to clients and plans, by their names.

        Only shows what would be given, unless ``apply`` is set.
        """
        with self._daemon.store.transact() as root:
            find(root.repositories, repository, what="repository")
            found = propose(root, repository, pattern, client=client, plan=plan)
            if apply:
                for one in found.assignments:
                    assign(root, one)
                if not found.assignments:
                    root.record(events_keeping.RetentionMatchedNothing(
                        what="mapping", repository=repository, pattern=pattern
                    ))  # fmt: skip
            return {**found.as_data(), "applied": apply}
