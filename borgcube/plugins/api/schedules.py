"""The API about time: schedules, tasks, pauses, slots and triggers.

What a task does may delete archives, so that making one needs the permission for that.
"""

from __future__ import annotations

from typing import Any

from borgcube.core.access import Permission
from borgcube.core.api import Answer, Call, Endpoint, Listing, named
from borgcube.core.model import Pause, Schedule, Task, Trigger
from borgcube.core.openapi import page_query
from borgcube.core.planning import SCOPES
from borgcube.core.schemas import (
    NAME,
    NO_NAME,
    REFERENCE,
    fields_of,
    given,
    of_record,
    one_of,
    text,
    thing,
    whole,
)
from borgcube.plugins.api import common, plans

STRING, NAMES = {"type": "string"}, {"type": "array", "items": {"type": "string"}}
SCHEDULE = of_record(Schedule, more={"words": STRING, "plans": NAMES, "tasks": NAMES})
TASK = of_record(Task, more={"next_at": STRING, "held": STRING, "last_job": STRING})
TRIGGER = of_record(Trigger)
SECRET = {"token": {**STRING, "description": "The token itself, shown only now."},
          "path": {**STRING, "description": "The path to POST to."}}  # fmt: skip
NEW_TRIGGER = {**of_record(Trigger, more=SECRET), "title": "AddedTrigger"}
MEANINGS = {
    "spec": "When, in words or as cron has it; the manual of schedules says how.",
    "kind": "calendar, or what a plugin brought.", "zone": "The time zone of its times.",
    "windows": "Runs start within these only.", "blackouts": "No run starts within these.",
    "jitter_s": "Start up to so much later, at random.", "stagger": "Spread what starts at once.",
    "catch_up": "What is done about runs that were missed.",
    "grace_s": "How late a run may start and yet count as in time.", "comment": "For people.",
}  # fmt: skip
FIELDS = fields_of(Schedule, MEANINGS, spec=text(longest=500, shortest=1))
TASK_MEANINGS = {
    "schedule": "When; empty stops it.", "repository": "What it works on.",
    "client": "What it works on.", "plan": "What it works on.",
    "parameters": "The job type's own.", "comment": "For people.",
}  # fmt: skip
TASK_FIELDS = fields_of(
    Task, TASK_MEANINGS, schedule=NO_NAME, repository=NO_NAME, client=NO_NAME, plan=NO_NAME,
    parameters={"type": "object", "maxProperties": 100},
)  # fmt: skip
RUNS = given({"schedule": STRING, "spec": STRING, "zone": STRING, "words": STRING,
              "runs": {**NAMES, "description": "When they start, in UTC."}},
             title="Runs")  # fmt: skip
SLOTS = given({"slots": {"type": "array", "items": given(
    {"what": {**STRING, "description": "all, repository or network."}, "name": STRING,
     "slots": whole(description="How many jobs may run at once."),
     "used": whole(description="How many do.")}, title="Slot")}}, title="Slots")  # fmt: skip


def _nobodys(_record: Any) -> str:
    return ""


find_schedule = named("schedules", client=_nobodys)
find_task = named("tasks", client=_nobodys)
find_trigger = named("triggers", client=_nobodys)


def _by_name(method: str) -> Any:
    """Return a handler that lists what a control method lists, by name."""

    def handler(call: Call) -> Listing:
        found = [one for one in call.act(method) if one["name"] > call.query.get("after", "")]
        return Listing(found[: common.limit_of(call)])

    return handler


def _on(method: str, **fixed: Any) -> Any:
    """Return a handler that calls a control method with the record's name and the body."""
    return lambda call: call.act(method, name=call.record.name, **fixed, **(call.body or {}))


def _gone(method: str) -> Any:
    def handler(call: Call) -> None:
        call.act(method, name=call.record.name)

    return handler


def _made(method: str, where: str) -> Any:
    def handler(call: Call) -> Answer:
        made = call.act(method, **call.body)
        return Answer(made, location=call.address(where, made["name"]))

    return handler


def _runs_of_plan(call: Call) -> Any:
    return call.act("schedule.preview", plan=call.record.name, count=call.query.get("count", 10))


def _runs_of_schedule(call: Call) -> Any:
    return call.act("schedule.preview", name=call.record.name, count=call.query.get("count", 10))


def _preview(call: Call) -> Any:
    return call.act("schedule.preview", **call.body)


def _run(call: Call) -> Answer:
    return common.begun(call, call.act("task.run", name=call.record.name))


def _pauses(call: Call) -> dict[str, Any]:
    return {"pauses": call.act("pause.list")}


def _pause(call: Call) -> Any:
    return call.act("pause.set", by=call.me.user, **call.body)


def _resume(call: Call) -> None:
    call.act("pause.end", **call.body)


def _slots(call: Call) -> dict[str, Any]:
    return {"slots": call.act("slots.list")}


def _set_slots(call: Call) -> dict[str, Any]:
    return {"slots": call.act("slots.set", **call.body)}


_VIEW, _CONFIGURE, _DELETE = Permission.VIEW_SERVER, Permission.CONFIGURE, Permission.DELETE
BY_NAME = {"limit": page_query()["limit"], "after": {**REFERENCE, "description":
                                                     "Names above this one."}}  # fmt: skip
COUNT = {"count": whole(1, 500, "How many, 10 if not given.")}
SCOPE = {"scope": one_of(SCOPES), "target": {**NO_NAME, "description": "Which one of them."}}
ENDPOINTS = [
    Endpoint(
        name="schedules.list", method="GET", path="/schedules", paged=True, returns=SCHEDULE,
        handler=_by_name("schedule.list"), permission=_VIEW, query=BY_NAME,
        summary="List schedules by name, with who uses them",
    ),
    Endpoint(
        name="schedules.add", method="POST", path="/schedules", status=201, returns=SCHEDULE,
        handler=_made("schedule.add", "schedules"), permission=_CONFIGURE,
        summary="Add a schedule",
        body=thing({"name": NAME, **FIELDS}, required=("name", "spec"), title="NewSchedule"),
    ),
    Endpoint(
        name="schedules.show", method="GET", path="/schedules/{name}", find=find_schedule,
        handler=_on("schedule.show"), permission=_VIEW, summary="Show a schedule",
        returns=SCHEDULE,
    ),
    Endpoint(
        name="schedules.change", method="PATCH", path="/schedules/{name}", find=find_schedule,
        handler=_on("schedule.set"), permission=_CONFIGURE, returns=SCHEDULE,
        summary="Change what is given of a schedule",
        body=thing(FIELDS, least=1, title="ScheduleChange"),
    ),
    Endpoint(
        name="schedules.remove", method="DELETE", path="/schedules/{name}", find=find_schedule,
        handler=_gone("schedule.remove"), permission=_CONFIGURE, status=204,
        summary="Remove a schedule that nothing uses",
    ),
    Endpoint(
        name="schedules.runs", method="GET", path="/schedules/{name}/runs", find=find_schedule,
        handler=_runs_of_schedule, permission=_VIEW, query=COUNT, returns=RUNS,
        summary="Show when the next runs of a schedule start",
    ),
    Endpoint(
        name="schedules.preview", method="POST", path="/schedules/preview", handler=_preview,
        permission=_VIEW, summary="Show when runs would start, without storing anything",
        body=thing({**{key: FIELDS[key] for key in (
            "spec", "kind", "zone", "windows", "blackouts")}, **COUNT},
            required=("spec",), title="SchedulePreview"),
        returns=RUNS,
    ),
    Endpoint(
        name="plans.runs", method="GET", path="/plans/{name}/runs", find=plans.find,
        handler=_runs_of_plan, query=COUNT, returns=RUNS,
        summary="Show when the next runs of a plan start",
    ),
    Endpoint(
        name="tasks.list", method="GET", path="/tasks", paged=True, returns=TASK,
        handler=_by_name("task.list"), permission=_VIEW, query=BY_NAME, tag="schedules",
        summary="List tasks by name: maintenance on a schedule",
    ),
    Endpoint(
        name="tasks.add", method="POST", path="/tasks", status=201, returns=TASK,
        handler=_made("task.add", "tasks"), permission=_DELETE, tag="schedules",
        summary="Add a task",
        body=thing({"name": NAME, "type": text(longest=64, shortest=1, description="A job"
                    " type."), **TASK_FIELDS},
                   required=("name", "type", "schedule"), title="NewTask"),
    ),
    Endpoint(
        name="tasks.show", method="GET", path="/tasks/{name}", find=find_task, returns=TASK,
        handler=_on("task.show"), permission=_VIEW, summary="Show a task", tag="schedules",
    ),
    Endpoint(
        name="tasks.change", method="PATCH", path="/tasks/{name}", find=find_task, returns=TASK,
        handler=_on("task.set"), permission=_DELETE, tag="schedules",
        summary="Change what is given of a task",
        body=thing(TASK_FIELDS, least=1, title="TaskChange"),
    ),
    Endpoint(
        name="tasks.remove", method="DELETE", path="/tasks/{name}", find=find_task, status=204,
        handler=_gone("task.remove"), permission=_DELETE, summary="Remove a task",
        tag="schedules",
    ),
    Endpoint(
        name="tasks.run", method="POST", path="/tasks/{name}/run", find=find_task, status=202,
        handler=_run, permission=_DELETE, returns=common.JOB_BEGUN, tag="schedules",
        summary="Run a task now; its schedule goes on as it is",
    ),
    Endpoint(
        name="pauses.list", method="GET", path="/pauses", handler=_pauses, permission=_VIEW,
        tag="schedules", summary="List what schedules start nothing of for a while",
        returns=given({"pauses": {"type": "array", "items": of_record(Pause)}}, title="Pauses"),
    ),
    Endpoint(
        name="pauses.set", method="POST", path="/pauses", handler=_pause, tag="schedules",
        permission=Permission.OPERATE, returns=of_record(Pause),
        summary="Pause something, or give its pause another end and reason",
        body=thing({**SCOPE, "until": text(longest=40, description="A time with its zone; no"
                    " end if not given."), "reason": text(longest=500)},
                   required=("scope",), title="NewPause"),
    ),
    Endpoint(
        name="pauses.end", method="POST", path="/pauses/end", handler=_resume, status=204,
        permission=Permission.OPERATE, tag="schedules", summary="End a pause now",
        body=thing(SCOPE, required=("scope",), title="EndedPause"),
    ),
    Endpoint(
        name="slots.list", method="GET", path="/slots", handler=_slots, permission=_VIEW,
        tag="schedules", returns=SLOTS,
        summary="Show how many jobs may run at once, and how many do: in all, by repository, by"
        " network",
    ),
    Endpoint(
        name="slots.set", method="PUT", path="/slots", handler=_set_slots, returns=SLOTS,
        permission=_CONFIGURE, tag="schedules",
        summary="Set how many jobs may run at once for a repository or a network",
        body=thing({"slots": whole(0, 10_000, "0 is no limit."), "repository": NO_NAME,
                    "network": NO_NAME}, required=("slots",), title="SlotChange"),
    ),
    Endpoint(
        name="triggers.list", method="GET", path="/triggers", paged=True, tag="schedules",
        handler=_by_name("trigger.list"), permission=_VIEW, query=BY_NAME, returns=TRIGGER,
        summary="List triggers by name: secret addresses that start a plan",
    ),
    Endpoint(
        name="triggers.add", method="POST", path="/triggers", status=201, returns=NEW_TRIGGER,
        handler=_made("trigger.add", "triggers"), permission=_CONFIGURE, tag="schedules",
        summary="Make a trigger, whose address is shown only in this answer",
        body=thing({"name": NAME, "plan": REFERENCE, "days": whole(0, 3650, "0 is no end.")},
                   required=("name", "plan"), title="NewTrigger"),
    ),
    Endpoint(
        name="triggers.remove", method="DELETE", path="/triggers/{name}", find=find_trigger,
        handler=_gone("trigger.remove"), permission=_CONFIGURE, status=204, tag="schedules",
        summary="Remove a trigger; its address starts nothing any more",
    ),
]  # fmt: skip
