"""The API about plans: what of a client goes into which repository."""

from __future__ import annotations

from typing import Any

from borgcube.core.access import Permission
from borgcube.core.api import Answer, Call, Endpoint, named
from borgcube.core.model import Plan
from borgcube.core.openapi import page_query
from borgcube.core.schemas import (
    NAME,
    NO_NAME,
    REFERENCE,
    fields_of,
    many,
    of_record,
    one_of,
    text,
    thing,
    whole,
    yes_or_no,
)
from borgcube.plugins.api import common

PLAN = of_record(Plan)
MEANINGS = {
    "client": "Whose files.", "repository": "Where to.", "paths": "Absolute paths on the client.",
    "excludes": "Patterns, each as borg's --exclude.",
    "patterns": "Patterns, each as borg's --pattern.",
    "exclude_caches": "Leave out directories with a CACHEDIR.TAG.",
    "exclude_if_present": "Leave out directories that hold a file of such a name.",
    "one_file_system": "Do not follow mounts below the paths.",
    "compression": "As borg's --compression, such as zstd,3.",
    "upload_ratelimit_kib": "KiB a second; 0 is no limit.",
    "numeric_ids": "Store owners by number only.", "atime": "Store access times.",
    "sparse": "Look for holes in files.", "comment": "Kept with each archive.",
    "files_cache": "By what a file is known to be unchanged.",
    "retries": "How often a job that failed for a passing cause is run again.",
    "retry_delay_s": "Before the first time; twice as long before each further one.",
    "idle_timeout_s": "Give up after so long a silence.",
    "max_duration_s": "Give up when a backup takes longer.",
    "before_command": "A shell command line on the client, before the backup.",
    "before_failure": "What its failure means: the job fails, or has a warning.",
    "after_command": "A shell command line on the client, after the backup.",
    "command_timeout_s": "How long a command may take.",
    "schedule": "The schedule that it runs on; empty for none.",
}  # fmt: skip
FIELDS = fields_of(
    Plan, MEANINGS, client=REFERENCE, repository=REFERENCE, retries=whole(0, 100),
    paths=many({**text(shortest=1), "pattern": "^/[^\\u0000-\\u001f\\u007f]*$"}, least=1),
    compression=text(longest=40, shortest=1),
    files_cache=one_of(("ctime,size", "mtime,size", "disabled")),
    idle_timeout_s=whole(1), max_duration_s=whole(1), before_failure=one_of(("fail", "warn")),
    command_timeout_s=whole(1), schedule=NO_NAME,
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
    return common.begun(call, call.act(
        "backup.start", plan=call.record.name, **(call.body or {})
    ))  # fmt: skip


def _dry_run(call: Call) -> Answer:
    return common.begun(call, call.act("plan.dry_run", plan=call.record.name))


def _try(call: Call) -> Answer:
    return common.begun(call, call.act("plan.dry_run", options=call.body))


_ONE, _CONFIGURE = "/plans/{name}", Permission.CONFIGURE


def _canary(call: Call) -> Answer:
    return common.versioned(call.act("drill.set", plan=call.record.name, **call.body))


ENDPOINTS = [
    Endpoint(
        name="plans.list", method="GET", path="/plans", paged=True, returns=PLAN,
        handler=lambda call: common.page(call, call.db.plans, ("client", "repository")),
        summary="List plans, newest first",
        query={"client": REFERENCE, "repository": REFERENCE, **page_query()},
    ),
    Endpoint(
        name="plans.add", method="POST", path="/plans", handler=_add, status=201,
        summary="Add a plan", permission=_CONFIGURE, returns=PLAN,
        body=thing({"name": NAME, **FIELDS}, title="NewPlan",
                   required=("name", "client", "repository", "paths")),
    ),
    Endpoint(
        name="plans.try", method="POST", path="/plans/dry-run", handler=_try, status=202,
        summary="List what a plan that is not saved would take; stores nothing",
        permission=_CONFIGURE, returns=common.JOB_BEGUN,
        description="The job's `listing` has the list. Needs `operate` as well.",
        body=thing({"name": NAME, **FIELDS}, title="UnsavedPlan",
                   required=("client", "repository", "paths")),
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
        returns=common.JOB_BEGUN, optional=True,
        body=thing({"reread": yes_or_no("Read all files, this once, whatever is known of them.")},
                   title="BackupStart"),
    ),
    Endpoint(
        name="plans.canary", method="PUT", path=f"{_ONE}/canary", handler=_canary, find=find,
        summary="Name the file that every drill restores; empty for none",
        permission=_CONFIGURE, returns=PLAN,
        body=thing({"canary": text()}, required=("canary",), title="Canary"),
    ),
    Endpoint(
        name="plans.dry-run", method="POST", path=f"{_ONE}/dry-run", handler=_dry_run,
        find=find, summary="List what a backup would take; stores nothing",
        permission=Permission.OPERATE, status=202, returns=common.JOB_BEGUN,
        description="The job's `listing` has the list.",
    ),
]  # fmt: skip
