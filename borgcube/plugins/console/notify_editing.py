"""Pages that show and change a channel and a rule, without overwriting anybody's change.

They work like the edit pages of clients and plans (:mod:`editing`), whose visit they use.
Secrets are outside of that: they are never shown, so the one that is typed counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyramid.httpexceptions import HTTPNotFound, HTTPSeeOther

from borgcube.core.access import Permission
from borgcube.core.alarms import KINDS
from borgcube.core.forms import SECRET_KINDS, Field
from borgcube.core.standing import rule_remarks
from borgcube.core.texts import _
from borgcube.plugins.console.editing import Edit, Kind
from borgcube.plugins.console.notifications import (
    DISABLED,
    STATES,
    ChannelItem,
    RuleItem,
    channel_fields,
    options_of,
    rule_fields,
    rule_params,
    rule_saved,
)
from borgcube.plugins.console.resources import add

Data = Mapping[str, Any]


def _notifier(request: Any, data: Data) -> Any:
    return request.plugins.notifiers[data["notifier"]]


def _channel_fields(request: Any, data: Data) -> list[Field]:
    return channel_fields(_notifier(request, data), new=False)


def _channel_shown(request: Any, data: Data) -> dict[str, Any]:
    """Return a channel's data as values of its form; secrets are empty, which keeps them."""
    options = {
        spec.name: "" if spec.kind in SECRET_KINDS else data["options"].get(spec.name, spec.default)
        for spec in _notifier(request, data).fields()
    }
    return {**options, "comment": data["comment"], "disabled": data["disabled"]}


def _channel_meant(request: Any, values: Data) -> dict[str, Any]:
    """Return the parameters that a channel's values mean; which notifier is the page's."""
    return {"options": options_of(_notifier(request, request.context.record.as_data()), values),
            "comment": values["comment"], "disabled": values["disabled"]}  # fmt: skip


def _rule_fields(request: Any, _data: Data) -> list[Field]:
    return [*(spec for spec in rule_fields(request) if spec.name != "name"), DISABLED]


def _rule_shown(_request: Any, data: Data) -> dict[str, Any]:
    return {**data, "kinds": list(KINDS) if "*" in data["kinds"] else data["kinds"]}


def _rule_meant(_request: Any, values: Data) -> dict[str, Any]:
    return rule_params(values)


CHANNEL = Kind("channel", "notifications", _channel_fields, _channel_shown, _channel_meant)
RULE = Kind("rule", "notifications", _rule_fields, _rule_shown, _rule_meant)


def _saved(visit: Edit, request: Any) -> bool:
    """Do what was posted; False leaves in the form, and in the status, why not."""
    visit.read()
    if visit.save():
        return True
    for spec in visit.fields:
        if spec.kind in SECRET_KINDS and request.POST.get(spec.name):
            visit.form.errors.setdefault(spec.name, _("Type it again: it is not sent back."))
    request.response.status_code = 409 if visit.clashes else 400
    return False


def channel(context: ChannelItem, request: Any) -> Any:
    """Show one channel, and change it."""
    record = context.record
    notifier = request.plugins.notifiers.get(record.notifier)
    page: dict[str, Any] = {"form": None}
    if notifier is not None:
        visit = Edit(CHANNEL, context, request)
        if request.method == "POST" and _saved(visit, request):
            return HTTPSeeOther(request.path_to("notifications", "channels", record.name))
        page = visit.page()
    elif request.method == "POST":
        raise HTTPNotFound
    return {
        **page, "channel": record, "states": STATES, "notifier": notifier, "notifiers": [],
        "deliveries": request.db.deliveries.newest(15, channel=record.name),
        "rules": [str(one.name) for one in request.db.rules.newest(100, channel=record.name)],
    }  # fmt: skip


def rule(context: RuleItem, request: Any) -> Any:
    """Show one rule, and change it."""
    visit = Edit(RULE, context, request)
    if request.method == "POST" and _saved(visit, request):
        return rule_saved(request, visit.answer)
    return {**visit.page(), "rule": context.record, "has_channel": True,
            "remarks": rule_remarks(request.db, context.record)}  # fmt: skip


def includeme(config: Any) -> None:
    """Add the views."""
    administer = Permission.ADMINISTER
    add(config, channel, ChannelItem, template="notification_channel", permission=administer,
        posts=True)  # fmt: skip
    add(config, rule, RuleItem, template="notification_rule", permission=administer,
        posts=True)  # fmt: skip
