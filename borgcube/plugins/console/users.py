"""Pages about users: the list, adding one, role, link, disabling and removing."""

from __future__ import annotations

from typing import Any

from pyramid.httpexceptions import HTTPSeeOther

from borgcube.core.access import EXPLAINED, Permission
from borgcube.core.errors import BorgCubeError
from borgcube.core.forms import Form
from borgcube.core.texts import _, several
from borgcube.plugins.console import asking, forms, queries
from borgcube.plugins.console.resources import UserItem, Users, add

ADMINISTER = Permission.ADMINISTER


def link_path(request: Any, token: str) -> str:
    """Return the whole address of a one-time link."""
    return str(request.address_of("link", token=token))


def users(context: Users, request: Any) -> dict[str, Any]:
    """List users."""
    found = sorted(request.db.users.newest(queries.MAX_RECORDS), key=lambda u: str(u.name))
    return {"users": found, "explained": {r.value: t for r, t in EXPLAINED.items()}}


def new(context: Users, request: Any) -> Any:
    """Add a user, who gets a link to log in with and choose a password."""
    request.check_confirmed("user.add")
    form = Form(forms.user_fields(request))
    link = ""
    if request.method == "POST":
        values = form.read(request.POST)
        if values is not None:
            try:
                made = request.act("user.add", **values)
                link = link_path(request, made["link"])
            except BorgCubeError as error:
                form.refuse(error)
        if not link:
            request.response.status_code = 400
    return {"form": form, "link": link}


def user(context: UserItem, request: Any) -> Any:
    """Show one user, and change the role."""
    record = context.record
    form = Form([spec for spec in forms.user_fields(request) if spec.name != "name"],
                {"role": record.role, "clients": list(record.clients)})  # fmt: skip
    if request.method == "POST":
        values = form.read(request.POST)
        if values is not None:
            try:
                request.act("user.change", name=record.name, **values)
                return HTTPSeeOther(request.path_to("users", record.name))
            except BorgCubeError as error:
                form.refuse(error)
        request.response.status_code = 400
    return shown(request, record, form)


def shown(request: Any, record: Any, form: Form, link: str = "") -> dict[str, Any]:
    """Return what the page of a user shows."""
    return {
        "user": record,
        "form": form,
        "link": link,
        "without_code": False,
        "me": request.me.user == record.name,
        "sessions": list(request.db.sessions.oldest("user", record.name)),
        "tokens": list(request.db.tokens.oldest("user", record.name)),
    }


def make_link(context: UserItem, request: Any) -> dict[str, Any]:
    """Make a one-time login link for a user, shown once."""
    record = context.record
    without_code = request.POST.get("without_code") == "yes"
    made = request.act("link.make", user=record.name, without_code=without_code)
    form = Form([spec for spec in forms.user_fields(request) if spec.name != "name"],
                {"role": record.role, "clients": list(record.clients)})  # fmt: skip
    return shown(request, record, form, link_path(request, made["token"])) | {
        "without_code": without_code
    }


def act_on(method: str) -> Any:
    """Return a view that does one thing to a user."""

    def view(context: UserItem, request: Any) -> Any:
        request.act(method, **{"user" if method.startswith("factor") else "name":
                               context.record.name})  # fmt: skip
        return HTTPSeeOther(request.path_to("users", context.record.name))

    return view


def remove(context: UserItem, request: Any) -> Any:
    """Forget a user, once it was said what goes along."""
    name = str(context.record.name)
    request.check_confirmed("user.remove")
    if asking.is_sure(request):
        request.act("user.remove", name=name)
        return HTTPSeeOther(request.path_to("users"))
    tokens = request.db.tokens.count(user=name)
    return asking.page(
        request, _("Remove the user %(name)s?", name=name), button=_("Remove"),
        back=request.path_to("users", name), danger=True,
        lines=[_("Their logins end, and they cannot log in again."),
               several("%(n)s API token of theirs ends.", "%(n)s API tokens of theirs end.",
                       tokens),
               _("What they did stays in the audit trail.")],
    )  # fmt: skip


def includeme(config: Any) -> None:
    """Add the views."""
    add(config, users, Users, template="users", permission=ADMINISTER)
    add(config, new, Users, "+add", template="user_new", permission=ADMINISTER, posts=True)
    add(config, user, UserItem, template="user", permission=ADMINISTER, posts=True)
    config.add_view(
        make_link, context=UserItem, name="link", permission=ADMINISTER, request_method="POST",
        renderer="borgcube.plugins.console:templates/user.jinja2",
    )  # fmt: skip
    for name, method in (("disable", "user.disable"), ("enable", "user.enable"),
                         ("no-code", "factor.remove")):  # fmt: skip
        add(config, act_on(method), UserItem, name, permission=ADMINISTER, posts=True)
    add(config, remove, UserItem, "remove", permission=ADMINISTER, posts=True,
        renderer=asking.TEMPLATE)  # fmt: skip
