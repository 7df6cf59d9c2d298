"""From an engine's facts about an archive to its record. Touches nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from borgcube.core.model import Archive


def archive_number(at: str) -> int:
    """Return an archive's place in time: microseconds since 1970, of now if unknown."""
    try:
        moment = datetime.fromisoformat(at)
    except ValueError:
        moment = datetime.now(UTC)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1_000_000)


def archive_from(entry: dict[str, Any], **owner: str) -> Archive:
    """Make a record of an engine's facts about an archive; what is left is statistics."""
    rest = dict(entry)
    rest.pop("begun_at", None)  # ours to say
    start, end = str(rest.pop("start", "")), str(rest.pop("end", ""))
    identity, name = str(rest.pop("id")), str(rest.pop("name"))
    for known in ("client", "plan", "repository", "job"):
        rest.pop(known, None)
    return Archive(id=identity, name=name, start=start, end=end, stats=rest, **owner)
