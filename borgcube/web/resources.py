"""The root of the tree: its children are the pages that plugins registered."""

from __future__ import annotations

from typing import Any

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
