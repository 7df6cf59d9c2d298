"""The queue of messages: what is posted, joined and withdrawn before it goes out.

Called inside units of work of the daemon's main thread, so that a message exists exactly if
the change that it tells of does. ``daemon/courier.py`` sends.
"""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from borgcube.core import letters, notices, rules
from borgcube.core.model import Delivery, Incident
from borgcube.core.notifiers import DIGEST, INFO, NOTICE, TEST
from borgcube.core.store import Root

MAX_ITEMS = 200  # listed in one message; the rest is counted
MAX_WAITING = 1000
LOOKED_AT = 2000
KEPT = 10_000  # ended deliveries, and closed incidents
QUEUED, SENDING, SENT, FAILED, WITHDRAWN = "queued", "sending", "sent", "failed", "withdrawn"


def iso(moment: datetime) -> str:
    """Return a time as the store keeps it."""
    return moment.isoformat(timespec="milliseconds")


def item_of(incident: Incident, what: str) -> dict[str, Any]:
    """Return an incident as an item of a message."""
    data = incident.as_data()
    for name in ("momentary", "acknowledged_by", "acknowledged_at"):
        data.pop(name)
    return {"what": what, **data}


def _waiting(root: Root, rule: str) -> list[Any]:
    """Return the rule's notices that nobody can have received yet."""
    found = root.deliveries.newest(MAX_WAITING, state=QUEUED, rule=rule)
    return [one for one in found if one.kind == NOTICE and not one.attempts]


def post(root: Root, rule: Any, item: dict[str, Any], *, now: datetime, server: str) -> Delivery:
    """Put an item into the rule's next message, which waits a while for more of them."""
    over = item["what"] in (notices.OVER, notices.EVENT)
    severity = INFO if over else item["severity"]
    leave = iso(rules.may_leave(rule, now + timedelta(seconds=rule.group_s), severity))
    for waiting in _waiting(root, rule.name):
        if waiting.channel != rule.channel:
            continue
        if len(waiting.items) < MAX_ITEMS:
            waiting.items = (*waiting.items, item)
        else:
            waiting.more += 1
        waiting.due_at = min(waiting.due_at, leave)
        waiting.severity = notices.severity_of(waiting.items)
        waiting.subject = notices.subject_of(waiting.items, server)
        return waiting  # type: ignore[no-any-return]
    made = Delivery(
        key=uuid.uuid4().hex, kind=NOTICE, channel=rule.channel, rule=rule.name, items=(item,),
        severity=notices.severity_of([item]), subject=notices.subject_of([item], server),
        due_at=leave, created_at=iso(now),
    )  # fmt: skip
    root.deliveries.add(made)
    return made


def withdraw(root: Root, rule: str, incident: str, *, now: datetime) -> bool:
    """Take an incident out of messages that have not gone out; tell whether its opening was
    among them, so that nobody knows of it and nobody needs to hear that it is over."""
    unheard = False
    for waiting in _waiting(root, rule):
        mine = [item for item in waiting.items if item.get("id") == incident]
        if not mine:
            continue
        unheard = unheard or any(item["what"] == notices.OPENED for item in mine)
        waiting.items = tuple(item for item in waiting.items if item.get("id") != incident)
        if waiting.items:
            waiting.severity = notices.severity_of(waiting.items)
            server = waiting.subject.partition("] ")[0].removeprefix("[")
            waiting.subject = notices.subject_of(waiting.items, server)
        elif not waiting.more:
            root.deliveries.change(waiting, state=WITHDRAWN)
            waiting.ended_at = iso(now)
            waiting.error = "What it was about was over before it went out."
    return unheard


def post_letter(
    root: Root, *, kind: str, channel: str, rule: str, letter: Any, now: datetime,
    severity: str = INFO,
) -> Delivery:  # fmt: skip
    """Queue a letter that is written already, to go out at once."""
    assert kind in (DIGEST, TEST)
    made = Delivery(
        key=uuid.uuid4().hex, kind=kind, channel=channel, rule=rule, letter=letter.as_data(),
        severity=severity, subject=letters.one_line(letter.subject or letter.title),
        due_at=iso(now), created_at=iso(now),
    )  # fmt: skip
    root.deliveries.add(made)
    return made


def give_up(root: Root, delivery: Any, *, error: str, now: datetime) -> None:
    """End a delivery that was not made."""
    root.deliveries.change(delivery, state=FAILED)
    delivery.ended_at, delivery.error = iso(now), error


def forget_old(root: Root) -> None:
    """Take out the oldest ended deliveries and closed incidents beyond the last 10,000."""
    for table, ended in (
        (root.deliveries, (SENT, FAILED, WITHDRAWN)), (root.incidents, ("closed",)),
    ):  # fmt: skip
        excess = min(100, table.count() - KEPT)
        # One that stays open for years must not keep all that came after it.
        old = islice(table.rows.values(), LOOKED_AT) if excess > 0 else ()
        for record in list(islice((one for one in old if one.state in ended), max(0, excess))):
            table.remove(record)
