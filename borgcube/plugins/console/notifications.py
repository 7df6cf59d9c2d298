"""Pages about notifications: open problems, channels, rules, and the log of messages.

Forms of a channel are made of its notifier's option schema; a secret that is left empty stays
as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from zoneinfo import available_timezones

from pyramid.httpexceptions import HTTPSeeOther

from borgcube.core.access import Permission
from borgcube.core.alarms import KINDS
from borgcube.core.errors import BorgCubeError
from borgcube.core.forms import Field, Form
from borgcube.core.rules import DAYS
from borgcube.core.texts import _
from borgcube.core.web import Resource
from borgcube.plugins.console import asking
from borgcube.plugins.console.resources import Collection, Item, add

SHOWN = 50
SEVERITIES = (("info", _("everything")), ("warning", _("warnings and errors")),
              ("error", _("errors only")))  # fmt: skip
# Words, badge and icon of each severity of a problem and each state of a message.
LEVELS = {
    "error": (_("error"), "bad", "cross"), "warning": (_("warning"), "warn", "warn"),
    "info": (_("note"), "", "about"),
}  # fmt: skip
STATES = {
    "sent": (_("sent"), "good", "check"), "failed": (_("given up"), "bad", "cross"),
    "queued": (_("waiting"), "busy", "clock"), "sending": (_("being sent"), "busy", "play"),
    "withdrawn": (_("not needed any more"), "", "stop"),
}  # fmt: skip
WEEK = dict(zip(DAYS, (
    _("Monday"), _("Tuesday"), _("Wednesday"), _("Thursday"), _("Friday"), _("Saturday"),
    _("Sunday"),
), strict=True))  # fmt: skip
NAME = Field("name", _("Name"), required=True, placeholder="ops",
             help=_("It cannot be changed later."))  # fmt: skip
COMMENT = Field("comment", _("Comment"), group=_("More"))
DISABLED = Field("disabled", _("Disabled"), "checkbox", default=False, group=_("More"))


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
        "deliveries": db.deliveries.newest(15), "kinds": KINDS, "states": STATES,
        "levels": LEVELS,
        "notifiers": {name: one.title for name, one in request.plugins.notifiers.items()},
        "may_operate": request.me.may(Permission.OPERATE),
        "may_administer": request.me.may(Permission.ADMINISTER),
    }  # fmt: skip


def about(rule: Any) -> list[str]:
    """Return what a rule does, in a few words each."""
    if rule.digest == "daily":
        found = [_("A letter every day at %(at)s %(zone)s", at=rule.digest_at, zone=rule.zone)]
    elif rule.digest:
        found = [_("A letter every week on %(day)s at %(at)s %(zone)s", at=rule.digest_at,
                   day=WEEK[rule.digest_day], zone=rule.zone)]  # fmt: skip
    else:
        found = []
        if rule.kinds:
            found.append(_("Problems: %(least)s", least=dict(SEVERITIES)[rule.severity]))
            if tuple(rule.kinds) != ("*",):
                found.append(_("of these kinds: %(kinds)s", kinds=", ".join(rule.kinds)))
        if rule.events:
            found.append(_("events %(types)s", types=", ".join(rule.events)))
        if rule.quiet_from:
            found.append(_("quiet from %(begin)s to %(end)s %(zone)s", begin=rule.quiet_from,
                           end=rule.quiet_until, zone=rule.zone))  # fmt: skip
    if rule.clients:
        found.append(_("only clients %(names)s", names=", ".join(rule.clients)))
    if rule.plans:
        found.append(_("only plans %(names)s", names=", ".join(rule.plans)))
    if rule.repositories:
        found.append(_("only repositories %(names)s", names=", ".join(rule.repositories)))
    return list(found)


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
    return {"deliveries": found, "more": more, "states": STATES}


def message(context: DeliveryItem, request: Any) -> dict[str, Any]:
    """Show one message."""
    record = context.record
    return {"delivery": record, "states": STATES,
            "may_retry": record.state in ("queued", "failed")
            and request.me.may(Permission.ADMINISTER)}  # fmt: skip


def retry(context: DeliveryItem, request: Any) -> Any:
    """Try again to deliver a message."""
    request.act("delivery.retry", id=context.record.id)
    return HTTPSeeOther(request.path_to("notifications", "messages", context.record.id))


# Channels


def channel_fields(notifier: Any, *, new: bool) -> list[Field]:
    """Return the fields of a channel: the notifier's options, and what every channel has."""
    fields: list[Field] = [NAME] if new else []
    for spec in notifier.fields():
        if not new and spec.kind == "password":
            said = _("Leave it empty to keep the one that is set.")
            if spec.help:
                said = _("%(help)s %(more)s", help=spec.help, more=said)
            spec = replace(spec, required=False, help=said)
        fields.append(spec)
    return [*fields, COMMENT] if new else [*fields, COMMENT, DISABLED]


def options_of(notifier: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options among a channel's values."""
    return {spec.name: values[spec.name] for spec in notifier.fields()}


def channel_new(context: Notifications, request: Any) -> Any:
    """Add a channel; first the kind is chosen, then its options are asked for."""
    known = request.plugins.notifiers
    chosen = str(request.params.get("kind", ""))
    if chosen not in known:
        return {"form": None, "channel": None, "states": STATES, "notifier": None,
                "notifiers": [(name, known[name].title) for name in sorted(known)]}  # fmt: skip
    notifier = known[chosen]
    form = Form(channel_fields(notifier, new=True))
    if request.method == "POST":
        values = form.read(request.POST)
        if values is not None:
            try:
                request.act("channel.add", name=values["name"], notifier=chosen,
                            comment=values["comment"], options=options_of(notifier, values)
                            )  # fmt: skip
                return HTTPSeeOther(request.path_to("notifications", "channels", values["name"]))
            except BorgCubeError as error:
                form.refuse(error)
        request.response.status_code = 400
    return {"form": form, "channel": None, "states": STATES, "notifier": notifier, "notifiers": []}


def channel_test(context: ChannelItem, request: Any) -> Any:
    """Send a test; the page shows what comes of it."""
    made = request.act("channel.test", name=context.record.name)
    return HTTPSeeOther(request.path_to("notifications", "messages", made["delivery"]))


def channel_remove(context: ChannelItem, request: Any) -> Any:
    """Remove a channel, once it was said that nobody is told over it any more."""
    name = str(context.record.name)
    if asking.is_sure(request):
        request.act("channel.remove", name=name)
        return HTTPSeeOther(request.path_to("notifications"))
    return asking.page(
        request, _("Remove the channel %(name)s?", name=name), button=_("Remove"), danger=True,
        back=request.path_to("notifications", "channels", name),
        lines=[_("Nobody is told anything over it any more; what waits for it is not sent."),
               _("Its address and its secrets are lost.")],
    )  # fmt: skip


def rule_remove(context: RuleItem, request: Any) -> Any:
    """Remove a rule."""
    request.act("rule.remove", name=context.record.name)
    return HTTPSeeOther(request.path_to("notifications"))


# Rules


def rule_fields(request: Any) -> list[Field]:
    """Return the fields of a rule."""
    heartbeats = {name for name, one in request.plugins.notifiers.items() if one.heartbeat}
    channels = [(str(one.name), str(one.name)) for one in request.db.channels.newest(1000)
                if one.notifier not in heartbeats]  # fmt: skip
    zones = sorted(available_timezones()) or ["UTC"]
    times, subjects, letters = _("Hours and reminders"), _("Only some"), _("A letter instead")
    return [
        NAME,
        Field("channel", _("Over channel"), "choice", required=True, choices=channels),
        Field("severity", _("Tell of"), "choice", default="warning", choices=SEVERITIES),
        Field("kinds", _("Kinds of problems"), "checkboxes", default=tuple(KINDS),
              choices=list(KINDS.items()),
              group=subjects),
        Field("clients", _("Clients"), "lines", group=subjects, placeholder="web*",
              help=_("One name or pattern a line; empty means all.")),
        Field("plans", _("Plans"), "lines", group=subjects),
        Field("repositories", _("Repositories"), "lines", group=subjects),
        Field("events", _("Events as well"), "lines", group=subjects,
              placeholder="repository.passphrase_revealed",
              help=_("Types of events in the journal, or patterns such as archive.*")),
        Field("zone", _("Time zone"), "choice", default="UTC", group=times,
              choices=[(zone, zone) for zone in zones]),
        Field("quiet_from", _("Quiet from"), group=times, placeholder="22:00"),
        Field("quiet_until", _("Quiet until"), group=times, placeholder="07:00"),
        Field("quiet_lets", _("Tell in quiet hours too"), "choice", default="error", group=times,
              choices=(("never", _("nothing")), ("error", _("errors only")),
                       ("warning", _("warnings and errors")))),
        Field("group_s", _("Wait for more (seconds)"), "number", default="60", least=0,
              most=86_400, group=times, help=_("Problems of that time share a message.")),
        Field("remind_hours", _("Remind after (hours)"), "number", default="24", least=0,
              most=2160, group=times, help=_("0 for never. Reminders end when somebody says"
              " that they know.")),
        Field("all_clear", _("Tell when a problem is over"), "checkbox", default=True,
              group=times),
        Field("digest", _("Send"), "choice", default="", group=letters,
              choices=(("", _("messages about problems")), ("daily", _("a letter every day")),
                       ("weekly", _("a letter every week")))),
        Field("digest_at", _("At"), default="07:00", group=letters, placeholder="07:00"),
        Field("digest_day", _("On"), "choice", default="monday", group=letters,
              choices=list(WEEK.items())),
        COMMENT,
    ]  # fmt: skip


def rule_params(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that a rule's values mean."""
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
                made = request.act("rule.add", **rule_params(values))
                return rule_saved(request, made)
            except BorgCubeError as error:
                form.refuse(error)
        request.response.status_code = 400
    return {"form": form, "rule": None, "has_channel": bool(request.db.channels.newest(1))}


def rule_saved(request: Any, rule: Mapping[str, Any]) -> Any:
    """Go on to the list, or to the rule's page when there is something to say of it."""
    if rule.get("remarks"):
        return HTTPSeeOther(request.path_to("notifications", "rules", rule["name"]))
    return HTTPSeeOther(request.path_to("notifications"))


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
    add(config, channel_remove, ChannelItem, "remove", permission=administer, posts=True,
        renderer=asking.TEMPLATE)  # fmt: skip
    for context, name, function in (
        (ChannelItem, "test", channel_test), (RuleItem, "remove", rule_remove),
        (DeliveryItem, "retry", retry),
    ):  # fmt: skip
        add(config, function, context, name, permission=administer, posts=True)
    for name in ("acknowledge", "close"):
        add(config, _act_on_incident(f"incident.{name}"), IncidentItem, name,
            permission=Permission.OPERATE, posts=True)  # fmt: skip
