"""The files of an archive: directories, sizes, search, choosing what to restore, downloads.

A path travels as its key, which any form and address carries unchanged; names are shown as
the engine made them harmless.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote_to_bytes

from pyramid.httpexceptions import HTTPSeeOther

from borgcube.core.access import Permission
from borgcube.core.untrusted import words
from borgcube.plugins.console.resources import ArchiveItem, add

PAGE = 200
MAX_KEY = 64 << 10
MAX_CHOSEN = 500


def path_of(key: str) -> str:
    """Return the path of a key as a restore takes it."""
    return unquote_to_bytes(key[:MAX_KEY]).decode("utf-8", "surrogateescape").strip("/")


def chosen(request: Any) -> tuple[list[str], list[dict[str, str]]]:
    """Return what was chosen to restore: paths that can be typed, and others by key."""
    typed, odd = [], []
    for key in request.POST.getall("key")[:MAX_CHOSEN]:
        path = path_of(str(key))
        if not path:
            continue
        if path.isprintable() and path == path.strip():
            typed.append(path)
        else:
            odd.append({"key": str(key)[:MAX_KEY], "name": words(path, limit=4096)})
    return typed, odd


def _steps(request: Any, record: Any, key: str) -> list[dict[str, str]]:
    """Return the directories above and with ``key``, for the line that says where one is."""
    steps = []
    parts = key.split("/") if key else []
    for number, part in enumerate(parts):
        shown = unquote_to_bytes(part).decode("utf-8", "replace")
        steps.append({
            "name": words(shown, limit=200),
            "path": request.path_to("archives", record.repository, record.id, "files",
                                    key="/".join(parts[: number + 1])),
        })  # fmt: skip
    return steps


def files(context: ArchiveItem, request: Any) -> dict[str, Any]:
    """Show one directory of an archive, or what a search found in all of it."""
    record = context.record
    key = str(request.params.get("key", ""))[:MAX_KEY].strip("/")
    find = str(request.params.get("find", ""))[:500].strip()
    asked = str(request.params.get("start", ""))
    start = int(asked) if asked.isdecimal() and len(asked) < 10 else 0
    page = request.act("archive.browse", repository=record.repository, id=record.id, key=key,
                       find=find, start=start, limit=PAGE)  # fmt: skip
    here = ("archives", record.repository, record.id, "files")
    said = {"find": find} if find else {"key": key} if key else {}

    def at(first: int) -> str:
        more = {"start": str(first)} if first else {}
        return str(request.path_to(*here, **said, **more))

    entries = page.get("entries", [])
    total = page.get("total", 0)
    return {
        "archive": record, "known": page["known"], "entries": entries, "total": total,
        "cut": page.get("cut", False), "find": find, "key": key,
        "steps": _steps(request, record, key), "first": start + 1, "last": start + len(entries),
        "earlier": at(max(0, start - PAGE)) if start else "",
        "later": at(start + PAGE) if start + PAGE < total else "",
        "may_restore": request.has_permission(Permission.RESTORE) and not record.quarantine,
    }  # fmt: skip


def content(context: ArchiveItem, request: Any) -> Any:
    """Send one file of an archive to be saved."""
    record = context.record
    key = str(request.params.get("key", ""))[:MAX_KEY]
    return request.download(repository=record.repository, id=record.id, key=key)


def read(context: ArchiveItem, request: Any) -> Any:
    """Have the list of files read from the repository."""
    record = context.record
    made = request.act("archive.read", repository=record.repository, id=record.id)
    return HTTPSeeOther(request.path_to("jobs", made["job_id"]))


def includeme(config: Any) -> None:
    """Add the views."""
    add(config, files, ArchiveItem, "files", template="archive_files")
    add(config, content, ArchiveItem, "content", permission=Permission.RESTORE)
    add(config, read, ArchiveItem, "read", permission=Permission.RESTORE, posts=True)
