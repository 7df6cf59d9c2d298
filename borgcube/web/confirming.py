"""Asking a person for the password or a code again, before what :mod:`core.confirming` lists.

Every action of console and API passes :func:`check`. What it raises becomes a page that asks, and
leads back to where the person was; the API answers with a problem that says where to confirm.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from pyramid.httpexceptions import HTTPSeeOther

from borgcube.core import confirming
from borgcube.core.errors import AccessDenied, BorgCubeError
from borgcube.core.forms import Field, Form
from borgcube.core.texts import _
from borgcube.web.resources import ConsoleRoot

TEMPLATE = "borgcube.web:templates/confirm.jinja2"
PASSWORD = Field("password", _("Your password"), "password", autocomplete="current-password")
CODE = Field("code", _("Or a code"), "code", autocomplete="one-time-code",
             help=_("From your authenticator, or one of your recovery codes."))  # fmt: skip
DONE = "borgcube.confirmed"  # in the environment: this request has confirmed


class ConfirmationNeeded(Exception):
    """Raised before an action for which a person has to confirm; no error of the daemon, so
    that no form takes it for one of its own."""


def check(request: Any, method: str, params: Mapping[str, Any]) -> None:
    """Raise ConfirmationNeeded when who asks has to confirm before ``method``."""
    who = request.identity
    if who is None or not who.session or request.environ.get(DONE):
        return
    found = request.registry.console_policy.session(request)
    if found is not None and confirming.needed(method, params, session=found[0], user=found[1]):
        raise ConfirmationNeeded


def confirm(request: Any, *, password: str = "", code: str = "") -> bool:
    """Confirm with what a person typed; False when it is wrong. Raises TooMany."""
    me = request.identity
    try:
        request.call("session.confirm", user=me.user, id=me.session, password=password, code=code)
    except BorgCubeError as error:
        if getattr(error, "kind", "") == AccessDenied.__name__:
            return False
        raise
    request.environ[DONE] = True  # the session as this request sees it is the one from before
    return True


def way_back(request: Any) -> str:
    """Return the page to go on with: this one, or for a form that on which it was."""
    if request.method == "GET":
        return str(request.path_qs)
    came = urlsplit(request.referer or "")
    if f"{came.scheme}://{came.netloc}" != request.host_url or not came.path:
        return str(request.path_to(""))
    return came.path + (f"?{came.query}" if came.query else "")


def _page(request: Any, path: str, form: Form) -> dict[str, Any]:
    user = request.registry.console_policy.session(request)[1]
    fields = ([PASSWORD] if user.password else []) + ([CODE] if user.second_factor else [])
    form.fields = fields
    return {"form": form, "next": path, "possible": confirming.can_confirm(user)}


def needed_page(context: Any, request: Any) -> Any:
    """Ask, instead of what would have been done."""
    request.response.status_code = 403
    return _page(request, way_back(request), Form([PASSWORD, CODE]))


def confirm_page(context: Any, request: Any) -> Any:
    """Take what was typed, and lead back."""
    from borgcube.web.views import local_path

    path = local_path(request, str(request.params.get("next", ""))[:2000])
    if request.identity is None or not request.identity.session:
        return HTTPSeeOther(request.path_to("login"))
    form = Form([PASSWORD, CODE])
    if request.method == "POST":
        values = form.read(request.POST) or {}
        given = {key: value for key, value in values.items() if value}
        try:
            if given and confirm(request, **given):
                return HTTPSeeOther(path)
            form.problem = _("This is not right.")
        except BorgCubeError as error:
            form.refuse(error)
            form.problem, form.next_step = error.message, error.next_step
        request.response.status_code = 429 if form.errors.get("password") else 403
    return _page(request, path, form)


def includeme(config: Any) -> None:
    """Add the page, and the view of what is raised."""
    from pyramid.security import NO_PERMISSION_REQUIRED as ANYBODY

    config.add_view(confirm_page, name="confirm", context=ConsoleRoot, permission=ANYBODY,
                    renderer=TEMPLATE, request_method=("GET", "POST"))  # fmt: skip
    config.add_exception_view(needed_page, context=ConfirmationNeeded, renderer=TEMPLATE)
