"""The API's chassis: from a request to an endpoint that a plugin brought, and back to JSON.

``includeme`` adds one route for everything below ``/api/v1``. It imports no plugin: the
endpoints come from the registry, and what they mean is ``core.api``'s.
"""

from __future__ import annotations

from typing import Any

from pyramid.security import NO_PERMISSION_REQUIRED

from borgcube.core.api import BASE
from borgcube.web.api.dispatch import Dispatcher


def includeme(config: Any) -> None:
    """Add the route and its one view, which does its own checks and answers every error."""
    dispatcher = Dispatcher(config.registry.plugins, config.registry.console_policy)
    config.registry.api_endpoints = dispatcher.endpoints
    config.add_route("api", f"{BASE}{{rest:(/[\\s\\S]*)?}}")  # a line's end is a character too
    # A token is no cookie: the check against forged forms is the dispatcher's, where one is.
    config.add_view(dispatcher.view, route_name="api", permission=NO_PERMISSION_REQUIRED,
                    require_csrf=False)  # fmt: skip
