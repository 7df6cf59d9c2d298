"""How much a repository holds against what it takes: sizes and deduplication, day by day.

Pure: reads what :mod:`borgcube.core.standing` keeps in a ``RepositoryStatus`` and nothing
else, so that a page costs the days it shows, whatever the number of archives. The console,
the API and ``repository.show`` say what comes from here.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from borgcube.core.model.fleet import RepositoryStatus

SHOWN_DAYS = 90


def ratio_of(held: int | None, stored: int | None) -> float | None:
    """Return how many bytes of archives there are for each stored byte, to two digits after
    the point; None when either is not known or nothing is stored."""
    return round(held / stored, 2) if held and stored else None


def describe(status: RepositoryStatus, *, now: datetime, days: int = SHOWN_DAYS) -> dict[str, Any]:
    """Return what a repository holds and takes, now and on each known day of the last ``days``.

    ``held_bytes`` is the original size of all archives that are in it; ``stored_bytes`` what
    its directory took when it was last looked at (None: not yet); ``ratio`` is the one to the
    other at that look. ``unsized`` archives are not counted, because whoever made them did not
    write down their size. ``days``, oldest first, have ``day``, ``archives`` added,
    ``new_bytes`` stored by them, and ``held_bytes``, ``stored_bytes`` and ``ratio`` as last
    seen that day.
    """
    first = f"{now - timedelta(days=days - 1):%Y-%m-%d}"
    found = [
        {
            "day": day, "archives": entry["archives"], "new_bytes": entry["new"],
            "held_bytes": entry.get("held"), "stored_bytes": entry.get("stored"),
            "ratio": ratio_of(entry.get("held"), entry.get("stored")),
        }
        for day, entry in status.days.items(min=first)
    ]  # fmt: skip
    last = next((one for one in reversed(found) if one["stored_bytes"] is not None), None)
    return {
        "held_bytes": status.held, "unsized": status.unsized,
        "stored_bytes": last["stored_bytes"] if last else None,
        "ratio": last["ratio"] if last else None, "days": found,
    }  # fmt: skip
