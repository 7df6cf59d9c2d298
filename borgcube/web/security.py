"""Who asks, and whether they may: sessions by cookie, API tokens, CSRF, security headers.

The store has only digests of cookies and tokens. A form is accepted when it comes from our
own origin and carries the session's token (before a login, that of a cookie).
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from pyramid.httpexceptions import HTTPForbidden

from borgcube.core import credentials
from borgcube.core.access import Identity, Permission, Role
from borgcube.core.errors import BorgCubeError
from borgcube.core.model import Session, Token, User
from borgcube.core.store import Root
from borgcube.core.texts import _
from borgcube.core.throttle import LoginThrottle
from borgcube.web.api import problems
from borgcube.web.settings import WebSettings

LOG = logging.getLogger(__name__)
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
TOUCH_EVERY = timedelta(minutes=5)
MAX_GOOD = 10_000
CSRF_FIELD, CSRF_HEADER = "csrf_token", "X-CSRF-Token"
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


def live_session(root: Root, cookie: str, *, idle_minutes: int) -> tuple[Session, User] | None:
    """Return the session of a cookie and its user, unless either is over."""
    if not cookie:
        return None
    session = root.sessions.find("id", credentials.digest(cookie))
    if session is None or credentials.is_past(session.expires_at):
        return None
    seen = datetime.fromisoformat(session.last_seen_at)
    if datetime.now(UTC) - seen > timedelta(minutes=idle_minutes):
        return None
    user = root.users.find("name", session.user)
    if user is None or user.disabled:
        return None
    return session, user


def identity_of(user: User, *, session: str = "", token: Token | None = None) -> Identity:
    """Return what a user is allowed to be, or less with a token that is limited."""
    mine = frozenset(user.clients)
    if token is None:
        return Identity(user=user.name, role=Role(user.role), clients=mine, session=session)
    chosen = frozenset(token.clients)
    if chosen and Role(user.role) is Role.OWNER:
        chosen &= mine
    return Identity(
        user=user.name, role=Role(user.role), token=token.name,
        clients=chosen if token.clients else mine, restricted=bool(token.clients),
        scope=None if token.permissions is None else frozenset(map(Permission, token.permissions)),
    )  # fmt: skip


class ConsolePolicy:
    """Pyramid's security policy over the rules of ``core.access``."""

    def __init__(self, settings: WebSettings, cookie: str) -> None:
        self._settings, self.cookie = settings, cookie
        self._throttle = LoginThrottle()
        self._throttle_lock = threading.Lock()
        self._good: OrderedDict[tuple[str, str], None] = OrderedDict()  # (digest, address)

    def cookie_of(self, request: Any, more: str = "") -> str:
        """Return what the session's cookie is called in this request, or one beside it."""
        return self._settings.cookie_name(self.cookie + more, secure=request.scheme == "https")

    def session(self, request: Any) -> tuple[Session, User] | None:
        """Return the request's session and user; looked up once."""
        if not hasattr(request, "_console_session"):
            found = live_session(
                request.db, request.cookies.get(self.cookie_of(request), ""),
                idle_minutes=self._settings.idle_minutes,
            )  # fmt: skip
            request._console_session = found
            if found is not None:
                self._touch(request, found[0])
        known: tuple[Session, User] | None = request._console_session
        return known

    def _touch(self, request: Any, session: Session) -> None:
        if datetime.now(UTC) - datetime.fromisoformat(session.last_seen_at) < TOUCH_EVERY:
            return
        try:
            request.call("session.touch", id=session.id)
        except BorgCubeError:
            LOG.warning("a session could not be touched: the daemon does not answer")

    def identity(self, request: Any) -> Identity | None:
        """Return who asks, or None; ``request.token_wait_s`` says that a token was not even
        looked at, because of wrong ones from the same address before."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            if not hasattr(request, "_console_token"):
                request._console_token = self._token_identity(request, token.strip())
            by_token: Identity | None = request._console_token
            return by_token
        found = self.session(request)
        return identity_of(found[1], session=found[0].id) if found else None

    def _token_identity(self, request: Any, token: str) -> Identity | None:
        address, digest = request.client_addr or "", credentials.digest(token)
        with self._throttle_lock:
            wait_s = self._throttle.wait_s(address=address)
        # A token that was right from this address lately is looked up all the same: one
        # broken script does not stop the others on its machine.
        if wait_s > 0 and (digest, address) not in self._good:
            request.token_wait_s = wait_s
            return None
        record = request.db.tokens.find("digest", digest)
        if record is None:
            with self._throttle_lock:
                self._throttle.failed(address=address)
            return None
        user = request.db.users.find("name", record.user)
        if credentials.is_past(record.expires_at) or user is None or user.disabled:
            return None
        with self._throttle_lock:
            self._good[digest, address] = None
            self._good.move_to_end((digest, address))
            while len(self._good) > MAX_GOOD:
                self._good.popitem(last=False)
        me = identity_of(user, token=record)
        self._touch_token(request, record, address, me)
        return me

    def _touch_token(self, request: Any, record: Token, address: str, me: Identity) -> None:
        last = record.last_used_at
        fresh = last and datetime.now(UTC) - datetime.fromisoformat(last) < TOUCH_EVERY
        if fresh and record.last_used_from == address:
            return
        try:
            request.registry.console_door.call(
                "token.touch",
                id=record.id,
                address=address,
                actor={"user": record.user, "via": "API", "address": address},
                asker=me,
            )
        except BorgCubeError:
            LOG.warning("a token could not be touched: the daemon does not answer")

    def authenticated_userid(self, request: Any) -> str | None:
        """Return the user's name."""
        identity = request.identity
        return identity.user if identity else None

    def permits(self, request: Any, context: Any, permission: Any) -> bool:
        """Return whether the request may do this on what it is about."""
        identity = request.identity
        if identity is None:
            return False
        client = getattr(context, "client_name", None)
        return bool(identity.may(Permission(permission), client=client))

    def remember(self, request: Any, userid: str, **_: Any) -> list[tuple[str, str]]:
        """Return the header that sets the cookie; ``userid`` is the session's token."""
        return [("Set-Cookie", self._cookie(request, userid, ""))]

    def forget(self, request: Any, **_: Any) -> list[tuple[str, str]]:
        """Return the header that takes the cookie away."""
        return [("Set-Cookie", self._cookie(request, "", "; Max-Age=0"))]

    def _cookie(self, request: Any, value: str, more: str) -> str:
        secure = "; Secure" if request.scheme == "https" else ""
        path = request.script_name or "/"
        name = self.cookie_of(request)
        return f"{name}={value}; Path={path}; HttpOnly; SameSite=Lax{secure}{more}"


class CsrfPolicy:
    """The token of a form: the session's own; before a login, one in a cookie."""

    def __init__(self, policy: ConsolePolicy) -> None:
        self._policy = policy

    def _cookie(self, request: Any) -> str:
        return self._policy.cookie_of(request, "_form")

    def get_csrf_token(self, request: Any) -> str:
        """Return the token that forms of this request must carry."""
        found = self._policy.session(request)
        if found is not None:
            return str(found[0].csrf)
        token = request.cookies.get(self._cookie(request), "")
        if len(token) < 40:
            token = getattr(request, "_form_token", "") or credentials.new_token()
            request._form_token = token
            secure = request.scheme == "https"

            def give(_request: Any, response: Any) -> None:
                response.set_cookie(
                    self._cookie(request), token, path=request.script_name or "/", httponly=True,
                    samesite="Lax", secure=secure,
                )  # fmt: skip

            request.add_response_callback(give)
        return str(token)

    new_csrf_token = get_csrf_token

    def check_csrf_token(self, request: Any, supplied_token: str) -> bool:
        """Compare in constant time."""
        if self._policy.session(request) is None and not request.cookies.get(self._cookie(request)):
            return False
        return credentials.same(self.get_csrf_token(request), supplied_token)


def own_origin(request: Any) -> bool:
    """Return whether the browser says that an unsafe request comes from our own pages."""
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    if site not in ("same-origin", "none"):
        return False
    origin = request.headers.get("Origin")
    return origin is None or origin == f"{request.scheme}://{request.host}"


def security_tween_factory(handler: Callable[[Any], Any], _registry: Any) -> Callable[[Any], Any]:
    """Refuse unsafe requests of other sites, and add the security headers to all answers."""

    def tween(request: Any) -> Any:
        bearer = request.headers.get("Authorization", "").lower().startswith("bearer ")
        if request.method not in SAFE_METHODS and not bearer and not own_origin(request):
            request.environ["borgcube.foreign"] = True
            response = (
                problems.foreign(request)
                if problems.is_api(request)
                else HTTPForbidden(_("This form came from another site."))
            )
        else:
            response = handler(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        if request.scheme == "https":
            response.headers.setdefault("Strict-Transport-Security", "max-age=31536000")
        if "Cache-Control" not in response.headers:
            response.headers["Cache-Control"] = "no-store"
        return response

    return tween
