"""Incidents: opened, counted and closed by signals, and who is told of them.

Called inside units of work of the daemon's main thread. Each rule is told once that an
incident opened and once that it is over; being told is noted in the incident itself, in the
transaction that queues the message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from borgcube.core import events_notices, lifecycle, notices
from borgcube.core.alarms import Signal
from borgcube.core.model import Incident
from borgcube.core.rules import rank, wants_incident
from borgcube.core.store import Root
from borgcube.daemon import outbox
from borgcube.daemon.outbox import iso

OPEN, CLOSED = "open", "closed"
MAX_RULES = 1000
MAX_TEXT = 2000


@dataclass
class Desk:
    """What one unit of work needs: the store, the time, the rules, this server's name."""

    root: Root
    now: datetime
    server: str
    rules: Sequence[Any] = ()

    def __post_init__(self) -> None:
        if not self.rules:
            self.rules = list(reversed(self.root.rules.newest(MAX_RULES)))


def find_open(root: Root, key: str) -> Any:
    """Return the open incident of a key, or None."""
    found = root.incidents.newest(1, state=OPEN, key=key)
    return found[0] if found else None


def _subjects(incident: Incident) -> dict[str, str]:
    return {"client": incident.client, "plan": incident.plan, "repository": incident.repository}


def _retry_waits(root: Root, plan: str) -> bool:
    """Tell whether a further attempt of a plan's backup is on its way."""
    return any(
        job.type == "backup" and job.attempt > 1 and job.state not in lifecycle.ENDED
        for job in root.jobs.newest(10, plan=plan)
    )


def take(desk: Desk, signal: Signal) -> bool:
    """Do what a signal says; tell whether anything changed."""
    root = desk.root
    incident = find_open(root, signal.key)
    if signal.over:
        if incident is None:
            return False
        close(desk, incident, reason=signal.reason)
        return True
    if signal.retried and _retry_waits(root, signal.retried):
        return False
    if incident is None:
        incident = _opened(desk, signal)
    elif not _seen_again(desk, incident, signal):
        return False
    tell(desk, incident)
    return True


def _opened(desk: Desk, signal: Signal) -> Incident:
    at = iso(desk.now)
    incident = Incident(
        key=signal.key, kind=signal.kind, severity=signal.severity, client=signal.client,
        plan=signal.plan, repository=signal.repository, job=signal.job,
        title=signal.title[:MAX_TEXT], message=signal.message[:MAX_TEXT],
        next_step=signal.next_step[:MAX_TEXT], momentary=signal.momentary,
        created_at=at, last_at=at,
    )  # fmt: skip
    desk.root.incidents.add(incident)
    desk.root.record(events_notices.IncidentOpened(
        incident=incident.id, kind=incident.kind, severity=incident.severity,
        title=incident.title, message=incident.message, next_step=incident.next_step,
        job=incident.job, **_subjects(incident),
    ))  # fmt: skip
    return incident


def _seen_again(desk: Desk, incident: Incident, signal: Signal) -> bool:
    """Note that a problem was seen again; what is merely still so changes nothing."""
    worse = rank(signal.severity) > rank(incident.severity)
    if signal.standing and not worse:
        return False
    if worse:
        incident.severity = signal.severity
        incident.acknowledged_by = incident.acknowledged_at = ""
    incident.count += 0 if signal.standing else 1
    incident.last_at, incident.job = iso(desk.now), signal.job or incident.job
    incident.title = signal.title[:MAX_TEXT]
    incident.message = signal.message[:MAX_TEXT]
    incident.next_step = signal.next_step[:MAX_TEXT]
    return True


def tell(desk: Desk, incident: Incident) -> None:
    """Tell every rule that wants to know and was not told."""
    data = incident.as_data()
    for rule in desk.rules:
        if rule.name not in incident.told and wants_incident(rule, data):
            item = outbox.item_of(incident, notices.OPENED)
            outbox.post(desk.root, rule, item, now=desk.now, server=desk.server)
            incident.told = {**incident.told, rule.name: iso(desk.now)}


def remind(desk: Desk, incident_id: str, rule_name: str) -> bool:
    """Tell a rule again of what is still open, if that is due."""
    incident = desk.root.incidents.find("id", incident_id)
    rule = next((rule for rule in desk.rules if rule.name == rule_name), None)
    if incident is None or rule is None or not reminder_due(incident, rule, desk.now):
        return False
    item = outbox.item_of(incident, notices.REMINDER)
    outbox.post(desk.root, rule, item, now=desk.now, server=desk.server)
    incident.told = {**incident.told, rule.name: iso(desk.now)}
    return True


def reminder_due(incident: Any, rule: Any, now: datetime) -> bool:
    """Tell whether a rule that was told of an incident has to hear of it again."""
    told = incident.told.get(rule.name, "")
    if incident.state != OPEN or incident.acknowledged_by or not told or not rule.remind_hours:
        return False
    if rule.disabled or rule.digest:
        return False
    passed_s = (now - datetime.fromisoformat(told)).total_seconds()
    return bool(passed_s >= rule.remind_hours * 3600)


def close(desk: Desk, incident: Incident, *, reason: str) -> None:
    """End an incident, and tell those who knew of it."""
    desk.root.incidents.change(incident, state=CLOSED)
    incident.closed_at, incident.reason = iso(desk.now), reason[:MAX_TEXT]
    desk.root.record(events_notices.IncidentClosed(
        incident=incident.id, kind=incident.kind, severity=incident.severity,
        title=incident.title, reason=incident.reason, **_subjects(incident),
    ))  # fmt: skip
    known = {rule.name: rule for rule in desk.rules}
    for name in incident.told:
        if outbox.withdraw(desk.root, name, incident.id, now=desk.now):
            continue
        rule = known.get(name)
        if rule is not None and rule.all_clear and not rule.disabled and not rule.digest:
            item = outbox.item_of(incident, notices.OVER)
            outbox.post(desk.root, rule, item, now=desk.now, server=desk.server)


def acknowledge(desk: Desk, incident: Incident, *, user: str) -> None:
    """Note that somebody knows, so that reminders end."""
    incident.acknowledged_by, incident.acknowledged_at = user, iso(desk.now)
    desk.root.record(events_notices.IncidentAcknowledged(
        incident=incident.id, kind=incident.kind, user=user, **_subjects(incident)
    ))  # fmt: skip
