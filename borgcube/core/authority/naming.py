"""What the fields of commands can name, and whose each of these things is.

A thing belongs to clients (a plan, an archive, a job), to a user (a login, a token), or to the
server, which all share (a repository, a schedule). Who sees only some clients sees of the
server's things those that plans of these clients use, and of users themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from borgcube.core.access import Identity, Permission
from borgcube.core.model import Archive
from borgcube.core.planning import SCOPES
from borgcube.core.store import Root


class Kind(StrEnum):
    """What a field of a command names."""

    # Records of clients.
    CLIENT = "client"
    PLAN = "plan"
    ARCHIVE = "archive"
    ARCHIVE_ID = "archive of the repository beside it, by its ID"
    JOB = "job"
    DRILL = "drill"
    # Records of the server, which all share.
    REPOSITORY = "repository"
    SCHEDULE = "schedule"
    POLICY = "retention policy"
    TASK = "task"
    TRIGGER = "trigger"
    CHANNEL = "channel"
    RULE = "rule"
    INCIDENT = "incident"
    DELIVERY = "delivery"
    PAUSED = "what is paused, of the kind that scope says"
    # Names that make things one: whoever takes one joins all that have it.
    DOMAIN = "domain"
    NETWORK = "network"
    # Records of users.
    USER = "user"
    SESSION = "session"
    TOKEN = "token"
    # What reaches the server itself: see core.authority.serverside.
    TRANSPORT = "transport"
    KEY = "private key on the server"
    OPTIONS = "options of a transport"
    DIRECTORY = "directory of the server to write to"
    PLACE = "directory of a repository"
    UNFENCED = "extraction without the fence"


SERVERSIDE = frozenset(
    {Kind.TRANSPORT, Kind.KEY, Kind.OPTIONS, Kind.DIRECTORY, Kind.PLACE, Kind.UNFENCED}
)
JOINED = frozenset({Kind.DOMAIN, Kind.NETWORK})
# How each kind is called by the commands that list it.
CALLED = {Kind.ARCHIVE_ID: "archive", Kind.POLICY: "retention"}
TABLES = {
    Kind.CLIENT: ("clients", "name"), Kind.PLAN: ("plans", "name"),
    Kind.JOB: ("jobs", "id"), Kind.DRILL: ("drills", "id"),
    Kind.REPOSITORY: ("repositories", "name"), Kind.SCHEDULE: ("schedules", "name"),
    Kind.POLICY: ("policies", "name"), Kind.TASK: ("tasks", "name"),
    Kind.TRIGGER: ("triggers", "name"), Kind.CHANNEL: ("channels", "name"),
    Kind.RULE: ("rules", "name"), Kind.INCIDENT: ("incidents", "id"),
    Kind.DELIVERY: ("deliveries", "id"), Kind.USER: ("users", "name"),
    Kind.SESSION: ("sessions", "id"), Kind.TOKEN: ("tokens", "id"),
}  # fmt: skip
OF_CLIENTS = frozenset({Kind.CLIENT, Kind.PLAN, Kind.ARCHIVE, Kind.ARCHIVE_ID, Kind.JOB,
                        Kind.DRILL})  # fmt: skip
OF_USERS = frozenset({Kind.USER, Kind.SESSION, Kind.TOKEN})


@dataclass(frozen=True)
class Thing:
    """What a name stands for. ``clients`` are those that it belongs to, or, of a thing that is
    ``shared``, those that what it says is about; ``used_by`` are the clients whose plans use
    a shared one. ``user`` is whose it is, of users' things."""

    kind: Kind
    name: str
    found: bool
    clients: frozenset[str] = frozenset()
    shared: bool = False
    used_by: Callable[[Iterable[str]], bool] = lambda _clients: False
    user: str = ""

    def in_sight(self, me: Identity) -> bool:
        """Return whether it exists for who asks. Of what is not there, only those may learn
        so who see everything."""
        if self.kind in OF_USERS:
            return me.user == self.user or (not me.limited and me.may(Permission.ADMINISTER))
        if not me.limited:
            return True
        if self.shared:
            return self.found and self.used_by(me.clients)
        return self.found and all(me.in_sight(client) for client in self.clients)

    def permits(self, me: Identity, needed: Permission, *, own: bool = False) -> bool:
        """Return whether who asks has a permission on it; with ``own``, whether it is theirs
        is enough."""
        if own and self.kind in OF_USERS and me.user == self.user:
            return True
        if self.shared or not self.clients:
            return me.may(needed)
        return all(me.may(needed, client=client) for client in self.clients)


def archives_named(root: Root, name: str) -> list[Archive]:
    """Return the archives of that name or ID; of one repository where ``name`` says
    ``repository::name``."""
    repository, _, short = name.rpartition("::")
    return [
        archive
        for archive in (*root.archives.oldest("name", short), *root.archives.oldest("id", short))
        if not repository or archive.repository == repository
    ]


def _archives(kind: Kind, name: str, found: Iterable[Archive]) -> Thing:
    clients = frozenset(str(archive.client) for archive in found)
    return Thing(kind, name, bool(clients), clients)


def _used(root: Root, field: str, name: str) -> Callable[[Iterable[str]], bool]:
    def used_by(clients: Iterable[str]) -> bool:
        return any(
            getattr(plan, field) == name
            for client in clients
            for plan in root.plans.oldest("client", client)
        )

    return used_by


def _of_task(root: Root, record: Any) -> frozenset[str]:
    plan = root.plans.find("name", record.plan) if record.plan else None
    named = (record.client, plan.client if plan is not None else "")
    return frozenset(str(client) for client in named if client)


def resolve(kind: Kind, name: str, root: Root, params: Mapping[str, Any]) -> Thing:
    """Return what a name stands for; ``params`` are the other fields of the same request."""
    if kind is Kind.ARCHIVE:
        return _archives(kind, name, archives_named(root, name))
    if kind is Kind.ARCHIVE_ID:
        beside = str(params.get("repository") or "")
        found = [a for a in root.archives.oldest("id", name) if a.repository == beside]
        return _archives(kind, name, found)
    if kind is Kind.PAUSED:
        scope = str(params.get("scope") or "")
        if scope in SCOPES and scope in {k.value for k in TABLES}:
            return resolve(Kind(scope), name, root, params)
        return Thing(kind, name, found=False, shared=True)
    if kind in JOINED:
        those = root.clients.rows.values() if kind is Kind.DOMAIN else ()
        joined = frozenset(str(c.name) for c in those if c.domain == name)
        return Thing(kind, name, found=True, clients=joined, shared=True)
    table, key = TABLES[kind]
    record = getattr(root, table).find(key, name)
    known = record is not None
    if kind in OF_USERS:
        whose = name if kind is Kind.USER else str(getattr(record, "user", ""))
        return Thing(kind, name, known, user=whose)
    if kind in OF_CLIENTS:
        whose = name if kind is Kind.CLIENT else str(record.client) if record is not None else ""
        return Thing(kind, name, known, frozenset({whose} if known or whose else ()))
    clients: frozenset[str] = frozenset()
    used_by: Callable[[Iterable[str]], bool] = lambda _clients: False  # noqa: E731
    if kind in (Kind.REPOSITORY, Kind.SCHEDULE, Kind.POLICY):
        field = "retention" if kind is Kind.POLICY else kind.value
        used_by = _used(root, field, name)
    elif record is not None and kind in (Kind.TASK, Kind.TRIGGER):
        clients = _of_task(root, record) if kind is Kind.TASK else _whose_plan(root, record.plan)
    return Thing(kind, name, known, clients, shared=True, used_by=used_by)


def _whose_plan(root: Root, name: str) -> frozenset[str]:
    plan = root.plans.find("name", name)
    return frozenset() if plan is None else frozenset({str(plan.client)})
