"""The requests' own abilities: one snapshot of the store, actions through control, paths.

Each thread keeps one connection to the control socket; the snapshot is closed at the end
of its request.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from markupsafe import Markup
from pyramid.renderers import render

from borgcube.control.client import QUICK_S, SLOW_S, Control
from borgcube.core import authority, sight
from borgcube.core.access import Identity
from borgcube.core.errors import BorgCubeError
from borgcube.core.store import Root, Store
from borgcube.web import confirming

LOG = logging.getLogger(__name__)
# Methods that may take long: they log in to a machine, or make a repository.
SLOW_METHODS = frozenset(
    {
        "repository.create",
        "repository.import",
        "client.test",
        "client.host_keys",
        "archive.browse",
        "archive.download",
        "client.diagnose",
    }
)


class ControlDoor:
    """Control connections, one for each thread of the console."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._local = threading.local()

    def call(
        self, method: str, *, actor: Mapping[str, str], asker: Identity | None, **params: Any
    ) -> Any:
        """Call a control method in the name of ``asker``, None for a stranger; the daemon says
        whether they may. Raises BorgCubeError as ``Control.call`` does."""
        control = getattr(self._local, "control", None)
        if control is None:
            control = self._local.control = Control(self._home)
        timeout = SLOW_S if method in SLOW_METHODS else QUICK_S
        who = asker.as_data() if asker is not None else {}
        return control.call(method, timeout_s=timeout, actor=actor, asker=who, **params)


def add_request_methods(
    config: Any, *, store: Store, door: ControlDoor, hub: Any, server: authority.Server
) -> None:
    """Give requests what ``core.web.WebRequest`` promises."""

    def db(request: Any) -> Root:
        reading = store.reading()
        root = reading.__enter__()
        request.add_finished_callback(lambda _request: reading.__exit__(None, None, None))
        return root

    def me(request: Any) -> Identity:
        identity: Identity = request.identity
        return identity

    def call(request: Any, method: str, **params: Any) -> Any:
        who = request.identity
        token = who.token if who is not None else ""
        confirming.check(request, method, params)
        actor = {"user": who.user if who is not None else "",
                 "via": f"API token {token}" if token else "console",
                 "address": request.client_addr or ""}  # fmt: skip
        return door.call(method, actor=actor, asker=who, **params)

    def may(request: Any, method: str, **params: Any) -> bool:
        try:
            authority.judge(request.identity, method, params, root=request.db, server=server)
        except BorgCubeError:
            return False
        return True

    def progress_of(_request: Any, job_id: str) -> Mapping[str, Any]:
        figures: Mapping[str, Any] = hub.progress.get(job_id, {})
        return figures

    def tabs_of(request: Any, kind: str, record: Any) -> list[dict[str, Any]]:
        """Return what plugins add to the page of a record; one that fails is left out."""
        drawn = []
        known = request.plugins.registered["register_tabs"].values()
        client = getattr(request.context, "client_name", None)
        for tab in sorted(known, key=lambda tab: (tab.order, tab.name)):
            if tab.of != kind or not request.me.may(tab.permission, client=client):
                continue
            try:
                values = tab.draw(request, record)
                if values is not None:
                    markup = render(tab.template, {"values": values}, request).strip()
                    drawn.append({"tab": tab, "markup": Markup(markup)})
            except Exception:
                LOG.exception("the tab %s cannot be drawn", tab.name)
        return drawn

    def path_to(request: Any, *words: str, **query: str) -> str:
        path = "/".join(quote(str(word), safe="@+~:") for word in words)
        asked = f"?{urlencode(query)}" if query else ""
        return f"{request.script_name}/{path}{asked}"

    def address_of(request: Any, *words: str, **query: str) -> str:
        prefix = request.script_name
        return str(request.registry.console_url.removesuffix(prefix)) + path_to(
            request, *words, **query
        )

    config.add_request_method(db, "db", reify=True)
    config.add_request_method(
        lambda request: sight.Words(request.me, request.db), "words", reify=True
    )
    config.add_request_method(me, "me", property=True)
    config.add_request_method(call, "call")
    config.add_request_method(call, "act")
    config.add_request_method(may, "may")
    config.add_request_method(confirming.confirm, "confirm")
    config.add_request_method(
        lambda request, method: confirming.check(request, method, {}), "check_confirmed"
    )
    config.add_request_method(progress_of, "progress_of")
    config.add_request_method(path_to, "path_to")
    config.add_request_method(address_of, "address_of")
    config.add_request_method(tabs_of, "tabs_of")
    config.add_request_method(lambda _request: config.registry.plugins, "plugins", property=True)
