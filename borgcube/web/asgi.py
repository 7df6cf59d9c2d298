"""The outermost layer: every connection passes here before Pyramid or the live feed.

It believes a trusted proxy about scheme, host and client, takes the prefix off the path,
refuses large bodies and sends WebSockets to the live feed. Plain ASGI 3.0.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from borgcube.web.settings import WebSettings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY = 1 << 20
LIVE_PATH = "/live"


def header(scope: Scope, name: str) -> str:
    """Return a request header, the first if there are several."""
    wanted = name.lower().encode()
    for key, value in scope["headers"]:
        if key == wanted:
            return bytes(value).decode("latin-1")
    return ""


class FrontDoor:
    """Dispatches HTTP to ``pages`` and the live WebSocket to ``live``."""

    def __init__(self, settings: WebSettings, *, pages: App, live: App) -> None:
        self._settings, self._pages, self._live = settings, pages, live

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in ("http", "websocket"):
            return
        scope = self._as_seen_outside(dict(scope))
        if scope["type"] == "websocket":
            if _inner_path(scope) == LIVE_PATH:
                await self._live(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 4404})
            return
        length = header(scope, "content-length")
        if length and (not length.isdigit() or int(length) > MAX_BODY):
            await _refuse(send, 413, b"The request is larger than 1 MiB.")
            return
        if header(scope, "transfer-encoding"):
            # Nothing the console offers sends bodies of unknown length.
            await _refuse(send, 411, b"A request needs a Content-Length.")
            return
        await self._pages(scope, receive, send)

    def _as_seen_outside(self, scope: Scope) -> Scope:
        settings = self._settings
        peer = (scope.get("client") or ("", 0))[0]
        secure = {"http": "https", "websocket": "wss"}[scope["type"]]
        if settings.trusts(peer):
            hops = [hop.strip() for hop in header(scope, "x-forwarded-for").split(",")]
            # The nearest hop that is no proxy of ours; what is left of it anybody may write.
            outside = next((hop for hop in reversed(hops) if hop and not settings.trusts(hop)), "")
            if outside:
                scope["client"] = (outside[:64], 0)
            if settings.origin:
                outer = urlsplit(settings.origin)
                scheme, host = outer.scheme, outer.netloc
            else:
                scheme = header(scope, "x-forwarded-proto").lower()
                host = header(scope, "x-forwarded-host")
            if scheme == "https":
                scope["scheme"] = secure
            if host:
                kept = [(k, v) for k, v in scope["headers"] if k != b"host"]
                scope["headers"] = [*kept, (b"host", host.encode("latin-1", "replace"))]
        prefix = settings.prefix
        if prefix:
            # With or without the prefix: some proxies take it off, some do not.
            path = scope["path"]
            if not (path == prefix or path.startswith(f"{prefix}/")):
                scope["path"] = prefix + path
            scope["root_path"] = prefix
        return scope


def _inner_path(scope: Scope) -> str:
    return str(scope["path"]).removeprefix(scope.get("root_path", "")) or "/"


async def _refuse(send: Send, status: int, text: bytes) -> None:
    await send({
        "type": "http.response.start", "status": status,
        "headers": [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")],
    })  # fmt: skip
    await send({"type": "http.response.body", "body": text})
