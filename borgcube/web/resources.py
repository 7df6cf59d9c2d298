"""The root of the tree: its children are the pages that plugins registered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyramid.httpexceptions import HTTPNotFound
from pyramid.traversal import ResourceTreeTraverser

from borgcube.core.access import Identity
from borgcube.core.texts import _
from borgcube.core.web import Resource, SiteRoot


class UnderPredicate:
    """A view's ``under``: it is for the page of that name only. For views on a class of
    resources that several pages use."""

    def __init__(self, value: str, _info: Any) -> None:
        self.value = value

    def text(self) -> str:
        """Return what the view is tied to."""
        return f"under = {self.value}"

    phash = text

    def __call__(self, context: Any, _request: Any) -> bool:
        """Return whether the view is for this resource."""
        return str(context.__name__) == self.value


class PlainTraverser(ResourceTreeTraverser):  # type: ignore[misc]
    """Walks the path and nothing else: no ``@@`` that chooses a view, no header with a root."""

    VIEW_SELECTOR = None
    VH_ROOT_KEY = "borgcube.no-virtual-root"


def own_path_only(view: Callable[..., Any], info: Any) -> Callable[..., Any]:
    """Have a view answer its own path and nothing below it (a Pyramid view deriver). One with
    ``below=True`` reads the words below by itself, as that of secret addresses does."""
    if info.options.get("below"):
        return view

    def answer(context: Any, request: Any) -> Any:
        beyond = request.matched_route is None and bool(request.subpath)
        if beyond and getattr(request, "exception", None) is None:
            raise HTTPNotFound
        return view(context, request)

    return answer


def exists_for(me: Identity, place: Any) -> bool:
    """Return whether a record's place, and all that it is in, is there for who asks."""
    while place is not None:
        if getattr(place, "record", None) is not None and not (
            me.in_sight(place.client_name) and me.may_at_all(place.needs)
        ):
            return False
        place = getattr(place, "__parent__", None)
    return True


def in_sight_only(view: Callable[..., Any], _info: Any) -> Callable[..., Any]:
    """Have what somebody may not see answer as what is not there does (a Pyramid view deriver):
    or the answer would tell which names are taken. Strangers get one answer to everything."""

    def answer(context: Any, request: Any) -> Any:
        if getattr(request, "exception", None) is None and request.matched_route is None:
            me = request.identity
            if me is not None and not exists_for(me, context):
                raise HTTPNotFound
        return view(context, request)

    return answer


own_path_only.options = ("below",)  # type: ignore[attr-defined]


class ConsoleRoot(SiteRoot):
    """``/``: the dashboard, and below it every page by its name."""

    title = _("Dashboard")

    def __init__(self, request: Any) -> None:
        super().__init__(request, name="", parent=None)

    def __getitem__(self, name: str) -> Resource:
        page = self.request.plugins.registered["register_pages"].get(name)
        if page is None:
            raise KeyError(name)
        resource: Resource = page.resource(self.request, name=name, parent=self)
        return resource
