"""Writes docs/events.md and docs/hooks.md from the code: python docs/generate.py"""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

from borgcube.core import events, hookspecs

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


PAGES = {"events.md": events_page, "hooks.md": hooks_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf-8")
