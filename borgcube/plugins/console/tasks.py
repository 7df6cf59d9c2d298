"""Pages about tasks: added, changed, run and removed by those who may delete archives.

A task may prune, so it takes the permission that the API asks for. The form of a task is made
of the fields that its job type brings; the daemon checks them again. Called by the console
only, and changes nothing but through control.
"""

from __future__ import annotations

from typing import Any

from pyramid.httpexceptions import HTTPSeeOther

from borgcube.core import options
from borgcube.core.access import Permission
from borgcube.core.errors import BorgCubeError
from borgcube.core.forms import Field, Form
from borgcube.core.model.scheduling import NOT_FOR_TASKS
from borgcube.core.texts import _
from borgcube.plugins.console import forms, queries
from borgcube.plugins.console.resources import add
from borgcube.plugins.console.schedules import Schedules, TaskItem

WORDS = {
    "prune": _("Prune: delete archives whose time is over"),
    "compact": _("Compact: give the space of deleted archives back"),
    "check": _("Check: verify stored bytes while backups go on"),
    "borg-check": _("Check by Borg itself; backups wait"),
    "drill": _("Drill: prove that archives can be restored"),
}


def types_of(request: Any) -> list[tuple[str, str]]:
    """Return the job types that a task may have, with words, those with words first."""
    known = [name for name in request.plugins.job_types if name not in NOT_FOR_TASKS]
    return [(name, WORDS.get(name, name))
            for name in sorted(known, key=lambda one: (one not in WORDS, one))]  # fmt: skip


def _chosen(request: Any, table: str, name: str, label: str, stored: str, **more: Any) -> Field:
    """Return a choice of records by name, that of ``stored`` among them."""
    names = list(getattr(request.db, table).named(queries.MAX_RECORDS))
    if stored and stored not in names:
        names.append(stored)
    choices = [("", "\N{EN DASH}"), *((one, one) for one in names)]
    return Field(name, label, "choice", choices=choices, **more)


def fields(request: Any, job_type: Any, task: Any = None) -> list[Field]:
    """Return the fields of a task of a job type, whose plugin may be away (None)."""
    needs_vault = bool(getattr(job_type, "needs_vault", False))
    needs_client = bool(getattr(job_type, "needs_client", False))

    def stored(name: str) -> str:
        return str(getattr(task, name, ""))

    found = [] if task is not None else [
        Field("name", _("Name"), required=True, placeholder="weekly-check",
              help=_("It cannot be changed later.")),
    ]  # fmt: skip
    return [
        *found,
        _chosen(request, "schedules", "schedule", _("When"), stored("schedule"),
                required=task is None,
                help=_("A schedule. Without one a task runs when somebody starts it.")),
        _chosen(request, "repositories", "repository", _("Repository"), stored("repository"),
                required=needs_vault),
        _chosen(request, "plans", "plan", _("Plan"), stored("plan"),
                help=_("Only where the job is about one plan.")),
        *([_chosen(request, "clients", "client", _("Client"), stored("client"), required=True)]
          if needs_client else []),
        *(options.fields_of(job_type) if job_type is not None else []),
        Field("parameters", _("Other parameters of the job"), "lines", group=forms.MORE,
              placeholder="NAME=VALUE", help=_("One NAME=VALUE a line.")),
        Field("comment", _("Comment"), group=forms.MORE),
    ]  # fmt: skip


def _stored(request: Any, job_type: Any, form: Form, method: str, **more: Any) -> bool:
    """Do what a posted form asks for; False leaves what is wrong in it."""
    values = form.read(request.POST)
    if values is not None:
        try:
            parameters = options.meant(job_type, values, values["parameters"], field="parameters")
            given = {key: value for key, value in values.items() if "." not in key}
            request.act(method, **{**given, **more, "parameters": parameters})
            return True
        except BorgCubeError as error:
            form.refuse(error)
    request.response.status_code = 400
    return False


def new(context: Schedules, request: Any) -> Any:
    """Add a task; first its job type is chosen, then what that needs is asked for."""
    chosen = str(request.params.get("type", ""))
    types = types_of(request)
    if chosen not in dict(types):
        return {"form": None, "task": None, "type": "", "types": types}
    job_type = request.plugins.job_types[chosen]
    form = Form(fields(request, job_type))
    if request.method == "POST" and _stored(request, job_type, form, "task.add", type=chosen):
        return HTTPSeeOther(request.path_to("schedules"))
    return {"form": form, "task": None, "type": chosen, "types": types}


def edit(context: TaskItem, request: Any) -> Any:
    """Change a task."""
    task = context.record
    job_type = request.plugins.job_types.get(task.type)
    shown, rest = options.shown(job_type, task.parameters)
    form = Form(fields(request, job_type, task), {
        "schedule": task.schedule, "repository": task.repository, "plan": task.plan,
        "client": task.client, "comment": task.comment, **shown,
        "parameters": [f"{key}={value}" for key, value in rest.items()],
    })  # fmt: skip
    if request.method == "POST" and _stored(request, job_type, form, "task.set", name=task.name):
        return HTTPSeeOther(request.path_to("schedules"))
    return {"form": form, "task": task, "type": task.type, "types": []}


def run(context: TaskItem, request: Any) -> Any:
    """Run a task now."""
    job = request.act("task.run", name=context.record.name)["job_id"]
    return HTTPSeeOther(request.path_to("jobs", job))


def remove(context: TaskItem, request: Any) -> Any:
    """Remove a task."""
    request.act("task.remove", name=context.record.name)
    return HTTPSeeOther(request.path_to("schedules"))


def includeme(config: Any) -> None:
    """Add the views."""
    may = Permission.DELETE
    add(config, new, Schedules, "+task", template="task", permission=may, posts=True)
    add(config, edit, TaskItem, "edit", template="task", permission=may, posts=True)
    add(config, run, TaskItem, "run", permission=may, posts=True)
    add(config, remove, TaskItem, "remove", permission=may, posts=True)
