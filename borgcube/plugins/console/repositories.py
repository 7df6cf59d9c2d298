"""Pages about repositories: the list, one repository, creating and importing, passphrase."""

from __future__ import annotations

from typing import Any

from pyramid.httpexceptions import HTTPSeeOther

from borgcube.core import lifecycle
from borgcube.core.access import Permission
from borgcube.core.errors import BorgCubeError
from borgcube.core.forms import Form
from borgcube.core.model.fleet import of_repository
from borgcube.plugins.console import forms, overview, queries
from borgcube.plugins.console.resources import Repositories, RepositoryItem, add


def repositories(context: Repositories, request: Any) -> dict[str, Any]:
    """List repositories."""
    found = overview.storage_card(request, limit=queries.MAX_RECORDS)
    return {"repositories": found["repositories"],
            "may_configure": request.me.may(Permission.CONFIGURE)}  # fmt: skip


def repository(context: RepositoryItem, request: Any) -> dict[str, Any]:
    """Show one repository."""
    record = context.record
    return {
        "repository": record, "disk": overview.disk_of(str(record.path)),
        "growth": overview.growth(request, record.name),
        "outlook": overview.outlook(request, record.name),
        "plans": request.db.fleet.group(of_repository(record.name)).total,
        "archive_count": request.db.archives.count(repository=record.name),
        "archives": queries.visible(request, request.db.archives, 15, repository=record.name),
        "may_reveal": request.me.may(Permission.REVEAL), "passphrase": "",
        "sessions": [
            queries.live_job(request, job) for state in lifecycle.ACTIVE
            for job in queries.visible(
                request, request.db.jobs, 20, state=state, repository=record.name
            )
        ],
    }  # fmt: skip


def reveal(context: RepositoryItem, request: Any) -> dict[str, Any]:
    """Show the passphrase; the journal and the audit trail note it."""
    secret = request.act("repository.passphrase", name=context.record.name)["passphrase"]
    return repository(context, request) | {"passphrase": secret}


def speeds(request: Any) -> list[dict[str, Any]]:
    """Return the encryption modes with their speed here, the fastest first."""
    try:
        found = request.act("repository.measure")
    except BorgCubeError:
        return []
    best = max(found.values(), default=0)
    return [{"mode": mode, "bytes_per_s": speed, "best": speed == best}
            for mode, speed in sorted(found.items(), key=lambda pair: -pair[1])]  # fmt: skip


def _form(request: Any, form: Form, method: str) -> Any:
    if request.method == "POST":
        values = form.read(request.POST)
        if values is not None:
            if not values["passphrase"]:
                values.pop("passphrase")
            try:
                request.act(method, **values)
                return HTTPSeeOther(request.path_to("repositories", values["name"]))
            except BorgCubeError as error:
                form.refuse(error)
        request.response.status_code = 400
    return {"form": form}


def new(context: Repositories, request: Any) -> Any:
    """Create a repository."""
    shown = _form(request, Form(forms.repository_fields(request)), "repository.create")
    return {**shown, "speeds": speeds(request)} if isinstance(shown, dict) else shown


def take_in(context: Repositories, request: Any) -> Any:
    """Import a repository that exists."""
    return _form(request, Form(forms.import_fields(request)), "repository.import")


def includeme(config: Any) -> None:
    """Add the views."""
    view, configure = Permission.VIEW_SERVER, Permission.CONFIGURE
    add(config, repositories, Repositories, template="repositories", permission=view)
    add(config, new, Repositories, "+add", template="repository_new", permission=configure,
        posts=True)  # fmt: skip
    add(config, take_in, Repositories, "+import", template="repository_import",
        permission=configure, posts=True)  # fmt: skip
    add(config, repository, RepositoryItem, template="repository", permission=view)
    config.add_view(
        reveal, context=RepositoryItem, name="passphrase", permission=Permission.REVEAL,
        request_method="POST", renderer="borgcube.plugins.console:templates/repository.jinja2",
    )  # fmt: skip
