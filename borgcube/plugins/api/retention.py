"""The API about keeping and letting go: policies, prunes, pins, the undo window, adoption."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from borgcube.core import trash
from borgcube.core.access import Permission
from borgcube.core.api import Answer, Call, Endpoint, Listing, named
from borgcube.core.model import RetentionPolicy
from borgcube.core.openapi import page_query
from borgcube.core.pruning import decide
from borgcube.core.retention import MAX_COUNT, Rules
from borgcube.core.schemas import (
    NAME,
    fields_of,
    given,
    many,
    of_record,
    one_of,
    text,
    thing,
    whole,
    yes_or_no,
)
from borgcube.plugins.api import archives, common, plans, repositories

POLICY = of_record(RetentionPolicy)
COUNTS = tuple(field.name for field in fields(Rules) if field.name != "within")
COUNT = whole(-1, MAX_COUNT)
FIELDS = fields_of(
    RetentionPolicy,
    {
        "within": "All of this long are kept: a number and a unit, H, d, w, m or y; or empty.",
        **dict.fromkeys(COUNTS, "-1 keeps one of every period, 0 is no such rule."),
        "zone": "Where days begin: an IANA name; empty for the server's.",
        "undo_hours": "How long a pruned archive can be brought back.",
        "comment": "For people.",
    },
    **dict.fromkeys(COUNTS, COUNT),
    within=text(longest=10), zone=text(longest=60),
    undo_hours=whole(0, trash.MAX_UNDO_HOURS), comment=text(longest=trash.MAX_COMMENT),
)  # fmt: skip
CONFIRM = text(longest=64, description="The policy's name, if it is meant to have no rule.")
VERDICT = given({
    "archive": text(), "id": text(),
    "start": text(description="When it was taken, by the server's clock as far as known."),
    "keep": yes_or_no(), "rule": text(description="What keeps it; empty when it goes."),
    "number": whole(), "why": text(),
}, title="Verdict")  # fmt: skip
DECISION = given({
    "plan": text(), "client": text(), "repository": text(), "policy": text(), "rules": text(),
    "zone": text(), "undo_hours": whole(), "kept": whole(), "going": whole(),
    "hold": text(description="Why nothing would be pruned, as a word; empty when it may."),
    "held": text(), "next_step": text(), "archives": many(VERDICT, most=1_000_000),
}, title="PrunePreview")  # fmt: skip
COMPACT = one_of(("auto", "always", "never"), "Whether space is given back afterwards.")


def _policy(data: dict[str, Any], **more: Any) -> Answer:
    record = {name: data[name] for name in RetentionPolicy.field_names()}
    return common.versioned(record, **more)


def _add(call: Call) -> Answer:
    made = call.act("retention.add", **call.body)
    return _policy(made, location=call.address("retention-policies", made["name"]))


def _change(call: Call) -> Answer:
    return _policy(
        call.act("retention.set", name=call.record.name, version=call.version, **call.body)
    )


def _remove(call: Call) -> None:
    call.act("retention.remove", name=call.record.name, version=call.version)


def _preview(call: Call) -> Any:
    return decide(call.db, call.record, now=datetime.now(UTC)).as_data()


def _attach(call: Call) -> Any:
    return call.act("retention.attach", plan=call.record.name, policy=call.body["policy"])


def _prune(call: Call) -> Answer:
    body = call.body
    confirm = [call.record.name] if body.get("confirm") == call.record.name else []
    return common.begun(call, call.act(
        "prune.start", plan=call.record.name, confirm=confirm,
        compact=body["compact"],
    ))  # fmt: skip


def _measure(call: Call) -> Answer:
    return common.begun(call, call.act("prune.start", plan=call.record.name, dry_run=True))


def _prune_all(call: Call) -> Answer:
    return common.begun(call, call.act("prune.start", repository=call.record.name))


def _compact(call: Call) -> Answer:
    return common.begun(call, call.act("compact.start", repository=call.record.name))


def _adopt(call: Call) -> Any:
    return call.act("archive.map", repository=call.record.name, **call.body)


def _waiting(call: Call) -> Listing:
    """Return the archives that can be brought back, those that go first at the beginning."""
    start = int(call.query.get("cursor", 0))
    limit = common.limit_of(call)
    seen = [a for a in trash.waiting(call.db) if call.me.sees(a.client)][start:]
    cursor = str(start + limit) if len(seen) > limit else ""
    return Listing([archive.as_data() for archive in seen[:limit]], cursor)


def _pin(call: Call) -> Any:
    name = archives.full_name(call.record)
    return call.act("archive.pin", name=name, comment=call.body["comment"])


def _unpin(call: Call) -> Any:
    return call.act("archive.unpin", name=archives.full_name(call.record))


def _hide(call: Call) -> Any:
    return call.act("archive.hide", names=[archives.full_name(call.record)])[0]


def _undelete(call: Call) -> Any:
    return call.act("archive.undelete", name=archives.full_name(call.record))


find = named("policies", client=lambda _record: "")
_CONFIGURE, _DELETE = Permission.CONFIGURE, Permission.DELETE
_ALL, _ONE = "/retention-policies", "/retention-policies/{name}"
_ARCHIVE = "/archives/{repository}/{id}"
ENDPOINTS = [
    Endpoint(
        name="retention.list", method="GET", path=_ALL, paged=True, returns=POLICY,
        handler=lambda call: common.page(call, call.db.policies),
        summary="List retention policies, newest first", query=page_query(),
        permission=Permission.VIEW_SERVER, tag="retention",
    ),
    Endpoint(
        name="retention.add", method="POST", path=_ALL, handler=_add, status=201,
        summary="Add a retention policy", permission=_CONFIGURE, returns=POLICY, tag="retention",
        body=thing({"name": NAME, "confirm": CONFIRM, **FIELDS}, title="NewRetentionPolicy",
                   required=("name",)),
    ),
    Endpoint(
        name="retention.show", method="GET", path=_ONE, handler=common.record, find=find,
        summary="Show a retention policy", returns=POLICY, versioned=True,
        permission=Permission.VIEW_SERVER, tag="retention",
    ),
    Endpoint(
        name="retention.change", method="PATCH", path=_ONE, handler=_change, find=find,
        summary="Change what is given of a retention policy", permission=_CONFIGURE,
        versioned=True, returns=POLICY, tag="retention",
        body=thing({"confirm": CONFIRM, **FIELDS}, least=1, title="RetentionPolicyChange"),
    ),
    Endpoint(
        name="retention.remove", method="DELETE", path=_ONE, handler=_remove, find=find,
        summary="Forget a retention policy that no plan has", permission=_CONFIGURE,
        versioned=True, status=204, tag="retention",
    ),
    Endpoint(
        name="plans.retention", method="GET", path="/plans/{name}/retention", find=plans.find,
        handler=_preview, summary="What a prune would do with each archive, and why",
        returns=DECISION, tag="retention",
    ),
    Endpoint(
        name="plans.attach", method="PUT", path="/plans/{name}/retention", find=plans.find,
        handler=_attach, summary="Give a plan a retention policy, or none (empty)",
        permission=_CONFIGURE, tag="retention",
        body=thing({"policy": text(longest=64)}, required=("policy",), title="PlanRetention"),
        returns=given({"plan": text(), "policy": text(), "kept": whole(), "going": whole(),
                       "held": text(), "scheduled": yes_or_no("A task prunes the plan.")},
                      title="PlanRetentionSet"),
    ),
    Endpoint(
        name="plans.prune", method="POST", path="/plans/{name}/prune", find=plans.find,
        handler=_prune, summary="Prune a plan by its retention policy", permission=_DELETE,
        status=202, returns=common.JOB_BEGUN, tag="retention",
        body=thing({"compact": COMPACT, "confirm": text(
            longest=64, description="The plan's name, if none of its archives is kept by a rule"
            " and that is meant.")}, required=("compact",), title="Prune"),
    ),
    Endpoint(
        name="plans.measure", method="POST", path="/plans/{name}/measure", find=plans.find,
        handler=_measure, summary="Measure what a prune would free; changes nothing",
        permission=Permission.OPERATE, status=202, returns=common.JOB_BEGUN, tag="retention",
    ),
    Endpoint(
        name="repositories.prune", method="POST", path="/repositories/{name}/prune",
        find=repositories.find, handler=_prune_all, permission=_DELETE, status=202,
        summary="Prune all plans of a repository that have a policy", tag="retention",
        returns=common.JOB_BEGUN,
    ),
    Endpoint(
        name="repositories.compact", method="POST", path="/repositories/{name}/compact",
        find=repositories.find, handler=_compact, permission=Permission.OPERATE, status=202,
        summary="Give the space of deleted archives back", returns=common.JOB_BEGUN,
        tag="retention",
    ),
    Endpoint(
        name="repositories.adopt", method="POST", path="/repositories/{name}/adopt",
        find=repositories.find, handler=_adopt, permission=_CONFIGURE, tag="retention",
        summary="Give archives without a plan to clients and plans, by their names",
        description="Only shows what would be given, unless apply is true.",
        body=thing({"pattern": text(longest=200, shortest=1), "plan": text(longest=200),
                    "client": text(longest=200), "apply": yes_or_no()},
                   required=("pattern",), title="Adoption"),
        returns=given({
            "assignments": many(given({
                "archive": text(), "id": text(), "repository": text(), "start": text(),
                "client": text(), "plan": text(),
            }, title="Assignment"), most=1_000_000),
            "unmatched": many(text(), most=1_000_000),
            "unknown": many(many(text()), most=1_000_000),
            "taken": whole(), "applied": yes_or_no(),
        }, title="AdoptionResult"),
    ),
    Endpoint(
        name="archives.deleted", method="GET", path="/deleted-archives", handler=_waiting,
        paged=True, summary="List archives that were deleted and can be brought back",
        returns=archives.ARCHIVE, query=page_query(), tag="retention",
    ),
    Endpoint(
        name="archives.pin", method="PUT", path=f"{_ARCHIVE}/pin", find=archives.find,
        handler=_pin, summary="Keep an archive whatever its policy says", tag="retention",
        permission=_CONFIGURE, returns=archives.ARCHIVE,
        body=thing({"comment": text(longest=trash.MAX_COMMENT, shortest=1)},
                   required=("comment",), title="Pin"),
    ),
    Endpoint(
        name="archives.unpin", method="DELETE", path=f"{_ARCHIVE}/pin", find=archives.find,
        handler=_unpin, summary="Let the policy decide again", permission=_DELETE,
        returns=archives.ARCHIVE, tag="retention",
    ),
    Endpoint(
        name="archives.hide", method="POST", path=f"{_ARCHIVE}/hide", find=archives.find,
        handler=_hide, permission=_DELETE, tag="retention", returns=archives.ARCHIVE,
        summary="Delete an archive; for a week it can be brought back",
    ),
    Endpoint(
        name="archives.undelete", method="POST", path=f"{_ARCHIVE}/undelete",
        find=archives.find, handler=_undelete, permission=_CONFIGURE, tag="retention",
        summary="Bring a deleted archive back", returns=archives.ARCHIVE,
    ),
]  # fmt: skip
