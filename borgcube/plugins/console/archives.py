"""Pages about archives: the list, one archive, restoring from it, deleting it by name."""

from __future__ import annotations

import shlex
from typing import Any

from pyramid.httpexceptions import HTTPSeeOther

from borgcube.core import clocks
from borgcube.core.access import Permission
from borgcube.core.errors import BorgCubeError
from borgcube.core.forms import Form
from borgcube.core.texts import _
from borgcube.plugins.console import files, forms, queries
from borgcube.plugins.console.resources import ArchiveItem, Archives, add

FILTERS = ("client", "plan", "repository")


def archives(context: Archives, request: Any) -> dict[str, Any]:
    """List archives, newest first, by page."""
    return {
        **queries.page(request, "archives", FILTERS),
        "first_page": not request.params.get("before"),
        "clients": queries.choices(request, "clients"),
        "plans": queries.choices(request, "plans"),
    }


def full_name(archive: Any) -> str:
    """Return the name that means this archive alone."""
    return f"{archive.repository}::{archive.name}"


def archive(context: ArchiveItem, request: Any) -> dict[str, Any]:
    """Show one archive."""
    record = context.record
    repository = request.db.repositories.find("name", record.repository)
    path = str(repository.path) if repository is not None else ""
    return {
        "archive": record, "clock": clocks.told(record.stats),
        "may_browse": request.may("archive.browse", repository=record.repository, id=record.id),
        "may_restore": request.may("restore.start", archive=full_name(record))
        and not record.quarantine,
        "may_delete": request.has_permission(Permission.DELETE),
        "plain": f"borg extract {shlex.quote(f'{path}::{record.name}')}"
        if path and not record.quarantine and request.me.may(Permission.VIEW_SERVER) else "",
    }  # fmt: skip


def restore(context: ArchiveItem, request: Any) -> Any:
    """Restore all of an archive or some paths."""
    record = context.record
    form = Form(forms.restore_fields(request, record))
    # What was chosen among the files; a name that cannot be typed stays a key.
    typed, odd = files.chosen(request)
    if "choose" in request.POST:
        form.values["paths"] = typed
        if not typed and not odd:
            form.problem = _("Nothing was chosen.")
            form.next_step = _("Left empty, the whole archive is restored.")
    elif request.method == "POST":
        values = form.read(request.POST)
        if values is not None:
            paths = [*values["paths"], *typed, *(files.path_of(one["key"]) for one in odd)]
            kind, _colon, client = values["target"].partition(":")
            if kind == "other":
                kind, client = "client", values["client"]
            where: dict[str, Any] = {"to_dir": values["directory"]}
            if kind == "client":
                where = {"to_client": {"client": client, "directory": values["directory"]}}
            try:
                made = request.act(
                    "restore.start", archive=full_name(record), paths=paths,
                    as_root=bool(values.get("as_root")) and kind == "server",
                    unfenced=bool(values.get("unfenced")) and kind == "server",
                    shared_target=bool(values.get("shared_target")) and kind == "client", **where,
                )  # fmt: skip
                return HTTPSeeOther(request.path_to("jobs", made["job_id"]))
            except BorgCubeError as error:
                form.refuse(error)
        request.response.status_code = 400
    return {"archive": record, "form": form, "odd": odd}


def mend(context: ArchiveItem, request: Any) -> Any:
    """Rewrite an archive in quarantine from what is sound of it."""
    made = request.act("archive.mend", name=full_name(context.record))
    return HTTPSeeOther(request.path_to("jobs", made["job_id"]))


def delete(context: ArchiveItem, request: Any) -> Any:
    """Delete an archive whose name was typed."""
    record = context.record
    problem = ""
    if request.method == "POST":
        if "undo" in request.POST:
            request.act("archive.hide", names=[full_name(record)])
            return HTTPSeeOther(request.path_to("archives", "+deleted"))
        if str(request.POST.get("confirm", "")) == record.name:
            made = request.act("archive.delete", names=[full_name(record)])
            return HTTPSeeOther(request.path_to("jobs", made["job_id"]))
        problem = _("This is not the archive's name. Nothing was deleted.")
        request.response.status_code = 400
    newer = queries.visible(request, request.db.archives, 1, plan=record.plan) \
        if record.plan else []  # fmt: skip
    return {"archive": record, "problem": problem,
            "is_newest": bool(newer) and newer[0] is record}  # fmt: skip


def includeme(config: Any) -> None:
    """Add the views."""
    add(config, archives, Archives, template="archives")
    add(config, archive, ArchiveItem, template="archive")
    add(config, restore, ArchiveItem, "restore", template="restore",
        permission=Permission.RESTORE, posts=True)  # fmt: skip
    add(config, mend, ArchiveItem, "mend", permission=Permission.DELETE, posts=True)
    add(config, delete, ArchiveItem, "delete", template="archive_delete",
        permission=Permission.DELETE, posts=True)  # fmt: skip
