"""The root of the tree: its children are the pages that plugins registered."""

from __future__ import annotations

from typing import Any

from borgcube.core.texts import _
from borgcube.core.web import Resource, SiteRoot


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
