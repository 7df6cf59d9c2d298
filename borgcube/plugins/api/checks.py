"""The API about proof: checks of repositories, restore drills, plans that are on hold."""

from __future__ import annotations

from typing import Any

from borgcube.core import checks, drills
from borgcube.core.access import Permission
from borgcube.core.api import Answer, Call, Endpoint, Found, named
from borgcube.core.model import Drill
from borgcube.core.openapi import page_query
from borgcube.core.schemas import (
    NAME,
    given,
    many,
    of_record,
    one_of,
    text,
    thing,
    whole,
    yes_or_no,
)
from borgcube.plugins.api import common

DRILL = of_record(Drill)
ANYTHING: dict[str, Any] = {"type": "object"}
STATE = given({
    "kind": one_of(checks.KINDS),
    "level": one_of((checks.GOOD, checks.WARNING, checks.BAD)),
    **{name: {"type": "string"} for name in ("words", "at", "oldest_at", "job")},
}, title="CheckState")  # fmt: skip
CHECKS = given({
    "repository": NAME, "verify_days": whole(), "states": {"type": "array", "items": STATE},
    "checked": ANYTHING, "damage": ANYTHING,
}, title="Checks")  # fmt: skip
REPORT = given({
    "report": {"type": ["object", "null"], "description": "The report; null when it is gone."},
    "genuine": yes_or_no("Whether it is the one whose digest the journal has."),
    "sha256": {"type": "string"},
}, title="DrillReport")  # fmt: skip
SLICE = {
    "kind": one_of(checks.KINDS), "full": yes_or_no("Everything, not only what is due."),
    "budget_s": whole(0, 30 * 86400, description="Seconds after which it ends; 0 is none."),
    "days": whole(0, checks.MAX_DAYS), "max_mib_s": whole(0, 1 << 20),
}  # fmt: skip

find_repository = named("repositories", client=lambda _record: "")
find_plan = named("plans", client=lambda record: str(record.client))


def find_drill(call: Call) -> Found | None:
    """Return the drill that the path names; it belongs to its client."""
    record = call.db.drills.find("id", call.path["id"])
    return None if record is None else Found(record, str(record.client))


def _checks(call: Call) -> Any:
    return call.act("check.show", repository=call.record.name)


def _check(call: Call) -> Answer:
    started = call.act("check.start", repository=call.record.name, **(call.body or {}))
    return common.begun(call, started)


def _days(call: Call) -> Any:
    call.act("check.set", repository=call.record.name, **call.body)
    return _checks(call)


def _drill(call: Call) -> Answer:
    return common.begun(call, call.act("drill.start", plan=call.record.name, **(call.body or {})))


def _report(call: Call) -> dict[str, Any]:
    found = call.act("drill.show", id=call.record.id)
    report, words = found["report"], call.request.words
    if report and not words.all_shown:
        # Those of older releases have the repository's place and the server's kernel.
        hidden = {"repository": ("path",), "versions": ("system",)}
        report = {**report, **{key: words.data(report[key]) for key in ("problems", "remarks")},
                  **{part: {k: v for k, v in report[part].items() if k not in keys}
                     for part, keys in hidden.items()}}  # fmt: skip
    return {"report": report, "genuine": found["genuine"], "sha256": found["sha256"]}


def _release(call: Call) -> Any:
    return call.act("plan.release", plan=call.record.name, **(call.body or {}))


_REPOSITORY, _VIEW = "/repositories/{name}/checks", Permission.VIEW_SERVER
ENDPOINTS = [
    Endpoint(
        name="checks.show", method="GET", path=_REPOSITORY, handler=_checks,
        find=find_repository, permission=_VIEW, returns=CHECKS,
        summary="Show what of a repository was verified when, and what is damaged",
    ),
    Endpoint(
        name="checks.start", method="POST", path=_REPOSITORY, handler=_check, status=202,
        find=find_repository, permission=Permission.CONFIGURE, returns=common.JOB_BEGUN,
        summary="Check a repository: a slice of it, or everything",
        body=thing(SLICE, required=("kind",), title="Check"),
    ),
    Endpoint(
        name="checks.change", method="PATCH", path=_REPOSITORY, handler=_days,
        find=find_repository, permission=Permission.CONFIGURE, returns=CHECKS,
        summary="Say in how many days every byte of a repository is to be verified",
        body=thing({"verify_days": whole(1, checks.MAX_DAYS)}, required=("verify_days",),
                   title="CheckChange"),
    ),
    Endpoint(
        name="drills.list", method="GET", path="/drills", paged=True, returns=DRILL,
        handler=lambda call: common.page(
            call, call.db.drills, ("client", "plan", "repository")
        ),
        summary="List restore drills, newest first",
        query={"client": NAME, "plan": NAME, "repository": NAME, **page_query()},
    ),
    Endpoint(
        name="drills.show", method="GET", path="/drills/{id}", find=find_drill, returns=DRILL,
        handler=lambda call: call.record.as_data(), summary="Show a restore drill",
    ),
    Endpoint(
        name="drills.report", method="GET", path="/drills/{id}/report", find=find_drill,
        handler=_report, returns=REPORT, summary="Show the report of a restore drill",
    ),
    Endpoint(
        name="plans.drill", method="POST", path="/plans/{name}/drill", find=find_plan,
        handler=_drill, status=202, permission=Permission.OPERATE, returns=common.JOB_BEGUN,
        summary="Restore files of a plan's newest archive on the server, and compare them",
        body=thing({"files": whole(1, drills.MAX_FILES), "whole": yes_or_no(
            "The whole archive, or a sample.")}, required=("whole",), title="DrillStart"),
    ),
    Endpoint(
        name="plans.release", method="POST", path="/plans/{name}/release", find=find_plan,
        handler=_release, permission=Permission.DELETE,
        summary="Let a plan be pruned again after a person has looked at what stood out",
        body=thing({"usual": yes_or_no("Whether what stood out counts as usual from now on.")},
                   required=("usual",), title="Release"),
        returns=given({"plan": NAME, "accepted": many(text())}, title="Released"),
    ),
]  # fmt: skip
