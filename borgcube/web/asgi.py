"""The outermost layer: every connection passes here before Pyramid or the live feed.

What a request says of itself is read in :mod:`borgcube.web.outside`; here large bodies are
refused and WebSockets go to the live feed. Pages have few threads: a request gets one when its
body is there, and what hashes a password only some of them. Plain ASGI 3.0.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from borgcube.web.api import problems
from borgcube.web.outside import Misdirected, as_seen_outside, header, inner_path
from borgcube.web.settings import WebSettings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY = 1 << 20
BODY_S = 20.0  # how long a body may take to come
LARGE, LARGE_AT_ONCE = 64 << 10, 32
LIVE_PATH = "/live"
FILES_END = "/content"  # paths of files, which may take long to open; see web/downloads.py
# What hashes a password, which is slow on purpose; strangers can ask for the first two.
LOGIN_PATHS = frozenset({"/login", "/setup", "/link", "/confirm"})
LOGINS_AT_ONCE, LOGINS_WAITING, LOGIN_S = 2, 64, 15.0


class FrontDoor:
    """Dispatches HTTP to ``pages``, those of files to ``files``, and the live WebSocket to
    ``live``."""

    def __init__(
        self, settings: WebSettings, *, pages: App, live: App, files: App | None = None
    ) -> None:
        self._settings, self._pages, self._live = settings, pages, live
        self._files = files or pages
        self._logins = asyncio.Semaphore(LOGINS_AT_ONCE)
        self._logins_waiting = 0
        self._large = 0  # large bodies in memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in ("http", "websocket"):
            return
        try:
            scope = as_seen_outside(scope, self._settings)
        except Misdirected as error:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 4404})
            else:
                await _refuse(scope, send, error.status, error.kind, error.text)
            return
        if scope["type"] == "websocket":
            if inner_path(scope) == LIVE_PATH:
                await self._live(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 4404})
            return
        length = header(scope, "content-length")
        if length and (not length.isdigit() or int(length) > MAX_BODY):
            await _refuse(scope, send, 413, "too-large", "The request is larger than 1 MiB.")
            return
        if header(scope, "transfer-encoding"):
            # Nothing the console offers sends bodies of unknown length.
            await _refuse(scope, send, 411, "no-length", "A request needs a Content-Length.")
            return
        large = length != "" and int(length) > LARGE
        if large and self._large >= LARGE_AT_ONCE:
            await _refuse(scope, send, 503, "too-many", "Too many large requests at once.")
            return
        self._large += large
        try:
            await self._serve(scope, receive, send, length)
        finally:
            self._large -= large

    async def _serve(self, scope: Scope, receive: Receive, send: Send, length: str) -> None:
        try:
            async with asyncio.timeout(BODY_S):
                body = await _whole(receive) if length not in ("", "0") else b""
        except TimeoutError:
            await _refuse(scope, send, 408, "timeout", "The request did not come in time.")
            return
        if body is None:
            return  # it hung up
        again = _Again(body, receive)
        if scope["method"] == "POST" and inner_path(scope) in LOGIN_PATHS:
            await self._in_line(scope, again, send)
        elif inner_path(scope).endswith(FILES_END):
            await self._files(scope, again, send)
        else:
            await self._pages(scope, again, send)

    async def _in_line(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a login when it is its turn; waiting takes no thread."""
        busy = "Too many logins at once. Try again in a moment."
        if self._logins_waiting >= LOGINS_WAITING:
            await _refuse(scope, send, 503, "too-many", busy)
            return
        self._logins_waiting += 1
        try:
            async with asyncio.timeout(LOGIN_S):
                await self._logins.acquire()
        except TimeoutError:
            await _refuse(scope, send, 503, "too-many", busy)
            return
        finally:
            self._logins_waiting -= 1
        try:
            await self._pages(scope, receive, send)
        finally:
            self._logins.release()


class _Again:
    """Gives a body that was read already, then what else the connection says."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> MutableMapping[str, Any]:
        """Return the next message."""
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


async def _whole(receive: Receive) -> bytes | None:
    """Return the whole body, no longer than was announced (the server sees to that); None
    when the other side hung up."""
    parts = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(parts)


async def _refuse(scope: Scope, send: Send, status: int, kind: str, text: str) -> None:
    content, body = b"text/plain; charset=utf-8", text.encode()
    if problems.is_api_path(inner_path(scope)):
        content = problems.CONTENT_TYPE.encode()
        body = json.dumps(problems.document(status, kind, text)).encode()
    headers = [
        (b"content-type", content), (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"), (b"cache-control", b"no-store"),
    ]  # fmt: skip
    if status == 503:
        headers.append((b"retry-after", b"5"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
