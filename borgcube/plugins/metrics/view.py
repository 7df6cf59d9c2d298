"""The view ``/metrics``: who may read it, and one answer for all who ask within a moment."""

from __future__ import annotations

import threading
import time
from typing import Any

from prometheus_client import ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import CollectorRegistry
from pyramid.httpexceptions import HTTPForbidden
from pyramid.response import Response
from pyramid.security import NO_PERMISSION_REQUIRED

from borgcube.core import credentials
from borgcube.core.access import Permission
from borgcube.plugins.metrics import Metrics
from borgcube.plugins.metrics.collector import StoreCollector, plan_lines

FRESH_S = 5.0
# A large fleet must not keep a thread busy with nothing but figures.
REST = 10.0
TOKEN = "metrics_token"
EOF = b"# EOF\n"  # ends what is in the format OpenMetrics


class Exposition:
    """Makes the text, and keeps it for a few seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[float, bytes]] = {}

    def of(self, root: Any, accept: str) -> tuple[bytes, str]:
        """Return text and content type for an ``Accept`` header."""
        encoder, content_type = choose_encoder(accept)
        with self._lock:
            until, body = self._kept.get(content_type, (0.0, b""))
            if time.monotonic() >= until:
                begun = time.monotonic()
                registry = CollectorRegistry(auto_describe=False)
                registry.register(StoreCollector(root))
                ProcessCollector(registry=registry)
                body = encoder(registry)
                end = EOF if body.endswith(EOF) else b""
                body = body.removesuffix(EOF) + plan_lines(root) + end
                took = time.monotonic() - begun
                fresh = max(FRESH_S, REST * took)
                self._kept = {content_type: (time.monotonic() + fresh, body)}
        return body, content_type


def _may_read(request: Any) -> bool:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    kept = str(request.db.settings.get(TOKEN, ""))
    if scheme.lower() == "bearer" and kept:
        if credentials.same(credentials.digest(given.strip()), kept):
            return True
    return bool(request.has_permission(Permission.VIEW_SERVER))


def metrics(context: Metrics, request: Any) -> Response:
    """Answer with the figures."""
    if not _may_read(request):
        if request.identity is None:
            return Response("A token is needed: borgcube metrics token\n", status=401,
                            content_type="text/plain", charset="utf-8",
                            headers={"WWW-Authenticate": "Bearer"})  # fmt: skip
        raise HTTPForbidden
    body, content_type = request.registry.borgcube_metrics.of(
        request.db, request.headers.get("Accept", "")
    )
    return Response(body, headers={"Content-Type": content_type})


def includeme(config: Any) -> None:
    """Add the view."""
    config.registry.borgcube_metrics = Exposition()
    # Prometheus has no login: the view looks at the token itself.
    config.add_view(metrics, context=Metrics, permission=NO_PERMISSION_REQUIRED,
                    request_method="GET")  # fmt: skip
