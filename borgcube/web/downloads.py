"""Files of archives on their way to a browser: as a stream, without a thread for each.

A view opens the file and answers with its headers (:func:`add_request_methods` gives requests
``download``); the file itself is handed to :class:`Downloads`, around the pages, which sends it
from the event loop, a block at a time and no faster than it is taken. When the browser leaves
the file is closed; when the file ends early the connection is cut, so that a part is never
taken for the whole.
"""

from __future__ import annotations

import asyncio
import logging
import unicodedata
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import quote, unquote

from pyramid.response import Response

from borgcube.control.files import ArchiveFile, open_file

LOG = logging.getLogger(__name__)
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

TAKEN = "borgcube.download"  # in the scope: where a view leaves what is to be sent
BLOCK = 256 << 10
STALLED_S = 300.0  # without a block that is taken
LONGEST_NAME = 150


def safe_name(key: str) -> str:
    """Return the last part of a path (percent-encoded) as a name that a browser can save under:
    no separators, no control or format characters, not too long."""
    name = unquote(key.strip("/").rpartition("/")[2], errors="replace")
    kept = "".join(
        "_" if char in '/\\:*?"<>|%' or unicodedata.category(char)[0] == "C" else char
        for char in unicodedata.normalize("NFC", name)
    ).strip(" ")
    if len(kept) > LONGEST_NAME:
        stem, dot, ending = kept.rpartition(".")
        ending = dot + ending if stem and len(ending) < 20 else ""
        kept = kept[: LONGEST_NAME - len(ending)] + ending
    return kept if kept.strip(".") else "file"


def disposition(name: str) -> str:
    """Return the header that has a browser save a file under a safe name (RFC 6266)."""
    plain = "".join(char if char.isascii() else "_" for char in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def add_request_methods(config: Any) -> None:
    """Give requests ``download``, as ``core.web.WebRequest`` promises."""

    def download(request: Any, *, repository: str, id: str, key: str) -> Response:
        def call(method: str, **params: Any) -> Any:
            return request.call(method, **params)

        file = open_file(call, request.plugins.engines, repository=repository, id=id, key=key)
        scope = request.environ.get("asgi.scope") or {}
        if request.method == "HEAD" or TAKEN not in scope:
            file.close()
        else:
            scope[TAKEN].append(file)
        answer = Response(content_type="application/octet-stream", app_iter=())
        answer.content_length = file.size
        answer.headers["Content-Disposition"] = disposition(safe_name(key))
        answer.headers["Accept-Ranges"] = "none"
        # What a browser opens of it all the same may do nothing.
        answer.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
        return answer

    config.add_request_method(download, "download")


class Downloads:
    """Passes requests on to ``pages``, and sends the file that a view left."""

    def __init__(self, pages: App) -> None:
        self._pages = pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        left: list[ArchiveFile] = []
        scope[TAKEN] = left
        begun: list[MutableMapping[str, Any]] = []

        async def pass_on(message: MutableMapping[str, Any]) -> None:
            if left and message["type"] == "http.response.start" and message["status"] != 200:
                left.pop().close()  # something went wrong after the view
            if not left:
                await send(message)
            elif message["type"] == "http.response.start":
                begun.append(message)

        try:
            await self._pages(scope, receive, pass_on)
            if left:
                await _send_file(left[0], begun[0], receive, send)
        finally:
            for file in left:
                file.close()


async def _send_file(
    file: ArchiveFile, start: MutableMapping[str, Any], receive: Receive, send: Send
) -> None:
    await send(start)
    sending = asyncio.create_task(_blocks(file, send))
    leaving = asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        LOG.info("a file of an archive was not sent to its end: the console stops")
    finally:
        for task in (sending, leaving):
            task.cancel()
        done = await asyncio.gather(sending, leaving, return_exceptions=True)
    if isinstance(done[0], Exception):
        # Nothing else is sent: the server cuts the connection, and the browser sees a failure.
        LOG.warning("a file of an archive was not sent to its end: %s", done[0])
    elif done[0] is None:
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _blocks(file: ArchiveFile, send: Send) -> None:
    """Send all of a file; raises EOFError when it ends early and TimeoutError when nobody takes
    it."""
    loop = asyncio.get_running_loop()
    file.source.setblocking(False)
    left = file.size
    while left:
        async with asyncio.timeout(STALLED_S):
            block = await loop.sock_recv(file.source, min(BLOCK, left))
            if not block:
                raise EOFError(f"{left} of {file.size} bytes are missing")
            await send({"type": "http.response.body", "body": block, "more_body": True})
        left -= len(block)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
