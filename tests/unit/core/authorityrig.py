"""What the tests of authority share: a store with three clients, identities, requests."""

from __future__ import annotations

import typing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from borgcube.core import authority
from borgcube.core.access import Identity, Permission, Role
from borgcube.core.authority import COMMANDS, Kind, Server
from borgcube.core.authority.naming import SERVERSIDE
from borgcube.core.errors import BorgCubeError
from borgcube.core.model import (
    Archive,
    Channel,
    Client,
    Delivery,
    Drill,
    Incident,
    Job,
    Plan,
    Repository,
    RetentionPolicy,
    Rule,
    Schedule,
    Session,
    Task,
    Token,
    Trigger,
    User,
)
from borgcube.core.store import Store
from borgcube.daemon.control import methods_of
from borgcube.daemon.main import METHODS
from borgcube.daemon.methods_system import SystemMethods

P = Permission
HERE = SimpleNamespace(runs_here=True)


def functions() -> dict[str, Any]:
    """Return the methods of the control socket as the daemon has them."""
    found: dict[str, Any] = {}
    for kind in (SystemMethods, *METHODS):
        found.update(methods_of(kind))
    return found


def names_of(own: str) -> dict[Kind, str]:
    """Return one thing of each kind, those of the client ``own``."""
    return {
        Kind.CLIENT: own, Kind.PLAN: f"{own}-etc", Kind.ARCHIVE: f"{own}-1",
        Kind.ARCHIVE_ID: f"{own}-id", Kind.JOB: f"{own}-job", Kind.DRILL: f"{own}-drill",
        Kind.REPOSITORY: f"{own}-repo", Kind.SCHEDULE: f"{own}-nightly",
        Kind.POLICY: f"{own}-keep", Kind.TASK: f"{own}-task", Kind.TRIGGER: f"{own}-ci",
        Kind.CHANNEL: f"{own}-desk", Kind.RULE: f"{own}-rule", Kind.INCIDENT: f"{own}-trouble",
        Kind.DELIVERY: f"{own}-letter", Kind.DOMAIN: f"{own}-domain",
        Kind.NETWORK: f"{own}-network", Kind.USER: f"{own}-user",
        Kind.SESSION: f"{own}-session", Kind.TOKEN: f"{own}-token", Kind.PAUSED: own,
    }  # fmt: skip


@pytest.fixture(scope="module")
def store():
    store = Store.open("memory://")
    with store.transact() as root:
        for own, transport in (("web", "ssh"), ("mail", "ssh"), ("self", "here")):
            n = names_of(own)
            root.clients.add(Client(name=own, transport=transport, domain=n[Kind.DOMAIN],
                                    network=n[Kind.NETWORK]))  # fmt: skip
            root.repositories.add(Repository(name=n[Kind.REPOSITORY], path=f"/srv/{own}"))
            root.schedules.add(Schedule(name=n[Kind.SCHEDULE]))
            root.policies.add(RetentionPolicy(name=n[Kind.POLICY], daily=7))
            root.plans.add(Plan(
                name=n[Kind.PLAN], client=own, repository=n[Kind.REPOSITORY], paths=("/etc",),
                schedule=n[Kind.SCHEDULE], retention=n[Kind.POLICY],
            ))  # fmt: skip
            root.archives.add(Archive(
                name=n[Kind.ARCHIVE], id=n[Kind.ARCHIVE_ID], client=own, plan=n[Kind.PLAN],
                repository=n[Kind.REPOSITORY],
            ))  # fmt: skip
            root.jobs.add(Job(id=n[Kind.JOB], type="backup", client=own, plan=n[Kind.PLAN]))
            root.drills.add(Drill(id=n[Kind.DRILL], client=own, plan=n[Kind.PLAN]))
            root.tasks.add(Task(name=n[Kind.TASK], type="prune", plan=n[Kind.PLAN]))
            root.triggers.add(Trigger(name=n[Kind.TRIGGER], plan=n[Kind.PLAN], digest=own))
            root.channels.add(Channel(name=n[Kind.CHANNEL]))
            root.rules.add(Rule(name=n[Kind.RULE]))
            root.incidents.add(Incident(id=n[Kind.INCIDENT], client=own))
            root.deliveries.add(Delivery(id=n[Kind.DELIVERY]))
            root.users.add(User(name=n[Kind.USER], role="operator"))
            root.sessions.add(Session(id=n[Kind.SESSION], user=n[Kind.USER]))
            root.tokens.add(Token(id=n[Kind.TOKEN], user=n[Kind.USER], digest=f"{own}-digest"))
    yield store
    store.close()


SERVER = Server(
    home=Path("/var/lib/borgcube"), roots=("/srv",),
    transports={"here": HERE, "ssh": SimpleNamespace(), "openssh": SimpleNamespace()},
)  # fmt: skip


def person(role: Role, **more: Any) -> Identity:
    return Identity(user="web-user", role=role, session="s", **more)


WEB = frozenset({"web"})
LIMITED = {
    "owner": person(Role.OWNER, clients=WEB),
    "owner's token": replace(person(Role.OWNER, clients=WEB), session="", token="t"),
    **{f"{role} limited to web": replace(
        person(role, clients=WEB, restricted=True), session="", token="t"
    ) for role in (Role.ADMINISTRATOR, Role.OPERATOR, Role.VIEWER)},
}  # fmt: skip
EVERYWHERE = {str(role): person(role) for role in (Role.ADMINISTRATOR, Role.OPERATOR, Role.VIEWER)}
SCOPED = {
    f"operator's token for {permission}": replace(
        person(Role.OPERATOR, scope=frozenset({permission})), session="", token="t"
    )
    for permission in Permission
}


def put(params: dict[str, Any], path: str, value: Any, hint: Any) -> dict[str, Any]:
    """Return a request with a field set, in a list where the field takes one."""
    name, _, inner = path.partition(".")
    if inner:
        return {**params, name: {**params.get(name, {}), inner: value}}
    return {**params, name: [value] if "list" in str(hint) else value}


def asked(store: Store, me: Identity | None, method: str, params: dict[str, Any]) -> Any:
    """Return the refusal of a request, None when it is let through."""
    with store.reading() as root:
        try:
            authority.judge(me, method, params, root=root, server=SERVER)
        except BorgCubeError as error:
            return error
    return None


def honest(method: str, *, own: str = "web") -> dict[str, Any]:
    """Return a request that names only things of one client."""
    names, hints = names_of(own), typing.get_type_hints(functions()[method])
    params: dict[str, Any] = {}
    for path, reference in COMMANDS[method].references.items():
        if reference.kind in SERVERSIDE:
            continue
        name = path.partition(".")[0]
        params = put(params, path, names[reference.kind], hints[name])
    if "scope" in hints and method.startswith("pause."):
        params["scope"] = "client"
    return params


def fields() -> list[tuple[str, str]]:
    """Return every command with every field of it that names something."""
    return [
        (method, path) for method, command in COMMANDS.items()
        for path, reference in command.references.items() if reference.kind not in SERVERSIDE
    ]  # fmt: skip


OPERATOR, ADMIN = EVERYWHERE["operator"], EVERYWHERE["administrator"]
