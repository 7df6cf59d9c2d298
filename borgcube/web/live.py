"""The live feed: one subscriber of the bus, and any number of browsers.

The hub runs in the server's event loop. It collects events for a moment and sends each
browser one message with all of them, so that many browsers cost little: what everybody
may see is encoded once. A browser that does not keep up loses its queue and is told to
``resync``; it never holds anything back. A gap in the journal's numbers, at the hub or in
what a browser says it has, is filled from the journal, or told as ``resync`` if it is too wide.

Who may see what is asked anew for each event, also for those that a browser missed. Every few
seconds the hub looks whether each login still is what it was when its page was opened; if not,
the socket is closed and the page loads itself again, as whoever it belongs to by then.

Messages to a browser are JSON: ``{"kind": "hello", "seq"}``, ``{"kind": "events",
"events": [envelope...]}``, ``{"kind": "resync", "seq"}``. What a browser says is not read.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import zmq
import zmq.asyncio

from borgcube.core import home as places
from borgcube.core import sight
from borgcube.core.access import Identity, Permission
from borgcube.core.store import Store
from borgcube.web.asgi import Receive, Scope, Send
from borgcube.web.outside import header
from borgcube.web.security import identity_of, live_session
from borgcube.web.settings import WebSettings

LOG = logging.getLogger(__name__)
COLLECT_S = 0.4
RECHECK_S = 3.0
CLOSE_S = 5.0  # how long a browser may take to hear that it is over
MAX_WAITING = 16  # messages a browser may lag behind
MAX_CATCH_UP = 1000
MAX_JOBS = 5000
MAX_BROWSERS = 1000
# Close codes of our own: the page says what to do.
NOT_LOGGED_IN, FOREIGN, CHANGED, FULL = 4401, 4403, 4409, 4429


@dataclass(eq=False)
class Browser:
    """One open page."""

    identity: Identity
    cookie: str
    waiting: asyncio.Queue[str] = field(default_factory=lambda: asyncio.Queue(MAX_WAITING))
    over: asyncio.Event = field(default_factory=asyncio.Event)
    code: int = 0  # with which it is closed when it is over


class LiveHub:
    """Feeds browsers from the bus."""

    def __init__(self, home: Path, store: Store, settings: WebSettings, *, cookie: str) -> None:
        self._home, self._store, self._settings = home, store, settings
        self._cookie = cookie
        self.browsers: set[Browser] = set()
        self.progress: dict[str, dict[str, Any]] = {}
        self.seq = 0
        self._clients: OrderedDict[str, frozenset[str]] = OrderedDict()  # those of a job
        self._pending: list[dict[str, Any]] = []
        self._arrived = asyncio.Event()

    # The bus

    async def run(self) -> None:
        """Follow the bus until cancelled."""
        context = zmq.asyncio.Context()
        bus = context.socket(zmq.SUB)
        bus.setsockopt(zmq.LINGER, 0)
        bus.setsockopt(zmq.RCVHWM, 10_000)
        bus.subscribe(b"")
        bus.connect(places.bus_endpoint(self._home))
        self.seq = await self._in_thread(self._last_seq)
        # Those that were there before the feed began again may have missed anything.
        self._resync_all()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._distribute())
                tasks.create_task(self._recheck())
                while True:
                    _topic, payload = await bus.recv_multipart()
                    await self._take(json.loads(payload))
        finally:
            bus.close(linger=0)
            context.term()

    @staticmethod
    async def _in_thread(function: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(None, function, *args)

    def _last_seq(self) -> int:
        with self._store.reading() as root:
            return int(root.journal.last)

    def _since(self, seq: int) -> list[dict[str, Any]]:
        with self._store.reading() as root:
            return root.journal.since(seq, MAX_CATCH_UP)

    async def _take(self, envelope: dict[str, Any]) -> None:
        seq = envelope.get("seq")
        if seq is None:
            self._keep(envelope)
            return
        if seq <= self.seq:
            return
        missed = [envelope]
        if seq > self.seq + 1:
            LOG.info("events %d to %d were missed; reading them", self.seq + 1, seq - 1)
            missed = await self._in_thread(self._since, self.seq)
        if not missed or missed[0]["seq"] != self.seq + 1 or missed[-1]["seq"] < seq:
            LOG.warning("too many events were missed; all pages are drawn anew")
            self.seq, self._pending = seq, []
            self._resync_all()
            missed = [envelope]
        for one in missed:
            self.seq = int(one["seq"])
            self._keep(one)

    def _keep(self, envelope: dict[str, Any]) -> None:
        kind, data = envelope["type"], envelope["data"]
        job = data.get("job", "")
        if kind == "job.progress":
            self.progress[job] = data["progress"]
            # Only the newest figures of a job are worth sending.
            self._pending = [
                one for one in self._pending
                if one["type"] != "job.progress" or one["data"]["job"] != job
            ]  # fmt: skip
        elif kind in ("job.finished", "job.lost"):
            self.progress.pop(job, None)
        self._pending.append(envelope)
        self._arrived.set()

    async def _distribute(self) -> None:
        while True:
            await self._arrived.wait()
            await asyncio.sleep(COLLECT_S)
            self._arrived.clear()
            events, self._pending = self._pending, []
            await self._learn_clients(events)
            everything = self._message(events)
            words = await self._words_for(self.browsers)
            for browser in self.browsers:
                if browser.identity.may(Permission.VIEW_SERVER):
                    self._give(browser, everything)
                    continue
                seen = [e for e in events if self._shown_to(browser, e)]
                # One that came while the words were looked up begins with the next events.
                if seen and words is not None:
                    self._give(browser, self._message(words.data(seen)))

    async def _words_for(self, browsers: Iterable[Browser]) -> sight.Words | None:
        """Return how events are put for those who may not see the server; None for nobody."""
        for browser in browsers:
            if not browser.identity.may(Permission.VIEW_SERVER):
                words: sight.Words = await self._in_thread(self._words, browser.identity)
                return words
        return None

    def _words(self, identity: Identity) -> sight.Words:
        with self._store.reading() as root:
            return sight.Words(identity, root)

    def _remember(self, found: dict[str, frozenset[str]]) -> None:
        self._clients.update(found)
        while len(self._clients) > MAX_JOBS:
            self._clients.popitem(last=False)

    async def _learn_clients(self, events: Iterable[dict[str, Any]]) -> None:
        """Look up the clients of the jobs that these events tell of."""
        jobs = {str(e["data"].get("job", "")) for e in events} - {"", *self._clients}
        if jobs:
            self._remember(await self._in_thread(self._clients_of, jobs))

    def _clients_of(self, jobs: Iterable[str]) -> dict[str, frozenset[str]]:
        with self._store.reading() as root:
            found = {job: root.jobs.find("id", job) for job in jobs}
            return {job: sight.clients_of(root, record)
                    for job, record in found.items() if record is not None}  # fmt: skip

    def _shown_to(self, browser: Browser, envelope: dict[str, Any]) -> bool:
        data = envelope["data"]
        job = str(data.get("job", ""))
        clients = self._clients.get(job) if job else frozenset()
        return browser.identity.sees_event(envelope["type"], data, clients=clients)

    @staticmethod
    def _message(events: list[dict[str, Any]]) -> str:
        return json.dumps({"kind": "events", "events": events}, separators=(",", ":"))

    def _resync(self) -> str:
        return json.dumps({"kind": "resync", "seq": self.seq})

    def _resync_all(self) -> None:
        for browser in self.browsers:
            self._give(browser, self._resync())

    def _give(self, browser: Browser, message: str) -> None:
        try:
            browser.waiting.put_nowait(message)
        except asyncio.QueueFull:
            while not browser.waiting.empty():
                browser.waiting.get_nowait()
            browser.waiting.put_nowait(self._resync())

    async def _recheck(self) -> None:
        """Let go of browsers whose login ended, or may see something else by now."""
        while True:
            await asyncio.sleep(RECHECK_S)
            browsers = list(self.browsers)
            if not browsers:
                continue
            cookies = {browser.cookie for browser in browsers}
            now = await self._in_thread(self._identities, cookies)
            for browser in browsers:
                if now[browser.cookie] != browser.identity:
                    browser.code = CHANGED if now[browser.cookie] else NOT_LOGGED_IN
                    browser.over.set()
                    # Out at once: the next events are not for it, however slow it is to go.
                    self.browsers.discard(browser)

    # The browsers

    def _identities(self, cookies: Iterable[str]) -> dict[str, Identity | None]:
        idle = self._settings.idle_minutes
        with self._store.reading() as root:
            found = {cookie: live_session(root, cookie, idle_minutes=idle) for cookie in cookies}
            return {
                cookie: identity_of(one[1], session=one[0].id) if one else None
                for cookie, one in found.items()
            }

    def _cookie_of(self, scope: Scope) -> str:
        try:
            name = self._settings.cookie_name(self._cookie, secure=scope["scheme"] == "wss")
            morsel = SimpleCookie(header(scope, "cookie")).get(name)
        except CookieError:
            return ""
        return morsel.value if morsel is not None else ""

    @staticmethod
    def _own(scope: Scope) -> bool:
        scheme = {"ws": "http", "wss": "https"}.get(scope["scheme"], "")
        return header(scope, "origin") == f"{scheme}://{header(scope, 'host')}"

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one browser to its end (ASGI)."""
        await receive()  # websocket.connect
        if not self._own(scope):
            await send({"type": "websocket.close", "code": FOREIGN})
            return
        cookie = self._cookie_of(scope)
        identity = (await self._in_thread(self._identities, [cookie]))[cookie]
        # Accepted first, because a browser is told the code of a close only then.
        await send({"type": "websocket.accept"})
        if identity is None or len(self.browsers) >= MAX_BROWSERS:
            code = NOT_LOGGED_IN if identity is None else FULL
            await send({"type": "websocket.close", "code": code})
            return
        browser = Browser(identity, cookie)
        asked = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("since", [""])[0]
        self.browsers.add(browser)
        try:
            tasks = [
                asyncio.create_task(self._send_all(browser, asked, send)),
                asyncio.create_task(self._until_gone(receive)),
                asyncio.create_task(browser.over.wait()),
            ]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            self.browsers.discard(browser)
        if browser.over.is_set():
            # One that does not read is not waited for: its connection ends with this call.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await send({"type": "websocket.close", "code": browser.code})

    async def _greeting(self, browser: Browser, asked: str) -> list[str]:
        hello = json.dumps({"kind": "hello", "seq": self.seq})
        if not asked.isdecimal() or len(asked) > 15 or int(asked) >= self.seq:
            return [hello]
        if self.seq - int(asked) > MAX_CATCH_UP:
            return [hello, self._resync()]
        missed = await self._in_thread(self._since, int(asked))
        if not missed or missed[0]["seq"] != int(asked) + 1:
            return [hello, self._resync()]  # the journal does not go back that far
        await self._learn_clients(missed)
        seen = [e for e in missed if self._shown_to(browser, e)]
        if not seen:
            return [hello]
        words = await self._words_for([browser])
        return [hello, self._message(seen if words is None else words.data(seen))]

    async def _send_all(self, browser: Browser, asked: str, send: Send) -> None:
        for message in await self._greeting(browser, asked):
            await send({"type": "websocket.send", "text": message})
        while True:
            message = await browser.waiting.get()
            await send({"type": "websocket.send", "text": message})

    @staticmethod
    async def _until_gone(receive: Receive) -> None:
        while (await receive())["type"] != "websocket.disconnect":
            pass
