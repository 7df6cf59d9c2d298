"""The core's evolution steps.

A step gets the database's root mapping, runs in a transaction of its own and may be run
again without harm. Plugins add steps with their own prefix.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from BTrees.OOBTree import OOBTree

from borgcube.core.journal import Journal
from borgcube.core.model import Table


@dataclass(frozen=True)
class EvolutionStep:
    """One step: ``id`` is ``<owner>:<four digits>``."""

    id: str
    apply: Callable[[MutableMapping[str, Any]], None]


def _make_tables(root: MutableMapping[str, Any]) -> None:
    tables = {
        "clients": ("id", "name"),
        "repositories": ("id", "name"),
        "plans": ("id", "name", "client", "repository"),
        "jobs": ("id", "state", "type", "client", "repository", "plan"),
        "archives": ("id", "name", "client", "repository", "plan"),
    }
    for name, fields in tables.items():
        if name not in root:
            root[name] = Table(*fields)
    if "journal" not in root:
        root["journal"] = Journal()
    if "settings" not in root:
        root["settings"] = OOBTree({"server_id": uuid.uuid4().hex})
    if "plugins" not in root:
        root["plugins"] = OOBTree()


def _make_account_tables(root: MutableMapping[str, Any]) -> None:
    tables = {
        "users": ("id", "name"),
        "sessions": ("id", "user"),
        "links": ("id", "user"),
        "tokens": ("id", "digest", "user"),
        "audit": ("id", "user", "action"),
    }
    for name, fields in tables.items():
        if name not in root:
            root[name] = Table(*fields)


CORE_STEPS: tuple[EvolutionStep, ...] = (
    EvolutionStep("core:0001", _make_tables),
    EvolutionStep("core:0002", _make_account_tables),
)
