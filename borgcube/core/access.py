"""Who may do what: permissions, roles, and the identity that a request or a token has.

Pure rules. The console asks them for every page, action and live event; the daemon, of each
request that has an asker, for all that it names (``core.authority``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from borgcube.core.texts import _


class Permission(StrEnum):
    """What can be allowed."""

    VIEW = "view"  # clients, plans, jobs and archives, each role those it may see
    VIEW_SERVER = "view-server"  # repositories, events, plugins, the server's state
    OPERATE = "operate"  # run, run again, cancel
    RESTORE = "restore"
    CONFIGURE = "configure"  # clients, plans, repositories, host keys
    DELETE = "delete"  # archives
    REVEAL = "reveal"  # passphrases
    ADMINISTER = "administer"  # users, tokens of others, the audit trail


class Role(StrEnum):
    """What a user is; :data:`GRANTS` says what each may do."""

    ADMINISTRATOR = "administrator"
    OPERATOR = "operator"
    VIEWER = "viewer"
    OWNER = "owner"


_P = Permission
GRANTS: Mapping[Role, frozenset[Permission]] = {
    Role.ADMINISTRATOR: frozenset(Permission),
    Role.OPERATOR: frozenset({_P.VIEW, _P.VIEW_SERVER, _P.OPERATE, _P.RESTORE, _P.CONFIGURE}),
    Role.VIEWER: frozenset({_P.VIEW, _P.VIEW_SERVER}),
    Role.OWNER: frozenset({_P.VIEW, _P.OPERATE, _P.RESTORE}),
}
CALLED: Mapping[Role, str] = {
    Role.ADMINISTRATOR: _("administrator"),
    Role.OPERATOR: _("operator"),
    Role.VIEWER: _("viewer"),
    Role.OWNER: _("owner"),
}
EXPLAINED: Mapping[Role, str] = {
    Role.ADMINISTRATOR: _("everything, users and passphrases included"),
    Role.OPERATOR: _(
        "set up, run and restore; no deletion, passphrases or users, not the server itself"
    ),
    Role.VIEWER: _("look at everything, change nothing"),
    Role.OWNER: _("see, back up and restore their own clients only"),
}
# Families of events whose pages show the server, whatever client an event names.
EVENTS_OF_THE_SERVER = ("check.", "incident.", "notification.", "repository.", "trigger.")
# Where a resource belongs to no client in particular, such as the list of all clients.
ANY_CLIENT = None


@dataclass(frozen=True)
class Identity:
    """Who asks. ``scope`` limits a token below its user's role; None means no limit.

    ``restricted`` means that only ``clients`` are seen, whatever the role; ``token`` is the
    name of the API token that is used, if it is one.
    """

    user: str
    role: Role
    clients: frozenset[str] = frozenset()
    scope: frozenset[Permission] | None = None
    session: str = ""
    restricted: bool = False
    token: str = ""

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data, for the control socket."""
        return {
            "user": self.user, "role": self.role.value, "clients": sorted(self.clients),
            "scope": None if self.scope is None else sorted(self.scope),
            "session": self.session, "restricted": self.restricted, "token": self.token,
        }  # fmt: skip

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Identity:
        """Return the identity that :meth:`as_data` wrote; raises KeyError, TypeError or
        ValueError for anything else."""
        scope = data["scope"]
        if type(data["restricted"]) is not bool or not isinstance(data["clients"], list):
            raise TypeError("this is no identity")
        return cls(
            user=str(data["user"]), role=Role(data["role"]),
            clients=frozenset(map(str, data["clients"])),
            scope=None if scope is None else frozenset(map(Permission, scope)),
            session=str(data["session"]), restricted=data["restricted"],
            token=str(data["token"]),
        )  # fmt: skip

    @property
    def limited(self) -> bool:
        """Whether only some clients are seen."""
        return self.role is Role.OWNER or self.restricted

    def in_sight(self, client: str | None) -> bool:
        """Return whether what belongs to ``client`` exists at all for who asks."""
        return client is ANY_CLIENT or not self.limited or client in self.clients

    def may(self, permission: Permission, *, client: str | None = ANY_CLIENT) -> bool:
        """Return whether this is allowed, on what belongs to ``client``.

        An owner may list (``client`` None) but act only on clients of their own; what
        belongs to no client at all has the empty name, which nobody owns.
        """
        if not self.may_at_all(permission):
            return False
        if self.limited and client is not ANY_CLIENT:
            return client in self.clients
        return not (self.limited and permission is not Permission.VIEW)

    def may_at_all(self, permission: Permission) -> bool:
        """Return whether this is allowed on anything, whatever that is."""
        return permission in GRANTS[self.role] and (self.scope is None or permission in self.scope)

    def sees(self, client: str) -> bool:
        """Return whether what belongs to ``client`` is shown at all."""
        return self.may(Permission.VIEW, client=client)

    def sees_event(
        self, kind: str, data: Mapping[str, Any], *, clients: frozenset[str] | None = frozenset()
    ) -> bool:
        """Return whether an event of this type with this data is shown, as the pages would.

        ``clients`` are those that its job concerns, None when that job is forgotten. What
        belongs to no client is the server's, and so are some families of events that name one.
        """
        owners, named = clients or frozenset(), str(data.get("client") or "")
        if named:
            owners = (owners if owners != {""} else frozenset()) | {named}
        whose = clients is not None and owners and owners != {""}
        if not whose or kind.startswith(EVENTS_OF_THE_SERVER):
            return self.may(Permission.VIEW_SERVER)
        return all(self.sees(owner) for owner in owners)
