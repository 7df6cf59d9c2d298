"""The live feed over a real WebSocket: who gets what, gaps, slow readers."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, RejectConnection, Request, TextMessage

from borgcube.testing.consolerig import ConsoleRig, Visitor
from tests.functional.console.matrix import make_records


class Socket:
    """A WebSocket client without a browser."""

    def __init__(
        self, visitor: Visitor, *, since: str = "", origin: str | None = None, more: str = "",
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:  # fmt: skip
        self.socket: socket.socket = socket.create_connection(("127.0.0.1", visitor.port), 30)
        if visitor.tls is not None:
            self.socket = visitor.tls.wrap_socket(self.socket, server_hostname="127.0.0.1")
        self.ws = WSConnection(ConnectionType.CLIENT)
        host = f"127.0.0.1:{visitor.port}"
        sent = [("cookie", "; ".join(f"{k}={v}" for k, v in visitor.cookies.items())), *headers]
        if origin != "":
            sent.append(("origin", origin or visitor.origin))
        target = f"/live?since={since}{more}" if since or more else "/live"
        self.socket.sendall(self.ws.send(Request(host=host, target=target, extra_headers=sent)))
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

    def say(self, text: str) -> None:
        """Send a message, which no page of ours does."""
        self.socket.sendall(self.ws.send(TextMessage(data=text)))

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
                found = condition()
                if found:
                    return found
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


@pytest.mark.parametrize(
    "origin",
    ["", "http://evil.example", "null", "http://127.0.0.1", "http://127.0.0.1:1",
     "https://127.0.0.1:{port}", "http://127.0.0.1:{port}.evil.example", "http://u@127.0.0.1:{port}"],
)  # fmt: skip
def test_another_site_gets_no_feed(console: ConsoleRig, connect: Any, origin: str) -> None:
    feed = connect(console.visitor("ada"), origin=origin.format(port=console.port))
    while feed.read():
        pass
    assert feed.refused == 403 and feed.messages == []


def test_a_stranger_gets_no_feed(console: ConsoleRig, connect: Any) -> None:
    token = console.call("token.add", name="feed", user="ada", scope=["all"])["token"]
    bearer = (("authorization", f"Bearer {token}"),)
    name = next(iter(console.visitor("ada").cookies))
    for stranger, headers in (
        (console.visitor(), ()),
        (Visitor(console.port, {name: "x" * 43}), ()),
        # An API token is for the API, in whatever place it is shown.
        (console.visitor(), bearer),
        (Visitor(console.port, {name: token}), bearer),
    ):
        feed = connect(stranger, headers=headers, since="0")
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


WIDER = "&client=mail&clients=mail&user=ada&role=administrator&all=1&subscribe=*&types=*"


def test_nothing_that_is_asked_for_widens_what_an_owner_hears(
    console: ConsoleRig, connect: Any
) -> None:
    """After records of every kind were made, what is caught up with is compared with what the
    journal has; then what is new, while the browser asks for more."""
    make_records(console)
    fired = console.call("trigger.add", name="push", plan="web-etc")["token"]
    console.ended(console.call("trigger.fire", token=fired, address="192.0.2.7")["job_id"])
    journal = console.call("events.since", seq=0, limit=1000)
    jobs = {job["id"]: job["client"] for job in console.call("job.list", limit=1000)}
    families = ("check.", "incident.", "notification.", "repository.", "trigger.")

    def own(event: dict[str, Any]) -> bool:
        data = event["data"]
        client = data.get("client") or jobs.get(data.get("job", ""), "")
        return client == "web" and not event["type"].startswith(families)

    mine = [event["seq"] for event in journal if own(event)]
    assert len(mine) > 12 and len(mine) < len(journal)
    assert {"incident.opened", "trigger.fired"} <= {e["type"] for e in journal}
    feed, watcher = connect(console.visitor("owen"), since="0", more=WIDER), console.visitor("vera")
    everything = connect(watcher, since="0")
    everything.until(lambda: len(everything.events()) >= len(journal))
    feed.until(lambda: len(feed.events()) >= len(mine))
    for words in ('{"subscribe": "*", "client": "mail"}', '{"since": 0}', "\x00", "[" * 400):
        feed.say(words)
    console.ended(console.call("backup.start", plan="mail-etc")["job_id"])
    last = console.call("backup.start", plan="web-etc")["job_id"]
    console.ended(last)
    finished(feed, last)
    heard = [e["seq"] for e in feed.events() if e["seq"] is not None]
    assert heard[: len(mine)] == mine
    jobs = {job["id"]: job["client"] for job in console.call("job.list", limit=1000)}
    told = {e["data"].get("client") or jobs[e["data"]["job"]] for e in feed.events()}
    assert told == {"web"}
    assert "192.0.2.7" not in json.dumps(feed.messages)
    assert "192.0.2.7" in json.dumps(everything.messages)


def test_a_login_that_ends_or_changes_ends_its_feed(console: ConsoleRig, connect: Any) -> None:
    feeds, leavers = {}, {}
    for name in ("leaves", "disabled", "removed", "password", "ended", "demoted", "moved", "stays"):
        role, *clients = ("owner", "mail") if name == "moved" else ("administrator",)
        console.user(name, role, *clients)
        leavers[name] = console.visitor(name)
        feeds[name] = connect(leavers[name])
    for feed in feeds.values():
        feed.until(lambda feed=feed: feed.messages)
    assert leavers["leaves"].post("/logout").status == 303
    console.call("user.disable", name="disabled")
    console.call("user.remove", name="removed")
    console.call("user.password", name="password", password="another horse battery")
    elsewhere = console.visitor("ended")
    session = re.search(r'name="id" value="([^"]+)"', elsewhere.get("/account").text)
    assert session
    elsewhere.post("/account/session-end", {"id": session.group(1)}, form="/account")
    console.call("user.change", name="demoted", role="viewer")
    console.call("user.change", name="moved", role="owner", clients=["web"])
    for name, code in (("leaves", 4401), ("disabled", 4401), ("removed", 4401), ("password", 4401),
                       ("ended", 4401), ("demoted", 4409), ("moved", 4409)):  # fmt: skip
        feed = feeds[name]
        feed.until(lambda feed=feed: feed.closed)
        assert feed.closed == code, name
    # What happens from now on reaches only who is still there, and who came back.
    again = connect(leavers["moved"])
    again.until(lambda: again.messages)
    for client in ("mail", "web"):
        job = console.call("backup.start", plan=f"{client}-etc")["job_id"]
        console.ended(job)
    finished(feeds["stays"], job)
    finished(again, job)
    assert {e["data"].get("job") for e in again.events()} == {job}
    assert [name for name, feed in feeds.items() if feed.events() and name != "stays"] == []


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


@pytest.mark.parametrize("since", ["x", "-1", "9" * 30, "0", "%C2%B2", "%FF"])
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
