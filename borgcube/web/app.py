"""Puts the Pyramid application together: security, templates, the plugins' pages.

A plugin whose pages cannot be included is named in the log and on the plugins page; the
rest of the console works.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

from pyramid.config import Configurator
from pyramid.viewderivers import INGRESS

from borgcube import __version__
from borgcube.core import authority
from borgcube.core.access import Permission
from borgcube.core.services import ServiceContext
from borgcube.core.store import Store
from borgcube.web import downloads, language, render
from borgcube.web.actions import ControlDoor, add_request_methods
from borgcube.web.navigation import navigation
from borgcube.web.resources import (
    ConsoleRoot,
    PlainTraverser,
    UnderPredicate,
    in_sight_only,
    own_path_only,
)
from borgcube.web.security import CSRF_FIELD, CSRF_HEADER, ConsolePolicy, CsrfPolicy
from borgcube.web.settings import WebSettings

LOG = logging.getLogger(__name__)
STATIC = Path(__file__).with_name("static")


def session_cookie(store: Store) -> str:
    """Return the session cookie's name: cookies do not tell ports apart, so two servers on
    one machine need different ones."""
    with store.reading() as root:
        return f"borgcube_{str(root.settings['server_id'])[:8]}"


def static_version() -> str:
    """Return a digest of all static files, which is part of their address."""
    digest = hashlib.sha256()
    for path in sorted(STATIC.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(STATIC).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def make_app(context: ServiceContext, settings: WebSettings, *, hub: Any, cookie: str) -> Any:
    """Return the WSGI application."""
    config = Configurator(root_factory=ConsoleRoot, settings={
        "jinja2.trim_blocks": True, "jinja2.lstrip_blocks": True, "jinja2.undefined": "strict",
        "jinja2.finalize": language.translated,
    })  # fmt: skip
    config.registry.plugins = context.registry
    config.registry.console_home = context.home
    config.registry.console_url = settings.public_url()
    config.include("pyramid_jinja2")
    language.set_up(config, directory=settings.translations)
    policy = ConsolePolicy(settings, cookie)
    config.registry.console_policy = policy
    config.registry.console_door = ControlDoor(context.home)
    config.set_security_policy(policy)
    config.set_csrf_storage_policy(CsrfPolicy(policy))
    # The origin is checked for every scheme by our own tween; Pyramid does so for https only.
    config.set_default_csrf_options(
        require_csrf=True, token=CSRF_FIELD, header=CSRF_HEADER, check_origin=False
    )
    config.add_view_predicate("under", UnderPredicate)
    config.add_traverser(PlainTraverser)
    config.add_view_deriver(own_path_only, under=INGRESS, over="secured_view")
    config.add_view_deriver(in_sight_only, under="own_path_only", over="secured_view")
    config.add_tween("borgcube.web.security.security_tween_factory")
    server = authority.Server(
        context.home, tuple(context.config.repositories.roots), context.registry.transports
    )
    add_request_methods(config, store=context.store, door=config.registry.console_door,
                        hub=hub, server=server)  # fmt: skip
    downloads.add_request_methods(config)
    static = f"static-{static_version()}"
    config.registry.console_static = static
    config.add_static_view(static, "borgcube.web:static", cache_max_age=31_536_000)
    config.include("borgcube.web.views")
    config.include("borgcube.web.confirming")
    config.include("borgcube.web.api")
    config.commit()
    environment = config.get_jinja2_environment()
    language.teach(environment)
    environment.filters.update(render.FILTERS)
    environment.globals.update(
        version=__version__, Permission=Permission, navigation=navigation, static_name=static,
        state_of=render.state, script_words=lambda: language.script_words(render.PHASES),
    )  # fmt: skip
    for page in context.registry.registered["register_pages"].values():
        include_page(config, page)
    language.find_languages(config)
    return config.make_wsgi_app()


def include_page(config: Any, page: Any) -> None:
    """Include the views of one plugin's page, or say why not."""
    try:
        config.include(page.include)
        config.commit()
    except Exception:
        LOG.exception("the page %s cannot be used", page.name)
