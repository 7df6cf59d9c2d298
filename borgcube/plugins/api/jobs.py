"""The API about jobs: what runs, what ran, what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from borgcube.core import lifecycle, listings, sight
from borgcube.core.access import Permission
from borgcube.core.api import Answer, Call, Endpoint, Found, Listing
from borgcube.core.errors import InvalidInput
from borgcube.core.model import Job
from borgcube.core.openapi import page_query
from borgcube.core.schemas import MOMENT, REFERENCE, given, of_record, one_of, text, thing, whole
from borgcube.plugins.api import common

JOB = of_record(Job)
FILTERS = ("state", "type", "client", "plan", "repository")
STATES = [state for state in lifecycle.TRANSITIONS if state]
TIMES = {
    "since": {**MOMENT, "description": "Not older than this."},
    "until": {**MOMENT, "description": "Older than this."},
}  # fmt: skip


def find(call: Call) -> Found | None:
    """Return the job that the path names, if the caller sees all clients that it concerns."""
    job = call.db.jobs.find("id", call.path["id"])
    if job is None or not sight.sees_job(call.me, call.db, job):
        return None
    return Found(job, str(job.client))


def shown(call: Call, job: Any) -> Mapping[str, Any]:
    """Return a job with its newest figures."""
    data: dict[str, Any] = job.as_data()
    figures = call.request.progress_of(job.id)
    shown: dict[str, Any] = call.request.words.data(data)
    return shown | ({"progress": dict(figures)} if figures else {})


def _listed(call: Call) -> Listing:
    return common.page(call, call.db.jobs, FILTERS, shown=shown, when=lambda job: job.created_at,
                       where=sight.of_jobs(call.me, call.db))  # fmt: skip


def _show(call: Call) -> Mapping[str, Any]:
    return shown(call, call.record)


def _log(call: Call) -> dict[str, Any]:
    limit = int(call.query.get("limit", 1000))
    if "find" in call.query:
        if "offset" in call.query:
            raise InvalidInput("find looks at the whole log.", field="offset")
        words = call.query["find"]
        found = call.act("job.search", id=call.record.id, find=words, limit=min(limit, 1000))
        following = None
    elif "offset" in call.query:
        found = call.act("job.log", id=call.record.id, limit=limit, offset=call.query["offset"])
        following = found["next"]
    else:
        found, following = call.act("job.log", id=call.record.id, limit=limit), None
    lines = call.request.words.found(found["lines"], call.query.get("find", ""))
    return {"lines": lines, "next_offset": following,
            "ended": call.record.state in lifecycle.ENDED}  # fmt: skip


def _listing(call: Call) -> Any:
    asked = {key: call.query[key] for key in ("find", "kind", "start", "limit")
             if key in call.query}  # fmt: skip
    return call.act("job.listing", id=call.record.id, **asked)


def _cancel(call: Call) -> Mapping[str, Any]:
    call.act("job.cancel", id=call.record.id)
    data: Mapping[str, Any] = call.act("job.show", id=call.record.id)
    told: Mapping[str, Any] = call.request.words.data(data)
    return told


def _again(call: Call) -> Answer:
    job = call.record
    if job.type != "backup" or not job.plan:
        raise InvalidInput("Only a plan's backup can be run again.",
                           next_step="Start the job anew with what it needs.")  # fmt: skip
    return common.begun(call, call.act("backup.start", plan=job.plan))


def _start(call: Call) -> Answer:
    return common.begun(call, call.act("job.start", **call.body))


_ONE, _OPERATE = "/jobs/{id}", Permission.OPERATE
ENDPOINTS = [
    Endpoint(
        name="jobs.list", method="GET", path="/jobs", handler=_listed, paged=True, returns=JOB,
        summary="List jobs, newest first",
        query={"state": one_of(STATES), "type": text(longest=64), "client": REFERENCE,
               "plan": REFERENCE, "repository": REFERENCE, **TIMES, **page_query()},
    ),
    Endpoint(
        name="jobs.start", method="POST", path="/jobs", handler=_start, status=202,
        summary="Start a job of a type that a plugin brought",
        permission=Permission.ADMINISTER, returns=common.JOB_BEGUN,
        body=thing({"type": text(longest=64, shortest=1), "client": REFERENCE,
                    "repository": REFERENCE,
                    "parameters": {"type": "object", "maxProperties": 100}},
                   required=("type",), title="NewJob"),
    ),
    Endpoint(
        name="jobs.show", method="GET", path=_ONE, handler=_show, find=find,
        summary="Show a job with its newest figures", returns=JOB,
    ),
    Endpoint(
        name="jobs.log", method="GET", path=f"{_ONE}/log", handler=_log, find=find,
        summary="Show a job's log: the last lines, or those from a byte on",
        description="To follow a log, begin with `offset=0` and go on with `next_offset`.",
        query={"limit": whole(1, 10_000, "How many lines, 1000 if not given."),
               "offset": whole(description="Begin at this byte."),
               "find": text(longest=500, description="Only lines with this in them, the last"
                            " 1000 at most.")},
        returns=given({
            "lines": {"type": "array", "items": {"type": "string"}},
            "next_offset": {"type": ["integer", "null"],
                            "description": "Where what follows begins; null without `offset`."},
            "ended": {"type": "boolean", "description": "Whether the job is over."},
        }, title="JobLog"),
    ),
    Endpoint(
        name="jobs.listing", method="GET", path=f"{_ONE}/listing", handler=_listing, find=find,
        summary="Show the list of files that a dry run left",
        query={"find": text(longest=500, description="Only paths with this in them."),
               "kind": one_of(("included", *listings.KINDS)),
               "start": whole(description="How many to leave out at the beginning."),
               "limit": whole(1, listings.MAX_PAGE)},
        returns=given({
            "entries": {"type": "array", "items": given({
                "kind": {"type": "string"}, "path": {"type": "string"},
                "size": {"type": ["integer", "null"]}}, title="ListedPath")},
            "matches": whole(description="How many there are in all."),
        }, title="JobListing"),
    ),
    Endpoint(
        name="jobs.cancel", method="POST", path=f"{_ONE}/cancel", handler=_cancel, find=find,
        summary="Ask a job to stop", permission=_OPERATE, returns=JOB,
    ),
    Endpoint(
        name="jobs.again", method="POST", path=f"{_ONE}/again", handler=_again, find=find,
        summary="Run a plan's backup again", permission=_OPERATE, status=202,
        returns=common.JOB_BEGUN,
    ),
]  # fmt: skip
