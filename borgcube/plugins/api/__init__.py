"""The built-in endpoints of the API, brought through the same hook as anybody's, and the
page of the console that describes all of them.

Each module has the endpoints of one thing. None changes anything itself: handlers look at
the store or ask the daemon.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from borgcube.core.hookspecs import hookimpl
from borgcube.core.texts import _
from borgcube.core.web import Page, Resource

if TYPE_CHECKING:
    from borgcube.core.api import Endpoint

ROOMS = (
    "clients", "plans", "fleet", "repositories", "jobs", "archives", "retention", "checks",
    "schedules", "notices", "server", "access",
)  # fmt: skip


@hookimpl
def register_endpoints() -> list[Endpoint]:
    """Offer the built-in endpoints."""
    rooms = [import_module(f"{__name__}.{name}") for name in ROOMS]
    return [endpoint for room in rooms for endpoint in room.ENDPOINTS]


def _include(config: Any) -> None:
    config.include("borgcube.plugins.api.page")


@hookimpl
def register_pages() -> list[Page]:
    """Offer the page that describes the API."""
    return [Page("api", _("API"), "plugin", ApiPage, _include, section="Server", order=25)]


class ApiPage(Resource):
    """``/api``: the description for people; programs have ``/api/v1/openapi.json``."""

    title = _("API")
