"""What plugins bring to the API: endpoints as plain data, and what their handlers get.

Nothing here knows the web framework. The chassis (``web/api``) matches a request to an
endpoint, finds the record that it is about, checks permission, query and body, calls the
handler, and turns what it returns or raises into JSON. A handler only looks at ``call.db``
or asks the daemon with ``call.act``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from borgcube.core.access import Identity, Permission
from borgcube.core.schemas import Schema
from borgcube.core.store import Root

BASE = "/api/v1"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
MAX_BODY = 256 * 1024  # its longest form on the control socket is three times that
_PARAMETER = re.compile(r"\{([a-z_]+)\}")
_PATH = re.compile(r"(/[a-z0-9-]+|/\{[a-z_]+\})+")


@dataclass(frozen=True)
class Found:
    """The record that a call is about and the client it belongs to: the empty name where it
    belongs to none, None where everybody with the permission may (as in ``core.access``)."""

    record: Any
    client: str | None


@dataclass
class Call:
    """One checked request. ``query`` and ``body`` passed their schemas; ``version`` is what
    the caller saw of the record (``If-Match``), empty for whatever there is."""

    request: Any  # core.web.WebRequest
    path: Mapping[str, str]
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    version: str = ""
    record: Any = None

    @property
    def db(self) -> Root:
        """Return one consistent state of the store, read only."""
        root: Root = self.request.db
        return root

    @property
    def me(self) -> Identity:
        """Return who asks."""
        identity: Identity = self.request.me
        return identity

    def act(self, method: str, **params: Any) -> Any:
        """Ask the daemon to do something, as ``core.web.WebRequest.act``."""
        return self.request.act(method, **params)

    def address(self, *words: str) -> str:
        """Return the path of something in the API, quoted, with a reverse proxy's prefix."""
        path: str = self.request.path_to(*BASE.strip("/").split("/"), *words)
        return path


@dataclass(frozen=True)
class Answer:
    """What a handler returns when the data alone do not say it all.

    ``version`` goes into the ``ETag``, ``location`` is the path of what was made or of the
    job that does it, ``status`` stands in for the endpoint's own.
    """

    data: Any = None
    version: str = ""
    location: str = ""
    status: int = 0


@dataclass(frozen=True)
class Listing:
    """One page of a list; ``cursor`` is where the next one begins, empty at the end."""

    items: Sequence[Any]
    cursor: str = ""


Handler = Callable[[Call], Any]
Finder = Callable[[Call], Found | None]


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """An operation of the API.

    ``path`` is below :data:`BASE`, with parameters in braces. ``find`` looks up what the
    path names: None is 404, and so is what the caller may not see; without it the
    permission is asked for no client in particular. ``returns`` is the schema of what comes
    back (of one item, where it is ``paged``: such a handler returns a :class:`Listing`);
    None means an empty answer. ``versioned`` answers carry the record's version as
    ``ETag``, and changes honour ``If-Match``. ``person`` means a login, not a token. A
    handler of one that is ``binary`` returns ``call.request.download(...)``, and its path ends
    with ``/content``. A ``body`` that is ``optional`` may be left out; it is None then.
    """

    name: str
    method: str
    path: str
    summary: str
    handler: Handler
    permission: Permission = Permission.VIEW
    tag: str = ""
    description: str = ""
    find: Finder | None = None
    query: Mapping[str, Schema] = field(default_factory=dict)
    body: Schema | None = None
    optional: bool = False
    returns: Schema | None = None
    status: int = 200
    paged: bool = False
    versioned: bool = False
    person: bool = False
    binary: bool = False

    def __post_init__(self) -> None:
        if self.method not in METHODS or not _PATH.fullmatch(self.path):
            raise ValueError(f"endpoint {self.name}: {self.method} {self.path} cannot be used")

    @property
    def parameters(self) -> tuple[str, ...]:
        """Return the names of the path's parameters."""
        return tuple(_PARAMETER.findall(self.path))

    @property
    def pattern(self) -> re.Pattern[str]:
        """Return what matches its path, each parameter being one word."""
        return re.compile(_PARAMETER.sub(r"(?P<\1>[^/]+)", self.path))


def named(table: str, *, client: Callable[[Any], str | None], key: str = "name") -> Finder:
    """Return a finder for records of a table by an indexed field, which is the path's
    parameter ``{key}``; ``client`` tells whose a record is."""

    def find(call: Call) -> Found | None:
        record = getattr(call.db, table).find(key, call.path[key])
        return None if record is None else Found(record, client(record))

    return find
