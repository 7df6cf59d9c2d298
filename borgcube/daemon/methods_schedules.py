"""Control methods for schedules and for the slots that what they start has to share."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from borgcube.core import events
from borgcube.core import events_scheduling as told
from borgcube.core.errors import BorgCubeError, InvalidInput, NotFound
from borgcube.core.model import Schedule
from borgcube.core.model.names import check_name
from borgcube.core.model.scheduling import PLAN
from borgcube.core.planning import Pauses, expected_by, next_runs, rule_of
from borgcube.core.schedules import check_rule
from borgcube.core.store import Root
from borgcube.daemon import checks, queue, timetabling
from borgcube.daemon.control import method
from borgcube.daemon.orders import find
from borgcube.daemon.scheduler import PAUSED

if TYPE_CHECKING:
    from borgcube.daemon.main import Daemon

MAX_PREVIEW = 500
MAX_SLOTS = 10_000


def checked(schedule: Schedule, kinds: Mapping[str, Any]) -> None:
    """Check a schedule as a whole and put its spec into its plain form; raises InvalidInput
    or NotFound with the field at fault."""
    check_name(schedule.name, what="schedule")
    kind = kinds.get(schedule.kind)
    if kind is None:
        raise NotFound(f"There is no kind of schedule {schedule.kind!r}.", field="kind",
                       next_step=f"One of: {', '.join(sorted(kinds)) or 'none'}.")  # fmt: skip
    schedule.spec = kind.check(schedule.spec, zone=schedule.zone)
    check_rule(rule_of(kinds, schedule), datetime.now(UTC))


class ScheduleMethods:
    """schedule.* and slots.*"""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    @property
    def _kinds(self) -> Mapping[str, Any]:
        return self._daemon.registry.schedules

    def _shown(self, root: Root, schedule: Schedule) -> dict[str, Any]:
        kind = self._kinds.get(schedule.kind)
        users = list(root.timetable.using(schedule.name))
        return {
            **schedule.as_data(),
            "words": kind.describe(schedule.spec) if kind else "",
            "plans": sorted(e.name for e in users if e.subject == "plan"),
            "tasks": sorted(e.name for e in users if e.subject == "task"),
        }

    @method("schedule.add")
    def add(
        self, *, name: str, spec: str, kind: str = "calendar", zone: str = "UTC",
        windows: list[str] | None = None, blackouts: list[str] | None = None,
        jitter_s: int = 0, stagger: bool = False, catch_up: str = "once", grace_s: int = 3600,
        comment: str = "",
    ) -> dict[str, Any]:  # fmt: skip
        """Add a schedule."""
        schedule = Schedule(
            name=name, spec=spec, kind=kind, zone=zone, windows=tuple(windows or ()),
            blackouts=tuple(blackouts or ()), jitter_s=jitter_s, stagger=stagger,
            catch_up=catch_up, grace_s=grace_s, comment=comment, created_at=events.now(),
        )  # fmt: skip
        checked(schedule, self._kinds)
        with self._daemon.store.transact() as root:
            checks.refuse_duplicate(root.schedules, name, what="schedule")
            root.schedules.add(schedule)
            root.record(told.ScheduleAdded(
                schedule=name, spec=schedule.spec, zone=schedule.zone
            ))  # fmt: skip
            return self._shown(root, schedule)

    @method("schedule.set")
    def set(
        self, *, name: str, spec: str | None = None, kind: str | None = None,
        zone: str | None = None, windows: list[str] | None = None,
        blackouts: list[str] | None = None, jitter_s: int | None = None,
        stagger: bool | None = None, catch_up: str | None = None, grace_s: int | None = None,
        comment: str | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Change what is given; everything that uses it gets its next time anew."""
        values = checks.given({
            "spec": spec, "kind": kind, "zone": zone, "windows": windows,
            "blackouts": blackouts, "jitter_s": jitter_s, "stagger": stagger,
            "catch_up": catch_up, "grace_s": grace_s, "comment": comment,
        })  # fmt: skip
        with self._daemon.store.transact() as root:
            schedule = find(root.schedules, name, what="schedule")
            stored = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
            wanted = Schedule(**{
                **{field: getattr(schedule, field) for field in Schedule.field_names()}, **stored
            })  # fmt: skip
            checked(wanted, self._kinds)
            changed = checks.change(
                root.schedules, schedule, {key: getattr(wanted, key) for key in values}
            )
            checks.record_change(root, told.ScheduleChanged, name, changed, what="schedule")
            if set(changed) - {"comment", "catch_up"}:
                timetabling.reschedule(root, self._kinds, name, datetime.now(UTC))
                root.after_commit(self._daemon.scheduler.wake)
            return self._shown(root, schedule)

    @method("schedule.remove")
    def remove(self, *, name: str) -> dict[str, Any]:
        """Remove a schedule that no plan and no task uses."""
        with self._daemon.store.transact() as root:
            schedule = find(root.schedules, name, what="schedule")
            timetabling.refuse_in_use(root, name)
            root.schedules.remove(schedule)
            root.record(told.ScheduleRemoved(schedule=name))
        return {"removed": name}

    @method("schedule.list")
    def every(self) -> list[dict[str, Any]]:
        """Return all schedules."""
        with self._daemon.store.reading() as root:
            found = root.schedules.newest(checks.MAX_LISTED)
            return [self._shown(root, one) for one in sorted(found, key=lambda s: str(s.name))]

    @method("schedule.show")
    def show(self, *, name: str) -> dict[str, Any]:
        """Return one schedule."""
        with self._daemon.store.reading() as root:
            return self._shown(root, find(root.schedules, name, what="schedule"))

    @method("schedule.preview")
    def preview(
        self, *, name: str = "", spec: str = "", kind: str = "calendar", zone: str = "UTC",
        windows: list[str] | None = None, blackouts: list[str] | None = None, plan: str = "",
        count: int = 10,
    ) -> dict[str, Any]:  # fmt: skip
        """Return when the next runs will start: of a schedule by ``name``, of a ``plan``, or of
        what ``spec`` and the rest describe, without storing it."""
        if sum(map(bool, (name, spec, plan))) != 1:
            raise InvalidInput("Say what to preview: one of name, spec, plan.")
        now = datetime.now(UTC)
        with self._daemon.store.reading() as root:
            entry = None
            if spec:
                schedule = Schedule(
                    name="preview", spec=spec, kind=kind, zone=zone,
                    windows=tuple(windows or ()), blackouts=tuple(blackouts or ()),
                )  # fmt: skip
                checked(schedule, self._kinds)
            else:
                if plan:
                    name = find(root.plans, plan, what="plan").schedule
                    entry = root.timetable.get("plan", plan)
                    if not name:
                        raise InvalidInput(
                            f"The plan {plan} has no schedule.",
                            next_step=f"Give it one: borgcube plan set {plan} --schedule NAME",
                        )
                schedule = find(root.schedules, name, what="schedule")
            rule = rule_of(self._kinds, schedule)
            runs = next_runs(rule, entry, now, max(1, min(count, MAX_PREVIEW)))
            return {
                "schedule": schedule.name if not spec else "", "spec": schedule.spec,
                "zone": schedule.zone, "words": rule.kind.describe(schedule.spec),
                "runs": [timetabling.stamp(one) for one in runs],
            }  # fmt: skip

    @method("timetable.list")
    def times(self, *, plans: list[str]) -> dict[str, dict[str, str]]:
        """Return for each of the plans when it runs next, and what its next run waits for."""
        now = datetime.now(UTC)
        with self._daemon.store.reading() as root:
            pauses = Pauses.at(root, now)
            return {name: _times(root, name, pauses) for name in plans[: checks.MAX_LISTED]}

    @method("timetable.show")
    def time_of(self, *, plan: str) -> dict[str, str]:
        """Return the same for one plan, and by when it should have a newer archive."""
        now = datetime.now(UTC)
        with self._daemon.store.reading() as root:
            record = find(root.plans, plan, what="plan")
            try:
                by = expected_by(root, self._kinds, record, now)
            except BorgCubeError:
                by = None  # doctor says what is wrong with its schedule
            return {
                **_times(root, plan, Pauses.at(root, now)),
                "expected_by": timetabling.stamp(by) if by else "",
            }

    @method("slots.list")
    def slots(self) -> list[dict[str, Any]]:
        """Return how many jobs may run at once, and how many do: in all, by repository, by
        network. Only those that have a limit are listed."""
        daemon, jobs = self._daemon, self._daemon.config.jobs
        with daemon.store.reading() as root:
            _, active = daemon.dispatcher.open_jobs.look(root)
            used = queue.slots_of(root, active, free=0).used
            limits = queue.limits_of(root)
        found = [{"what": "all", "name": "", "slots": jobs.max_running, "used": len(active)}]
        for (what, name), most in limits.items():
            found.append({"what": what, "name": name, "slots": most,
                          "used": used[f"{what}:{name}"]})  # fmt: skip
        return found

    @method("slots.set")
    def set_slots(
        self, *, slots: int, repository: str = "", network: str = ""
    ) -> list[dict[str, Any]]:
        """Set how many jobs may run at once for a repository or a network; 0 is no limit.
        What runs already goes on."""
        if bool(repository) == bool(network):
            raise InvalidInput("Name a repository or a network.")
        if not 0 <= slots <= MAX_SLOTS:
            raise InvalidInput(f"Slots are 0 (no limit) to {MAX_SLOTS}.", field="slots")
        what, name = ("repository", repository) if repository else ("network", network)
        with self._daemon.store.transact() as root:
            if repository and (what, name) not in queue.limits_of(root):
                find(root.repositories, repository, what="repository")
            elif network:
                check_name(network, what="network")
            queue.set_limit(root, what, name, slots)
            root.after_commit(self._daemon.dispatcher.wake)
        changed: list[dict[str, Any]] = self.slots()
        return changed


def _times(root: Root, name: str, pauses: Pauses) -> dict[str, str]:
    plan, entry = root.plans.find("name", name), root.timetable.get(PLAN, name)
    if plan is None or entry is None:
        return {"next_at": "", "held": ""}
    pause = pauses.of(plan=name, client=plan.client, repository=plan.repository)
    return {"next_at": entry.start, "held": PAUSED if pause is not None else entry.held}
