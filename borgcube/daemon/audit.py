"""The audit trail: who asked for what, written down before it is done.

Control calls :meth:`Audit.begin` before an audited method and :meth:`Audit.end` after it.
Never a parameter's value, except the name of what is acted on: parameters hold secrets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from borgcube.core.events import now
from borgcube.core.model import AuditEntry
from borgcube.core.store import Store

SUBJECT_KEYS = (
    "name", "plan", "archive", "id", "user", "type", "repository", "network", "target",
)  # fmt: skip
MAX_TEXT = 300


def actor_of(request: Mapping[str, Any]) -> dict[str, str]:
    """Return who a request says it is from, bounded; the socket's owner vouches for it."""
    given = request.get("actor")
    given = given if isinstance(given, dict) else {}
    return {key: str(given.get(key) or "")[:MAX_TEXT] for key in ("user", "via", "address")}


def subject_of(params: Mapping[str, Any]) -> str:
    """Return the name of what a request acts on, empty when it names none."""
    for key in SUBJECT_KEYS:
        if isinstance(params.get(key), str) and params[key]:
            return str(params[key])[:MAX_TEXT]
    names = params.get("names")
    return ", ".join(map(str, names))[:MAX_TEXT] if isinstance(names, list) else ""


class Audit:
    """Writes the trail; only in the main thread."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def note(self, actor: Mapping[str, str], action: str, subject: str, *, refused: str) -> None:
        """Write down at once what was done or refused, for methods that audit themselves."""
        self.end(self.begin(actor, action, {"name": subject}), refused=refused)

    def begin(self, actor: Mapping[str, str], action: str, params: Mapping[str, Any]) -> str:
        """Note what is about to be done; returns the entry's ID."""
        entry = AuditEntry(
            created_at=now(), action=action, subject=subject_of(params),
            user=actor["user"], via=actor["via"], address=actor["address"],
        )  # fmt: skip
        with self._store.transact() as root:
            root.audit.add(entry)
            return entry.id

    def end(self, entry_id: str, *, refused: str = "") -> None:
        """Note what came of it; ``refused`` is why not."""
        with self._store.transact() as root:
            entry = root.audit.find("id", entry_id)
            entry.outcome = "refused" if refused else "done"
            entry.message = refused[:MAX_TEXT]
