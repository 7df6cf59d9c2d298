"""The section of a dry run's page: what a backup would take, searchable and in pages."""

from __future__ import annotations

from typing import Any

from borgcube.core import lifecycle
from borgcube.core.listings import KINDS

PAGE = 100
SHOWN_KINDS = ("included", *KINDS)


def dry_run_tab(request: Any, job: Any) -> dict[str, Any] | None:
    """Return one page of the list of a dry run that ended well; None for other jobs."""
    if job.type != "dry-run":
        return None
    if job.state not in (lifecycle.DONE, lifecycle.WARNING):
        return {"ended": job.state in lifecycle.ENDED, "result": None}
    find = str(request.params.get("find", ""))[:500]
    kind = str(request.params.get("kind", ""))
    kind = kind if kind in SHOWN_KINDS else ""
    asked = str(request.params.get("start", ""))
    start = int(asked) if asked.isdecimal() and len(asked) < 9 else 0
    page = request.act("job.listing", id=job.id, find=find, kind=kind, start=start, limit=PAGE)
    chosen = {name: value for name, value in (("find", find), ("kind", kind)) if value}

    def path(first: int) -> str:
        more = {"start": str(first)} if first else {}
        return f"{request.path_to('jobs', job.id, **chosen, **more)}#tab-dry-run"

    return {
        "result": dict(job.result), "job": job.id, "find": find, "kind": kind,
        "kinds": SHOWN_KINDS, "entries": page["entries"], "matches": page["matches"],
        "first": start + 1, "last": start + len(page["entries"]),
        "earlier": path(max(0, start - PAGE)) if start else "",
        "later": path(start + PAGE) if start + PAGE < page["matches"] else "",
        "filtered": bool(chosen), "all": path(0) if not chosen else "",
    }  # fmt: skip
