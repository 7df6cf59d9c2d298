"""The core's evolution steps.

A step gets the database's root mapping, runs in a transaction of its own and may be run
again without harm. Plugins add steps with their own prefix.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

from BTrees.OOBTree import OOBTree, OOTreeSet

from borgcube.core import standing
from borgcube.core.evolution import clocks
from borgcube.core.journal import Journal
from borgcube.core.model import Fleet, Table, Timetable


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


# Which fields are indexed, counted and searched since core:0003.
INDEXES: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "clients": (("id", "name", "transport"), (), ("name", "host", "domain")),
    "repositories": (("id", "name"), (), ("name", "path")),
    "plans": (("id", "name", "client", "repository", "retention", "schedule"),
              ("retention", "schedule"), ("name", "client", "repository")),
    "jobs": (("id", "state", "type", "client", "repository", "plan"), ("state", "type"), ()),
    "archives": (("id", "name", "client", "repository", "plan"), ("repository",), ()),
    "users": (("id", "name"), (), ()),
    "sessions": (("id", "user"), (), ()),
    "links": (("id", "user"), (), ()),
    "tokens": (("id", "digest", "user"), (), ()),
    "audit": (("id", "user", "action"), (), ()),
}  # fmt: skip


def _make_fleet(root: MutableMapping[str, Any]) -> None:
    for name, (fields, counted, words) in INDEXES.items():
        root[name].rebuild(fields, counted=counted, words=words)
    root["journal"].rebuild()
    root["fleet"] = Fleet()
    tables = SimpleNamespace(
        plans=root["plans"], jobs=root["jobs"], archives=root["archives"], fleet=root["fleet"]
    )
    standing.make(cast(Any, tables))


def _make_schedule_tables(root: MutableMapping[str, Any]) -> None:
    tables = {
        "schedules": ("id", "name"),
        "tasks": ("id", "name", "repository", "plan"),
        "triggers": ("id", "name", "digest", "plan"),
    }
    for name, fields in tables.items():
        if name not in root:
            root[name] = Table(*fields, words=("name",))
    if "pauses" not in root:
        root["pauses"] = Table("id", "scope", "target")
    if "timetable" not in root:
        root["timetable"] = Timetable()


def _make_notice_tables(root: MutableMapping[str, Any]) -> None:
    tables = {
        "channels": ("id", "name"),
        "rules": ("id", "name", "channel"),
        "incidents": ("id", "key", "state", "kind", "client", "plan", "repository"),
        "deliveries": ("id", "state", "channel", "rule"),
    }
    for name, fields in tables.items():
        if name not in root:
            root[name] = Table(*fields)
    if "counters" not in root:
        root["counters"] = OOBTree()
    # What happened before there were alarms is not told of.
    if "alarms_seq" not in root["settings"]:
        root["settings"]["alarms_seq"] = root["journal"].last


def _make_retention_tables(root: MutableMapping[str, Any]) -> None:
    if "policies" not in root:
        root["policies"] = Table("id", "name")
    if "trash" not in root:
        root["trash"] = OOBTree()


def _make_proof_tables(root: MutableMapping[str, Any]) -> None:
    tables = {"drills": ("id", "client", "repository", "plan"), "proofs": ("id", "repository")}
    for name, fields in tables.items():
        if name not in root:
            root[name] = Table(*fields)
    if "held" not in root:
        root["held"] = OOTreeSet()


def _sum_up_repositories(root: MutableMapping[str, Any]) -> None:
    standing.sum_up(root["fleet"].repositories, root["archives"].rows.values())


CORE_STEPS: tuple[EvolutionStep, ...] = (
    EvolutionStep("core:0001", _make_tables),
    EvolutionStep("core:0002", _make_account_tables),
    EvolutionStep("core:0003", _make_fleet),
    EvolutionStep("core:0004", _make_schedule_tables),
    EvolutionStep("core:0005", _make_retention_tables),
    EvolutionStep("core:0006", _make_notice_tables),
    EvolutionStep("core:0007", _make_proof_tables),
    EvolutionStep("core:0008", _sum_up_repositories),
    EvolutionStep("core:0009", clocks.order_archives),
)
