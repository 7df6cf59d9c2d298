"""Pages about clients: the list, one client, taking a new one in until it turns green."""

from __future__ import annotations

from typing import Any

from pyramid.httpexceptions import HTTPSeeOther

from borgcube.core import rereading
from borgcube.core.access import Permission
from borgcube.core.errors import BorgCubeError
from borgcube.core.forms import Form
from borgcube.core.model.fleet import of_client
from borgcube.core.texts import _
from borgcube.plugins.console import fleet, forms, queries
from borgcube.plugins.console.resources import ClientItem, Clients, add

# How far a new client has come: what the page waits for.
UNREACHABLE, COMPARE, LOGIN, READY = "unreachable", "compare", "login", "ready"
MAX_PLANS = 24
STATES = (UNREACHABLE, COMPARE, LOGIN, READY)


def clients(context: Clients, request: Any) -> dict[str, Any]:
    """List clients with the state of their plans, by page."""
    asked = {name: str(request.params.get(name, ""))[:100] for name in ("level", "find")}
    rows, after = fleet.clients(
        request, level=asked["level"], find=asked["find"],
        after=str(request.params.get("after", ""))[:200],
    )  # fmt: skip
    kept = {name: value for name, value in asked.items() if value}
    return {"rows": rows, "find": asked["find"], "asked": asked, "filtered": bool(kept),
            "more": request.path_to("clients", **kept, after=after) if after else "",
            "first_page": not request.params.get("after")}  # fmt: skip


def client(context: ClientItem, request: Any) -> dict[str, Any]:
    """Show one client."""
    name = context.record.name
    plans, _ = fleet.safeties(request, MAX_PLANS, group=of_client(name))
    return {
        "client": context.record,
        "plans": plans,
        "more_plans": request.db.fleet.group(of_client(name)).total - len(plans),
        "jobs": queries.visible(request, request.db.jobs, 10, client=name),
        "archives": queries.visible(request, request.db.archives, 10, client=name),
        "clock": request.db.clocks.get(name, 0),
        "rereads": rereading.wanted_of(request.db, name, most=MAX_PLANS),
        "may_operate": request.has_permission(Permission.OPERATE),
        "may_configure": request.has_permission(Permission.CONFIGURE),
    }


def new(context: Clients, request: Any) -> Any:
    """Take a new client in: a key is made for it, unless it is this server."""
    form = Form(forms.client_fields(request))
    if request.method == "POST":
        values = form.read(request.POST)
        if values is not None:
            try:
                values = forms.client_meant(request, values)
                if values["transport"] == "local":
                    values = {**values, "host": "", "user": ""}
                    request.act("client.add", **values)
                elif not values["host"]:
                    form.errors["host"] = _("This is needed, except for this server itself.")
                else:
                    request.act("client.enrol", **values)
                if not form.errors:
                    return HTTPSeeOther(request.path_to("clients", values["name"], "connect"))
            except BorgCubeError as error:
                form.refuse(error)
        request.response.status_code = 400
    return {"form": form}


Keys = list[dict[str, str]]


def probe(request: Any, client: Any) -> tuple[str, str, Keys, Keys]:
    """Return how far a client has come, in words as well, the keys its host offers, and
    those that were trusted for it."""
    try:
        offered = request.act("client.host_keys", name=client.name)
    except BorgCubeError as error:
        return UNREACHABLE, error.message, [], []
    if not offered["known"]:
        return COMPARE, _("The machine answers."), offered["keys"], offered["trusted"]
    keys, trusted = offered["keys"], offered["trusted"]
    try:
        version = request.act("client.test", name=client.name)["borg_version"]
    except BorgCubeError as error:
        return LOGIN, f"{error.message} {error.next_step}".strip(), keys, trusted
    return READY, version, keys, trusted


def connect(context: ClientItem, request: Any) -> dict[str, Any]:
    """Show what is left to do until a client can be backed up."""
    state = request.params.get("state", "")
    message = ""
    keys: Keys = []
    trusted: Keys = []
    if state == COMPARE or request.method == "POST":
        # Look again: what is compared must be what the machine offers now.
        state, message, keys, trusted = probe(request, context.record)
    elif state == READY:
        state, message, keys, trusted = probe(request, context.record)
    line = ""
    if context.record.transport != "local":
        try:
            line = request.act("client.enrolment", name=context.record.name)["line"]
        except BorgCubeError:
            line = ""  # it uses a key of the person's own
    return {"client": context.record, "state": state if state in STATES else UNREACHABLE,
            "message": message, "keys": keys, "trusted": trusted, "line": line,
            "asked": bool(state)}  # fmt: skip


def state(context: ClientItem, request: Any) -> dict[str, str]:
    """Say how far a client has come, for the page that waits."""
    found, message, *_keys = probe(request, context.record)
    return {"state": found, "message": request.translated(message)}


STEP_NAMES = {
    "resolve": _("Find its address"), "connect": _("Reach its SSH daemon"),
    "host-key": _("Know its host key"), "login": _("Log in"),
    "shell": _("Find a shell and room for temporary files"), "borg": _("Find borg"),
}  # fmt: skip


def test(context: ClientItem, request: Any) -> dict[str, Any]:
    """Test the way to a client, step by step."""
    found = request.act("client.diagnose", name=context.record.name)
    return {"client": context.record, "names": STEP_NAMES, **found}


def trust(context: ClientItem, request: Any) -> Any:
    """Accept exactly the host keys that were shown."""
    lines = [str(line)[:2000] for line in request.POST.getall("line")]
    request.act("client.trust", name=context.record.name, lines=lines)
    return HTTPSeeOther(request.path_to("clients", context.record.name, "connect"))


def includeme(config: Any) -> None:
    """Add the views."""
    configure = Permission.CONFIGURE
    add(config, clients, Clients, template="clients")
    add(config, new, Clients, "+add", template="client_new", permission=configure, posts=True)
    add(config, client, ClientItem, template="client")
    add(config, connect, ClientItem, "connect", template="client_connect",
        permission=configure, posts=True)  # fmt: skip
    add(config, test, ClientItem, "test", permission=configure, posts=True,
        renderer="borgcube.plugins.console:templates/client_test.jinja2")  # fmt: skip
    add(config, state, ClientItem, "state", renderer="json", permission=configure, posts=True)
    add(config, trust, ClientItem, "trust", permission=configure, posts=True)
