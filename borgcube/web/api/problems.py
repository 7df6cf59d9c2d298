"""Errors of the API as problem documents (RFC 9457, ``application/problem+json``).

Beside the members of the RFC each has ``kind``, a stable word for programs; ``next_step``,
what to do in words; and ``field``, which member of the request is at fault, where one is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from pyramid.response import Response

from borgcube.core import errors
from borgcube.core.api import BASE

CONTENT_TYPE = "application/problem+json"
# What the daemon refuses, by the class of its error.
STATUS: Mapping[str, int] = {
    errors.NotFound.__name__: 404, errors.Duplicate.__name__: 409,
    errors.Conflict.__name__: 412, "IllegalTransition": 409, errors.Unreadable.__name__: 409,
    errors.AccessDenied.__name__: 403, errors.TooMany.__name__: 429,
    errors.DaemonUnreachable.__name__: 503, "HomeWriteError": 503, "InternalError": 500,
}  # fmt: skip


def is_api(request: Any) -> bool:
    """Return whether a request is for the API."""
    return is_api_path(str(request.environ.get("PATH_INFO", "")))


def is_api_path(path: str) -> bool:
    """Return whether a path, without the prefix of a proxy, belongs to the API."""
    return path == BASE or path.startswith(f"{BASE}/")


def kind_of(name: str) -> str:
    """Return the kind of an error by its class: ``NotFound`` is ``not-found``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()


def document(
    status: int, kind: str, detail: str, *, next_step: str = "", field: str = "", where: str = ""
) -> dict[str, Any]:
    """Return a problem document; ``where`` is the path of the page that lists the kinds."""
    made = {
        "type": f"{where}#{kind}" if where else "about:blank",
        "title": HTTPStatus(status).phrase, "status": status, "detail": detail, "kind": kind,
        "next_step": next_step,
    }  # fmt: skip
    return made | ({"field": field} if field else {})


def response(request: Any, status: int, kind: str, detail: str, **more: str) -> Response:
    """Return a problem as an answer."""
    where = str(request.path_to("api"))
    body = json.dumps(document(status, kind, detail, where=where, **more)).encode()
    return Response(body, status=status, content_type=CONTENT_TYPE)


def of_error(request: Any, error: errors.BorgCubeError, *, about_path: bool) -> Response:
    """Return what the daemon or a handler refused; ``about_path`` says that nothing else but
    the path names what may not be there."""
    name = str(getattr(error, "kind", "") or type(error).__name__)
    status = STATUS.get(name, 400)
    if status == 404 and not about_path:
        # What the path names was found before; what the body or the query names was not.
        status = 400
    made = response(request, status, kind_of(name), error.message,
                    next_step=error.next_step, field=error.field)  # fmt: skip
    if status == 429:
        made.headers["Retry-After"] = "".join(filter(str.isdigit, error.next_step)) or "10"
    return made


def foreign(request: Any) -> Response:
    """Return the refusal of a change that another site wants with somebody's cookie."""
    return response(request, 403, "foreign-site", "This request comes from another site.",
                    next_step="Use an API token.")  # fmt: skip
