"""Pages about keeping and letting go: policies, what a prune would do, pins, what was deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from pyramid.httpexceptions import HTTPSeeOther

from borgcube.core import trash
from borgcube.core.access import Permission
from borgcube.core.authority import besides
from borgcube.core.errors import BorgCubeError
from borgcube.core.forms import Field, Form
from borgcube.core.pruning import decide, is_scheduled
from borgcube.core.retention import Rules
from borgcube.core.texts import _, several
from borgcube.plugins.console import queries
from borgcube.plugins.console.archives import full_name
from borgcube.plugins.console.resources import (
    ArchiveItem,
    Archives,
    PlanItem,
    Policies,
    PolicyItem,
    RepositoryItem,
    add,
)

MORE = _("More")
SHOWN = 500  # archives of one plan that the preview lists
COUNTS = tuple(field.name for field in fields(Rules) if field.name != "within")
HOURS_A_DAY = 24


def span(hours: int) -> Any:
    """Return the length of an undo window in words."""
    if hours == 0:
        return _("none: deleted at once")
    if hours % HOURS_A_DAY:
        return several("%(n)s hour", "%(n)s hours", hours)
    return several("%(n)s day", "%(n)s days", hours // HOURS_A_DAY)


def policy_fields(*, new: bool) -> list[Field]:
    """Return the fields of a policy."""
    words = {
        "last": _("Newest archives"), "hourly": _("Hours"), "daily": _("Days"),
        "weekly": _("Weeks"), "monthly": _("Months"), "yearly": _("Years"),
        "minutely": _("Minutes"), "quarterly_13weekly": _("Quarters of 13 weeks"),
        "quarterly_3monthly": _("Quarters of 3 months"),
    }  # fmt: skip
    helps = {
        "last": _("However old they are."),
        "daily": _("The newest archive of each of so many days that have one. -1 means of all"
                   " days, 0 no such rule."),
    }  # fmt: skip
    common = {"daily": "7", "weekly": "4", "monthly": "6"} if new else {}
    rare = ("last", "minutely", "quarterly_13weekly", "quarterly_3monthly")

    def count(name: str, group: str = "") -> Field:
        return Field(name, words[name], "number", default=common.get(name, "0"), least=-1,
                     most=100_000, help=helps.get(name, ""), group=group)  # fmt: skip

    found = [Field("name", _("Name"), required=True, placeholder="standard")] if new else []
    found += [
        Field("within", _("Everything younger than"), placeholder="2d",
              help=_("A number and a unit: H, d, w, m (31 days) or y. May be empty.")),
        *(count(name) for name in ("hourly", "daily", "weekly", "monthly", "yearly")),
        Field("undo_days", _("Can be brought back for (days)"), "number", default="7", least=0,
              most=3650, help=_("A pruned archive stays restorable for so long. 0 deletes it"
                                " at once.")),
        *(count(name, MORE) for name in rare),
        Field("zone", _("Time zone"), placeholder="Europe/Berlin", group=MORE,
              help=_("Where days begin. Empty: the server's.")),
        Field("comment", _("Comment"), group=MORE),
        Field("confirm", _("To keep only the newest archive, type the policy's name"), group=MORE,
              help=_("Needed only for a policy without any rule.")),
    ]  # fmt: skip
    return found


def policies(context: Policies, request: Any) -> dict[str, Any]:
    """List policies with their plans."""
    rows = [
        {"policy": policy, "words": policy.rules.words(), "undo": span(policy.undo_hours),
         "plans": queries.plans_with(request, 0, retention=policy.name)[1]}
        for policy in queries.by_name(request, request.db.policies)
    ]  # fmt: skip
    without, total = queries.plans_with(request, 50, retention="")
    return {"rows": rows, "without": without, "more_without": total - len(without),
            "waiting": len(waiting_for(request)),
            "may_configure": request.me.may(Permission.CONFIGURE)}  # fmt: skip


def _values(values: Mapping[str, Any]) -> dict[str, Any]:
    given = dict(values)
    given["undo_hours"] = given.pop("undo_days") * HOURS_A_DAY
    return given


def _refused(form: Form, error: BorgCubeError) -> None:
    if error.field == "undo_hours":
        error.field = "undo_days"
    form.refuse(error)


def new(context: Policies, request: Any) -> Any:
    """Make a policy."""
    form = Form(policy_fields(new=True))
    if request.method == "POST":
        values = form.read(request.POST)
        if values is not None:
            try:
                request.act("retention.add", **_values(values))
                return HTTPSeeOther(request.path_to("policies", values["name"]))
            except BorgCubeError as error:
                _refused(form, error)
        request.response.status_code = 400
    return {"form": form, "policy": None}


def policy(context: PolicyItem, request: Any) -> dict[str, Any]:
    """Show one policy."""
    record = context.record
    plans, total = queries.plans_with(request, retention=record.name)
    return {
        "policy": record, "words": record.rules.words(), "undo": span(record.undo_hours),
        "plans": plans, "more_plans": total - len(plans),
        "may_configure": request.me.may(Permission.CONFIGURE),
    }  # fmt: skip


def change(context: PolicyItem, request: Any) -> Any:
    """Change a policy."""
    record = context.record
    form = Form(policy_fields(new=False))
    if request.method == "GET":
        data = record.as_data()
        form.values |= {name: str(data[name]) for name in COUNTS}
        form.values |= {name: data[name] for name in ("within", "zone", "comment")}
        form.values["undo_days"] = str(-(-record.undo_hours // HOURS_A_DAY))
    else:
        values = form.read(request.POST)
        if values is not None:
            try:
                request.act("retention.set", name=record.name, **_values(values))
                return HTTPSeeOther(request.path_to("policies", record.name))
            except BorgCubeError as error:
                _refused(form, error)
        request.response.status_code = 400
    return {"form": form, "policy": record}


def remove(context: PolicyItem, request: Any) -> Any:
    """Forget a policy that no plan has."""
    request.act("retention.remove", name=context.record.name)
    return HTTPSeeOther(request.path_to("policies"))


# Plans ----------------------------------------------------------------------------------


def decision_of(request: Any, plan: Any) -> Any:
    """Return what a prune of a plan would do, None without a policy that can be used."""
    try:
        return decide(request.db, plan, now=datetime.now(UTC)) if plan.retention else None
    except BorgCubeError:
        return None


def _may_attach(request: Any, plan: Any, policy: Any) -> bool:
    asked = {"plan": plan.name, "policy": policy.name}
    needed = besides.attached_policy(request.db, asked) or Permission.CONFIGURE
    return bool(request.me.may(needed, client=plan.client))


def plan_tab(request: Any, plan: Any) -> dict[str, Any]:
    """Return what the tab "Retention" of a plan shows."""
    return {
        "plan": plan, "decision": decision_of(request, plan),
        "policies": [str(p.name) for p in queries.by_name(request, request.db.policies)
                     if _may_attach(request, plan, p)],
        "may_configure": request.me.may(Permission.CONFIGURE, client=plan.client),
        "scheduled": is_scheduled(request.db, plan),
    }  # fmt: skip


def _measured(request: Any, plan: Any, going: int) -> Any:
    """Return the newest job that measured what a prune of the plan would free."""
    for job in request.db.jobs.newest(1, plan=plan.name, type="prune"):
        if job.parameters.get("dry_run") and job.result.get("going") == going:
            return job
    return None


def preview(context: PlanItem, request: Any) -> dict[str, Any]:
    """Show what a prune of a plan would do with each archive."""
    plan = context.record
    decision = decision_of(request, plan)
    rows = decision.verdicts[:SHOWN] if decision else []
    return {
        "plan": plan, "decision": decision, "rows": rows,
        "more": len(decision.verdicts) - len(rows) if decision else 0,
        "undo": span(decision.undo_hours) if decision else "",
        "measured": _measured(request, plan, len(decision.going)) if decision else None,
        "may_operate": request.has_permission(Permission.OPERATE),
        "may_delete": request.has_permission(Permission.DELETE),
        "problem": "",
    }  # fmt: skip


def attach(context: PlanItem, request: Any) -> Any:
    """Give a plan a policy, or none."""
    name = str(request.POST.get("policy", ""))[:100]
    request.act("retention.attach", plan=context.record.name, policy=name)
    path = ("plans", context.record.name, "retention") if name else ("plans", context.record.name)
    return HTTPSeeOther(request.path_to(*path))


def measure(context: PlanItem, request: Any) -> Any:
    """Measure what a prune would free; changes nothing."""
    job = request.act("prune.start", plan=context.record.name, dry_run=True)["job_id"]
    return HTTPSeeOther(request.path_to("jobs", job))


def prune(context: PlanItem, request: Any) -> Any:
    """Prune a plan; one of which no rule keeps an archive needs the plan's name."""
    plan = context.record
    confirmed = str(request.POST.get("confirm", "")) == plan.name
    job = request.act("prune.start", plan=plan.name, confirm=[plan.name] if confirmed else [])
    return HTTPSeeOther(request.path_to("jobs", job["job_id"]))


# Archives -------------------------------------------------------------------------------


def archive_tab(request: Any, archive: Any) -> dict[str, Any] | None:
    """Return what the tab "Keeping" of an archive shows."""
    client = archive.client
    plan = request.db.plans.find("name", archive.plan) if archive.plan else None
    return {
        "archive": archive, "policy": plan.retention if plan is not None else "",
        "may_configure": request.me.may(Permission.CONFIGURE, client=client),
        "may_delete": request.me.may(Permission.DELETE, client=client),
    }  # fmt: skip


def _back(context: ArchiveItem, request: Any) -> Any:
    return HTTPSeeOther(request.path_to("archives", context.record.repository, context.record.id))


def pin(context: ArchiveItem, request: Any) -> Any:
    """Keep an archive whatever its policy says."""
    comment = str(request.POST.get("comment", ""))[: trash.MAX_COMMENT + 1]
    request.act("archive.pin", name=full_name(context.record), comment=comment)
    return _back(context, request)


def unpin(context: ArchiveItem, request: Any) -> Any:
    """Let the policy decide again."""
    request.act("archive.unpin", name=full_name(context.record))
    return _back(context, request)


def undelete(context: ArchiveItem, request: Any) -> Any:
    """Bring an archive back."""
    request.act("archive.undelete", name=full_name(context.record))
    return _back(context, request)


def waiting_for(request: Any, *, limit: int = SHOWN) -> list[Any]:
    """Return deleted archives that can be brought back and that the user may see."""
    return trash.waiting(request.db, limit=limit, where=lambda a: request.me.sees(a.client))


def deleted(context: Archives, request: Any) -> dict[str, Any]:
    """List what was deleted and can be brought back, those that go first at the top."""
    return {"archives": waiting_for(request),
            "may_configure": request.me.may(Permission.CONFIGURE)}  # fmt: skip


# Adopting -------------------------------------------------------------------------------


def repository_tab(request: Any, repository: Any) -> dict[str, Any] | None:
    """Return what the tab about archives without a plan shows; None when there are none."""
    found = request.db.archives.newest(1, repository=repository.name, plan="")
    if not found or not request.me.may(Permission.CONFIGURE):
        return None
    return {"repository": repository}


def mapping_fields(request: Any, repository: str) -> list[Field]:
    """Return the fields of a mapping of archives."""
    return [
        Field("pattern", _("How the archives are named"), required=True,
              default="{hostname}-{now:%Y-%m-%dT%H:%M:%S.%f}",
              help=_("An archive name with Borg's placeholders: {hostname}, {now}, {plan}; * is"
                     " anything. This is what borgmatic makes.")),
        Field("plan", _("Plan"), placeholder="{hostname}-all",
              help=_("The plan they go to, or one made from the fields. Empty: the field {plan},"
                     " or none.")),
        Field("client", _("Client"), help=_("Empty: the field {client} or {hostname}.")),
    ]  # fmt: skip


def adopt(context: RepositoryItem, request: Any) -> Any:
    """Show, then do, a mapping of archives to clients and plans."""
    name = str(context.record.name)
    form = Form(mapping_fields(request, name))
    found = None
    if request.method == "POST":
        values = form.read(request.POST)
        if values is not None:
            try:
                found = request.act("archive.map", repository=name, **values,
                                    apply="apply" in request.POST)  # fmt: skip
            except BorgCubeError as error:
                form.refuse(error)
        if found is None:
            request.response.status_code = 400
    return {"repository": context.record, "form": form, "found": found, "shown": SHOWN}


def includeme(config: Any) -> None:
    """Add the views."""
    configure, delete = Permission.CONFIGURE, Permission.DELETE
    add(config, policies, Policies, template="policies", permission=Permission.VIEW_SERVER)
    add(config, new, Policies, "+add", template="policy_form", permission=configure, posts=True)
    add(config, policy, PolicyItem, template="policy", permission=Permission.VIEW_SERVER)
    add(config, change, PolicyItem, "edit", template="policy_form", permission=configure,
        posts=True)  # fmt: skip
    add(config, remove, PolicyItem, "remove", permission=configure, posts=True)
    add(config, preview, PlanItem, "retention", template="plan_retention")
    add(config, attach, PlanItem, "policy", permission=configure, posts=True)
    add(config, measure, PlanItem, "measure", permission=Permission.OPERATE, posts=True)
    add(config, prune, PlanItem, "prune", permission=delete, posts=True)
    add(config, pin, ArchiveItem, "pin", permission=configure, posts=True)
    add(config, unpin, ArchiveItem, "unpin", permission=delete, posts=True)
    add(config, undelete, ArchiveItem, "undelete", permission=configure, posts=True)
    add(config, deleted, Archives, "+deleted", template="archives_deleted")
    add(config, adopt, RepositoryItem, "adopt", template="repository_adopt",
        permission=configure, posts=True)  # fmt: skip
