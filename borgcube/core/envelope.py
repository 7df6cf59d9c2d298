"""The base of events and the envelope they travel in.

What happened is in :mod:`borgcube.core.events` and its further rooms; everybody else imports
these names from there.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

VERSION = 1


def now() -> str:
    """Return the time as an ISO 8601 string in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True)
class Event:
    """The base of all events. ``TYPE`` is also the topic on the bus."""

    TYPE: ClassVar[str] = ""
    JOURNALLED: ClassVar[bool] = True


@dataclass(frozen=True)
class Envelope:
    """An event on its way. ``data`` is the event's fields as plain JSON data."""

    type: str
    data: dict[str, Any]
    seq: int | None = None
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    at: str = field(default_factory=now)
    v: int = VERSION

    @classmethod
    def of(cls, event: Event, *, seq: int | None = None) -> Envelope:
        """Wrap an event."""
        return cls(type=event.TYPE, data=asdict(event), seq=seq)

    def as_data(self) -> dict[str, Any]:
        """Return plain JSON data in the order of the wire form."""
        return {name: getattr(self, name) for name in ("v", "seq", "id", "type", "at", "data")}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Envelope:
        """Rebuild from :meth:`as_data`; raises ``KeyError``."""
        return cls(**{name: data[name] for name in ("v", "seq", "id", "type", "at", "data")})

    def to_json(self) -> bytes:
        """Return the wire form."""
        return json.dumps(self.as_data(), separators=(",", ":")).encode()
