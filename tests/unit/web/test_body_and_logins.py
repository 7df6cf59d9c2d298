"""The outermost layer keeps the few threads for pages: bodies are read before one is taken,
and logins wait in line without one."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest

from borgcube.core.config import ConsoleConfig
from borgcube.web import asgi, service
from borgcube.web.asgi import FrontDoor
from borgcube.web.settings import WebSettings
from tests.unit.web.loops import run


class Pages:
    """What stands for the pages: it answers when it is told to."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.running = 0
        self.go_on = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.running += 1
        self.bodies.append((await receive())["body"])
        await self.go_on.wait()
        self.running -= 1
        await send({"type": "http.response.start", "status": 200, "headers": []})


class Request:
    """One request whose body comes when the test says so."""

    def __init__(self, path: str = "/login", length: int = 3) -> None:
        self.parts: asyncio.Queue[Any] = asyncio.Queue()
        self.sent: list[Any] = []
        self.scope = {
            "type": "http", "path": path, "scheme": "http", "client": ("192.0.2.1", 1),
            "method": "POST",
            "headers": [(b"host", b"localhost"), (b"content-length", b"%d" % length)],
        }  # fmt: skip

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    def say(self, body: bytes, *, more: bool = False) -> None:
        self.parts.put_nowait({"type": "http.request", "body": body, "more_body": more})

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])


def door(pages: Pages) -> FrontDoor:
    return FrontDoor(WebSettings.of(ConsoleConfig()), pages=pages, live=pages)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_page_gets_its_body_whole_and_no_thread_before() -> None:
    async def scenario() -> None:
        pages, request = Pages(), Request("/clients", 6)
        pages.go_on.set()
        task = asyncio.create_task(door(pages)(request.scope, request.parts.get, request.send))
        request.say(b"abc", more=True)
        await settle()
        assert pages.bodies == []
        request.say(b"def")
        await task
        assert pages.bodies == [b"abcdef"] and request.status == 200

    run(scenario())


def test_a_body_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "BODY_S", 0.05)

    async def scenario() -> None:
        pages, request = Pages(), Request("/api/v1/plans", 6)
        request.say(b"abc", more=True)
        await door(pages)(request.scope, request.parts.get, request.send)
        assert pages.bodies == [] and request.status == 408
        assert json.loads(request.sent[1]["body"])["kind"] == "timeout"

    run(scenario())


def test_a_visitor_who_hangs_up_is_forgotten() -> None:
    async def scenario() -> None:
        pages, request = Pages(), Request()
        request.parts.put_nowait({"type": "http.disconnect"})
        await door(pages)(request.scope, request.parts.get, request.send)
        assert pages.bodies == [] and request.sent == []

    run(scenario())


def test_logins_wait_in_line_and_other_pages_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "LOGINS_WAITING", 3)

    async def scenario() -> None:
        pages = Pages()
        front = door(pages)
        requests = [Request() for _ in range(asgi.LOGINS_AT_ONCE + 3 + 2)]
        tasks = []
        for request in requests:
            request.say(b"a=b")
            task = front(request.scope, request.parts.get, request.send)
            tasks.append(asyncio.create_task(task))
            await settle()
        assert pages.running == asgi.LOGINS_AT_ONCE
        refused = [one for one in requests if one.sent]
        assert refused == requests[-2:] and {one.status for one in refused} == {503}
        other = Request("/clients")
        other.say(b"abc")
        tasks.append(asyncio.create_task(front(other.scope, other.parts.get, other.send)))
        await settle()
        assert pages.running == asgi.LOGINS_AT_ONCE + 1
        pages.go_on.set()
        await asyncio.gather(*tasks)
        assert [one.status for one in requests[:-2]] == [200] * 5 and other.status == 200

    run(scenario())


def test_large_bodies_are_few_at_a_time_and_small_ones_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asgi, "LARGE_AT_ONCE", 2)

    async def scenario() -> None:
        pages = Pages()
        front = door(pages)
        stuck = [Request("/clients", asgi.LARGE + 1) for _ in range(2)]
        tasks = [asyncio.create_task(front(r.scope, r.parts.get, r.send)) for r in stuck]
        await settle()
        third, small = Request("/clients", asgi.LARGE + 1), Request("/clients")
        await front(third.scope, third.parts.get, third.send)
        assert third.status == 503
        small.say(b"abc")
        pages.go_on.set()
        await front(small.scope, small.parts.get, small.send)
        assert small.status == 200
        for request in stuck:
            request.say(b"x")
        await asyncio.gather(*tasks)
        assert [r.status for r in stuck] == [200, 200]

    run(scenario())


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/clients", "text/plain; charset=utf-8"), ("/api/v1/plans", "application/problem+json")],
)
def test_what_is_too_large_is_refused_in_the_form_of_its_place(path: str, kind: str) -> None:
    async def scenario() -> None:
        pages, request = Pages(), Request(path, asgi.MAX_BODY + 1)
        await door(pages)(request.scope, request.parts.get, request.send)
        headers = dict(request.sent[0]["headers"])
        assert request.status == 413 and headers[b"content-type"].decode() == kind

    run(scenario())


def test_answers_on_an_open_connection_are_not_held_back() -> None:
    """Without TCP_NODELAY a short answer waits 40 ms for an acknowledgement."""

    async def scenario() -> int:
        listener = service._listen(WebSettings.of(ConsoleConfig(listen="127.0.0.1:0")))
        option: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def met(_reader: Any, writer: asyncio.StreamWriter) -> None:
            accepted = writer.get_extra_info("socket")
            option.set_result(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        async with await asyncio.start_server(met, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname())
            found = await option
            writer.close()
        return found

    assert run(scenario()) != 0
