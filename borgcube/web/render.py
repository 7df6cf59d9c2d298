"""How values are shown: sizes and counts with units, times, states, small plots.

Words leave here in the reader's language, times as UTC with the exact value beside them; the
browser shows them in the viewer's zone. Everything else is escaped by Jinja; only
:func:`moment` makes markup, from checked parts.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

from borgcube.core.access import CALLED
from borgcube.core.texts import Text, _, several
from borgcube.web.language import SCRIPT_WORDS, translated

DASH = "\N{EN DASH}"
# state -> (style, icon, words): never colour alone.
STATES: Mapping[str, tuple[str, str, str]] = {
    "queued": ("quiet", "clock", _("Queued")),
    "starting": ("busy", "play", _("Starting")),
    "running": ("busy", "play", _("Running")),
    "cancelling": ("busy", "stop", _("Cancelling")),
    "done": ("good", "check", _("Done")),
    "warning": ("warn", "warn", _("Done with warnings")),
    "failed": ("bad", "cross", _("Failed")),
    "cancelled": ("quiet", "stop", _("Cancelled")),
    "lost": ("bad", "cross", _("Lost")),
    "none": ("quiet", "clock", _("Not run yet")),
}
PROBLEMS = {
    "client": _("the client's problem"), "network": _("the network's problem"),
    "server": _("this server's problem"), "repository": _("the repository's problem"),
    "configuration": _("a matter of configuration"),
}  # fmt: skip
# Names that built-in plugins gave their job types and phases; others are shown as they are.
JOB_TYPES: Mapping[str, Text] = {
    "backup": _("Backup"), "restore": _("Restore"), "archive-delete": _("Delete archives"),
    "dry-run": _("Dry run of"), "catalog": _("Read the files of"),
    "check": _("Check"), "borg-check": _("Borg's check"), "drill": _("Restore drill"),
    "prune": _("Prune"), "compact": _("Compact"), "archive-mend": _("Mend archive"),
}  # fmt: skip
PHASES: Mapping[str, Text] = {
    "connecting": _("connecting"), "preparing": _("preparing"),
    "transferring": _("transferring"), "finishing": _("finishing"), "deleting": _("deleting"),
    "listing": _("listing"), "measuring": _("measuring"), "reading": _("reading"),
    "walking archives": _("walking archives"), "choosing": _("choosing"),
    "comparing": _("comparing"), "reporting": _("reporting"),
    "looking through archives": _("looking through archives"),
    "counting references": _("counting references"), "mending": _("mending"),
    "checking": _("checking"), "pruning": _("pruning"), "compacting": _("compacting"),
}  # fmt: skip
FACTS: Mapping[str, Text] = {
    "hostname": _("Host name"), "username": _("User"), "cmdline": _("Command"),
    "comment": _("Comment"), "chunker_params": _("Chunker parameters"),
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
    if abs(seconds) < 5:
        return str(translated(_("just now")))
    return str(translated(_said(abs(seconds), past=seconds > 0)))


def _said(seconds: float, *, past: bool) -> Text:
    """Return a span in its largest unit."""
    if seconds >= 86400:
        n = int(seconds // 86400)
        return several("%(n)s day ago", "%(n)s days ago", n) if past else \
            several("in %(n)s day", "in %(n)s days", n)  # fmt: skip
    if seconds >= 5400:
        n = int(seconds // 3600)
        return several("%(n)s hour ago", "%(n)s hours ago", n) if past else \
            several("in %(n)s hour", "in %(n)s hours", n)  # fmt: skip
    if seconds >= 60:
        n = int(seconds // 60)
        return several("%(n)s minute ago", "%(n)s minutes ago", n) if past else \
            several("in %(n)s minute", "in %(n)s minutes", n)  # fmt: skip
    n = int(seconds)
    return several("%(n)s second ago", "%(n)s seconds ago", n) if past else \
        several("in %(n)s second", "in %(n)s seconds", n)  # fmt: skip


def span(seconds: float) -> str:
    """Return the size of a span, in minutes up to two hours and then in hours."""
    size_s = abs(seconds)
    if size_s < 7200:
        n = round(size_s / 60)
        return str(translated(several("%(n)s minute", "%(n)s minutes", n)))
    n = round(size_s / 3600)
    return str(translated(several("%(n)s hour", "%(n)s hours", n)))


def moment(value: Any, form: str = "both") -> Markup:
    """Return a ``time`` element. ``form`` is ``ago``, ``date``, ``both`` or, for lines of a log,
    ``clock``."""
    when = parsed(value)
    if when is None:
        return Markup(f'<span class="faint">{DASH}</span>')
    exact = when.astimezone(UTC)
    text = ago(value) if form == "ago" else f"{exact:%Y-%m-%d %H:%M} UTC"
    if form == "clock":
        text = f"{exact:%H:%M:%S}"
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
    return {"style": style, "icon": icon, "words": str(translated(words))}


def whose(problem: str) -> str:
    """Return whose problem a failure is, in words."""
    return str(translated(PROBLEMS.get(problem, problem)))


def job_type(name: str) -> str:
    """Return the name of a job type in words, at the beginning of a line."""
    return str(translated(JOB_TYPES.get(name, str(name).capitalize())))


def phase(name: str) -> str:
    """Return the name of a phase in words."""
    return str(translated(PHASES.get(name, name)))


def role(name: str) -> str:
    """Return the name of a role in words."""
    return str(translated({str(role): words for role, words in CALLED.items()}.get(name, name)))


# Figures of a prune, a deletion or a mending: done, of how many, their words; live.js has the same.
LOOKED = (
    ("archives_looked_at", "archives_to_look_at", "looked-through"),
    ("archives_counted", "archives_to_count", "counted-anew"),
    ("archives_done", "archives_total", "archives-done"),
)


def looked(progress: Mapping[str, Any]) -> str:
    """Return how far a job is that looks after archives, in words; empty when it is not known."""
    for done, total, word in LOOKED:
        if total in progress:
            said = {"n": count(progress.get(done, 0)), "total": count(progress[total])}
            return str(translated(SCRIPT_WORDS[word])) % said
    if "items" in progress:
        return str(translated(SCRIPT_WORDS["items"])) % {"n": count(progress["items"])}
    return ""


def fact(name: str) -> str:
    """Return the name of something that an archive tells about itself."""
    return str(translated(FACTS.get(name, str(name).replace("_", " ").capitalize())))


def harmless(value: Any, limit: int = 2000) -> str:
    """Return text without control and format characters, bounded: for names that a client
    may have chosen. Right-to-left overrides would otherwise disguise a name."""
    text = str(translated(value))
    shown = "".join(
        char if unicodedata.category(char)[0] != "C" else f"\\x{ord(char):02x}"
        for char in text[:limit]
    )
    return shown + ("…" if len(text) > limit else "")


FILTERS = {
    "size": size, "count": count, "ago": ago, "moment": moment, "duration": duration,
    "state": state, "whose": whose, "harmless": harmless, "time_ns": time_ns,
    "job_type": job_type, "phase": phase, "role": role, "fact": fact, "looked": looked,
    "span": span,
}  # fmt: skip
