"""What plugins bring to the console: pages, cards, tabs, and the resources behind paths.

Plain data and plain Python: nothing here knows the web framework. The path of a page is
the path of its resource (traversal): ``/clients/web1`` asks the resource named ``clients``
for ``web1``. Words with a leading ``+`` are forms of a collection (``/clients/+add``); no
record can have such a name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from borgcube.core.access import ANY_CLIENT, Identity, Permission
from borgcube.core.registry import Registry
from borgcube.core.texts import _

if TYPE_CHECKING:
    from borgcube.core.sight import Words
    from borgcube.core.store import Root


class WebRequest(Protocol):
    """What the chassis adds to a request, for views, resources, cards and tabs."""

    db: Root  # one consistent state for the whole request; read only
    me: Identity
    plugins: Registry

    def act(self, method: str, **params: Any) -> Any:
        """Ask the daemon to do something, in the name of the user. Raises
        ``BorgCubeError`` with the daemon's words (``field`` names the parameter)."""

    def may(self, method: str, **params: Any) -> bool:
        """Return whether the daemon would let the user ask this, for what a page offers."""

    words: Words  # puts what the server says so that who asks may read it

    def confirm(self, *, password: str = "", code: str = "") -> bool:
        """Have the person's password or code compared, after which what ``core.confirming``
        lists is done for ten minutes without asking; False when it is wrong."""

    def check_confirmed(self, method: str) -> None:
        """Ask for the password now, if ``method`` would: before a form is filled in."""

    def translated(self, text: Any) -> Any:
        """Return a text marked with ``core.texts`` in the reader's language. Templates do
        so by themselves; what leaves as JSON or in a header needs it."""

    languages: list[tuple[str, str]]  # to choose from, each with its own name

    def progress_of(self, job_id: str) -> Mapping[str, Any]:
        """Return the latest figures of a running job, empty when there are none."""

    def download(self, *, repository: str, id: str, key: str) -> Any:
        """Return the answer that has a browser save a file of an archive, by the archive's ID
        and the file's path as :meth:`core.engines.Engine.browse` tells it. The view's path must
        end with ``/content``. Raises ``BorgCubeError``."""

    def path_to(self, *words: str, **query: str) -> str:
        """Return the path of a page, quoted, with the prefix of a reverse proxy."""

    def address_of(self, *words: str, **query: str) -> str:
        """Return the whole address of a page as it is configured, whatever the request said:
        for links that leave the console."""


class Resource:
    """A place in the tree. ``client_name`` is the client it belongs to, for permissions;
    None where it belongs to none in particular. One with a ``record`` does not exist for those
    who may not see its client, or who lack what it ``needs`` altogether."""

    title = ""
    client_name: str | None = ANY_CLIENT
    record: Any = None
    needs = Permission.VIEW

    def __init__(self, request: Any, *, name: str, parent: Resource | None) -> None:
        self.request = request
        self.__name__ = name
        self.__parent__ = parent

    def __getitem__(self, name: str) -> Any:
        raise KeyError(name)


@dataclass(frozen=True)
class Page:
    """An entry of the navigation and everything below it.

    ``include`` configures views (a Pyramid ``includeme``); ``resource`` makes the resource
    for ``/name``. ``order`` sorts within ``section``.
    """

    name: str
    title: str
    icon: str
    resource: Callable[..., Resource]
    include: Callable[[Any], None]
    permission: Permission = Permission.VIEW
    section: str = _("Backup")
    order: int = 100
    hidden: bool = False


@dataclass(frozen=True)
class Card:
    """A card of the dashboard. ``draw`` returns what its ``template`` shows, or None for
    no card; ``events`` are topics after which it is drawn anew."""

    name: str
    title: str
    template: str
    draw: Callable[[Any], Mapping[str, Any] | None]
    permission: Permission = Permission.VIEW
    order: int = 100
    wide: bool = False
    events: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tab:
    """A section on the page of a ``client``, ``plan``, ``repository``, ``archive`` or
    ``job``. ``draw`` gets the request and the record, returns what ``template`` shows or
    None for no tab."""

    name: str
    title: str
    of: str
    template: str
    draw: Callable[[Any, Any], Mapping[str, Any] | None]
    permission: Permission = Permission.VIEW
    order: int = 100
    options: Mapping[str, Any] = field(default_factory=dict)


class SiteRoot(Resource):
    """``/``. The chassis makes it; a view on it without a name is the dashboard."""
