"""What reaches the server itself, and so is an administrator's, by what it touches.

A transport with ``runs_here`` reaches this machine as BorgCube's own user. Whoever sets up such
a client or a plan of it, starts its backups or reads what they saved could read the master key
or put a program where the server runs it; so could who names a directory or a key file here.
Repositories are made and taken in below configured roots; without any, an administrator says
where. In BorgCube's home there are none. The local command line is not asked.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from borgcube.core.access import Identity, Permission
from borgcube.core.authority.naming import Kind
from borgcube.core.errors import AccessDenied, InvalidInput
from borgcube.core.options import checked_options
from borgcube.core.store import Root

RAN_HERE = "ran_here"  # in the settings: client -> when it last did


@dataclass(frozen=True)
class Server:
    """What is known of this server: its home, where repositories may be, its transports."""

    home: Path
    roots: tuple[str, ...] = ()
    transports: Mapping[str, Any] = field(default_factory=dict)

    @property
    def here(self) -> frozenset[str]:
        """Return the transports that reach this machine."""
        return frozenset(
            name for name, one in self.transports.items() if getattr(one, "runs_here", False)
        )


def administers(me: Identity) -> bool:
    """Return whether who asks may do what reaches the server."""
    return me.may(Permission.ADMINISTER)


def runs_here(root: Root, server: Server, clients: Iterable[str], *, past: bool) -> bool:
    """Return whether one of the clients runs on this server; with ``past``, or did before.

    What a client saved while it ran here is the server's, whatever it is now. A transport that
    is not loaded cannot be asked, so it counts as one that does.
    """
    for name in clients:
        record = root.clients.find("name", name)
        if record is not None and (
            record.transport in server.here or record.transport not in server.transports
        ):
            return True
        if past and name in root.settings.get(RAN_HERE, {}):
            return True
    return False


def remember(root: Root, name: str, transport: Any, *, at: str) -> None:
    """Note that a client ran here; called when it is removed or gets another transport."""
    if getattr(transport, "runs_here", False):
        root.settings[RAN_HERE] = {**root.settings.get(RAN_HERE, {}), name: at}


def reaches(kind: Kind, value: Any, params: Mapping[str, Any], root: Root, server: Server) -> bool:
    """Return whether a field of one of the server's kinds asks for something of the server."""
    if kind is Kind.TRANSPORT:
        return str(value) in server.here
    if kind is Kind.UNFENCED:
        return bool(value)
    if kind is Kind.DIRECTORY:
        # Of a client elsewhere, the directory is there and not here.
        to_client = params.get("to_client")
        whose = to_client.get("client") if isinstance(to_client, Mapping) else None
        return whose is None or runs_here(root, server, [str(whose)], past=False)
    if kind is Kind.PLACE:
        return True
    client = root.clients.find("name", str(params.get("name") or ""))
    if kind is Kind.KEY:
        return value is not None and str(value) != (client.identity if client is not None else "")
    if value is None:
        return False
    stored = dict(client.options) if client is not None else {}
    return bool(_plain(value, params, client, server) != stored)


def _plain(value: Any, params: Mapping[str, Any], client: Any, server: Server) -> Any:
    """Return options as they would be stored: a form sends what is not set too."""
    name = params.get("transport") or (client.transport if client is not None else "openssh")
    try:
        return checked_options(server.transports[name], value)
    except Exception:
        return value  # the daemon says what is wrong with them


def real(value: Any, *, field: str) -> Path:
    """Return a path without links; raises InvalidInput for what is none."""
    try:
        return Path(os.path.realpath(str(value)))
    except ValueError as error:
        raise InvalidInput("This is not a path.", field=field) from error


def check_place(value: Any, server: Server, *, field: str) -> None:
    """Raise AccessDenied for a directory of the server that nothing may be put into over
    console and API: BorgCube's home, what is in it, and what it is in."""
    place, home = real(value, field=field), Path(os.path.realpath(server.home))
    if place.is_relative_to(home) or home.is_relative_to(place):
        raise AccessDenied("This is in the directory of BorgCube itself, or around it.",
                           next_step="Choose another directory.", field=field)  # fmt: skip


def check_roots(value: Any, server: Server, *, field: str) -> None:
    """Raise AccessDenied for a repository's directory outside of the configured roots."""
    place = real(value, field=field)
    roots = [Path(os.path.realpath(one)) for one in server.roots]
    if roots and not any(place != one and place.is_relative_to(one) for one in roots):
        raise AccessDenied(
            f"Repositories are made and imported below {', '.join(server.roots)} only.",
            next_step="Choose a directory there; others are for the command line of the server.",
            field=field,
        )  # fmt: skip


def refusal(field: str, kind: Kind | None = None) -> AccessDenied:
    """Return the refusal of what reaches the server; ``kind`` is what the field names."""
    if kind is Kind.PLACE:
        return AccessDenied(
            "No roots for repositories are set on this server, so only administrators make or"
            " import any.",
            next_step="Ask an administrator to do it, or to set repositories.roots.", field=field,
        )  # fmt: skip
    return AccessDenied(
        "This reaches the files of the server itself, which only administrators may.",
        next_step="Ask an administrator, or choose another client.", field=field,
    )  # fmt: skip
