"""Metrics for Prometheus at ``/metrics``, with a token of their own.

What imports the web framework or the client library is imported only when the page is used.
"""

from __future__ import annotations

from typing import Any

from borgcube.core.access import Permission
from borgcube.core.hookspecs import hookimpl
from borgcube.core.web import Page, Resource


class Metrics(Resource):
    """``/metrics``; it belongs to no client, so an owner does not see it."""

    client_name = ""


def _include(config: Any) -> None:
    config.include("borgcube.plugins.metrics.view")


@hookimpl
def register_pages() -> list[Page]:
    """Offer the endpoint; it is not in the navigation."""
    return [Page("metrics", "Metrics", "job", Metrics, _include, Permission.VIEW_SERVER,
                 hidden=True)]  # fmt: skip
