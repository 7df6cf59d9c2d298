"""What must hold on this system for the promises to hold; ``borgcube doctor`` asks.

Looks only, quickly, and at what a person can mend. Called in the daemon's main thread.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from borgcube.core import home as places
from borgcube.core import secrets
from borgcube.core.registry import Registry
from borgcube.core.store import Root

RECENT = timedelta(days=7)
MAX_EVENTS = 20_000
Finding = dict[str, str]


def finding(level: str, message: str, next_step: str, **more: str) -> Finding:
    """Return one finding; ``level`` is ``error`` or ``warning``. ``about`` marks those that are
    incidents of their own: ``space`` and ``violations``."""
    return {"level": level, "message": message, "next_step": next_step, **more}


def engines(registry: Registry) -> list[Finding]:
    """Return what engines miss on this system."""
    return [
        finding(level, message, next_step)
        for engine in registry.engines.values()
        for level, message, next_step in engine.conditions()
    ]


def private_files(home: Path) -> list[Finding]:
    """Return which of the home's private places other users may enter."""
    found = []
    places_of_ours = [home, home / "store", home / "engines", places.runtime_dir(home)]
    for path in [*places_of_ours, secrets.key_file(home)]:
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
        except OSError as error:
            found.append(finding("error", f"{path}: {error.strerror}.", "Put it back."))
            continue
        if mode & 0o077:
            found.append(
                finding(
                    "error",
                    f"{path} is open to other users (mode {mode:04o}).",
                    f"Run: chmod go= {path}",
                )
            )
    return found


def repositories(records: list[tuple[str, str, str]]) -> list[Finding]:
    """Return which repositories, as (name, path, encryption), others may read in plain text."""
    found = []
    for name, path, encryption in records:
        try:
            mode = stat.S_IMODE(os.stat(path).st_mode)
        except OSError:
            continue  # said already: it is not there
        if mode & 0o077 and encryption.startswith("authenticated"):
            found.append(
                finding(
                    "error",
                    f"Repository {name} is not encrypted, and other users may enter {path}.",
                    f"Run: chmod go= {path}",
                )
            )
    return found


def journal(root: Root, *, now: datetime | None = None) -> list[Finding]:
    """Return gaps in the latest sequence numbers, and clients that broke a rule lately."""
    found: list[Finding] = []
    since = ((now or datetime.now(UTC)) - RECENT).isoformat()
    expected = max(1, root.journal.last - MAX_EVENTS + 1)
    broken: Counter[str] = Counter()
    kinds: dict[str, set[str]] = {}
    for seq, entry in root.journal.entries.items(min=expected):
        if seq != expected:
            found.append(
                finding(
                    "error",
                    f"The journal has a gap before event {seq}.",
                    "Put the store back from a backup; it was changed from outside.",
                )
            )
        expected = seq + 1
        if entry["type"] == "client.violation" and entry["at"] >= since:
            data: dict[str, Any] = entry["data"]
            broken[data["client"]] += 1
            kinds.setdefault(data["client"], set()).add(data["kind"])
    for client, count in sorted(broken.items()):
        found.append(
            finding(
                "warning",
                f"Client {client} broke a rule {count} {'time' if count == 1 else 'times'} in "
                f"7 days ({', '.join(sorted(kinds[client]))}).",
                "Look at it: docs/guarantees.md says what each kind means.",
                about="violations",
            )
        )
    return found
