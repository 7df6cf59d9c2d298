"""The hub of the live feed by itself: what it knows of jobs, gaps, and those who must go."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from borgcube.core import credentials
from borgcube.core.config import ConsoleConfig
from borgcube.core.events import ClientAdded, JobPhase, JobStarted, now
from borgcube.core.model import Job, Session, User
from borgcube.core.store import Store
from borgcube.web import live
from borgcube.web.live import LiveHub
from borgcube.web.settings import WebSettings
from tests.unit.web.loops import run

COOKIES = {"ada": "a" * 43, "owen": "o" * 43}


class Rig:
    """A hub over a store with a user of each kind, and browsers that are plain lists."""

    def __init__(self, place: Path) -> None:
        self.store = Store.open(f"file://{place / 'store.fs'}")
        self.hub = LiveHub(place, self.store, WebSettings.of(ConsoleConfig()), cookie="cube")
        with self.store.transact() as root:
            root.users.add(User(name="ada", role="administrator"))
            root.users.add(User(name="owen", role="owner", clients=("web",)))
            for name, cookie in COOKIES.items():
                root.sessions.add(Session(
                    id=credentials.digest(cookie), user=name, created_at=now(),
                    last_seen_at=now(), expires_at=credentials.in_the_future(days=1),
                ))  # fmt: skip
            for number, client in (("1", "web"), ("2", "mail")):
                root.jobs.add(Job(id=number, type="backup", client=client, state="running"))

    def append(self, *events: Any) -> list[dict[str, Any]]:
        with self.store.transact() as root:
            made = [root.journal.append(event).as_data() for event in events]
        self.hub.seq = made[-1]["seq"]
        return made

    def change(self, name: str, **fields: Any) -> None:
        with self.store.transact() as root:
            user = root.users.find("name", name)
            for field, value in fields.items():
                setattr(user, field, value)

    async def serve(
        self, name: str, sent: list[Any], *, since: str = "", slow: bool = False
    ) -> None:
        headers = [(b"cookie", f"cube={COOKIES[name]}".encode()), (b"host", b"h"),
                   (b"origin", b"http://h")]  # fmt: skip
        scope = {"type": "websocket", "scheme": "ws", "headers": headers,
                 "query_string": f"since={since}".encode()}  # fmt: skip
        asked = [{"type": "websocket.connect"}]

        async def receive() -> Any:
            if asked:
                return asked.pop()
            return await asyncio.Event().wait()

        async def send(message: Any) -> None:
            if slow and message["type"] != "websocket.accept":
                await asyncio.Event().wait()
            sent.append(message)

        await self.hub.serve(scope, receive, send)


@pytest.fixture
def rig(tmp_path: Path) -> Any:
    made = Rig(tmp_path)
    yield made
    made.store.close()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def texts(sent: list[Any]) -> list[dict[str, Any]]:
    return [json.loads(one["text"]) for one in sent if one["type"] == "websocket.send"]


def events(sent: list[Any]) -> list[dict[str, Any]]:
    return [e for m in texts(sent) if m["kind"] == "events" for e in m["events"]]


async def together(*works: Coroutine[Any, Any, Any], after: Coroutine[Any, Any, Any]) -> None:
    """Run ``works`` until ``after`` is through."""
    tasks = [asyncio.create_task(one) for one in works]
    try:
        await after
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def test_what_was_missed_is_told_of_own_jobs_although_the_hub_never_heard_of_them(rig: Rig) -> None:
    """As after a restart: who a job belongs to has to be looked up."""
    rig.append(
        ClientAdded(client="web", transport="local"), JobPhase(job="1", phase="reading"),
        JobPhase(job="2", phase="reading"), JobStarted(job="2", job_type="backup", client="mail"),
        JobPhase(job="9", phase="reading"), JobStarted(job="1", job_type="backup", client="web"),
    )  # fmt: skip
    sent: list[Any] = []
    run(together(rig.serve("owen", sent, since="1"), after=until(lambda: len(texts(sent)) > 1)))
    assert [(e["type"], e["data"]["job"]) for e in events(sent)] == [
        ("job.phase", "1"), ("job.started", "1")
    ]  # fmt: skip


def test_figures_of_a_job_that_was_forgotten_reach_its_owner_only(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MAX_JOBS", 1)
    sent: list[Any] = []
    other: list[Any] = []

    async def happen() -> None:
        await until(lambda: texts(sent) and texts(other))
        for job in ("2", "1", "2", "1"):
            figures = {"files": 1, "path": f"/of/{job}"}
            await rig.hub._take({"seq": None, "type": "job.progress",
                                 "data": {"job": job, "progress": figures}})  # fmt: skip
            await until(lambda job=job: any(e["data"]["job"] == job for e in events(other)))
            other[:] = [one for one in other if "hello" in one.get("text", "")]
        await until(lambda: len(events(sent)) == 2)

    run(together(rig.hub._distribute(), rig.serve("owen", sent), rig.serve("ada", other),
                 after=happen()))  # fmt: skip
    assert {e["data"]["progress"]["path"] for e in events(sent)} == {"/of/1"}
    assert len(rig.hub._clients) == 1


def test_a_gap_that_the_journal_cannot_fill_draws_the_pages_anew(rig: Rig) -> None:
    rig.append(*[ClientAdded(client="web", transport="local")] * 8)
    with rig.store.transact() as root:
        root.journal.drop(5, most=3)
    sent: list[Any] = []
    run(together(rig.serve("ada", sent, since="2"), after=until(lambda: len(texts(sent)) > 1)))
    assert texts(sent)[1] == {"kind": "resync", "seq": 8}

    live_one: list[Any] = []

    async def happen() -> None:
        await until(lambda: texts(live_one))
        rig.hub.seq = 2
        await rig.hub._take({"seq": 8, "type": "client.added", "data": {"client": "web"}})
        await until(lambda: len(texts(live_one)) > 1)

    run(together(rig.serve("ada", live_one, since="8"), after=happen()))
    assert texts(live_one)[1] == {"kind": "resync", "seq": 8} and rig.hub.seq == 8


@pytest.mark.parametrize(("change", "code"), [
    ({"disabled": True}, live.NOT_LOGGED_IN), ({"clients": ("mail",)}, live.CHANGED),
])  # fmt: skip
@pytest.mark.parametrize("slow", [False, True])
def test_who_must_go_gets_nothing_more_even_if_slow(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], code: int, slow: bool
) -> None:
    monkeypatch.setattr(live, "RECHECK_S", 0.05)
    monkeypatch.setattr(live, "CLOSE_S", 0.05)
    sent: list[Any] = []

    async def happen() -> None:
        serving = asyncio.create_task(rig.serve("owen", sent, slow=slow))
        await until(lambda: rig.hub.browsers)
        if not slow:
            await until(lambda: texts(sent))
        rig.change("owen", **change)
        await until(lambda: not rig.hub.browsers)
        await rig.hub._take({"seq": None, "type": "job.progress",
                             "data": {"job": "1", "progress": {}}})  # fmt: skip
        await asyncio.wait_for(serving, 60)

    run(together(rig.hub._distribute(), rig.hub._recheck(), after=happen()))
    assert events(sent) == []
    if not slow:
        assert sent[-1] == {"type": "websocket.close", "code": code}
