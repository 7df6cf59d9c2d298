"""The chassis' own views: logging in and out, links, set-up, and pages for what went wrong."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import quote, urlsplit

from pyramid.exceptions import BadCSRFOrigin, BadCSRFToken
from pyramid.httpexceptions import HTTPException, HTTPSeeOther
from pyramid.response import Response

from borgcube.core.access import CALLED
from borgcube.core.errors import (
    AccessDenied,
    BorgCubeError,
    CodeNeeded,
    DaemonUnreachable,
    NotFound,
    TooMany,
)
from borgcube.core.forms import Field, Form
from borgcube.core.texts import _
from borgcube.web.resources import ConsoleRoot

LOG = logging.getLogger(__name__)
TEMPLATES = "borgcube.web:templates"
REFUSED = {AccessDenied.__name__: 403, TooMany.__name__: 429}
NAME = Field("name", _("Name"), required=True, autocomplete="username")
PASSWORD = Field("password", _("Password"), "password", required=True,
                 autocomplete="current-password")  # fmt: skip
NEW_PASSWORD = Field(
    "password", _("Password"), "password", required=True, autocomplete="new-password",
    help=_("At least 10 characters. Four or five random words are easy to remember."),
)  # fmt: skip
AGAIN = Field("again", _("Password again"), "password", required=True, autocomplete="new-password")
CODE = Field("code", _("Code"), "code", autocomplete="one-time-code",
             help=_("From your authenticator, or one of your recovery codes."))  # fmt: skip


def local_path(request: Any, path: str) -> str:
    """Return ``path`` if it leads to a page of ours, else the dashboard."""
    parts = urlsplit(path)
    good = path.startswith("/") and not path.startswith(("//", "/\\")) and not parts.netloc
    if good and all(char.isprintable() for char in path):
        return path
    return str(request.path_to(""))


def where_from(request: Any) -> dict[str, str]:
    """Return address and browser, for the session and the audit trail."""
    return {"address": request.client_addr or "", "agent": (request.user_agent or "")[:200]}


def _opened(request: Any, opened: dict[str, str], path: str) -> Any:
    headers = request.registry.console_policy.remember(request, opened["session"])
    return HTTPSeeOther(local_path(request, path), headers=headers)


def login(context: Any, request: Any) -> Any:
    """Show the login form and log in; a code is asked for only when it is wanted."""
    form = Form([NAME, PASSWORD])
    path = local_path(request, str(request.params.get("next", "")))
    ask_code = False
    if request.method == "POST":
        form = Form([NAME, PASSWORD, CODE])
        values = form.read(request.POST)
        if values is not None:
            try:
                opened = request.call("login.password", **values, **where_from(request))
                return _opened(request, opened, path)
            except BorgCubeError as error:
                kind = getattr(error, "kind", "")
                ask_code = kind == CodeNeeded.__name__ or bool(values["code"])
                if kind != CodeNeeded.__name__:
                    form.problem, form.next_step = error.message, error.next_step
                    request.response.status_code = REFUSED.get(kind, 400)
        # A password is typed again rather than sent back to the page.
        form.fields = [NAME, PASSWORD, CODE] if ask_code else [NAME, PASSWORD]
    elif request.identity is not None:
        return HTTPSeeOther(path)
    return {"form": form, "next": path, "ask_code": ask_code,
            "no_users": not request.db.users.newest(1)}  # fmt: skip


def logout(context: Any, request: Any) -> Any:
    """End the session."""
    if request.identity is not None and request.identity.session:
        request.call("session.end", id=request.identity.session)
    headers = request.registry.console_policy.forget(request)
    return HTTPSeeOther(request.path_to("login"), headers=headers)


def link(context: Any, request: Any) -> Any:
    """Use a one-time link: shown first, used by a button, so that a preview spends nothing."""
    token = str(request.params.get("token", ""))[:200]
    form, asked = Form([CODE]), False
    problem = next_step = ""
    if request.method == "POST":
        code = (form.read(request.POST) or {}).get("code", "")
        try:
            opened = request.call("login.link", token=token, code=code, **where_from(request))
            user = request.db.users.find("name", opened["user"])
            # Without a password the next login would need another link: ask for one now.
            path = "" if user is None or user.password else request.path_to("account")
            return _opened(request, opened, path)
        except BorgCubeError as error:
            asked = getattr(error, "kind", "") == CodeNeeded.__name__ or bool(code)
            if not asked or code:
                problem, next_step = error.message, error.next_step
                request.response.status_code = 403
    return {"token": token, "problem": problem, "next_step": next_step, "form": form,
            "ask_code": asked}  # fmt: skip


def set_up(context: Any, request: Any) -> Any:
    """Make the first administrator."""
    token = str(request.params.get("token", ""))[:200]
    form = Form([NAME, NEW_PASSWORD, AGAIN])
    if request.method == "POST":
        values = form.read(request.POST)
        if values is not None and values.pop("again") != values["password"]:
            form.errors["again"] = _("The two are different.")
        elif values is not None:
            try:
                opened = request.call("login.set_up", token=token, **values,
                                      **where_from(request))  # fmt: skip
                return _opened(request, opened, "")
            except BorgCubeError as error:
                form.refuse(error)
                request.response.status_code = 400
    return {"form": form, "token": token}


def trigger(context: Any, request: Any) -> Any:
    """Start the plan of a secret address; the answer is plain JSON for programs."""
    status, body = 202, {}
    token = str(request.subpath[0])[:200] if len(request.subpath) == 1 else ""
    try:
        body = request.call("trigger.fire", token=token, address=request.client_addr or "")
    except BorgCubeError as error:
        kind = getattr(error, "kind", "")
        status = {AccessDenied.__name__: 404, "TooOften": 429}.get(kind, 400)
        if isinstance(error, DaemonUnreachable):
            status = 503
        body = {"error": error.message, "next_step": error.next_step}
    return Response(json_body=body, status=status)


def icon(context: Any, request: Any) -> Any:
    """Answer browsers that ask for an icon at its old place."""
    return HTTPSeeOther(f"{request.script_name}/{request.registry.console_static}/logo.svg")


def _error(request: Any, status: int, *, title: str, message: str, next_step: str) -> Any:
    request.response.status_code = status
    return {"status": status, "title": title, "message": message, "next_step": next_step}


def not_found(context: Any, request: Any) -> Any:
    """Say that there is nothing here, to those who may know."""
    if request.identity is None and not request.path_info.startswith("/trigger"):
        return forbidden(context, request)
    return _error(request, 404, title=_("There is nothing here"),
                  message=_("What this address named was deleted, or never was."),
                  next_step=_("Choose a page on the left."))  # fmt: skip


def _login_path(request: Any) -> str:
    return f"{request.path_to('login')}?next={quote(request.path_qs, safe='/')}"


def forbidden(context: Any, request: Any) -> Any:
    """Send strangers to the login, and tell others what they may not."""
    if request.identity is None:
        if request.method == "GET":
            return HTTPSeeOther(_login_path(request))
        return _error(request, 403, title=_("Your login has ended"),
                      message=_("Nothing was changed."),
                      next_step=_("Log in again, then repeat what you did."))  # fmt: skip
    return _error(request, 403, title=_("You may not do this"),
                  message=_("Your role is %(role)s.", role=CALLED[request.identity.role]),
                  next_step=_("Ask an administrator of this server."))  # fmt: skip


def bad_form(context: Any, request: Any) -> Any:
    """Explain a form that is out of date."""
    return _error(request, 400, title=_("This page was out of date"),
                  message=_("Nothing was changed. You logged in or out since it was opened."),
                  next_step=_("Go back, load the page again and repeat what you did."))  # fmt: skip


def refused(context: Any, request: Any) -> Any:
    """Show what the daemon refused outside of a form."""
    status = 503 if isinstance(context, DaemonUnreachable) else 400
    if isinstance(context, NotFound) or getattr(context, "kind", "") == NotFound.__name__:
        status = 404
    title = _("The daemon does not answer") if status == 503 else _("This was not done")
    return _error(request, status, title=title, message=context.message,
                  next_step=context.next_step)  # fmt: skip


def http_problem(context: Any, request: Any) -> Any:
    """Show other errors of HTTP, such as a method that is not allowed."""
    if context.status_code < 400:
        return context
    return _error(request, context.status_code, title=context.title,
                  message=context.explanation, next_step=_("Go back and try again."))  # fmt: skip


def not_text(context: Any, request: Any) -> Any:
    """Refuse an address or a form whose bytes are no text."""
    return _error(request, 400, title=_("This address cannot be read"),
                  message=_("It has bytes in it that are no text."),
                  next_step=_("Choose a page on the left."))  # fmt: skip


def broken(context: Any, request: Any) -> Any:
    """Say that we made a mistake; details go to the log only."""
    LOG.error("%s %s failed", request.method, request.path_info, exc_info=context)
    return _error(request, 500, title=_("The console made a mistake"),
                  message=_("It was written to logs/borgcubed.log in the home directory."),
                  next_step=_("Go back and try again."))  # fmt: skip


def includeme(config: Any) -> None:
    """Add the chassis' views."""
    from pyramid.security import NO_PERMISSION_REQUIRED as ANYBODY

    for name, view in (("login", login), ("link", link), ("setup", set_up)):
        config.add_view(view, name=name, context=ConsoleRoot, permission=ANYBODY,
                        renderer=f"{TEMPLATES}/{name}.jinja2",
                        request_method=("GET", "POST"))  # fmt: skip
    config.add_view(logout, name="logout", context=ConsoleRoot, permission=ANYBODY,
                    request_method="POST")  # fmt: skip
    # The token is the permission, and no cookie is looked at: there is nothing to forge.
    config.add_view(trigger, name="trigger", context=ConsoleRoot, permission=ANYBODY,
                    request_method="POST", require_csrf=False, below=True)  # fmt: skip
    config.add_view(icon, name="favicon.ico", context=ConsoleRoot, permission=ANYBODY,
                    request_method="GET")  # fmt: skip
    page = f"{TEMPLATES}/error.jinja2"
    config.add_notfound_view(not_found, renderer=page)
    config.add_forbidden_view(forbidden, renderer=page)
    for kind, view in (
        (BadCSRFToken, bad_form), (BadCSRFOrigin, bad_form), (BorgCubeError, refused),
        (HTTPException, http_problem), (UnicodeDecodeError, not_text), (Exception, broken),
    ):  # fmt: skip
        config.add_exception_view(view, context=kind, renderer=page)
