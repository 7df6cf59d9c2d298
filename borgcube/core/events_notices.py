"""What alarms say: problems that open and close, and messages about them.

Registered and documented with the others; see ``core.events``.
"""

from __future__ import annotations

from dataclasses import dataclass

from borgcube.core.envelope import Event


@dataclass(frozen=True)
class IncidentOpened(Event):
    """A problem was noticed. ``kind`` is a stable word, docs/notifications.md lists them;
    ``severity`` is ``info``, ``warning`` or ``error``."""

    TYPE = "incident.opened"
    incident: str
    kind: str
    severity: str
    title: str
    message: str = ""
    next_step: str = ""
    client: str = ""
    plan: str = ""
    repository: str = ""
    job: str = ""


@dataclass(frozen=True)
class IncidentClosed(Event):
    """A problem is over; ``reason`` says how one knows."""

    TYPE = "incident.closed"
    incident: str
    kind: str
    severity: str
    title: str
    reason: str
    client: str = ""
    plan: str = ""
    repository: str = ""


@dataclass(frozen=True)
class IncidentAcknowledged(Event):
    """Somebody knows of a problem; there are no more reminders of it."""

    TYPE = "incident.acknowledged"
    incident: str
    kind: str
    user: str
    client: str = ""
    plan: str = ""
    repository: str = ""


@dataclass(frozen=True)
class NotificationSent(Event):
    """A message was delivered; published only."""

    TYPE = "notification.sent"
    JOURNALLED = False
    delivery: str
    channel: str
    kind: str


@dataclass(frozen=True)
class NotificationFailed(Event):
    """A message could not be delivered and was given up; ``error`` is what the last attempt
    met."""

    TYPE = "notification.failed"
    delivery: str
    channel: str
    kind: str
    attempts: int
    error: str


@dataclass(frozen=True)
class NotificationConfigured(Event):
    """A channel or rule was added, changed or removed; ``what`` and ``change`` say which."""

    TYPE = "notification.configured"
    what: str
    name: str
    change: str


EVENTS: tuple[type[Event], ...] = (
    IncidentOpened,
    IncidentClosed,
    IncidentAcknowledged,
    NotificationSent,
    NotificationFailed,
    NotificationConfigured,
)
