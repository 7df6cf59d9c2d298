"""Pages about time: schedules with a preview of their runs, the month, tasks, pauses.

Everything is read from the store and changed through control, as on all pages.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from pyramid.httpexceptions import HTTPSeeOther

from borgcube.core.access import Permission
from borgcube.core.errors import BorgCubeError
from borgcube.core.forms import Field, Form
from borgcube.core.localtime import zone_of
from borgcube.core.planning import Pauses, next_runs, rule_of
from borgcube.core.schedules import ONCE, SKIP, WHEN_REACHABLE
from borgcube.core.texts import _
from borgcube.plugins.console import forms, months
from borgcube.plugins.console.resources import Collection, Item, PlanItem, Triggers, add

SHOWN_RUNS = 10
MAX_LISTED = 200
CATCH_UP = (
    (ONCE, _("run once, as soon as possible")), (SKIP, _("leave it out")),
    (WHEN_REACHABLE, _("run once, as soon as the client answers")),
)  # fmt: skip
SCOPES = (
    ("everything", _("everything")), ("client", _("a client")), ("plan", _("a plan")),
    ("repository", _("a repository")), ("task", _("a task")),
)  # fmt: skip
SPANS = (
    ("1", _("an hour")), ("6", _("six hours")), ("24", _("a day")), ("72", _("three days")),
    ("168", _("a week")), ("720", _("a month")), ("", _("until it is ended by hand")),
)  # fmt: skip


class ScheduleItem(Item):
    """A schedule; it belongs to no client."""

    client_name = ""


class TaskItem(Item):
    """A task; it belongs to no client."""

    client_name = ""


class Tasks(Collection):
    """``/schedules/tasks``: only a step on the way."""

    client_name = ""

    def __getitem__(self, name: str) -> TaskItem:
        record = self.request.db.tasks.find("name", name)
        if record is None:
            raise KeyError(name)
        return TaskItem(self.request, name=name, parent=self, record=record)


class Schedules(Collection):
    """``/schedules``: schedules are below ``named``, beside ``tasks`` and ``triggers``."""

    client_name = ""

    def __getitem__(self, name: str) -> Any:
        if name == "tasks":
            return Tasks(self.request, name=name, parent=self)
        if name == "triggers":
            return Triggers(self.request, name=name, parent=self)
        if name == "named":
            return Named(self.request, name=name, parent=self)
        raise KeyError(name)


class Named(Collection):
    """``/schedules/named``: a schedule may have any name."""

    client_name = ""

    def __getitem__(self, name: str) -> ScheduleItem:
        record = self.request.db.schedules.find("name", name)
        if record is None:
            raise KeyError(name)
        return ScheduleItem(self.request, name=name, parent=self, record=record)


def fields(request: Any, *, new: bool) -> list[Field]:
    """Return the fields of a schedule."""
    kinds = sorted(request.plugins.schedules)
    name = Field("name", _("Name"), required=True, placeholder="nightly",
                 help=_("It cannot be changed later."))  # fmt: skip
    return [
        *([name] if new else []),
        Field("spec", _("When"), required=True, placeholder="daily at 02:00",
              help=_("For instance: daily at 02:00, weekdays 22:30, every 6 hours, monthly on 1 at"
                     " 03:00, or a cron expression such as 30 2 * * mon-fri.")),
        Field("zone", _("Time zone"), required=True, default="UTC", placeholder="Europe/Berlin",
              help=_("Where clocks change, each local time still comes once.")),
        Field("windows", _("Run only within"), "lines", placeholder="mon-fri 22:00-06:00",
              help=_("One span a line. Leave it empty for any time.")),
        Field("blackouts", _("Start nothing within"), "lines",
              placeholder="2026-12-24..2026-12-26",
              help=_("One span or range of dates a line; what is due then waits for its end.")),
        Field("catch_up", _("What could not start at its time"), "choice", default=ONCE,
              choices=CATCH_UP),
        Field("jitter_s", _("Spread starts over (s)"), "number", default="0", least=0,
              most=86_400, group=forms.MORE),
        Field("stagger", _("Spread starts by how long each run takes"), "checkbox",
              default=False, group=forms.MORE),
        Field("grace_s", _("An archive is missing after (s)"), "number", default="3600",
              least=0, most=366 * 86_400, group=forms.MORE,
              help=_("Counted from when the run should have ended.")),
        Field("kind", _("Kind"), "choice", default="calendar", group=forms.MORE,
              choices=[(kind, kind) for kind in kinds]),
        Field("comment", _("Comment"), group=forms.MORE),
    ]  # fmt: skip


def _row(request: Any, schedule: Any, now: datetime) -> dict[str, Any]:
    kind = request.plugins.schedules.get(schedule.kind)
    found = {"schedule": schedule, "words": schedule.spec, "next_at": "",
             "users": request.db.timetable.count_using(schedule.name)}  # fmt: skip
    if kind is not None:
        found["words"] = kind.describe(schedule.spec)
        runs = next_runs(rule_of(request.plugins.schedules, schedule), None, now, 1)
        found["next_at"] = runs[0].isoformat() if runs else ""
    return found


def schedules(context: Schedules, request: Any) -> dict[str, Any]:
    """List schedules, tasks and pauses."""
    db, now = request.db, datetime.now(UTC)
    named = db.schedules.named(MAX_LISTED)
    rows = [_row(request, db.schedules.find("name", name), now) for name in named]
    tasks = []
    for name in db.tasks.named(MAX_LISTED):
        tasks.append({"task": db.tasks.find("name", name),
                      "entry": db.timetable.get("task", name)})  # fmt: skip
    pauses = sorted(Pauses.at(db, now).by_target.values(), key=lambda p: (p.scope, p.target))
    return {
        "rows": rows, "tasks": tasks, "pauses": pauses, "scopes": dict(SCOPES),
        "month": months.month(request, ""), "weekdays": months.WEEKDAYS,
        "may_configure": request.me.may(Permission.CONFIGURE),
        "may_delete": request.me.may(Permission.DELETE),
    }  # fmt: skip


def month(context: Schedules, request: Any) -> dict[str, Any]:
    """Show a month of past and planned runs."""
    asked = str(request.params.get("month", ""))[:7]
    return {"month": months.month(request, asked), "weekdays": months.WEEKDAYS}


def _previewed(request: Any, values: dict[str, Any], form: Form) -> list[str]:
    """Return when what the form describes will run; puts what is wrong with it into it."""
    try:
        asked = {name: values[name] for name in ("spec", "zone", "kind", "windows", "blackouts")}
        return list(request.act("schedule.preview", count=SHOWN_RUNS, **asked)["runs"])
    except BorgCubeError as error:
        form.refuse(error)
        return []


def _edited(request: Any, form: Form, method: str, **more: Any) -> tuple[bool, list[str]]:
    """Do what a posted form asks for: whether it was stored, and a preview if that was asked."""
    runs: list[str] = []
    values = form.read(request.POST)
    if values is not None and "preview" in request.POST:
        runs = _previewed(request, values, form)
    elif values is not None:
        try:
            request.act(method, **values, **more)
            return True, []
        except BorgCubeError as error:
            form.refuse(error)
    if form.errors or form.problem:
        request.response.status_code = 400
    return False, runs


def new(context: Schedules, request: Any) -> Any:
    """Make a schedule; ``preview`` shows its next runs and makes nothing."""
    form = Form(fields(request, new=True))
    runs: list[str] = []
    if request.method == "POST":
        stored, runs = _edited(request, form, "schedule.add")
        if stored:
            return HTTPSeeOther(request.path_to("schedules"))
    return {"form": form, "runs": runs, "schedule": None}


def edit(context: ScheduleItem, request: Any) -> Any:
    """Change a schedule."""
    record = context.record
    form = Form(fields(request, new=False))
    runs: list[str] = []
    if request.method == "POST":
        stored, runs = _edited(request, form, "schedule.set", name=record.name)
        if stored:
            return HTTPSeeOther(request.path_to("schedules", "named", record.name))
    else:
        for spec in form.fields:
            value = getattr(record, spec.name)
            form.values[spec.name] = list(value) if isinstance(value, tuple) else (
                value if isinstance(value, bool) else str(value)
            )  # fmt: skip
    return {"form": form, "runs": runs, "schedule": record}


def schedule(context: ScheduleItem, request: Any) -> dict[str, Any]:
    """Show one schedule with its next runs and who uses it."""
    record, db = context.record, request.db
    row = _row(request, record, datetime.now(UTC))
    runs: list[datetime] = []
    if record.kind in request.plugins.schedules:
        rule = rule_of(request.plugins.schedules, record)
        runs = next_runs(rule, None, datetime.now(UTC), SHOWN_RUNS)
    zone = zone_of(record.zone)
    users = []
    for entry in db.timetable.using(record.name):
        users.append(entry)
        if len(users) == MAX_LISTED:
            break
    return {
        **row, "entries": users, "catch_up": dict(CATCH_UP).get(record.catch_up, ""),
        "runs": [{"at": run.isoformat(), "local": f"{run.astimezone(zone):%Y-%m-%d %H:%M}"}
                 for run in runs],
        "may_configure": request.me.may(Permission.CONFIGURE),
    }  # fmt: skip


def remove(context: ScheduleItem, request: Any) -> Any:
    """Remove a schedule that nothing uses."""
    request.act("schedule.remove", name=context.record.name)
    return HTTPSeeOther(request.path_to("schedules"))


def pause_fields(request: Any, *, scope: bool) -> list[Field]:
    """Return the fields of a pause; with ``scope`` also what is paused."""
    which = [
        Field("scope", _("What"), "choice", default="everything", choices=SCOPES),
        Field("target", _("Its name"), help=_("Leave it empty for everything.")),
    ]  # fmt: skip
    return [
        *(which if scope else []),
        Field("hours", _("For how long"), "choice", default="24", choices=SPANS),
        Field("reason", _("Why"), placeholder=_("The disk is being replaced"),
              help=_("Shown to whoever wonders why nothing runs.")),
    ]  # fmt: skip


def _paused(request: Any, form: Form, **target: str) -> bool:
    values = form.read(request.POST)
    if values is not None:
        hours = values.pop("hours")
        until = ""
        if hours:
            until = (datetime.now(UTC) + timedelta(hours=int(hours))).isoformat(timespec="seconds")
        try:
            request.act("pause.set", **{**values, **target}, until=until, by=request.me.user)
            return True
        except BorgCubeError as error:
            form.refuse(error)
    request.response.status_code = 400
    return False


def pause(context: Schedules, request: Any) -> Any:
    """Pause a client, plan, repository, task or everything."""
    form = Form(pause_fields(request, scope=True))
    if request.method == "POST" and _paused(request, form):
        return HTTPSeeOther(request.path_to("schedules"))
    return {"form": form, "plan": None}


def pause_plan(context: PlanItem, request: Any) -> Any:
    """Pause one plan."""
    form = Form(pause_fields(request, scope=False))
    name = context.record.name
    if request.method == "POST" and _paused(request, form, scope="plan", target=name):
        return HTTPSeeOther(request.path_to("plans", name))
    return {"form": form, "plan": context.record}


def resume(context: Schedules, request: Any) -> Any:
    """End a pause."""
    request.act("pause.end", scope=str(request.POST.get("scope", "")),
                target=str(request.POST.get("target", "")))  # fmt: skip
    return HTTPSeeOther(request.path_to("schedules"))


def resume_plan(context: PlanItem, request: Any) -> Any:
    """End the pause of one plan."""
    request.act("pause.end", scope="plan", target=context.record.name)
    return HTTPSeeOther(request.path_to("plans", context.record.name))


def includeme(config: Any) -> None:
    """Add the views."""
    configure, operate = Permission.CONFIGURE, Permission.OPERATE
    see = Permission.VIEW_SERVER
    add(config, schedules, Schedules, template="schedules", permission=see)
    add(config, month, Schedules, "+month", template="schedule_month", permission=see)
    add(config, new, Schedules, "+add", template="schedule_edit", permission=configure,
        posts=True)  # fmt: skip
    add(config, schedule, ScheduleItem, template="schedule", permission=see)
    add(config, edit, ScheduleItem, "edit", template="schedule_edit", permission=configure,
        posts=True)  # fmt: skip
    add(config, remove, ScheduleItem, "remove", permission=configure, posts=True)
    add(config, pause, Schedules, "+pause", template="pause", permission=configure, posts=True)
    add(config, resume, Schedules, "+resume", permission=configure, posts=True)
    add(config, pause_plan, PlanItem, "pause", template="pause", permission=operate, posts=True)
    add(config, resume_plan, PlanItem, "resume", permission=operate, posts=True)
