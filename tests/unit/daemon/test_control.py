"""The control socket has every request with an asker judged, before its method."""

from __future__ import annotations

import json
from typing import Any

import pytest

from borgcube.core.access import Identity, Permission, Role
from borgcube.core.errors import AccessDenied
from borgcube.core.store import Store
from borgcube.daemon.audit import Audit
from borgcube.daemon.control import Control

OLGA = Identity(user="olga", role=Role.OPERATOR, scope=frozenset({Permission.VIEW}), token="t")


class Socket:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def send_multipart(self, frames: list[bytes], _flags: int) -> None:
        self.sent.append(json.loads(frames[1]))


class Rig:
    """A control server without a socket, with one method."""

    def __init__(self, store: Store, **more: Any) -> None:
        self.store, self.socket, self.done = store, Socket(), []

        def rename(*, name: str) -> str:
            self.done.append(name)
            return name

        rename.audited = True  # type: ignore[attr-defined]
        self.control = Control(
            self.socket,
            {"thing.rename": rename},
            audit=Audit(store),
            **more,  # type: ignore
        )

    def ask(self, **more: Any) -> dict[str, Any]:
        request = {"v": 1, "id": "1", "method": "thing.rename", "params": {"name": "x"}, **more}
        self.control._handle(b"peer", json.dumps(request).encode())
        return self.socket.sent[-1]


@pytest.fixture
def store():
    made = Store.open("memory://")
    yield made
    made.close()


def test_a_request_is_judged_before_its_method_and_the_refusal_is_in_the_trail(store) -> None:
    seen: list[Any] = []

    def judge(me: Identity | None, method: str, params: dict[str, Any]) -> None:
        seen.append((me, method, params))
        if me != OLGA:
            raise AccessDenied("No.", field="name")

    rig = Rig(store, judge=judge)
    assert rig.ask(asker=OLGA.as_data())["ok"]
    assert seen == [(OLGA, "thing.rename", {"name": "x"})] and rig.done == ["x"]
    refused = rig.ask(asker={}, actor={"user": "eve", "via": "console"})
    assert refused["error"]["kind"] == "AccessDenied" and refused["error"]["field"] == "name"
    assert seen[-1][0] is None and rig.done == ["x"]
    with store.reading() as root:
        entry = root.audit.newest(1)[0]
    assert (entry.user, entry.outcome, entry.message) == ("eve", "refused", "No.")
    assert rig.ask()["ok"] and len(seen) == 2, "the local administrator is not asked"


@pytest.mark.parametrize(
    "asker",
    [None, [], "ada", {"user": "ada"}, {**OLGA.as_data(), "role": "emperor"},
     {**OLGA.as_data(), "restricted": "no"}, {**OLGA.as_data(), "clients": "web"},
     {**OLGA.as_data(), "scope": ["everything"]}],
)  # fmt: skip
def test_an_asker_that_is_nobody_is_refused(store, asker: Any) -> None:
    rig = Rig(store, judge=lambda *_: None)
    assert rig.ask(asker=asker)["error"]["kind"] == "InvalidInput" and rig.done == []


def test_without_a_judge_only_the_local_administrator_may(store) -> None:
    rig = Rig(store)
    assert not rig.ask(asker=OLGA.as_data())["ok"] and rig.done == []
    assert rig.ask()["ok"]


@pytest.mark.parametrize("scope", [None, frozenset(), frozenset({Permission.DELETE})])
def test_an_identity_comes_through_the_socket_as_it_was(scope: Any) -> None:
    me = Identity(user="u", role=Role.OWNER, clients=frozenset({"a"}), scope=scope, session="s",
                  restricted=True, token="t")  # fmt: skip
    assert Identity.from_data(json.loads(json.dumps(me.as_data()))) == me
