"""The API about how things stand: is everything safe, and which plan needs somebody."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import islice
from typing import Any

from borgcube.core.api import Call, Endpoint
from borgcube.core.model.fleet import EVERY_PLAN, LEVELS, RANK, PlanStatus, of_client
from borgcube.core.schemas import REFERENCE, given, of_record, one_of, whole
from borgcube.plugins.api import plans

DAY = given({"day": {"type": "string"}, "level": {"type": "string"}, "well": whole(),
             "badly": whole()}, title="DayOfPlan")  # fmt: skip
STATUS = of_record(PlanStatus, more={"days": {"type": "array", "items": DAY}})
MAX_PAGE = 500


def shown(call: Call, status: Any) -> dict[str, Any]:
    """Return the status of a plan as data."""
    days = [{"day": day, "level": level, "well": well, "badly": badly}
            for day, level, well, badly in status.days]  # fmt: skip
    data: dict[str, Any] = call.request.words.data(status.as_data())
    return data | {"days": days}


def _groups(call: Call) -> list[Any]:
    fleet, me = call.db.fleet, call.me
    if not me.limited:
        return [fleet.group(EVERY_PLAN)]
    return [fleet.group(of_client(name)) for name in sorted(me.clients)]


def _summary(call: Call) -> dict[str, Any]:
    groups = _groups(call)
    counts = {level: sum(group.counts.get(level, 0) for group in groups) for level in LEVELS}
    return {**counts, "protected_bytes": sum(group.protected for group in groups)}


def _urgent(call: Call) -> dict[str, Any]:
    fleet = call.db.fleet
    after = None
    if "after" in call.query:
        last = fleet.status(call.query["after"])
        # Where somebody else's plan stands in the order would tell how it fares.
        if last is not None and call.me.in_sight(last.client):
            after = (RANK[last.level], last.plan)
    ordered: Iterator[tuple[int, str]] = heapq.merge(
        *(group.plans(after=after) for group in _groups(call))
    )
    if "level" in call.query:
        rank = RANK[call.query["level"]]
        ordered = (pair for pair in ordered if pair[0] == rank)
    limit = int(call.query.get("limit", 50))
    found = [shown(call, fleet.status(plan)) for _, plan in islice(ordered, limit + 1)]
    return {"items": found[:limit], "after": found[limit - 1]["plan"] if len(found) > limit else ""}


def _of_plan(call: Call) -> dict[str, Any]:
    return shown(call, call.db.fleet.status(call.record.name))


ENDPOINTS = [
    Endpoint(
        name="fleet", method="GET", path="/fleet", handler=_summary,
        summary="Count plans by how they stand, and the bytes that they protect",
        returns=given({**{level: whole() for level in LEVELS}, "protected_bytes": whole()},
                      title="Fleet"),
    ),
    Endpoint(
        name="fleet.plans", method="GET", path="/fleet/plans", handler=_urgent,
        summary="List how plans stand, the most urgent first",
        query={"level": one_of(LEVELS), "limit": whole(1, MAX_PAGE),
               "after": {**REFERENCE, "description": "Go on after this plan."}},
        returns=given({"items": {"type": "array", "items": STATUS},
                       "after": {"type": "string",
                                 "description": "To go on with; empty at the end."}},
                      title="FleetPlans"),
    ),
    Endpoint(
        name="plans.status", method="GET", path="/plans/{name}/status", handler=_of_plan,
        find=plans.find, summary="Show how a plan stands: its level and why, its newest archive",
        returns=STATUS,
    ),
]  # fmt: skip
