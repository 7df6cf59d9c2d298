"""The API about archives: what was backed up, restoring from it, deleting it."""

from __future__ import annotations

from typing import Any

from borgcube.core import listings
from borgcube.core.access import Permission
from borgcube.core.api import Answer, Call, Endpoint, Found, Listing
from borgcube.core.errors import InvalidInput
from borgcube.core.model import Archive
from borgcube.core.openapi import page_query
from borgcube.core.schemas import (
    REFERENCE,
    given,
    many,
    of_record,
    text,
    thing,
    whole,
    yes_or_no,
)
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
                       when=lambda archive: archive.at,
                       where=in_sight)  # fmt: skip


def _show(call: Call) -> Any:
    return call.record.as_data()


def _restore(call: Call) -> Answer:
    body = call.body
    where: dict[str, Any] = {"to_dir": body["directory"]}
    client = body.get("client")
    if client is not None:
        where = {"to_client": {"client": client, "directory": body["directory"]}}
        if body.get("as_root"):
            raise InvalidInput("as_root is for a restore to the server.", field="as_root")
    return common.begun(call, call.act(
        "restore.start", archive=full_name(call.record), paths=body.get("paths", []),
        as_root=body.get("as_root", False), unfenced=body.get("unfenced", False),
        shared_target=body.get("shared_target", False), **where,
    ))  # fmt: skip


def _files(call: Call) -> dict[str, Any]:
    asked = {key: call.query[key] for key in ("key", "find", "start", "limit")
             if key in call.query}  # fmt: skip
    found = call.act("archive.browse", repository=call.record.repository, id=call.record.id,
                     **asked)  # fmt: skip
    return {"known": found["known"], "entries": found.get("entries", []),
            "total": found.get("total", 0), "cut": found.get("cut", False)}  # fmt: skip


def _read_files(call: Call) -> Answer:
    record = call.record
    return common.begun(call, call.act(
        "archive.read", repository=record.repository, id=record.id
    ))  # fmt: skip


def _content(call: Call) -> Any:
    if not call.query.get("key"):
        raise InvalidInput("The query needs key, the path of a file.", field="key")
    record = call.record
    return call.request.download(repository=record.repository, id=record.id, key=call.query["key"])


def _delete(call: Call) -> Answer:
    return common.begun(call, call.act("archive.delete", names=[full_name(call.record)]))


def _mend(call: Call) -> Answer:
    return common.begun(call, call.act("archive.mend", name=full_name(call.record)))


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
        name="archives.files", method="GET", path=f"{_ONE}/files", handler=_files, find=find,
        summary="Show the files of an archive: of one directory, or found by name",
        query={"key": text(longest=65_536, description="A directory's `key`; the top if not"
                           " given."),
               "find": text(longest=500, description="All whose name has this in it."),
               "start": whole(description="How many to leave out at the beginning."),
               "limit": whole(1, listings.MAX_PAGE)},
        returns=given({
            "known": yes_or_no("Whether its list of files was read; `archives.read` does that."),
            "entries": {"type": "array", "items": {"type": "object"}},
            "total": {"type": "integer"}, "cut": yes_or_no("Whether there are more than that."),
        }, title="ArchiveFiles"),
    ),
    Endpoint(
        name="archives.read", method="POST", path=f"{_ONE}/files", handler=_read_files,
        find=find, summary="Read the list of files of an archive from its repository",
        permission=Permission.RESTORE, status=202, returns=common.JOB_BEGUN,
    ),
    Endpoint(
        name="archives.content", method="GET", path=f"{_ONE}/content", handler=_content,
        find=find, summary="Download one file of an archive", permission=Permission.RESTORE,
        binary=True, query={"key": text(longest=65_536, description="Its path, percent-encoded"
                                        " as in `archives.files`.")},
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
            "unfenced": yes_or_no("On the server, administrators only: extract without the fence."),
            "shared_target": yes_or_no("On a client: the directory may be one that others there can"
                                       " write to."),
        }, required=("directory",), title="Restore"),
    ),
    Endpoint(
        name="archives.mend", method="POST", path=f"{_ONE}/mend", handler=_mend, find=find,
        summary="Rewrite an archive in quarantine from what is sound of it",
        description="It keeps its name, client, plan and pin, and has a new ID afterwards. The"
        " job's result says how many items were left out.",
        permission=Permission.DELETE, status=202, returns=common.JOB_BEGUN,
    ),
    Endpoint(
        name="archives.delete", method="DELETE", path=_ONE, handler=_delete, find=find,
        summary="Delete an archive", permission=Permission.DELETE, status=202,
        returns=common.JOB_BEGUN,
    ),
]  # fmt: skip
