"""The API about archives: what was backed up, restoring from it, deleting it."""

from __future__ import annotations

from typing import Any

from borgcube.core.access import Permission
from borgcube.core.api import Answer, Call, Endpoint, Found, Listing
from borgcube.core.errors import AccessDenied, InvalidInput
from borgcube.core.model import Archive
from borgcube.core.openapi import page_query
from borgcube.core.schemas import REFERENCE, many, of_record, text, thing, yes_or_no
from borgcube.core.trash import in_sight
from borgcube.plugins.api import common, jobs

ARCHIVE = of_record(Archive)
DIRECTORY = {**text(shortest=1), "pattern": "^/[^\\u0000-\\u001f\\u007f]*$"}


def find(call: Call) -> Found | None:
    """Find an archive: its ID is its own only within a repository."""
    for archive in call.db.archives.oldest("id", call.path["id"]):
        if archive.repository == call.path["repository"]:
            return Found(archive, str(archive.client))
    return None


def full_name(archive: Any) -> str:
    """Return the name that means this archive alone."""
    return f"{archive.repository}::{archive.name}"


def _listed(call: Call) -> Listing:
    return common.page(call, call.db.archives, ("client", "plan", "repository"),
                       when=lambda archive: archive.start or archive.created_at,
                       where=in_sight)  # fmt: skip


def _show(call: Call) -> Any:
    return call.record.as_data()


def _restore(call: Call) -> Answer:
    body, me = call.body, call.me
    where: dict[str, Any] = {"to_dir": body["directory"]}
    client = body.get("client")
    if client is not None:
        if me.limited and not me.may(Permission.RESTORE, client=client):
            raise AccessDenied("You may restore to your own clients only.", field="client")
        where = {"to_client": {"client": client, "directory": body["directory"]}}
        if body.get("as_root"):
            raise InvalidInput("as_root is for a restore to the server.", field="as_root")
    elif me.limited:
        raise AccessDenied("You may restore to your own clients only.", field="client")
    return common.begun(call, call.act(
        "restore.start", archive=full_name(call.record), paths=body.get("paths", []),
        as_root=body.get("as_root", False), **where,
    ))  # fmt: skip


def _delete(call: Call) -> Answer:
    return common.begun(call, call.act("archive.delete", names=[full_name(call.record)]))


_ONE = "/archives/{repository}/{id}"
ENDPOINTS = [
    Endpoint(
        name="archives.list", method="GET", path="/archives", handler=_listed, paged=True,
        summary="List archives, newest first", returns=ARCHIVE,
        query={"client": REFERENCE, "plan": REFERENCE, "repository": REFERENCE, **jobs.TIMES,
               **page_query()},
    ),
    Endpoint(
        name="archives.show", method="GET", path=_ONE, handler=_show, find=find,
        summary="Show an archive", returns=ARCHIVE,
    ),
    Endpoint(
        name="archives.restore", method="POST", path=f"{_ONE}/restore", handler=_restore,
        find=find, summary="Restore an archive, or some paths of it", status=202,
        permission=Permission.RESTORE, returns=common.JOB_BEGUN,
        body=thing({
            "directory": {**DIRECTORY, "description": "Where to; paths come below it."},
            "client": {**REFERENCE, "description": "Which client's directory; without one it is the"
                       " server's."},
            "paths": many(text(shortest=1), description="Paths in the archive, without a leading"
                          " slash; none for everything."),
            "as_root": yes_or_no("On the server: keep owners, set-user-ID bits and devices."),
        }, required=("directory",), title="Restore"),
    ),
    Endpoint(
        name="archives.delete", method="DELETE", path=_ONE, handler=_delete, find=find,
        summary="Delete an archive", permission=Permission.DELETE, status=202,
        returns=common.JOB_BEGUN,
    ),
]  # fmt: skip
