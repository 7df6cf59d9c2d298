"""Pages about notifications: open problems, channels, rules, and the log of messages.

Forms of a channel are made of its notifier's option schema; a secret that is left empty stays
as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from zoneinfo import available_timezones

from pyramid.httpexceptions import HTTPNotFound, HTTPSeeOther

from borgcube.core.access import Permission
from borgcube.core.alarms import KINDS
from borgcube.core.errors import BorgCubeError
from borgcube.core.forms import Field, Form
from borgcube.core.rules import DAYS
from borgcube.core.web import Resource
from borgcube.plugins.console.resources import Collection, Item, add

SHOWN = 50
SEVERITIES = (("info", "everything"), ("warning", "warnings and errors"), ("error", "errors only"))
NAME = Field("name", "Name", required=True, placeholder="ops",
             help="It cannot be changed later.")  # fmt: skip
COMMENT = Field("comment", "Comment", group="More")
DISABLED = Field("disabled", "Disabled", "checkbox", default=False, group="More")


class ChannelItem(Item):
    """A channel; it belongs to no client."""

    client_name = ""


class RuleItem(Item):
    """A rule; it belongs to no client."""

    client_name = ""


class IncidentItem(Item):
    """An open or closed problem."""

    client_name = ""


class DeliveryItem(Item):
    """A message."""

    client_name = ""


class _Records(Resource):
    """``/notifications/channels`` and the like; only a step on the way."""

    client_name = ""
    table, field, item = "", "name", Item

    def __getitem__(self, name: str) -> Item:
        record = getattr(self.request.db, self.table).find(self.field, name)
        if record is None:
            raise KeyError(name)
        return self.item(self.request, name=name, parent=self, record=record)


class _Channels(_Records):
    table, item = "channels", ChannelItem


class _Rules(_Records):
    table, item = "rules", RuleItem


class _Incidents(_Records):
    table, field, item = "incidents", "id", IncidentItem


class _Deliveries(_Records):
    table, field, item = "deliveries", "id", DeliveryItem


BELOW: Mapping[str, type[_Records]] = {
    "channels": _Channels, "rules": _Rules, "incidents": _Incidents, "messages": _Deliveries,
}  # fmt: skip


class Notifications(Collection):
    """``/notifications``."""

    client_name = ""

    def __getitem__(self, name: str) -> _Records:
        return BELOW[name](self.request, name=name, parent=self)


def notifications(context: Notifications, request: Any) -> dict[str, Any]:
    """Show open problems, channels, rules and the newest messages."""
    db = request.db
    rules = sorted(db.rules.newest(1000), key=lambda one: str(one.name))
    return {
        "incidents": db.incidents.newest(SHOWN, state="open"),
        "open": db.incidents.count(state="open"),
        "closed": db.incidents.newest(5, state="closed"),
        "channels": sorted(db.channels.newest(1000), key=lambda one: str(one.name)),
        "rules": [{"rule": one, "words": about(one)} for one in rules],
        "deliveries": db.deliveries.newest(15), "kinds": KINDS,
        "notifiers": {name: one.title for name, one in request.plugins.notifiers.items()},
        "may_operate": request.me.may(Permission.OPERATE),
        "may_administer": request.me.may(Permission.ADMINISTER),
    }  # fmt: skip


def about(rule: Any) -> str:
    """Return what a rule does, in words."""
    of = [f"{word} {', '.join(getattr(rule, many))}" for many, word in
          (("clients", "client"), ("plans", "plan"), ("repositories", "repository"))
          if getattr(rule, many)]  # fmt: skip
    only = f", only {' and '.join(of)}" if of else ""
    if rule.digest:
        day = f" on {rule.digest_day.capitalize()}" if rule.digest == "weekly" else ""
        return f"A {rule.digest} letter{day} at {rule.digest_at} {rule.zone}{only}"
    what = []
    if rule.kinds:
        least = dict(SEVERITIES)[rule.severity]
        kinds = "" if tuple(rule.kinds) == ("*",) else f" ({', '.join(rule.kinds)})"
        what.append(f"Problems{kinds}: {least}")
    if rule.events:
        what.append(f"events {', '.join(rule.events)}")
    quiet = f", quiet from {rule.quiet_from} to {rule.quiet_until}" if rule.quiet_from else ""
    return f"{', '.join(what)}{only}{quiet}"


# Problems


def _act_on_incident(method: str) -> Any:
    def view(context: IncidentItem, request: Any) -> Any:
        request.act(method, id=context.record.id, user=request.me.user)
        return HTTPSeeOther(request.path_to("notifications"))

    return view


def log(context: Notifications, request: Any) -> dict[str, Any]:
    """List messages, newest first, by page."""
    before = str(request.params.get("before", ""))
    table = request.db.deliveries
    found = table.newest(
        SHOWN + 1, before=int(before) if before.isdecimal() and len(before) < 18 else None
    )
    more = ""
    if len(found) > SHOWN:
        found = found[:SHOWN]
        last = str(table.number_of(found[-1]))
        more = request.path_to("notifications", "log", before=last)
    return {"deliveries": found, "more": more}


def message(context: DeliveryItem, request: Any) -> dict[str, Any]:
    """Show one message."""
    record = context.record
    return {"delivery": record,
            "may_retry": record.state in ("queued", "failed")
            and request.me.may(Permission.ADMINISTER)}  # fmt: skip


def retry(context: DeliveryItem, request: Any) -> Any:
    """Try again to deliver a message."""
    request.act("delivery.retry", id=context.record.id)
    return HTTPSeeOther(request.path_to("notifications", "messages", context.record.id))


# Channels


def channel_form(notifier: Any, *, record: Any = None) -> Form:
    """Return the form of a channel: the notifier's options, and what every channel has."""
    fields: list[Field] = [] if record is not None else [NAME]
    for spec in notifier.fields():
        if record is not None and spec.kind == "password":
            said = f"{spec.help} Leave it empty to keep the one that is set.".strip()
            spec = replace(spec, required=False, help=said)
        fields.append(spec)
    fields.append(COMMENT)
    if record is None:
        return Form(fields)
    values = {**record.options, "comment": record.comment, "disabled": record.disabled}
    return Form([*fields, DISABLED], values)


def _options(notifier: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    return {spec.name: values[spec.name] for spec in notifier.fields()}


def channel_new(context: Notifications, request: Any) -> Any:
    """Add a channel; first the kind is chosen, then its options are asked for."""
    known = request.plugins.notifiers
    chosen = str(request.params.get("kind", ""))
    if chosen not in known:
        return {"form": None, "channel": None, "notifier": None,
                "notifiers": [(name, known[name].title) for name in sorted(known)]}  # fmt: skip
    notifier = known[chosen]
    form = channel_form(notifier)
    if request.method == "POST":
        values = form.read(request.POST)
        if values is not None:
            try:
                request.act("channel.add", name=values["name"], notifier=chosen,
                            comment=values["comment"], options=_options(notifier, values)
                            )  # fmt: skip
                return HTTPSeeOther(request.path_to("notifications", "channels", values["name"]))
            except BorgCubeError as error:
                form.refuse(error)
        request.response.status_code = 400
    return {"form": form, "channel": None, "notifier": notifier, "notifiers": []}


def channel(context: ChannelItem, request: Any) -> Any:
    """Show one channel, and change it."""
    record = context.record
    notifier = request.plugins.notifiers.get(record.notifier)
    may = request.me.may(Permission.ADMINISTER)
    form = channel_form(notifier, record=record) if notifier is not None and may else None
    if request.method == "POST":
        if form is None:
            raise HTTPNotFound
        values = form.read(request.POST)
        if values is not None:
            try:
                request.act("channel.set", name=record.name, comment=values["comment"],
                            disabled=values["disabled"], options=_options(notifier, values)
                            )  # fmt: skip
                return HTTPSeeOther(request.path_to("notifications", "channels", record.name))
            except BorgCubeError as error:
                form.refuse(error)
        request.response.status_code = 400
    return {
        "channel": record, "form": form, "notifier": notifier, "notifiers": [],
        "deliveries": request.db.deliveries.newest(15, channel=record.name),
        "rules": [str(one.name) for one in request.db.rules.newest(100, channel=record.name)],
    }  # fmt: skip


def channel_test(context: ChannelItem, request: Any) -> Any:
    """Send a test; the page shows what comes of it."""
    made = request.act("channel.test", name=context.record.name)
    return HTTPSeeOther(request.path_to("notifications", "messages", made["delivery"]))


def _removed(method: str) -> Any:
    def view(context: Item, request: Any) -> Any:
        request.act(method, name=context.record.name)
        return HTTPSeeOther(request.path_to("notifications"))

    return view


# Rules


def rule_fields(request: Any) -> list[Field]:
    """Return the fields of a rule."""
    heartbeats = {name for name, one in request.plugins.notifiers.items() if one.heartbeat}
    channels = [(str(one.name), str(one.name)) for one in request.db.channels.newest(1000)
                if one.notifier not in heartbeats]  # fmt: skip
    zones = sorted(available_timezones()) or ["UTC"]
    times, subjects, letters = "Hours and reminders", "Only some", "A letter instead"
    return [
        NAME,
        Field("channel", "Over channel", "choice", required=True, choices=channels),
        Field("severity", "Tell of", "choice", default="warning", choices=SEVERITIES),
        Field("kinds", "Kinds of problems", "checkboxes", default=tuple(KINDS),
              choices=[(kind, f"{kind}: {words}") for kind, words in KINDS.items()],
              group=subjects),
        Field("clients", "Clients", "lines", group=subjects, placeholder="web*",
              help="One name or pattern a line; empty means all."),
        Field("plans", "Plans", "lines", group=subjects),
        Field("repositories", "Repositories", "lines", group=subjects),
        Field("events", "Events as well", "lines", group=subjects,
              placeholder="repository.passphrase_revealed",
              help="Types of events in the journal, or patterns such as archive.*"),
        Field("zone", "Time zone", "choice", default="UTC", group=times,
              choices=[(zone, zone) for zone in zones]),
        Field("quiet_from", "Quiet from", group=times, placeholder="22:00"),
        Field("quiet_until", "Quiet until", group=times, placeholder="07:00"),
        Field("quiet_lets", "Tell in quiet hours too", "choice", default="error", group=times,
              choices=(("never", "nothing"), ("error", "errors"),
                       ("warning", "warnings and errors"))),
        Field("group_s", "Wait for more (seconds)", "number", default="60", least=0,
              most=86_400, group=times, help="Problems of that time share a message."),
        Field("remind_hours", "Remind after (hours)", "number", default="24", least=0,
              most=2160, group=times, help="0 for never. Reminders end when somebody says"
              " that they know."),
        Field("all_clear", "Tell when a problem is over", "checkbox", default=True,
              group=times),
        Field("digest", "Send", "choice", default="", group=letters,
              choices=(("", "messages about problems"), ("daily", "a letter every day"),
                       ("weekly", "a letter every week"))),
        Field("digest_at", "At", default="07:00", group=letters, placeholder="07:00"),
        Field("digest_day", "On", "choice", default="monday", group=letters,
              choices=[(day, day.capitalize()) for day in DAYS]),
        COMMENT,
    ]  # fmt: skip


def _rule_params(values: dict[str, Any]) -> dict[str, Any]:
    found = dict(values)
    if set(found["kinds"]) == set(KINDS):
        found["kinds"] = ["*"]  # kinds that are still to come as well
    return found


def rule_new(context: Notifications, request: Any) -> Any:
    """Add a rule."""
    form = Form(rule_fields(request))
    asked = str(request.params.get("channel", ""))
    if request.method == "GET" and asked:
        form.values["channel"] = asked
    if request.method == "POST":
        values = form.read(request.POST)
        if values is not None:
            try:
                request.act("rule.add", **_rule_params(values))
                return HTTPSeeOther(request.path_to("notifications"))
            except BorgCubeError as error:
                form.refuse(error)
        request.response.status_code = 400
    return {"form": form, "rule": None, "has_channel": bool(request.db.channels.newest(1))}


def rule(context: RuleItem, request: Any) -> Any:
    """Show one rule, and change it."""
    record = context.record
    shown = {k: list(v) if isinstance(v, tuple) else v for k, v in record.as_data().items()}
    if "*" in shown["kinds"]:
        shown["kinds"] = list(KINDS)
    fields = [*(spec for spec in rule_fields(request) if spec.name != "name"), DISABLED]
    form = Form(fields, {spec.name: shown[spec.name] for spec in fields})
    if request.method == "POST":
        values = form.read(request.POST)
        if values is not None:
            try:
                request.act("rule.set", name=record.name, **_rule_params(values))
                return HTTPSeeOther(request.path_to("notifications"))
            except BorgCubeError as error:
                form.refuse(error)
        request.response.status_code = 400
    return {"form": form, "rule": record, "has_channel": True}


def includeme(config: Any) -> None:
    """Add the views."""
    view, administer = Permission.VIEW_SERVER, Permission.ADMINISTER
    add(config, notifications, Notifications, template="notifications", permission=view)
    add(config, log, Notifications, "log", template="notification_log", permission=view)
    add(config, message, DeliveryItem, template="notification_message", permission=view)
    add(config, channel_new, Notifications, "+channel", template="notification_channel",
        permission=administer, posts=True)  # fmt: skip
    add(config, rule_new, Notifications, "+rule", template="notification_rule",
        permission=administer, posts=True)  # fmt: skip
    add(config, channel, ChannelItem, template="notification_channel", permission=administer,
        posts=True)  # fmt: skip
    add(config, rule, RuleItem, template="notification_rule", permission=administer,
        posts=True)  # fmt: skip
    for context, name, function in (
        (ChannelItem, "test", channel_test), (ChannelItem, "remove", _removed("channel.remove")),
        (RuleItem, "remove", _removed("rule.remove")), (DeliveryItem, "retry", retry),
    ):  # fmt: skip
        add(config, function, context, name, permission=administer, posts=True)
    for name in ("acknowledge", "close"):
        add(config, _act_on_incident(f"incident.{name}"), IncidentItem, name,
            permission=Permission.OPERATE, posts=True)  # fmt: skip
