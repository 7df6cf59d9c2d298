"""The API about who is told what: incidents, channels, rules and deliveries."""

from __future__ import annotations

from typing import Any

from borgcube.core.access import Permission
from borgcube.core.api import Answer, Call, Endpoint, Listing, named
from borgcube.core.model import Channel, Delivery, Incident, Record, Rule
from borgcube.core.openapi import page_query
from borgcube.core.schemas import (
    NAME,
    REFERENCE,
    fields_of,
    given,
    of_record,
    one_of,
    text,
    thing,
    yes_or_no,
)
from borgcube.plugins.api import common

NAMES = {"type": "array", "items": {"type": "string"}}
CHANNEL = of_record(Channel, more={"secrets_set": {
    **NAMES, "description": "The secret options that have a value."}})  # fmt: skip
RULE, INCIDENT, DELIVERY = of_record(Rule), of_record(Incident), of_record(Delivery)
REMARKS = {"type": "array", "items": {"type": "string"},
           "description": "Its patterns that fit nothing there is, in words."}  # fmt: skip
SAVED_RULE = {**of_record(Rule, more={"remarks": REMARKS}), "title": "SavedRule"}
OPTIONS = {"type": "object", "maxProperties": 50, "description": "The notifier's own; secrets are"
           " sealed and never shown again."}  # fmt: skip
MEANINGS = {
    "channel": "Where to.", "kinds": "Of which kinds of incidents; patterns.",
    "events": "Of which events; patterns.", "severity": "From this severity on.",
    "clients": "Of these only; patterns.", "plans": "Of these only; patterns.",
    "repositories": "Of these only; patterns.",
    "group_s": "Collect what comes within so much time.",
    "remind_hours": "Remind of what goes on; 0 is never.",
    "all_clear": "Say when it is over.", "quiet_from": "Quiet hours, such as 22:00.",
    "quiet_until": "Their end.", "quiet_lets": "The severity that comes all the same.",
    "zone": "The time zone of its times.", "digest": "Send a letter instead: daily or weekly.",
    "digest_at": "When, such as 07:00.", "digest_day": "On which day.", "comment": "For people.",
}  # fmt: skip
FIELDS = fields_of(Rule, MEANINGS, channel=REFERENCE)


def _nobodys(_record: Any) -> str:
    return ""


find_channel = named("channels", client=_nobodys)
find_rule = named("rules", client=_nobodys)
find_delivery = named("deliveries", client=_nobodys, key="id")
find_incident = named("incidents", client=_nobodys, key="id")


def _notifiers(call: Call) -> dict[str, Any]:
    return {"notifiers": call.act("notifier.list")}


def _channels(call: Call) -> dict[str, Any]:
    return {"channels": call.act("channel.list")}


def _added(method: str, where: str, kind: type[Record]) -> Any:
    def handler(call: Call) -> Answer:
        made = call.act(method, **call.body)
        return common.versioned(made, location=call.address(where, made["name"]), kind=kind)

    return handler


def _shown(method: str, kind: type[Record]) -> Any:
    return lambda call: common.versioned(call.act(method, name=call.record.name), kind=kind)


def _changed(method: str, kind: type[Record]) -> Any:
    return lambda call: common.versioned(
        call.act(method, name=call.record.name, version=call.version, **call.body), kind=kind
    )


def _gone(method: str) -> Any:
    def handler(call: Call) -> None:
        call.act(method, name=call.record.name, version=call.version)

    return handler


def _test(call: Call) -> Any:
    return call.act("channel.test", name=call.record.name)


def _show(call: Call) -> Any:
    return call.record.as_data()


def _noted(method: str) -> Any:
    return lambda call: call.act(method, id=call.record.id, user=call.me.user)


def _retry(call: Call) -> Any:
    return call.act("delivery.retry", id=call.record.id)


def _incidents(call: Call) -> Listing:
    return common.every(call, call.db.incidents, ("state",))


_VIEW, _ADMINISTER = Permission.VIEW_SERVER, Permission.ADMINISTER
_TAG = "notifications"
ENDPOINTS = [
    Endpoint(
        name="incidents.list", method="GET", path="/incidents", handler=_incidents, paged=True,
        summary="List problems, newest first", permission=_VIEW, tag=_TAG, returns=INCIDENT,
        query={"state": one_of(("open", "closed")), **page_query()},
    ),
    Endpoint(
        name="incidents.show", method="GET", path="/incidents/{id}", handler=_show, tag=_TAG,
        find=find_incident, summary="Show a problem", permission=_VIEW, returns=INCIDENT,
    ),
    Endpoint(
        name="incidents.acknowledge", method="POST", path="/incidents/{id}/acknowledge",
        handler=_noted("incident.acknowledge"), find=find_incident, tag=_TAG,
        summary="Say that you know of a problem; reminders end", returns=INCIDENT,
        permission=Permission.OPERATE,
    ),
    Endpoint(
        name="incidents.close", method="POST", path="/incidents/{id}/close", tag=_TAG,
        handler=_noted("incident.close"), find=find_incident, returns=INCIDENT,
        permission=Permission.OPERATE,
        summary="Call a problem over; it opens anew when it is seen again",
    ),
    Endpoint(
        name="notifiers", method="GET", path="/notifiers", handler=_notifiers, tag=_TAG,
        summary="List the ways to reach somebody, with their options", permission=_VIEW,
        returns=given({"notifiers": {"type": "array", "items": {"type": "object"}}},
                      title="Notifiers"),
    ),
    Endpoint(
        name="channels.list", method="GET", path="/channels", handler=_channels, tag=_TAG,
        summary="List channels", permission=_ADMINISTER,
        returns=given({"channels": {"type": "array", "items": CHANNEL}}, title="Channels"),
    ),
    Endpoint(
        name="channels.add", method="POST", path="/channels", status=201, tag=_TAG,
        handler=_added("channel.add", "channels", Channel), summary="Add a channel",
        permission=_ADMINISTER, returns=CHANNEL,
        body=thing({"name": NAME, "notifier": text(longest=64, shortest=1), "options": OPTIONS,
                    "comment": text()}, required=("name", "notifier"), title="NewChannel"),
    ),
    Endpoint(
        name="channels.show", method="GET", path="/channels/{name}", find=find_channel,
        handler=_shown("channel.show", Channel), tag=_TAG, versioned=True,
        summary="Show a channel, without its secrets", permission=_ADMINISTER, returns=CHANNEL,
    ),
    Endpoint(
        name="channels.change", method="PATCH", path="/channels/{name}", find=find_channel,
        handler=_changed("channel.set", Channel), permission=_ADMINISTER, returns=CHANNEL, tag=_TAG,
        versioned=True,
        summary="Change what is given of a channel; options that are left out stay",
        body=thing({"options": OPTIONS, "comment": text(), "disabled": yes_or_no()}, least=1,
                   title="ChannelChange"),
    ),
    Endpoint(
        name="channels.remove", method="DELETE", path="/channels/{name}", find=find_channel,
        handler=_gone("channel.remove"), summary="Forget a channel that no rule uses",
        permission=_ADMINISTER, status=204, tag=_TAG, versioned=True,
    ),
    Endpoint(
        name="channels.test", method="POST", path="/channels/{name}/test", find=find_channel,
        handler=_test, summary="Send a test", permission=_ADMINISTER, tag=_TAG,
        returns=given({"delivery": {"type": "string", "description": "Its delivery's ID."}},
                      title="ChannelTest"),
    ),
    Endpoint(
        name="rules.list", method="GET", path="/rules", paged=True, permission=_ADMINISTER,
        handler=lambda call: common.every(call, call.db.rules), query=page_query(), tag=_TAG,
        summary="List rules: who is told of what", returns=RULE,
    ),
    Endpoint(
        name="rules.add", method="POST", path="/rules", status=201, returns=SAVED_RULE, tag=_TAG,
        handler=_added("rule.add", "rules", Rule), permission=_ADMINISTER, summary="Add a rule",
        body=thing({"name": NAME, **FIELDS}, required=("name", "channel"), title="NewRule"),
    ),
    Endpoint(
        name="rules.show", method="GET", path="/rules/{name}", find=find_rule, versioned=True,
        handler=_shown("rule.show", Rule), summary="Show a rule", permission=_ADMINISTER,
        returns=RULE, tag=_TAG,
    ),
    Endpoint(
        name="rules.change", method="PATCH", path="/rules/{name}", find=find_rule,
        handler=_changed("rule.set", Rule), permission=_ADMINISTER, returns=SAVED_RULE, tag=_TAG,
        versioned=True,
        summary="Change what is given of a rule",
        body=thing({**FIELDS, "disabled": yes_or_no()}, least=1, title="RuleChange"),
    ),
    Endpoint(
        name="rules.remove", method="DELETE", path="/rules/{name}", find=find_rule, tag=_TAG,
        handler=_gone("rule.remove"), summary="Forget a rule", permission=_ADMINISTER,
        status=204, versioned=True,
    ),
    Endpoint(
        name="digest", method="GET", path="/digest", tag=_TAG, permission=_ADMINISTER,
        handler=lambda call: call.act("digest.show", **call.query),
        summary="Show the letter that a rule would send now, or one about everything",
        query={"rule": REFERENCE, "period": one_of(("daily", "weekly"))},
        returns=given({key: {"type": "string"} for key in (
            "subject", "severity", "text", "html")}, title="Letter"),
    ),
    Endpoint(
        name="deliveries.list", method="GET", path="/deliveries", paged=True, tag=_TAG,
        handler=lambda call: common.every(call, call.db.deliveries, ("channel", "state")),
        summary="List what was sent, newest first", permission=_VIEW, returns=DELIVERY,
        query={"channel": REFERENCE, "state": text(longest=20), **page_query()},
    ),
    Endpoint(
        name="deliveries.retry", method="POST", path="/deliveries/{id}/retry", handler=_retry,
        find=find_delivery, summary="Try to deliver again at once", permission=_ADMINISTER,
        returns=DELIVERY, tag=_TAG,
    ),
]  # fmt: skip
