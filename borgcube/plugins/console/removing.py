"""Removing clients, plans and repositories: pages that say what is lost and what stays, and
ask for the name. Nothing here deletes an archive."""

from __future__ import annotations

from typing import Any

from pyramid.httpexceptions import HTTPSeeOther

from borgcube.core import lifecycle
from borgcube.core.access import Permission
from borgcube.core.errors import BorgCubeError
from borgcube.core.texts import _
from borgcube.plugins.console.resources import ClientItem, PlanItem, RepositoryItem, add

SHOWN_PLANS = 50
# The passphrase of a repository goes with it, and without it nobody can read the archives.
ITEMS = (
    (ClientItem, "client", "clients", Permission.CONFIGURE),
    (PlanItem, "plan", "plans", Permission.CONFIGURE),
    (RepositoryItem, "repository", "repositories", Permission.DELETE),
)


def facts(request: Any, kind: str, name: str) -> dict[str, Any]:
    """Return what depends on a thing: its plans, triggers, archives, jobs, and a
    job that is in the way."""
    db = request.db
    plans = [] if kind == "plan" else [str(p.name) for p in db.plans.oldest(kind, name)]
    busy = [
        str(job.id) for state in (lifecycle.QUEUED, *lifecycle.ACTIVE)
        for job in db.jobs.newest(1, state=state, **{kind: name})
    ]  # fmt: skip
    return {
        "plans": plans[:SHOWN_PLANS], "more_plans": max(0, len(plans) - SHOWN_PLANS),
        "triggers": db.triggers.count(plan=name) if kind == "plan" else 0,
        "archives": db.archives.count(**{kind: name}), "jobs": db.jobs.count(**{kind: name}),
        "busy": busy[0] if busy else "",
    }  # fmt: skip


def view_of(kind: str, place: str) -> Any:
    """Return the view that removes one kind of thing."""

    def remove(context: Any, request: Any) -> Any:
        name = str(context.record.name)
        found = facts(request, kind, name)
        problem = next_step = ""
        if request.method == "POST":
            problem = _("This is not the name. Nothing was removed.")
            if str(request.POST.get("confirm", "")) == name:
                # Only what the page named goes along.
                more = {"with_plans": True} if found["plans"] else {}
                try:
                    request.act(f"{kind}.remove", name=name, **more)
                    return HTTPSeeOther(request.path_to(place))
                except BorgCubeError as error:
                    problem, next_step = error.message, error.next_step
            request.response.status_code = 400
        return {
            "kind": kind, "place": place, "name": name, "problem": problem,
            "next_step": next_step, "back": request.path_to(place, name),
            "record": context.record, "may_reveal": request.me.may(Permission.REVEAL), **found,
        }  # fmt: skip

    return remove


def includeme(config: Any) -> None:
    """Add the views."""
    for item, kind, place, permission in ITEMS:
        add(config, view_of(kind, place), item, "remove", template="remove",
            permission=permission, posts=True)  # fmt: skip
