"""Writes docs/events.md, docs/hooks.md and the tables of roles in docs/guarantees.md from the code:
python docs/generate.py"""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

from borgcube.core import events, hookspecs
from borgcube.core.authority import table

HERE = Path(__file__).parent
NOTE = "<!-- Made from the code by docs/generate.py; change the docstrings instead. -->\n"


def events_page() -> str:
    """Return the manual of all events."""
    parts = [f"# Events\n\n{NOTE}\n{inspect.getdoc(events)}\n"]
    for kind in sorted(events.BUILT_IN, key=lambda kind: kind.TYPE):
        kept = "" if kind.JOURNALLED else " (published only)"
        parts.append(f"\n## `{kind.TYPE}`{kept}\n\n{inspect.getdoc(kind)}\n")
        names = [f"`{field.name}` ({field.type})" for field in dataclasses.fields(kind)]
        parts.append(f"\nData: {', '.join(names)}.\n")
    return "".join(parts)


def hooks_page() -> str:
    """Return the manual of all hooks."""
    parts = [f"# Hooks\n\n{NOTE}\n{inspect.getdoc(hookspecs)}\n"]
    for name, function in vars(hookspecs).items():
        if hasattr(function, f"{hookspecs.PROJECT}_spec"):
            signature = str(inspect.signature(function)).replace("'", "")
            parts.append(f"\n## `{name}{signature}`\n\n{inspect.getdoc(function)}\n")
    return "".join(parts)


BEGIN = "<!-- roles: made from borgcube/core/authority by docs/generate.py -->\n"
END = "<!-- roles: end -->\n"


def guarantees_page() -> str:
    """Return the guarantees with the tables of what each role and token reaches."""
    text = (HERE / "guarantees.md").read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{table.page()}\n{END}{rest.partition(END)[2]}"


PAGES = {"events.md": events_page, "hooks.md": hooks_page, "guarantees.md": guarantees_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf-8")
