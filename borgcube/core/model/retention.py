"""Retention policies: the record. What the rules mean is :mod:`borgcube.core.retention`."""

from __future__ import annotations

from dataclasses import fields

from borgcube.core.model.records import Record
from borgcube.core.retention import Rules


class RetentionPolicy(Record):
    """Which archives of the plans that name it are kept; see ``core.retention.Rules``.

    ``zone`` is an IANA name, empty for the server's own. A pruned archive stays restorable
    for ``undo_hours``. ``keeps_nothing`` is set when a person confirmed that the policy is
    meant to keep no more than the newest archive.
    """

    name: str = ""
    within: str = ""
    last: int = 0
    minutely: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    quarterly_13weekly: int = 0
    quarterly_3monthly: int = 0
    yearly: int = 0
    zone: str = ""
    undo_hours: int = 7 * 24
    keeps_nothing: bool = False
    comment: str = ""

    @property
    def rules(self) -> Rules:
        """Return the rules alone."""
        return Rules(**{field.name: getattr(self, field.name) for field in fields(Rules)})
