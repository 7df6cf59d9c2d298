"""The live feed over a real WebSocket: who gets what, gaps, slow readers."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, RejectConnection, Request, TextMessage

from borgcube.testing.consolerig import ConsoleRig, Visitor


class Socket:
    """A WebSocket client without a browser."""

    def __init__(self, visitor: Visitor, *, since: str = "", origin: str | None = None) -> None:
        self.socket: socket.socket = socket.create_connection(("127.0.0.1", visitor.port), 30)
        if visitor.tls is not None:
            self.socket = visitor.tls.wrap_socket(self.socket, server_hostname="127.0.0.1")
        self.ws = WSConnection(ConnectionType.CLIENT)
        host = f"127.0.0.1:{visitor.port}"
        headers = [("cookie", "; ".join(f"{k}={v}" for k, v in visitor.cookies.items()))]
        if origin != "":
            headers.append(("origin", origin or visitor.origin))
        target = f"/live?since={since}" if since else "/live"
        self.socket.sendall(self.ws.send(Request(host=host, target=target, extra_headers=headers)))
        self.messages: list[dict[str, Any]] = []
        self.closed: int | None = None
        self.refused: int | None = None
        self._part = ""

    def read(self, *, timeout_s: float = 30) -> bool:
        """Read what comes next; False at the end or after the time."""
        self.socket.settimeout(timeout_s)
        try:
            data = self.socket.recv(1 << 16)
        except TimeoutError:
            return False
        if not data:
            self.closed = self.closed or 1006
            return False
        self.ws.receive_data(data)
        for event in self.ws.events():
            if isinstance(event, TextMessage):
                self._part += event.data
                if event.message_finished:
                    self.messages.append(json.loads(self._part))
                    self._part = ""
            elif isinstance(event, CloseConnection):
                self.closed = event.code
                return False
            elif isinstance(event, RejectConnection):
                self.refused = event.status_code
                return False
            else:
                assert isinstance(event, AcceptConnection) or event is not None
        return True

    def events(self) -> list[dict[str, Any]]:
        """Return all events so far."""
        return [e for m in self.messages if m["kind"] == "events" for e in m["events"]]

    def until(self, condition: Any, *, timeout_s: float = 60) -> Any:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            found = condition()
            if found:
                return found
            if not self.read(timeout_s=5) and (self.closed or self.refused):
                break
        raise AssertionError((self.messages[-5:], self.closed, self.refused))


@pytest.fixture
def connect(console: ConsoleRig) -> Iterator[Any]:
    made: list[Socket] = []

    def connect(visitor: Visitor, **more: Any) -> Socket:
        made.append(Socket(visitor, **more))
        return made[-1]

    yield connect
    for one in made:
        one.socket.close()


def finished(feed: Socket, job: str) -> Any:
    def ends() -> list[dict[str, Any]]:
        ended = [e for e in feed.events() if e["type"] == "job.finished"]
        return [e for e in ended if e["data"]["job"] == job]

    return feed.until(ends)


@pytest.mark.parametrize("origin", ["", "http://evil.example", "null"])
def test_another_site_gets_no_feed(console: ConsoleRig, connect: Any, origin: str) -> None:
    feed = connect(console.visitor("ada"), origin=origin)
    while feed.read():
        pass
    assert feed.refused == 403 and feed.messages == []


def test_a_stranger_gets_no_feed(console: ConsoleRig, connect: Any) -> None:
    feed = connect(console.visitor())
    while feed.read():
        pass
    assert feed.closed == 4401 and feed.messages == []


def test_an_owner_hears_of_own_clients_only(console: ConsoleRig, connect: Any) -> None:
    everything, own = connect(console.visitor("vera")), connect(console.visitor("owen"))
    for feed in (everything, own):
        feed.until(lambda feed=feed: feed.messages)
    jobs = {}
    for client in ("mail", "web"):
        jobs[client] = console.call("backup.start", plan=f"{client}-etc")["job_id"]
        console.ended(jobs[client])
    finished(everything, jobs["web"])
    finished(own, jobs["web"])
    # The last one is there, so anything of the first would have come before it.
    assert {e["data"]["job"] for e in everything.events()} >= set(jobs.values())
    assert {e["data"].get("job") for e in own.events()} == {jobs["web"]}
    assert {e["type"] for e in own.events()} >= {"job.queued", "job.phase", "job.finished"}


def test_a_returning_browser_gets_what_it_missed_in_order(
    console: ConsoleRig, connect: Any
) -> None:
    visitor = console.visitor("ada")
    first = connect(visitor)
    first.until(lambda: first.messages)
    seq = first.messages[0]["seq"]
    first.socket.close()
    job = console.call("backup.start", plan="web-etc")["job_id"]
    console.ended(job)
    again = connect(visitor, since=str(seq))
    finished(again, job)
    numbers = [e["seq"] for e in again.events() if e["seq"] is not None]
    assert numbers == list(range(seq + 1, seq + 1 + len(numbers)))


@pytest.mark.parametrize("since", ["x", "-1", "9" * 30, "0"])
def test_an_odd_number_does_no_harm(console: ConsoleRig, connect: Any, since: str) -> None:
    feed = connect(console.visitor("ada"), since=since)
    feed.until(lambda: feed.messages)
    assert feed.messages[0]["kind"] == "hello"


def test_a_browser_that_does_not_read_holds_nothing_back(console: ConsoleRig, connect: Any) -> None:
    deaf, quick = connect(console.visitor("ada")), connect(console.visitor("vera"))
    for number in range(3):
        job = console.call("backup.start", plan="web-etc")["job_id"]
        console.ended(job)
        finished(quick, job)
        assert number >= 0 and deaf.messages == []
    assert console.visitor("ada").get("/").status == 200
