"""How values are shown: sizes and counts with units, times, states, small plots.

Times leave here as UTC with the exact value beside them; the browser shows them in the
viewer's zone. Everything else is escaped by Jinja; only :func:`moment` makes markup, from
checked parts.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

DASH = "\N{EN DASH}"
# state -> (style, icon, words): never colour alone.
STATES: Mapping[str, tuple[str, str, str]] = {
    "queued": ("quiet", "clock", "Queued"),
    "starting": ("busy", "play", "Starting"),
    "running": ("busy", "play", "Running"),
    "cancelling": ("busy", "stop", "Cancelling"),
    "done": ("good", "check", "Done"),
    "warning": ("warn", "warn", "Done with warnings"),
    "failed": ("bad", "cross", "Failed"),
    "cancelled": ("quiet", "stop", "Cancelled"),
    "lost": ("bad", "cross", "Lost"),
    "none": ("quiet", "clock", "Not run yet"),
}
PROBLEMS = {
    "client": "the client's problem", "network": "the network's problem",
    "server": "this server's problem", "repository": "the repository's problem",
    "configuration": "a matter of configuration",
}  # fmt: skip


def size(value: Any) -> str:
    """Return bytes with a binary unit, such as ``1.5 GiB``."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return DASH
    number = float(value)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if abs(number) < 1024 or unit == "PiB":
            break
        number /= 1024
    if unit == "B":
        return f"{number:.0f} B"
    return f"{number:.0f} {unit}" if abs(number) >= 100 else f"{number:.1f} {unit}"


def count(value: Any) -> str:
    """Return a count with thousands apart."""
    return f"{value:,}" if isinstance(value, int) else DASH


def parsed(value: Any) -> datetime | None:
    """Return the aware time of an ISO string, or None."""
    try:
        moment_ = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return moment_ if moment_.tzinfo else moment_.replace(tzinfo=UTC)


def ago(value: Any) -> str:
    """Return how long a time is past or ahead, in words: ``5 minutes ago``."""
    when = parsed(value)
    if when is None:
        return DASH
    seconds = (datetime.now(UTC) - when).total_seconds()
    words = spoken(abs(seconds))
    if abs(seconds) < 5:
        return "just now"
    return f"{words} ago" if seconds > 0 else f"in {words}"


def spoken(seconds: float) -> str:
    """Return a span in its largest unit: ``3 days``."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        if seconds >= length * (1.5 if unit == "hour" else 1) or unit == "second":
            number = int(seconds // length)
            return f"{number} {unit}{'' if number == 1 else 's'}"
    raise AssertionError


def moment(value: Any, form: str = "both") -> Markup:
    """Return a ``time`` element. ``form`` is ``ago``, ``date`` or ``both``."""
    when = parsed(value)
    if when is None:
        return Markup(f'<span class="faint">{DASH}</span>')
    exact = when.astimezone(UTC)
    text = ago(value) if form == "ago" else f"{exact:%Y-%m-%d %H:%M} UTC"
    return Markup('<time datetime="{}" data-form="{}" title="{}">{}</time>').format(
        exact.isoformat(timespec="seconds"), form, f"{exact:%Y-%m-%d %H:%M:%S} UTC", text
    )


def time_ns(value: Any) -> str:
    """Return nanoseconds since 1970 as an ISO time in UTC; empty outside of the calendar."""
    try:
        return datetime.fromtimestamp(int(value) / 1e9, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError, TypeError):
        return ""


def duration(begin: Any, end: Any = "") -> str:
    """Return the time between two ISO times, until now without an end: ``1:02:03``."""
    first, last = parsed(begin), parsed(end) or datetime.now(UTC)
    if first is None:
        return DASH
    seconds = max(0, int((last - first).total_seconds()))
    hours, rest = divmod(seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def state(value: str) -> dict[str, str]:
    """Return style, icon and words of a job's state."""
    style, icon, words = STATES.get(value, ("quiet", "clock", str(value)))
    return {"style": style, "icon": icon, "words": words}


def whose(problem: str) -> str:
    """Return whose problem a failure is, in words."""
    return PROBLEMS.get(problem, str(problem))


def harmless(value: Any, limit: int = 2000) -> str:
    """Return text without control and format characters, bounded: for names that a client
    may have chosen. Right-to-left overrides would otherwise disguise a name."""
    text = str(value)
    shown = "".join(
        char if unicodedata.category(char)[0] != "C" else f"\\x{ord(char):02x}"
        for char in text[:limit]
    )
    return shown + ("…" if len(text) > limit else "")


FILTERS = {
    "size": size, "count": count, "ago": ago, "moment": moment, "duration": duration,
    "state": state, "whose": whose, "harmless": harmless, "time_ns": time_ns,
}  # fmt: skip
