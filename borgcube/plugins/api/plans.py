"""The API about plans: what of a client goes into which repository."""

from __future__ import annotations

from typing import Any

from borgcube.core.access import Permission
from borgcube.core.api import Answer, Call, Endpoint, named
from borgcube.core.model import Plan
from borgcube.core.openapi import page_query
from borgcube.core.schemas import (
    NAME,
    fields_of,
    many,
    of_record,
    one_of,
    text,
    thing,
    whole,
)
from borgcube.plugins.api import common

PLAN = of_record(Plan)
SETTABLE = (
    "client", "repository", "paths", "excludes", "patterns", "exclude_caches",
    "exclude_if_present", "one_file_system", "compression", "upload_ratelimit_kib",
    "numeric_ids", "atime", "sparse", "comment", "files_cache", "retries", "retry_delay_s",
    "idle_timeout_s", "max_duration_s", "before_command", "before_failure", "after_command",
    "command_timeout_s",
)  # fmt: skip
FIELDS = fields_of(
    Plan, SETTABLE, client=NAME, repository=NAME, retries=whole(0, 100),
    paths=many({**text(shortest=1), "pattern": "^/[^\\u0000-\\u001f\\u007f]*$"}, least=1,
               description="Absolute paths on the client."),
    compression=text(longest=40, shortest=1, description="As borg's --compression."),
    files_cache=one_of(("ctime,size", "mtime,size", "disabled")),
    idle_timeout_s=whole(1), max_duration_s=whole(1),
    before_command=text(description="A shell command line on the client, before the backup."),
    before_failure=one_of(("fail", "warn")),
    after_command=text(description="A shell command line on the client, after the backup."),
    command_timeout_s=whole(1),
)  # fmt: skip


def _whose(record: Any) -> str:
    return str(record.client)


find = named("plans", client=_whose)


def _add(call: Call) -> Answer:
    made = call.act("plan.add", **call.body)
    return common.versioned(made, location=call.address("plans", made["name"]))


def _change(call: Call) -> Answer:
    return common.versioned(
        call.act("plan.set", name=call.record.name, version=call.version, **call.body)
    )


def _remove(call: Call) -> None:
    call.act("plan.remove", name=call.record.name, version=call.version)


def _backup(call: Call) -> Answer:
    return common.begun(call, call.act("backup.start", plan=call.record.name))


_ONE, _CONFIGURE = "/plans/{name}", Permission.CONFIGURE
ENDPOINTS = [
    Endpoint(
        name="plans.list", method="GET", path="/plans", paged=True, returns=PLAN,
        handler=lambda call: common.page(call, call.db.plans, ("client", "repository")),
        summary="List plans, newest first",
        query={"client": NAME, "repository": NAME, **page_query()},
    ),
    Endpoint(
        name="plans.add", method="POST", path="/plans", handler=_add, status=201,
        summary="Add a plan", permission=_CONFIGURE, returns=PLAN,
        body=thing({"name": NAME, **FIELDS}, title="NewPlan",
                   required=("name", "client", "repository", "paths")),
    ),
    Endpoint(
        name="plans.show", method="GET", path=_ONE, handler=common.record, find=find,
        summary="Show a plan", returns=PLAN, versioned=True,
    ),
    Endpoint(
        name="plans.change", method="PATCH", path=_ONE, handler=_change, find=find,
        summary="Change what is given of a plan", permission=_CONFIGURE, versioned=True,
        body=thing(FIELDS, least=1, title="PlanChange"), returns=PLAN,
    ),
    Endpoint(
        name="plans.remove", method="DELETE", path=_ONE, handler=_remove, find=find,
        summary="Forget a plan; its archives stay", permission=_CONFIGURE, versioned=True,
        status=204,
    ),
    Endpoint(
        name="plans.backup", method="POST", path=f"{_ONE}/backup", handler=_backup, find=find,
        summary="Back up now", permission=Permission.OPERATE, status=202,
        returns=common.JOB_BEGUN,
    ),
]  # fmt: skip
