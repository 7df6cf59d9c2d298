"""A user's own page: password, second factor, logins, API tokens."""

from __future__ import annotations

import io
from typing import Any

from pyramid.httpexceptions import HTTPForbidden, HTTPSeeOther

from borgcube.core.errors import BorgCubeError
from borgcube.core.forms import Field, Form
from borgcube.core.texts import _
from borgcube.plugins.console import forms
from borgcube.plugins.console.resources import Collection, add

OLD = Field("old", _("Present password"), "password", autocomplete="current-password",
            required=True)  # fmt: skip
NEW = Field("password", _("New password"), "password", required=True,
            autocomplete="new-password", help=_("At least 10 characters."))  # fmt: skip
AGAIN = Field("again", _("New password again"), "password", required=True,
              autocomplete="new-password")  # fmt: skip
CODE = Field("code", _("Code"), "code", required=True, autocomplete="one-time-code",
             help=_("What your authenticator shows now."))  # fmt: skip


def _person(request: Any) -> Any:
    """Return the user's record; only people have an account page, tokens do not."""
    if not request.me.session:
        raise HTTPForbidden
    return request.db.users.find("name", request.me.user)


def _password_form(person: Any) -> Form:
    """Return the form; who came with a link has no password to show."""
    return Form([OLD, NEW, AGAIN] if person.password else [NEW, AGAIN])


def _page(request: Any, **more: Any) -> dict[str, Any]:
    person = _person(request)
    return {
        "person": person, "this_session": request.me.session,
        "sessions": list(request.db.sessions.oldest("user", person.name)),
        "tokens": list(request.db.tokens.oldest("user", person.name)),
        "password_form": _password_form(person), "token_form": Form(forms.token_fields(request)),
        "token": "", "saved": "", "has_password": bool(person.password),
        "languages": request.languages, "language": request.cookies.get("language", ""),
    } | more  # fmt: skip


def account(context: Collection, request: Any) -> dict[str, Any]:
    """Show the page."""
    return _page(request)


def _knows_password(request: Any, person: Any, old: str) -> bool:
    return not person.password or bool(old and request.confirm(password=old))


def password(context: Collection, request: Any) -> dict[str, Any]:
    """Change the password; other logins end."""
    person = _person(request)
    form = _password_form(person)
    values = form.read(request.POST)
    if values is not None and values["again"] != values["password"]:
        form.errors["again"] = _("The two are different.")
    elif values is not None and not _knows_password(request, person, values.get("old", "")):
        form.errors["old"] = _("This is not your password.")
    elif values is not None:
        try:
            request.act("user.password", name=person.name, password=values["password"],
                        keep_session=request.me.session)  # fmt: skip
            # The page is drawn from the state before the change.
            return _page(request, saved=_("Your password is changed; your other logins ended."),
                         has_password=True, password_form=Form([OLD, NEW, AGAIN]))  # fmt: skip
        except BorgCubeError as error:
            form.refuse(error)
    request.response.status_code = 400
    return _page(request, password_form=form)


def token_add(context: Collection, request: Any) -> dict[str, Any]:
    """Make an API token, shown once."""
    person = _person(request)
    form = Form(forms.token_fields(request))
    values = form.read(request.POST)
    if values is not None:
        try:
            values["scope"] = forms.token_scope(values["scope"])
            made = request.act("token.add", user=person.name, **values)
            return _page(request, token=made["token"])
        except BorgCubeError as error:
            form.refuse(error)
    request.response.status_code = 400
    return _page(request, token_form=form)


def token_remove(context: Collection, request: Any) -> Any:
    """End one of the user's own tokens."""
    person = _person(request)
    request.act("token.remove", id=str(request.POST.get("id", "")), user=person.name)
    return HTTPSeeOther(request.path_to("account"))


def language(context: Collection, request: Any) -> Any:
    """Keep the language chosen for this browser; none lets the browser say it."""
    chosen = str(request.POST.get("language", ""))
    answer = HTTPSeeOther(request.path_to("account"))
    if any(chosen == name for name, _words in request.languages):
        answer.set_cookie(
            "language", chosen, max_age=31_536_000, path=request.script_name or "/",
            httponly=True, samesite="Lax", secure=request.scheme == "https",
        )  # fmt: skip
    else:
        answer.delete_cookie("language", path=request.script_name or "/")
    return answer


def session_end(context: Collection, request: Any) -> Any:
    """End one of the user's own logins."""
    person = _person(request)
    request.act("session.end", id=str(request.POST.get("id", "")), user=person.name)
    return HTTPSeeOther(request.path_to("account"))


def _picture(address: str) -> str:
    import segno

    # An image of its own document: attributes only, no style that the policy would refuse.
    out = io.BytesIO()
    segno.make(address, micro=False).save(
        out, kind="svg", xmldecl=False, svgns=True, scale=4, border=2, dark="#10151c",
        light="#ffffff", svgclass=None, lineclass=None,
    )  # fmt: skip
    return out.getvalue().decode()


def factor(context: Collection, request: Any) -> dict[str, Any]:
    """Turn the second factor on: show a secret, then confirm it with a code."""
    person = _person(request)
    form = Form([CODE])
    codes: list[str] = []
    secret = {"secret": "", "address": ""}
    if "code" in request.POST:
        values = form.read(request.POST)
        if values is not None:
            try:
                confirmed = request.act("factor.confirm", user=person.name, **values)
                codes = confirmed["recovery_codes"]
            except BorgCubeError as error:
                form.refuse(error)
    if not codes:
        if form.errors or form.problem:
            request.response.status_code = 400
        secret = request.act("factor.begin", user=person.name, keep="code" in request.POST)
    return {"form": form, "codes": codes, **secret,
            "picture": _picture(secret["address"]) if secret["address"] else ""}  # fmt: skip


def factor_remove(context: Collection, request: Any) -> Any:
    """Turn the second factor off; the password is asked for in any case."""
    person = _person(request)
    if not _knows_password(request, person, str(request.POST.get("old", ""))):
        form = Form([OLD, NEW, AGAIN])
        request.response.status_code = 400
        return _page(request, password_form=form,
                     saved="", wrong_password=_("This is not your password."))  # fmt: skip
    request.act("factor.remove", user=person.name)
    return HTTPSeeOther(request.path_to("account"))


def includeme(config: Any) -> None:
    """Add the views."""
    page = "borgcube.plugins.console:templates/account.jinja2"
    add(config, account, Collection, template="account", under="account")
    for name, view, renderer in (
        ("password", password, page), ("language", language, ""), ("token", token_add, page),
        ("token-remove", token_remove, ""), ("session-end", session_end, ""),
        ("factor-remove", factor_remove, page),
        ("factor", factor, "borgcube.plugins.console:templates/factor.jinja2"),
    ):  # fmt: skip
        add(config, view, Collection, name, renderer=renderer, posts=True, under="account")
