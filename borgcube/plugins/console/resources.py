"""The places below the console's pages: collections and the records in them."""

from __future__ import annotations

from typing import Any

from borgcube.core import sight
from borgcube.core.access import Permission
from borgcube.core.web import Resource


class Collection(Resource):
    """A page that lists things, or is just a page."""


class Item(Resource):
    """A record of the store, with what it belongs to."""

    def __init__(self, request: Any, *, name: str, parent: Resource, record: Any) -> None:
        super().__init__(request, name=name, parent=parent)
        self.record = record
        self.title = name


class _Named(Collection):
    """Records by name; ``_item`` makes the resource."""

    table = ""
    item: type[Item] = Item

    def __getitem__(self, name: str) -> Item:
        record = getattr(self.request.db, self.table).find("name", name)
        if record is None:
            raise KeyError(name)
        return self.item(self.request, name=name, parent=self, record=record)


class ClientItem(Item):
    """A client; owners see their own."""

    @property
    def client_name(self) -> str:  # type: ignore[override]
        """Return the client's name."""
        return str(self.record.name)


class BelongsToClient(Item):
    """A plan, job or archive of a client."""

    @property
    def client_name(self) -> str:  # type: ignore[override]
        """Return the name of its client, empty when it has none."""
        return str(self.record.client)


class PlanItem(BelongsToClient):
    """A plan."""


class JobItem(BelongsToClient):
    """A job."""


class ArchiveItem(BelongsToClient):
    """An archive."""


class DrillItem(BelongsToClient):
    """A restore drill."""


class RepositoryItem(Item):
    """A repository; it belongs to no client."""

    client_name = ""


class PolicyItem(Item):
    """A retention policy; it belongs to no client."""

    client_name = ""


class TriggerItem(Item):
    """A trigger; as over the API it belongs to no client."""

    client_name = ""


class UserItem(Item):
    """A user of the console; their names are the administrators' to know."""

    client_name = ""
    needs = Permission.ADMINISTER


class Clients(_Named):
    """``/clients``."""

    table, item = "clients", ClientItem


class Plans(_Named):
    """``/plans``."""

    table, item = "plans", PlanItem


class Repositories(_Named):
    """``/repositories``."""

    table, item = "repositories", RepositoryItem


class Policies(_Named):
    """``/policies``."""

    table, item = "policies", PolicyItem


class Triggers(_Named):
    """``/schedules/triggers``."""

    client_name = ""
    table, item = "triggers", TriggerItem


class Users(_Named):
    """``/users``."""

    table, item = "users", UserItem


class Jobs(Collection):
    """``/jobs``."""

    def __getitem__(self, name: str) -> JobItem:
        job = self.request.db.jobs.find("id", name)
        me = self.request.identity
        if job is None or (me is not None and not sight.sees_job(me, self.request.db, job)):
            raise KeyError(name)
        return JobItem(self.request, name=name, parent=self, record=job)


class Drills(Collection):
    """``/drills``."""

    def __getitem__(self, name: str) -> DrillItem:
        drill = self.request.db.drills.find("id", name)
        if drill is None:
            raise KeyError(name)
        return DrillItem(self.request, name=name, parent=self, record=drill)


class ArchivesOfRepository(Collection):
    """``/archives/REPOSITORY``: an archive's ID is its own only within one."""

    def __getitem__(self, name: str) -> ArchiveItem:
        for archive in self.request.db.archives.oldest("id", name):
            if archive.repository == self.__name__:
                return ArchiveItem(self.request, name=name, parent=self, record=archive)
        raise KeyError(name)


class Archives(Collection):
    """``/archives``."""

    def __getitem__(self, name: str) -> ArchivesOfRepository:
        if name.startswith("+"):
            raise KeyError(name)  # a view of this page
        return ArchivesOfRepository(self.request, name=name, parent=self)


def add(
    config: Any, view: Any, context: type[Resource], name: str = "", *, template: str = "",
    renderer: str = "", permission: Permission = Permission.VIEW, posts: bool = False,
    under: str = "",
) -> None:  # fmt: skip
    """Add a view. ``posts`` makes it take forms (GET shows, POST does) or, without a
    template, only POST; ``under`` ties it to the collection of that name."""
    predicates: dict[str, Any] = {"under": under} if under else {}
    methods = ("GET", "POST") if posts and template else ("POST",) if posts else ("GET",)
    config.add_view(
        view, context=context, name=name, permission=permission, request_method=methods,
        renderer=renderer or (f"borgcube.plugins.console:templates/{template}.jinja2"
                              if template else None),
        **predicates,
    )  # fmt: skip
