"""The dashboard: one sentence, then the cards that plugins brought."""

from __future__ import annotations

import logging
from typing import Any

from markupsafe import Markup
from pyramid.renderers import render

from borgcube.core import listing
from borgcube.core.access import Permission
from borgcube.core.quarantine import counts
from borgcube.core.web import SiteRoot
from borgcube.plugins.console import fleet, overview
from borgcube.plugins.console.resources import add

LOG = logging.getLogger(__name__)


def dashboard(context: Any, request: Any) -> dict[str, Any]:
    """Show the dashboard; a card that fails is left out and named in the log."""
    cards = []
    known = request.plugins.registered["register_cards"].values()
    for card in sorted(known, key=lambda card: (card.order, card.name)):
        if not request.me.may(card.permission):
            continue
        try:
            values = card.draw(request)
            shown = "" if values is None else render(card.template, {"values": values}, request)
        except Exception:
            LOG.exception("the card %s cannot be drawn", card.name)
            continue
        cards.append({"card": card, "markup": Markup(shown.strip())})
    overall = fleet.overall(request)
    newest = listing.visible(request.me, request.db.archives, 1, counts)
    return {
        "cards": cards, "sentence": overview.sentence(request),
        "newest": newest[0].at if newest else "",
        "protected": overall.protected, "plans": overall.total,
        # Who sees some clients only is not told whether there are others.
        "has_repository": request.me.limited or bool(request.db.repositories.newest(1)),
        "has_client": request.me.limited or bool(request.db.clients.newest(1)),
        "may_configure": request.me.may(Permission.CONFIGURE),
    }  # fmt: skip


def includeme(config: Any) -> None:
    """Add the view."""
    add(config, dashboard, SiteRoot, template="dashboard")
