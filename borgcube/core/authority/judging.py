"""The judge: may this identity ask this of the daemon, with all that the request names.

In this order: what is named and not in sight is answered as if it were not there; then the
permission is asked on each thing that is named, in the request or by a stored record that it
names; then what reaches the server. A thing's record says whose it is now, so a field that
moves something is asked about for the old owner (the record) and the new one (the field).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from borgcube.core.access import Identity, Permission
from borgcube.core.authority import serverside
from borgcube.core.authority.commands import COMMANDS, Command, Reference
from borgcube.core.authority.naming import CALLED, JOINED, SERVERSIDE, Kind, Thing, resolve
from borgcube.core.authority.serverside import Server
from borgcube.core.errors import AccessDenied, NotFound
from borgcube.core.store import Root


def not_there(kind: Kind, name: str, *, field: str) -> NotFound:
    """Return the one answer for what does not exist, or not for who asks."""
    what = CALLED.get(kind, kind.value)
    return NotFound(f"There is no {what} {name[:300]!r}.",
                    next_step=f"See: borgcube {what} list", field=field)  # fmt: skip


def denied(needed: Permission, *, field: str = "") -> AccessDenied:
    """Return the refusal of what is in sight."""
    return AccessDenied(
        f"This needs the permission {needed.value}.",
        next_step="Ask an administrator of this server.", field=field,
    )  # fmt: skip


def given(params: Mapping[str, Any], path: str) -> Iterator[Any]:
    """Yield what a request says in a field: each of a list, nothing for what is left out."""
    name, _, inner = path.partition(".")
    value = params.get(name)
    if inner:
        value = value.get(inner) if isinstance(value, Mapping) else None
    yield from value if isinstance(value, list) else [value]


Named = tuple[str, Reference, Thing]


def things(command: Command, params: Mapping[str, Any], root: Root) -> Iterator[Named]:
    """Yield what a request names, with the field and its declaration."""
    for path, reference in command.references.items():
        if reference.kind in SERVERSIDE:
            continue
        for value in given(params, path):
            if value is not None and value != "":
                yield path, reference, resolve(reference.kind, str(value), root, params)


def judge(
    me: Identity | None, method: str, params: Mapping[str, Any], *, root: Root, server: Server
) -> None:
    """Raise NotFound or AccessDenied when ``me`` (None: a stranger) may not ask this."""
    command = COMMANDS.get(method)
    if command is not None and command.needs is None:
        return
    if me is None or command is None or command.needs is None:
        raise denied(Permission.ADMINISTER)
    if command.person and not me.session:
        raise AccessDenied("A token may not do this.",
                           next_step="Log in to the console for it.")  # fmt: skip
    every = list(things(command, params, root))
    for path, _reference, thing in every:
        if thing.kind not in JOINED and not thing.in_sight(me):
            raise not_there(thing.kind, thing.name, field=path.rpartition(".")[2])
    named = [one for one in every if not one[1].seen and not _unchanged(one, every, root)]
    for path, reference, thing in named:
        own = reference.own and (reference.by_token or bool(me.session))
        needed = reference.needs or command.needs
        if not thing.permits(me, needed, own=own):
            raise denied(needed, field=path.rpartition(".")[2])
    if (command.whole or not named) and not me.may(command.needs):
        raise denied(command.needs)
    besides = command.more(root, params) if command.more is not None else None
    if besides is not None and not _has(me, besides, command, named):
        raise denied(besides)
    _judge_server(me, command, params, named, root=root, server=server)


def _unchanged(one: Named, every: list[Named], root: Root) -> bool:
    """Tell whether a field says what the record that the request changes has already: a form
    sends back what it showed, and that moves nothing."""
    path, _reference, thing = one
    if path not in ("repository", "domain", "network"):
        return False
    for field, _owning, owner in every:
        if field == "name" and owner.kind in (Kind.PLAN, Kind.CLIENT):
            table = root.plans if owner.kind is Kind.PLAN else root.clients
            record = table.find("name", owner.name)
            return record is not None and getattr(record, path) == thing.name
    return False


def _has(me: Identity, needed: Permission, command: Command, named: list[Named]) -> bool:
    if command.whole or not named:
        return me.may(needed)
    return all(thing.permits(me, needed) for _path, _reference, thing in named)


def _judge_server(
    me: Identity, command: Command, params: Mapping[str, Any],
    named: list[Named], *, root: Root, server: Server,
) -> None:  # fmt: skip
    admin = serverside.administers(me)
    for path, _reference, thing in named:
        if admin or command.looks:
            continue
        past = thing.kind in (Kind.ARCHIVE, Kind.ARCHIVE_ID, Kind.JOB)
        if serverside.runs_here(root, server, thing.clients, past=past):
            raise serverside.refusal(path.rpartition(".")[2])
    for path, reference in command.references.items():
        for value in given(params, path) if reference.kind in SERVERSIDE else ():
            where = "directory" if reference.kind is Kind.DIRECTORY else path
            if value is None or not serverside.reaches(reference.kind, value, params, root, server):
                continue
            if not admin and (reference.kind is not Kind.PLACE or not server.roots):
                raise serverside.refusal(where, reference.kind)
            if reference.kind in (Kind.PLACE, Kind.DIRECTORY):
                serverside.check_place(value, server, field=where)
            if reference.kind is Kind.PLACE:
                serverside.check_roots(value, server, field=path)
