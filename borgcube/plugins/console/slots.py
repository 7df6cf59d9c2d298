"""Pages about slots: how many jobs may run at once, how many do, and the form to bound them.

What is used is the daemon's word, as is the limit in all, which is of its configuration.
Limits of repositories and networks are changed through control, by those who may configure,
as over the API. Called by the console only.
"""

from __future__ import annotations

from typing import Any

from pyramid.httpexceptions import HTTPSeeOther

from borgcube.core.access import Permission
from borgcube.core.errors import BorgCubeError
from borgcube.core.forms import Field, Form
from borgcube.core.texts import _
from borgcube.plugins.console import queries
from borgcube.plugins.console.resources import add
from borgcube.plugins.console.schedules import Schedules

REPOSITORY, NETWORK = "repository", "network"
OTHER = f"{NETWORK}:"  # one that has no limit yet
MOST = 10_000
PLACES = {REPOSITORY: _("repository"), NETWORK: _("network")}


def fields(request: Any, rows: list[dict[str, Any]]) -> list[Field]:
    """Return the fields of a limit; ``rows`` are those that there are."""
    names = set(request.db.repositories.named(queries.MAX_RECORDS))
    names |= {row["name"] for row in rows if row["what"] == REPOSITORY}
    networks = sorted(row["name"] for row in rows if row["what"] == NETWORK)
    return [
        Field("of", _("Jobs of"), "choice", required=True, choices=[
            *((f"{REPOSITORY}:{name}", _("repository %(name)s", name=name))
              for name in sorted(names)),
            *((f"{NETWORK}:{name}", _("network %(name)s", name=name)) for name in networks),
            (OTHER, _("the network named below")),
        ]),
        Field("network", _("Name of another network"),
              help=_("As its clients have it in their field Network. Needed only if you chose"
              " it above.")),
        Field("slots", _("At most so many at once"), "number", required=True, least=0,
              most=MOST, help=_("What runs already goes on. 0 takes the limit away.")),
    ]  # fmt: skip


def _meant(values: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of ``slots.set`` that checked values mean."""
    what, _colon, name = values["of"].partition(":")
    return {what: name or values["network"], "slots": values["slots"]}


def slots(context: Schedules, request: Any) -> dict[str, Any]:
    """Show how many jobs may run at once, and how many do."""
    return {"rows": request.act("slots.list"), "places": PLACES,
            "may_configure": request.me.may(Permission.CONFIGURE)}  # fmt: skip


def limit(context: Schedules, request: Any) -> Any:
    """Set how many jobs of one repository or network may run at once."""
    rows = request.act("slots.list")
    form = Form(fields(request, rows))
    if request.method == "GET":
        asked = str(request.params.get("of", ""))[:100]
        known = {f"{row['what']}:{row['name']}": str(row["slots"]) for row in rows}
        form.values |= {"of": asked, "slots": known.get(asked, "")}
        return {"form": form}
    values = form.read(request.POST)
    if values is not None and values["of"] == OTHER and not values["network"]:
        form.errors["network"] = _("This is needed.")
    elif values is not None:
        try:
            request.act("slots.set", **_meant(values))
            return HTTPSeeOther(request.path_to("schedules", "+slots"))
        except BorgCubeError as error:
            form.refuse(error)
    request.response.status_code = 400
    return {"form": form}


def includeme(config: Any) -> None:
    """Add the views."""
    add(config, slots, Schedules, "+slots", template="slots", permission=Permission.VIEW_SERVER)
    add(config, limit, Schedules, "+limit", template="slot", permission=Permission.CONFIGURE,
        posts=True)  # fmt: skip
