"""Pages about triggers: secret addresses, each of which starts one plan from outside.

The address is shown in the answer to the form that makes it, and nowhere else: the store
has its digest only. Who may see and make triggers is as over the API. Called by the console
only, and changes nothing but through control.
"""

from __future__ import annotations

from typing import Any

from pyramid.httpexceptions import HTTPSeeOther

from borgcube.core import credentials
from borgcube.core.access import Permission
from borgcube.core.errors import BorgCubeError
from borgcube.core.forms import Field, Form
from borgcube.core.model.scheduling import TRIGGER_USES
from borgcube.core.texts import _
from borgcube.plugins.console import forms
from borgcube.plugins.console.resources import TriggerItem, Triggers, add

PAGE = 100
SHOWN_OF_PLAN = 20
MAX_DAYS = 3650


def fields(request: Any) -> list[Field]:
    """Return the fields of a new trigger."""
    return [
        Field("name", _("Name"), required=True, placeholder="ci",
              help=_("Who or what will use it, so that you know it again.")),
        forms.named(request, "plan", _("Plan"), required=True),
        Field("days", _("Good for (days)"), "number", default="365", least=0, most=MAX_DAYS,
              help=_("0 means until it is removed.")),
    ]  # fmt: skip


def _shown(records: list[Any]) -> list[dict[str, Any]]:
    return [{"trigger": one, "expired": credentials.is_past(one.expires_at)} for one in records]


def triggers(context: Triggers, request: Any) -> dict[str, Any]:
    """List triggers by name, by page."""
    table = request.db.triggers
    after = str(request.params.get("after", ""))[:100]
    names = table.named(PAGE + 1, after=after)
    more = ""
    if len(names) > PAGE:
        names = names[:PAGE]
        more = request.path_to("schedules", "triggers", after=names[-1])
    return {
        "rows": _shown([table.find("name", name) for name in names]), "more": more,
        "uses": TRIGGER_USES, "may_configure": request.me.may(Permission.CONFIGURE),
        "of_plan": False,
    }  # fmt: skip


def plan_tab(request: Any, plan: Any) -> dict[str, Any]:
    """Return the triggers of a plan, newest first, for its page."""
    table = request.db.triggers
    return {
        "plan": plan.name, "rows": _shown(table.newest(SHOWN_OF_PLAN, plan=plan.name)),
        "more": max(0, table.count(plan=plan.name) - SHOWN_OF_PLAN),
        "may_configure": request.me.may(Permission.CONFIGURE),
    }  # fmt: skip


def new(context: Triggers, request: Any) -> Any:
    """Make a trigger; the answer shows its address, once."""
    form = Form(fields(request))
    asked = str(request.params.get("plan", ""))[:100]
    if request.method == "GET" and asked:
        form.values["plan"] = asked
    made: dict[str, Any] = {}
    if request.method == "POST":
        values = form.read(request.POST)
        if values is not None:
            try:
                made = request.act("trigger.add", **values)
            except BorgCubeError as error:
                form.refuse(error)
        if not made:
            request.response.status_code = 400
    address = request.address_of(*made["path"].strip("/").split("/")) if made else ""
    return {"form": form, "made": made, "address": address, "uses": TRIGGER_USES,
            "has_plan": bool(request.db.plans.newest(1))}  # fmt: skip


def remove(context: TriggerItem, request: Any) -> Any:
    """Say what removing a trigger means, and do it."""
    record = context.record
    if request.method == "POST":
        request.act("trigger.remove", name=record.name)
        return HTTPSeeOther(request.path_to("schedules", "triggers"))
    return {"trigger": record, "expired": credentials.is_past(record.expires_at)}


def includeme(config: Any) -> None:
    """Add the views."""
    configure = Permission.CONFIGURE
    add(config, triggers, Triggers, template="triggers", permission=Permission.VIEW_SERVER)
    add(config, new, Triggers, "+add", template="trigger_new", permission=configure, posts=True)
    add(config, remove, TriggerItem, "remove", template="trigger_remove", permission=configure,
        posts=True)  # fmt: skip
