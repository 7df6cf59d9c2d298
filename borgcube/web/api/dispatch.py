"""One request of the API, step by step: who, what, may they, what do they say, do it.

Whatever goes wrong on the way becomes a problem document.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from pyramid.response import Response

from borgcube.core import credentials
from borgcube.core.access import Identity, Permission
from borgcube.core.api import Answer, Call, Endpoint, Found, Listing
from borgcube.core.errors import BorgCubeError, InvalidInput
from borgcube.core.openapi import document
from borgcube.core.registry import Registry
from borgcube.core.schemas import thing
from borgcube.web.api import problems
from borgcube.web.api.reading import Checker, NotJson, TooLarge, read_json, read_query
from borgcube.web.confirming import ConfirmationNeeded

LOG = logging.getLogger(__name__)
CSRF_HEADER = "X-CSRF-Token"
BINARY = "application/octet-stream"
DOCUMENT = "/openapi.json"
LONGEST_WORD = 300  # of a path


class Refusal(Exception):
    """Raised on the way to end a request with a problem."""

    def __init__(self, status: int, kind: str, detail: str, **more: str) -> None:
        super().__init__(detail)
        self.status, self.kind, self.detail, self.more = status, kind, detail, more
        self.headers: dict[str, str] = {}


@dataclass
class Route:
    """An endpoint, ready to be matched and checked."""

    endpoint: Endpoint
    query: Checker
    body: Checker | None
    pattern: Any = field(init=False)

    def __post_init__(self) -> None:
        self.pattern = self.endpoint.pattern


def nothing_here() -> Refusal:
    """Return the answer for what does not exist, or not for who asks."""
    return Refusal(404, "not-found", "There is nothing here.",
                   next_step="It was deleted, never was, or is not yours to see.")  # fmt: skip


def _not_allowed(endpoint: Endpoint) -> Refusal:
    return Refusal(
        403, "access-denied", f"This needs the permission {endpoint.permission}.",
        next_step="Ask an administrator of this server, or use another token.",
    )  # fmt: skip


class Dispatcher:
    """Answers everything below the API's path."""

    def __init__(self, registry: Registry, policy: Any) -> None:
        self._policy = policy
        self._registry = registry
        self._routes: list[Route] = []
        self._documents: dict[tuple[str, str], Any] = {}  # by path and cookie: two at most
        taken: set[tuple[str, str]] = set()
        for endpoint in registry.endpoints.values():
            try:
                query = Checker(thing(endpoint.query))
                body = None if endpoint.body is None else Checker(endpoint.body)
            except Exception:
                LOG.exception("the endpoint %s cannot be used", endpoint.name)
                continue
            if (endpoint.method, endpoint.path) in taken:
                LOG.error("the endpoint %s is hidden by another of its path", endpoint.name)
                continue
            taken.add((endpoint.method, endpoint.path))
            self._routes.append(Route(endpoint, query, body))
        # Words that are written out come before parameters: /users/me before /users/{name}.
        self._routes.sort(key=lambda route: (len(route.endpoint.parameters), route.endpoint.path))

    @property
    def endpoints(self) -> list[Endpoint]:
        """Return the endpoints that can be used."""
        return [route.endpoint for route in self._routes]

    def view(self, request: Any) -> Response:
        """Answer a request (a Pyramid view)."""
        try:
            answer = self._answer(request)
        except Refusal as refusal:
            answer = problems.response(
                request, refusal.status, refusal.kind, refusal.detail, **refusal.more
            )
            answer.headers.update(refusal.headers)
        except TooLarge as error:
            answer = problems.response(request, 413, "too-large", error.message)
        except NotJson as error:
            answer = problems.response(request, 415, "not-json", error.message,
                                       next_step=error.next_step)  # fmt: skip
        except ConfirmationNeeded:
            answer = problems.response(
                request,
                403,
                "confirmation-needed",
                "This asks a person for the password again.",
                next_step="POST it, or a code, to /me/confirm; it is good for ten minutes.",
            )
        except BorgCubeError as error:
            known: Endpoint | None = getattr(request, "_api_endpoint", None)
            answer = problems.of_error(
                request, error, about_path=known is not None and bool(known.parameters)
                and (known.body is None or known.optional) and not known.query,
            )  # fmt: skip
        except Exception:
            LOG.exception("%s %s failed", request.method, request.environ.get("PATH_INFO"))
            answer = problems.response(
                request, 500, "internal-error", "The server made a mistake.",
                next_step="See logs/borgcubed.log in the home directory.",
            )  # fmt: skip
        if request.method == "HEAD" and answer.content_type != BINARY:
            answer.body = b""
        return answer

    def _answer(self, request: Any) -> Response:
        me = self._who(request)
        path = request.matchdict["rest"]
        method = "GET" if request.method == "HEAD" else request.method
        if path == DOCUMENT and method == "GET":
            return self._document(request)
        route, words = self._match(method, path)
        endpoint = request._api_endpoint = route.endpoint
        if method != "GET" and me.session:
            self._check_form_token(request)
        call = Call(request, path=words)
        self._permit(endpoint, call, me)
        call.query = read_query(request.environ.get("QUERY_STRING", ""), endpoint.query)
        route.query.check(call.query, what="The query")
        if route.body is not None and (request.body or not endpoint.optional):
            call.body = read_json(request.body, request.headers.get("Content-Type", ""))
            route.body.check(call.body, what="The body")
        elif request.body:  # of one that takes none
            raise InvalidInput("This request has no body.")
        if endpoint.versioned and method != "GET":
            call.version = _wanted_version(request)
        given = endpoint.handler(call)
        if endpoint.binary:
            return given  # type: ignore[no-any-return]
        return self._respond(request, endpoint, call, given)

    def _who(self, request: Any) -> Identity:
        me: Identity | None = request.identity
        if me is not None:
            return me
        wait_s = getattr(request, "token_wait_s", 0.0)
        if wait_s:
            seconds = str(max(1, round(wait_s)))
            refusal = Refusal(429, "too-many", "There were too many wrong tokens.",
                              next_step=f"Try again in {seconds} seconds.")  # fmt: skip
            refusal.headers["Retry-After"] = seconds
            raise refusal
        refusal = Refusal(401, "not-logged-in", "A token is needed, and a good one.",
                          next_step="Send Authorization: Bearer TOKEN. Make one with:"
                          " borgcube token add")  # fmt: skip
        refusal.headers["WWW-Authenticate"] = 'Bearer realm="BorgCube"'
        raise refusal

    def _match(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        allowed: set[str] = set()
        for route in self._routes:
            found = route.pattern.fullmatch(path)
            if found is None or max(map(len, found.groups()), default=0) > LONGEST_WORD:
                continue
            if route.endpoint.method == method:
                return route, found.groupdict()
            allowed.add(route.endpoint.method)
        if not allowed:
            raise nothing_here()
        shown = allowed | ({"HEAD"} if "GET" in allowed else set())
        refusal = Refusal(405, "method-not-allowed", f"{method[:20]} is not possible here.",
                          next_step=f"Possible: {', '.join(sorted(shown))}.")  # fmt: skip
        refusal.headers["Allow"] = ", ".join(sorted(shown))
        raise refusal

    def _check_form_token(self, request: Any) -> None:
        session = self._policy.session(request)
        sent = request.headers.get(CSRF_HEADER, "")
        if session is None or not credentials.same(str(session[0].csrf), sent):
            raise Refusal(403, "no-form-token", f"A change by a browser needs {CSRF_HEADER}.",
                          next_step="Use an API token instead.")  # fmt: skip

    @staticmethod
    def _permit(endpoint: Endpoint, call: Call, me: Identity) -> None:
        if endpoint.person and not me.session:
            raise Refusal(403, "no-person", "A token may not do this.",
                          next_step="Log in to the console for it.")  # fmt: skip
        client: str | None = None
        permission = Permission(endpoint.permission)
        if not me.limited and not me.may_at_all(permission):
            # Before anything is looked up: the answer is the same whatever there is.
            raise _not_allowed(endpoint)
        if endpoint.find is not None:
            found: Found | None = endpoint.find(call)
            if found is None or not me.in_sight(found.client):
                raise nothing_here()
            call.record, client = found.record, found.client
        if not me.may(permission, client=client):
            raise _not_allowed(endpoint)

    def _document(self, request: Any) -> Response:
        server, cookie = request.path_to("api", "v1"), self._policy.cookie_of(request)
        if (server, cookie) not in self._documents:
            self._documents[server, cookie] = document(self.endpoints, server=server, cookie=cookie)
        return _json(request, self._documents[server, cookie], 200)

    @staticmethod
    def _respond(request: Any, endpoint: Endpoint, call: Call, given: Any) -> Response:
        answer = given if isinstance(given, Answer) else Answer(given)
        status = answer.status or endpoint.status
        data, following = answer.data, ""
        if isinstance(data, Listing):
            if data.cursor:
                again = {**call.query, "cursor": data.cursor}
                words = [(key, _as_word(value)) for key, value in again.items()]
                here = f"{request.script_name}{request.environ['PATH_INFO']}"
                following = f"{here}?{urlencode(words)}"
            data = {"items": list(data.items), "next": following or None}
        if endpoint.returns is None:
            made = Response(status=204)
            made.headers.pop("Content-Type", None)
        else:
            made = _json(request, data, status, version=answer.version)
        if answer.version:
            made.headers["ETag"] = f'"{answer.version}"'
        if answer.location:
            made.headers["Location"] = answer.location
        if following:
            made.headers["Link"] = f'<{following}>; rel="next"'
        return made


def _as_word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _json(request: Any, data: Any, status: int, *, version: str = "") -> Response:
    body = json.dumps(data, separators=(",", ":")).encode()
    made = Response(body, status=status, content_type="application/json")
    if request.method not in ("GET", "HEAD") or status != 200:
        return made
    version = version or hashlib.sha256(body).hexdigest()[:16]
    made.headers["ETag"] = f'"{version}"'
    # It may be kept, but not used without asking again.
    made.headers["Cache-Control"] = "private, no-cache"
    asked = {tag.removeprefix("W/") for tag in _tags(request, "If-None-Match")}
    if "*" in asked or f'"{version}"' in asked:
        made.status_code, made.body = 304, b""
        made.headers.pop("Content-Type", None)
    return made


def _tags(request: Any, header: str) -> list[str]:
    return [tag.strip() for tag in request.headers.get(header, "").split(",") if tag.strip()][:50]


def _wanted_version(request: Any) -> str:
    """Return the one version that ``If-Match`` allows. A weak one never matches (RFC 9110)."""
    tags = _tags(request, "If-Match")
    if not tags or "*" in tags:
        return ""
    if len(tags) > 1:
        raise InvalidInput("If-Match can name one version only.", field="If-Match")
    return tags[0].strip('"') if tags[0].startswith('"') else "none"
