"""How much a repository holds against what it takes: a section of its page.

Costs the days that it shows; what they mean is :mod:`borgcube.core.deduplication`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

from borgcube.core import deduplication

WIDE, TALL = 300, 80  # of the drawing, in its own units
ROWS = 30


def sizes_tab(request: Any, repository: Any) -> dict[str, Any]:
    """Return what a repository holds and takes, the drawing of it, and its newest days."""
    told = deduplication.describe(
        request.db.fleet.repository(repository.name), now=datetime.now(UTC)
    )
    measured = [day for day in told["days"] if day["stored_bytes"] is not None]
    rated = [day for day in measured if day["ratio"] is not None]
    return {
        **told, "repository": repository.name,
        "archives": request.db.archives.count(repository=repository.name),
        "drawing": drawing(measured) if len(measured) > 1 else None,
        "was": rated[0] if len(rated) > 1 else None,
        "rows": told["days"][: -ROWS - 1 : -1],
    }  # fmt: skip


def drawing(days: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return two areas on one scale, as the points of polygons: what was held and what was
    stored on each of at least two days."""
    dates = [date.fromisoformat(one["day"]) for one in days]
    span = max(1, (dates[-1] - dates[0]).days)
    most = max(1, *(max(one["held_bytes"], one["stored_bytes"]) for one in days))

    def area(key: str) -> str:
        line = " ".join(
            f"{WIDE * (when - dates[0]).days / span:.1f},{TALL - (TALL - 3) * one[key] / most:.1f}"
            for when, one in zip(dates, days, strict=True)
        )
        return f"0,{TALL} {line} {WIDE},{TALL}"

    return {"held": area("held_bytes"), "stored": area("stored_bytes"), "since": days[0]["day"]}
