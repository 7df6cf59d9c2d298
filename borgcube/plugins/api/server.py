"""The API about the server itself: status, doctor, events, plugins, the audit trail."""

from __future__ import annotations

from typing import Any

from borgcube.core import sight
from borgcube.core.access import Permission
from borgcube.core.api import Call, Endpoint
from borgcube.core.journal import MAX_SINCE
from borgcube.core.model import AuditEntry
from borgcube.core.openapi import page_query
from borgcube.core.schemas import given, of_record, text, whole
from borgcube.plugins.api import common

MAX_EVENTS = 500
STRINGS = {"type": "array", "items": {"type": "string"}}
EVENT = given({
    "v": {"type": "integer"}, "seq": {"type": "integer"}, "id": {"type": "string"},
    "type": {"type": "string"}, "at": {"type": "string"}, "data": {"type": "object"},
}, title="Event")  # fmt: skip
CONDITION = given({name: {"type": "string"} for name in ("level", "message", "next_step")},
                  title="Condition")  # fmt: skip
PLUGIN = given({"name": {"type": "string"}, "distribution": {"type": "string"},
                "hooks": STRINGS}, title="Plugin")  # fmt: skip
QUARANTINED = given({name: {"type": "string"} for name in ("name", "distribution", "error")},
                    title="QuarantinedPlugin")  # fmt: skip


def _status(call: Call) -> dict[str, Any]:
    ping = call.act("ping")
    return {"version": ping["version"], "server_id": ping["server_id"],
            "seq": int(call.db.journal.last)}  # fmt: skip


def _doctor(call: Call) -> Any:
    return {"conditions": call.act("doctor")}


def _plugins(call: Call) -> Any:
    return call.act("plugins.list")


def _events(call: Call) -> dict[str, Any]:
    since = int(call.query.get("since", 0))
    found = call.db.journal.since(since, min(MAX_SINCE, int(call.query.get("limit", MAX_EVENTS))))
    words = call.request.words
    return {"items": [words.data(event) for event in found if _seen(call, event)],
            "next_since": found[-1]["seq"] if found else since,
            "first_seq": int(call.db.journal.first),
            "last_seq": int(call.db.journal.last)}  # fmt: skip


def _seen(call: Call, event: dict[str, Any]) -> bool:
    data = event["data"]
    if call.me.may(Permission.VIEW_SERVER):
        return True
    clients: frozenset[str] | None = frozenset()
    if data.get("job"):
        job = call.db.jobs.find("id", str(data["job"]))
        clients = sight.clients_of(call.db, job) if job is not None else None
    return call.me.sees_event(str(event["type"]), data, clients=clients)


def _revoke(call: Call) -> None:
    call.act("metrics.revoke")


STORE = {"type": "object", "title": "Store", "required": ["size"],
         "properties": {"size": whole(description="Bytes of its file.")}}  # fmt: skip
_VIEW = Permission.VIEW_SERVER
ENDPOINTS = [
    Endpoint(
        name="status", method="GET", path="/status", handler=_status, tag="server",
        summary="Say which server this is and that its daemon answers",
        returns=given({"version": {"type": "string"}, "server_id": {"type": "string"},
                       "seq": whole(description="The number of the newest event.")},
                      title="Status"),
    ),
    Endpoint(
        name="doctor", method="GET", path="/doctor", handler=_doctor, tag="server",
        summary="Say what is wrong here, worst first", permission=_VIEW,
        returns=given({"conditions": {"type": "array", "items": CONDITION}}, title="Doctor"),
    ),
    Endpoint(
        name="plugins", method="GET", path="/plugins", handler=_plugins, tag="server",
        summary="List plugins with their hooks, and those in quarantine", permission=_VIEW,
        returns=given({"plugins": {"type": "array", "items": PLUGIN},
                       "quarantined": {"type": "array", "items": QUARANTINED}}, title="Plugins"),
    ),
    Endpoint(
        name="events.since", method="GET", path="/events", handler=_events, tag="server",
        summary="List journalled events after a number, in order",
        description="Go on with `since` = `next_since`. An owner gets those of their clients; a "
        "token without `view-server` those of clients.",
        query={"since": whole(description="0 if not given: from the beginning."),
               "limit": whole(1, MAX_EVENTS)},
        returns=given({"items": {"type": "array", "items": EVENT}, "next_since": whole(),
                       "first_seq": whole(description="The oldest that is kept."),
                       "last_seq": whole()}, title="Events"),
    ),
    Endpoint(
        name="store.show", method="GET", path="/store", tag="server", permission=_VIEW,
        handler=lambda call: call.act("store.show"), returns=STORE,
        summary="Show how large the store is and what is in it",
    ),
    Endpoint(
        name="store.pack", method="POST", path="/store/pack", tag="server",
        handler=lambda call: call.act("store.pack"), permission=Permission.ADMINISTER,
        summary="Pack the store's file now; jobs and pages go on",
        returns=given({"before": whole(), "after": whole()}, title="Packed"),
    ),
    Endpoint(
        name="metrics.token", method="POST", path="/metrics-token", tag="server",
        handler=lambda call: call.act("metrics.token"), permission=Permission.ADMINISTER,
        summary="Make a new token for metrics, shown only now; the old one ends",
        returns=given({"token": {"type": "string"}}, title="MetricsToken"),
    ),
    Endpoint(
        name="metrics.revoke", method="DELETE", path="/metrics-token", tag="server",
        handler=_revoke, permission=Permission.ADMINISTER, status=204,
        summary="End the token for metrics",
    ),
    Endpoint(
        name="audit", method="GET", path="/audit", paged=True, tag="access",
        handler=lambda call: common.every(call, call.db.audit, ("user", "action")),
        summary="List who asked for what, newest first", permission=Permission.ADMINISTER,
        query={"user": text(longest=100), "action": text(longest=100), **page_query()},
        returns=of_record(AuditEntry),
    ),
]  # fmt: skip
