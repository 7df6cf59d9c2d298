"""How things are printed: tables, sizes, times, JSON. Text from clients is made harmless."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

STATE_STYLE = {
    "done": "green", "warning": "yellow", "failed": "red", "lost": "red",
    "cancelled": "magenta", "running": "cyan", "cancelling": "magenta",
}  # fmt: skip


def console(*, stderr: bool = False) -> Console:
    """Return a console for standard output or standard error."""
    made = Console(stderr=stderr, highlight=False, soft_wrap=True)
    if not made.is_terminal:
        # To a file or a pipe every row is one line, whatever its length.
        made.width = 10_000
    return made


def harmless(value: object) -> str:
    """Return text without anything that a terminal would obey."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in str(value))


def harmless_lines(text: str) -> str:
    """Return lines of text, each made harmless."""
    return "".join(f"{harmless(line)}\n" for line in text.splitlines())


def size(count: object) -> str:
    """Return a number of bytes with a binary unit, such as ``1.5 GiB``."""
    if not isinstance(count, int | float):
        return "-"
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 or unit == "TiB":
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError


def count(number: object) -> str:
    """Return a count with thousands separated."""
    return f"{number:,}" if isinstance(number, int) else "-"


def local_time(text: object) -> str:
    """Return an ISO time in the viewer's zone, to the second; ``-`` for none."""
    try:
        return f"{datetime.fromisoformat(str(text)).astimezone():%Y-%m-%d %H:%M:%S}"
    except ValueError:
        return "-"


def duration(begin: object, end: object) -> str:
    """Return the time between two ISO times, such as ``1:02:03``; ``-`` when unknown."""
    try:
        span = datetime.fromisoformat(str(end)) - datetime.fromisoformat(str(begin))
    except ValueError:
        return "-"
    seconds = int(span.total_seconds())
    hours, rest = divmod(seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


SPANS = (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1))


def span(seconds: int) -> str:
    """Return a number of seconds in the largest unit that says it exactly: ``15 minutes``."""
    name, length = next(one for one in SPANS if seconds % one[1] == 0)
    number = seconds // length
    return f"{number:,} {name}" if number == 1 else f"{number:,} {name}s"


def readable(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record's fields for :func:`fields`: names in words, values with their units.

    The unit is the end of a field's name (``_s``, ``_bytes``, ``_kib``). A limit of 0 is none.
    """
    shown: dict[str, Any] = {}
    for key, value in data.items():
        name, unit = key, ""
        if isinstance(value, int) and not isinstance(value, bool):
            stem, _, last = key.rpartition("_")
            name, unit = (stem, last) if last in ("s", "bytes", "kib") else (key, "")
        limit = name.startswith("max_") or name == "upload_ratelimit"
        if limit and value == 0:
            value = "no limit"
        elif unit == "s":
            value = span(value) if value else "none"
        elif unit in ("bytes", "kib"):
            value = size(value if unit == "bytes" else value * 1024)
        shown[name.replace("_", " ")] = value
    return shown


def as_json(data: object) -> None:
    """Print data as JSON; ASCII only, so that nothing in it reaches the terminal raw."""
    json.dump(data, sys.stdout, indent=2)
    sys.stdout.write("\n")


def state_text(state: str) -> Text:
    """Return a job's state in its colour."""
    return Text(harmless(state), style=STATE_STYLE.get(state, ""))


def table(
    heads: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str,
    right: Sequence[str] = (),
) -> None:  # fmt: skip
    """Print rows below their heads, or what to do when there are none."""
    listed = list(rows)
    out = console()
    if not listed:
        out.print(Text(empty))
        return
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for head in heads:
        shown.add_column(head, justify="right" if head in right else "left", overflow="fold")
    for row in listed:
        shown.add_row(*(c if isinstance(c, Text) else Text(harmless(c)) for c in row))
    out.print(shown, soft_wrap=False, crop=False)


def fields(pairs: Mapping[str, object]) -> None:
    """Print one thing as names and values; empty values are left out."""
    shown = {key: value for key, value in pairs.items() if value not in ("", None, [], {})}
    width = max((len(key) for key in shown), default=0)
    out = console()
    for key, value in shown.items():
        text = Text(f"{key:<{width}}  ", style="bold")
        if isinstance(value, Text):
            text.append_text(value)
        else:
            text.append(harmless(_plain(value)), style="not bold")
        out.print(text)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    if isinstance(value, dict):
        return json.dumps(value)
    return str(value)


def say(message: str) -> None:
    """Print a line to standard output."""
    console().print(Text(harmless(message)))


def complain(message: str, next_step: str = "") -> None:
    """Print one line of error to standard error."""
    # A message may end in what another program said, without a full stop.
    stop = "." if next_step and message[-1:].isalnum() else ""
    line = harmless(f"borgcube: {message}{stop} {next_step}".rstrip())
    console(stderr=True).print(Text(line, style="red" if sys.stderr.isatty() else ""))
