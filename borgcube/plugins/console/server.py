"""Pages about the server itself: events, plugins, the audit trail, about and doctor."""

from __future__ import annotations

import json
import platform
from typing import Any

from borgcube import __version__
from borgcube.core.access import Permission
from borgcube.core.journal import MAX_SINCE
from borgcube.plugins.console.resources import Collection, add

SHOWN = 100
HIDDEN_KEYS = frozenset({"stats", "result", "cause"})


def said(envelope: dict[str, Any]) -> str:
    """Return an event's data in one line, without its large parts."""
    shown = [f"{key} {value if isinstance(value, str) else json.dumps(value)}"
             for key, value in envelope["data"].items()
             if value not in ("", None) and key not in HIDDEN_KEYS]  # fmt: skip
    return ", ".join(shown)[:500]


def events(context: Collection, request: Any) -> dict[str, Any]:
    """List the journal, newest first, by page."""
    asked = str(request.params.get("before", ""))
    last = int(request.db.journal.last)
    before = int(asked) if asked.isdecimal() and len(asked) < 18 else last + 1
    first = max(0, before - 1 - SHOWN)
    found = [e for e in request.db.journal.since(first, min(MAX_SINCE, SHOWN))
             if e["seq"] < before]  # fmt: skip
    return {
        "events": [{"envelope": e, "said": said(e)} for e in reversed(found)],
        "more": request.path_to("events", before=str(first + 1))
        if first + 1 > request.db.journal.first
        else "",
        "first_page": not asked,
    }


def plugins(context: Collection, request: Any) -> dict[str, Any]:
    """Show what is loaded, with its hooks, and what is in quarantine."""
    return dict(request.plugins.describe())


def about(context: Collection, request: Any) -> dict[str, Any]:
    """Show versions, and what is wrong here."""
    ping = request.act("ping")
    return {
        "doctor": request.act("doctor"), "home": ping["home"], "server_id": ping["server_id"],
        "pid": ping["pid"], "borgcube": __version__, "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}", "seq": request.db.journal.last,
        "engines": ", ".join(sorted(request.plugins.engines)),
        "transports": ", ".join(sorted(request.plugins.transports)),
    }  # fmt: skip


def audit(context: Collection, request: Any) -> dict[str, Any]:
    """List who asked for what."""
    asked = str(request.params.get("before", ""))
    table = request.db.audit
    user = str(request.params.get("user", ""))[:100]
    equal = {"user": user} if user else {}
    found = table.newest(
        SHOWN + 1, **equal,
        before=int(asked) if asked.isdecimal() and len(asked) < 18 else None,
    )  # fmt: skip
    more = ""
    if len(found) > SHOWN:
        found = found[:SHOWN]
        more = request.path_to("audit", **equal, before=str(table.number_of(found[-1])))
    return {"entries": found, "more": more, "user": user}


def includeme(config: Any) -> None:
    """Add the views of four pages."""
    view = Permission.VIEW_SERVER
    for name, function in (("events", events), ("plugins", plugins), ("about", about)):
        add(config, function, Collection, template=name, permission=view, under=name)
    add(config, audit, Collection, template="audit", permission=Permission.ADMINISTER,
        under="audit")  # fmt: skip
