"""Who is told, and when: matching, quiet hours, letters' days, waiting times. Pure.

Times are aware and in UTC; a rule's zone is an IANA name. A clock time that a change to
summer time skips counts as the moment it would have been an hour later; one that comes twice
counts once, the first time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime, time, timedelta
from fnmatch import fnmatchcase
from functools import partial
from itertools import takewhile
from typing import Any
from zoneinfo import ZoneInfo

from borgcube.core.alarms import KINDS
from borgcube.core.errors import InvalidInput
from borgcube.core.model.names import check_name
from borgcube.core.notifiers import SEVERITIES

SPECIAL = re.compile(r"[*?\[]")
CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
NEVER = "never"
LONGEST_RETRY_S = 3600
MAX_GROUP_S = 86_400
MAX_REMIND_HOURS = 24 * 90
MAX_PATTERNS = 100
# A rule that asked for these would hear of itself.
OWN_EVENTS = ("incident.", "notification.")
SUBJECTS = {"clients": "client", "plans": "plan", "repositories": "repository"}


def rank(severity: str) -> int:
    """Return the place of a severity among all; unknown ones are the worst."""
    return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES)


def worst(severities: Collection[str]) -> str:
    """Return the worst severity, ``info`` of none."""
    return max(severities, key=rank, default=SEVERITIES[0])


def _any(patterns: Collection[str], value: str) -> bool:
    return any(fnmatchcase(value, pattern) for pattern in patterns)


def about_its_subjects(rule: Any, subject: Mapping[str, Any]) -> bool:
    """Tell whether the clients, plans and repositories of a rule include a thing's own."""
    return all(
        not getattr(rule, many) or _any(getattr(rule, many), str(subject.get(one) or ""))
        for many, one in SUBJECTS.items()
    )


def matching_nothing(rule: Any, names: Mapping[str, Callable[[str], Iterable[str]]]) -> list[str]:
    """Return, in words, the patterns of a rule that fit nothing there is.

    ``names`` has for clients, plans and repositories a function that yields the names from a
    given one on, in order; of a pattern, only those that begin like it are looked at.
    """
    found = []
    for many, one in SUBJECTS.items():
        for pattern in getattr(rule, many):
            begin = SPECIAL.split(pattern, maxsplit=1)[0]
            candidates = takewhile(partial(_begins, begin), names[many](begin))
            if not any(fnmatchcase(name, pattern) for name in candidates):
                found.append(f"no {one} is called {pattern}")
    return found


def _begins(begin: str, name: str) -> bool:
    return name.startswith(begin)


def wants_incident(rule: Any, incident: Mapping[str, Any]) -> bool:
    """Tell whether a rule is about an incident (its fields as data)."""
    return bool(
        not rule.disabled and not rule.digest
        and rank(incident["severity"]) >= rank(rule.severity)
        and _any(rule.kinds, incident["kind"])
        and about_its_subjects(rule, incident)
        # Nobody can be told over a channel that it fails.
        and not (incident["kind"] == "channel-failing"
                 and incident["key"] == f"channel-failing:{rule.channel}")
    )  # fmt: skip


def wants_event(rule: Any, envelope: Mapping[str, Any]) -> bool:
    """Tell whether a rule is about a journalled event."""
    kind = envelope["type"]
    return bool(
        not rule.disabled and not rule.digest and rule.events
        and not kind.startswith(OWN_EVENTS)
        and _any(rule.events, kind) and about_its_subjects(rule, envelope["data"])
    )  # fmt: skip


def _clock(text: str) -> time:
    found = CLOCK.fullmatch(text)
    assert found is not None, text
    return time(int(found[1]), int(found[2]))


def _on(day: datetime, at: time, zone: ZoneInfo) -> datetime:
    return datetime.combine(day.date(), at, tzinfo=zone).astimezone(UTC)


def quiet_until(rule: Any, moment: datetime) -> datetime | None:
    """Return when the quiet hours that hold at ``moment`` end, None when none hold."""
    if not rule.quiet_from:
        return None
    zone = ZoneInfo(rule.zone)
    begin, end = _clock(rule.quiet_from), _clock(rule.quiet_until)
    local = moment.astimezone(zone)
    for back in (1, 0):
        day = local - timedelta(days=back)
        first = _on(day, begin, zone)
        last = _on(day + timedelta(days=0 if begin < end else 1), end, zone)
        if first <= moment < last:
            return last
    return None


def may_leave(rule: Any, moment: datetime, severity: str) -> datetime:
    """Return the first moment from ``moment`` on at which a rule may speak of this."""
    if rule.quiet_lets != NEVER and rank(severity) >= rank(rule.quiet_lets):
        return moment
    return quiet_until(rule, moment) or moment


def next_letter(rule: Any, after: datetime) -> datetime:
    """Return when the rule's next daily or weekly letter is due, strictly after a moment."""
    zone, at = ZoneInfo(rule.zone), _clock(rule.digest_at)
    local = after.astimezone(zone)
    for ahead in range(-1, 9):
        day = local + timedelta(days=ahead)
        if rule.digest == "weekly" and day.weekday() != DAYS.index(rule.digest_day):
            continue
        due = _on(day, at, zone)
        if due > after:
            return due
    raise AssertionError("a week has every day")


def retry_delay_s(failures: int, first_s: int) -> int:
    """Return how long to wait after so many failures in a row: twice as long each time."""
    return int(min(first_s * 2 ** min(max(failures, 1) - 1, 20), max(LONGEST_RETRY_S, first_s)))


def check_rule(data: Mapping[str, Any]) -> None:
    """Check all fields of a rule but its references; raises InvalidInput."""
    check_name(data["name"], what="rule")
    for name, known in (
        ("severity", SEVERITIES), ("quiet_lets", (*SEVERITIES, NEVER)),
        ("digest", ("", "daily", "weekly")), ("digest_day", DAYS),
    ):  # fmt: skip
        if data[name] not in known:
            words = ", ".join(word for word in known if word)
            raise InvalidInput(f"{name} must be one of {words}.", field=name)
    for name in ("kinds", "events", *SUBJECTS):
        _check_patterns(name, data[name])
    if not data["digest"] and not data["kinds"] and not data["events"]:
        raise InvalidInput("This rule is about nothing.", field="kinds",
                           next_step="Give kinds of incidents, or events.")  # fmt: skip
    unknown = [one for one in data["kinds"] if not any(fnmatchcase(kind, one) for kind in KINDS)]
    if unknown:
        raise InvalidInput(f"No kind of incident matches {unknown[0]!r}.", field="kinds",
                           next_step=f"Kinds are: {', '.join(KINDS)}.")  # fmt: skip
    if not 0 <= data["group_s"] <= MAX_GROUP_S:
        raise InvalidInput("Messages wait at most a day to be grouped.", field="group_s")
    if not 0 <= data["remind_hours"] <= MAX_REMIND_HOURS:
        raise InvalidInput("Reminders come at least every 90 days; 0 is none.",
                           field="remind_hours")  # fmt: skip
    _check_times(data)


def _check_times(data: Mapping[str, Any]) -> None:
    for name in ("quiet_from", "quiet_until", "digest_at"):
        if not CLOCK.fullmatch(data[name]) and not (name != "digest_at" and data[name] == ""):
            raise InvalidInput(f"{name} must be a time such as 22:30.", field=name)
    if bool(data["quiet_from"]) != bool(data["quiet_until"]):
        raise InvalidInput("Quiet hours need a beginning and an end.", field="quiet_until")
    if data["quiet_from"] and data["quiet_from"] == data["quiet_until"]:
        raise InvalidInput("Quiet hours that begin when they end are none, or always.",
                           field="quiet_until", next_step="Disable the rule instead.")  # fmt: skip
    try:
        if not data["zone"]:
            raise ValueError
        ZoneInfo(data["zone"])
    except (ValueError, KeyError, OSError) as error:  # ZoneInfoNotFoundError is a KeyError
        raise InvalidInput(
            f"There is no time zone {data['zone'][:60]!r}.", field="zone",
            next_step="Use a name such as Europe/Berlin or UTC.",
        ) from error  # fmt: skip


def _check_patterns(name: str, patterns: Collection[str]) -> None:
    if len(patterns) > MAX_PATTERNS:
        raise InvalidInput(f"At most {MAX_PATTERNS} {name}.", field=name)
    for pattern in patterns:
        if not pattern or len(pattern) > 200 or not pattern.isprintable():
            raise InvalidInput(f"{pattern[:60]!r} is not a usable pattern.", field=name)
