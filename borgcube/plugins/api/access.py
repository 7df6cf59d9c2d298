"""The API about who may use it: users, tokens, logins, and who asks."""

from __future__ import annotations

from typing import Any

from borgcube.core.access import GRANTS, Permission, Role
from borgcube.core.api import Answer, Call, Endpoint, Found, Listing, named
from borgcube.core.errors import AccessDenied
from borgcube.core.model import Session, Token, User
from borgcube.core.openapi import page_query
from borgcube.core.schemas import (
    NAME,
    REFERENCE,
    given,
    many,
    of_record,
    one_of,
    text,
    thing,
    whole,
)
from borgcube.plugins.api import common

PASSWORD = {"type": "string", "minLength": 10, "maxLength": 1024}
USER = of_record(User, more={
    "second_factor": {"type": "boolean"}, "has_password": {"type": "boolean"},
    "recovery_codes_left": {"type": "integer"},
})  # fmt: skip
LINK = {"type": "string", "description": "A one-time link's path, empty when there is none."}
NEW_USER = {**of_record(User, more={**USER["properties"], "link": LINK}), "title": "AddedUser"}
TOKEN = of_record(Token)
NEW_TOKEN = {**of_record(Token, more={"token": {
    "type": "string", "description": "The token itself, shown only now."}}),
    "title": "AddedToken"}  # fmt: skip
SCOPE = many(one_of([*Permission, "all"]), most=len(Permission), description="What it may; nothing"
             " if empty. Only all: what its user may, now and later.")  # fmt: skip


def _nobodys(_record: Any) -> str:
    return ""  # whoever sees some clients only is not told who else is here


find_user = named("users", client=_nobodys)


def shown_user(_call: Call, user: Any) -> dict[str, Any]:
    """Return what may be shown of a user, as the control method ``user.list`` does."""
    data: dict[str, Any] = user.as_data()
    return data | {"second_factor": user.second_factor, "has_password": bool(user.password),
                   "recovery_codes_left": len(user.recovery)}  # fmt: skip


def _of_mine(table: str) -> Any:
    """Return a finder of what belongs to who asks; administrators find everybody's."""

    def find(call: Call) -> Found | None:
        record = getattr(call.db, table).find("id", call.path["id"])
        if record is None or not (record.user == call.me.user or _administers(call)):
            return None
        return Found(record, None)

    return find


def _administers(call: Call) -> bool:
    return call.me.may(Permission.ADMINISTER)


def _mine(call: Call, table: Any) -> Listing:
    """List what belongs to a user: to who asks, unless an administrator asks for more."""
    user = str(call.query.get("user", "" if _administers(call) else call.me.user))
    equal: dict[str, Any] = {"user": user} if user else {}
    if user != call.me.user and not _administers(call):
        raise AccessDenied("This needs the permission administer.", field="user")
    return common.every(call, table, **equal)


def _me(call: Call) -> dict[str, Any]:
    me = call.me
    may = sorted(p.value for p in GRANTS[me.role] if me.scope is None or p in me.scope)
    return {"user": me.user, "role": me.role.value, "token": me.token, "permissions": may,
            "clients": sorted(me.clients) if me.limited else None}  # fmt: skip


def _link_path(call: Call, token: str) -> str:
    return str(call.request.path_to("link", token=token)) if token else ""


def _add_user(call: Call) -> Answer:
    made = call.act("user.add", **call.body)
    made["link"] = _link_path(call, made["link"])
    return Answer(made, location=call.address("users", made["name"]))


def _change_user(call: Call) -> Any:
    return call.act("user.change", name=call.record.name, **call.body)


def _remove_user(call: Call) -> None:
    call.act("user.remove", name=call.record.name)


def _switch(method: str) -> Any:
    return lambda call: call.act(method, name=call.record.name)


def _set_password(call: Call) -> None:
    call.act("user.password", name=call.record.name, password=call.body["password"])


def _remove_factor(call: Call) -> None:
    call.act("factor.remove", user=call.record.name)


def _make_link(call: Call) -> dict[str, Any]:
    made = call.act("link.make", user=call.record.name, **(call.body or {}))
    return {"link": _link_path(call, made["token"]), "minutes": int(made["minutes"])}


def _add_token(call: Call) -> Answer:
    me, user = call.me, str(call.body.get("user", call.me.user))
    if not _administers(call):
        if user != me.user:
            raise AccessDenied("A token for somebody else needs the permission administer.",
                               field="user")  # fmt: skip
        if not me.session:
            # Or a limited token could make itself one without limits, or one that lasts.
            raise AccessDenied("A token makes no tokens, unless it may administer.",
                               next_step="Log in to the console for it.")  # fmt: skip
    return Answer(call.act("token.add", **{**call.body, "user": user}))


def _remove_token(call: Call) -> None:
    user = "" if _administers(call) else call.me.user
    call.act("token.remove", id=call.record.id, user=user)


def _own_password(call: Call) -> None:
    me, body = call.me, call.body
    stored = call.db.users.find("name", me.user).password
    if stored and not call.request.confirm(password=body["old"]):
        raise AccessDenied("This is not your password.", field="old")
    call.act("user.password", name=me.user, password=body["password"], keep_session=me.session)


def _confirm(call: Call) -> None:
    if not call.request.confirm(**call.body):
        raise AccessDenied("This is not right.")


def _begin_factor(call: Call) -> Any:
    return call.act("factor.begin", user=call.me.user)


def _confirm_factor(call: Call) -> Any:
    return call.act("factor.confirm", user=call.me.user, code=call.body["code"])


def _end_session(call: Call) -> None:
    user = "" if _administers(call) else call.me.user
    call.act("session.end", id=call.record.id, user=user)


_ONE, _ADMINISTER = "/users/{name}", Permission.ADMINISTER
ROLE = {"role": one_of(Role), "clients": many(REFERENCE, description="Those of an owner.")}
BY_USER = {"user": text(longest=100, description="Whose."), **page_query()}
ENDPOINTS = [
    Endpoint(
        name="me", method="GET", path="/me", handler=_me, tag="access",
        summary="Say who asks and what they may",
        returns=given({
            "user": {"type": "string"}, "role": {"type": "string"},
            "token": {"type": "string", "description": "The token's name, if one is used."},
            "permissions": {"type": "array", "items": {"type": "string"}},
            "clients": {"type": ["array", "null"], "items": {"type": "string"},
                        "description": "The clients that are seen; null for all."},
        }, title="Me"),
    ),
    Endpoint(
        name="me.password", method="PUT", path="/me/password", handler=_own_password,
        tag="access", person=True, status=204,
        summary="Change your password; your other logins end",
        body=thing({"old": {"type": "string", "maxLength": 1024, "description": "Empty if you"
                    " have none."}, "password": PASSWORD}, required=("old", "password"),
                   title="OwnPassword"),
    ),
    Endpoint(
        name="me.confirm", method="POST", path="/me/confirm", handler=_confirm, tag="access",
        person=True, status=204,
        summary="Give your password or a code again; it is good for ten minutes",
        body=thing({"password": {"type": "string", "minLength": 1, "maxLength": 1024},
                    "code": text(longest=20, shortest=1)}, title="Confirmation"),
    ),
    Endpoint(
        name="me.second-factor.begin", method="POST", path="/me/second-factor", tag="access",
        handler=_begin_factor, person=True,
        summary="Make a secret for an authenticator; it counts when it is confirmed",
        returns=given({"secret": {"type": "string"}, "address": {"type": "string"}},
                      title="SecondFactor"),
    ),
    Endpoint(
        name="me.second-factor.confirm", method="POST", path="/me/second-factor/confirm",
        handler=_confirm_factor, tag="access", person=True,
        summary="Turn your second factor on with a code of the authenticator",
        body=thing({"code": text(longest=20, shortest=1)}, required=("code",), title="Code"),
        returns=given({"recovery_codes": {"type": "array", "items": {"type": "string"}}},
                      title="RecoveryCodes"),
    ),
    Endpoint(
        name="users.list", method="GET", path="/users", paged=True, tag="access",
        handler=lambda call: common.every(call, call.db.users, shown=shown_user),
        summary="List users", permission=_ADMINISTER, query=page_query(),
        returns=USER,
    ),
    Endpoint(
        name="users.add", method="POST", path="/users", handler=_add_user, status=201,
        tag="access", summary="Add a user, with a password or a one-time link to choose one",
        permission=_ADMINISTER, returns=NEW_USER,
        body=thing({"name": NAME, **ROLE, "password": PASSWORD}, required=("name", "role"),
                   title="NewUser"),
    ),
    Endpoint(
        name="users.show", method="GET", path=_ONE, tag="access", find=find_user,
        handler=lambda call: shown_user(call, call.record), summary="Show a user",
        permission=_ADMINISTER, returns=USER,
    ),
    Endpoint(
        name="users.change", method="PATCH", path=_ONE, handler=_change_user, tag="access",
        find=find_user, summary="Give a user another role", permission=_ADMINISTER,
        body=thing(ROLE, required=("role",), title="UserChange"), returns=USER,
    ),
    Endpoint(
        name="users.remove", method="DELETE", path=_ONE, handler=_remove_user, tag="access",
        find=find_user, summary="Forget a user with their logins and tokens",
        permission=_ADMINISTER, status=204,
    ),
    Endpoint(
        name="users.disable", method="POST", path=f"{_ONE}/disable", tag="access",
        handler=_switch("user.disable"), find=find_user, permission=_ADMINISTER,
        summary="End all logins of a user and allow no more", returns=USER,
    ),
    Endpoint(
        name="users.enable", method="POST", path=f"{_ONE}/enable", tag="access",
        handler=_switch("user.enable"), find=find_user, permission=_ADMINISTER,
        summary="Let a disabled user log in again", returns=USER,
    ),
    Endpoint(
        name="users.password", method="PUT", path=f"{_ONE}/password", tag="access",
        handler=_set_password, find=find_user, permission=_ADMINISTER, status=204,
        summary="Set a user's password; their logins end",
        body=thing({"password": PASSWORD}, required=("password",), title="NewPassword"),
    ),
    Endpoint(
        name="users.second-factor.remove", method="DELETE", path=f"{_ONE}/second-factor",
        tag="access", handler=_remove_factor, find=find_user, permission=_ADMINISTER,
        summary="Turn a user's second factor off", status=204,
    ),
    Endpoint(
        name="users.link", method="POST", path=f"{_ONE}/link", handler=_make_link,
        tag="access", find=find_user, permission=_ADMINISTER,
        summary="Make a link that logs a user in once", optional=True,
        body=thing({"without_code": {"type": "boolean", "description": "Whether it stands for the"
                    " second factor as well."}}, title="NewLink"),
        returns=given({"link": LINK, "minutes": whole()}, title="Link"),
    ),
    Endpoint(
        name="tokens.list", method="GET", path="/tokens", tag="access", paged=True,
        handler=lambda call: _mine(call, call.db.tokens), query=BY_USER, returns=TOKEN,
        summary="List your own tokens, or everybody's if you may administer",
    ),
    Endpoint(
        name="tokens.add", method="POST", path="/tokens", handler=_add_token, status=201,
        tag="access", summary="Make a token, which is shown only in this answer",
        body=thing({"name": NAME, "user": REFERENCE, "scope": SCOPE, "days": whole(1, 3650),
                    "clients": many(REFERENCE, description="Clients that it is limited to.")},
                   required=("name",), title="NewToken"),
        returns=NEW_TOKEN,
    ),
    Endpoint(
        name="tokens.remove", method="DELETE", path="/tokens/{id}", handler=_remove_token,
        tag="access", find=_of_mine("tokens"), summary="End a token", status=204,
    ),
    Endpoint(
        name="sessions.list", method="GET", path="/sessions", tag="access", paged=True,
        handler=lambda call: _mine(call, call.db.sessions), query=BY_USER,
        returns=of_record(Session),
        summary="List your own logins, or everybody's if you may administer",
    ),
    Endpoint(
        name="sessions.end", method="DELETE", path="/sessions/{id}", handler=_end_session,
        tag="access", find=_of_mine("sessions"), summary="End a login", status=204,
    ),
]  # fmt: skip
