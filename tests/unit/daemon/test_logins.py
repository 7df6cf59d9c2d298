"""Many logins at once keep the daemon from nothing else, and an open browser is no place to
guess a password."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from borgcube.core import credentials
from borgcube.core.store import Store
from borgcube.daemon.methods_logins import NOTES_AT_ONCE
from tests.unit.daemon.conftest import Refused, RunningDaemon

PASSWORD = "correct horse battery"


def ask(daemon: RunningDaemon, method: str, **params: Any) -> str:
    """Send a request without waiting for its answer."""
    request = {"v": 1, "id": uuid.uuid4().hex, "method": method, "params": params}
    daemon.control.send(json.dumps(request).encode())
    return str(request["id"])


def test_a_flood_of_logins_keeps_nothing_else_from_being_done(daemon: RunningDaemon) -> None:
    daemon.call("client.add", name="web", transport="local")
    logins = [ask(daemon, "login.password", name=f"user{n}", password="wrong",
                  address=f"192.0.2.{n}") for n in range(150)]  # fmt: skip
    test = ask(daemon, "client.test", name="web")
    answers: dict[str, Any] = {}
    while len(answers) < 151:
        assert daemon.control.poll(30_000), "no answer"
        answer = json.loads(daemon.control.recv())
        answers[answer["id"]] = answer
    assert answers[test]["ok"], answers[test]
    kinds = {answers[login]["error"]["kind"] for login in logins}
    assert kinds == {"AccessDenied", "TooMany"}
    busy = [answers[one] for one in logins if answers[one]["error"]["kind"] == "TooMany"]
    assert all("busy" in one["error"]["message"] for one in busy)


def test_wrong_logins_from_everywhere_do_not_fill_the_store(daemon: RunningDaemon) -> None:
    for n in range(150):
        with pytest.raises(Refused):
            daemon.call("login.link", token="none", address=f"192.0.2.{n}")
    daemon.stop()
    store = Store.open(f"file://{daemon.home}/store/borgcube.fs")
    with store.reading() as root:
        entries = root.audit.newest(200, action="login.link")
    store.close()
    assert NOTES_AT_ONCE <= len(entries) < 150
    daemon.start()


def test_who_has_an_open_browser_cannot_guess_the_password_with_it(daemon: RunningDaemon) -> None:
    daemon.call("user.add", name="ada", password=PASSWORD)
    opened = daemon.call("login.password", name="ada", password=PASSWORD)["session"]
    here = {"user": "ada", "id": credentials.digest(opened)}
    kinds = []
    for n in range(10):
        with pytest.raises(Refused) as refused:
            daemon.call("session.confirm", **here, **({"code": f"{n:06}"} if n % 2 else
                                                      {"password": f"n{n}"}))  # fmt: skip
        kinds.append(refused.value.args[0]["kind"])
    assert kinds == ["AccessDenied"] * 10
    with pytest.raises(Refused) as refused:
        daemon.call("session.confirm", **here, password=PASSWORD)
    assert refused.value.args[0]["kind"] == "TooMany"
    # It is counted apart from logins, which go on.
    assert daemon.call("login.password", name="ada", password=PASSWORD, address="192.0.2.1")


def test_a_user_under_attack_logs_in_from_where_they_did_before(daemon: RunningDaemon) -> None:
    daemon.call("user.add", name="ada", password=PASSWORD)
    daemon.call("login.password", name="ada", password=PASSWORD, address="203.0.113.5")
    # Restarted, the daemon knows it from the login that is still open.
    daemon.stop()
    daemon.start()
    for n in range(12):
        with pytest.raises(Refused):
            daemon.call("login.password", name="ada", password="no", address=f"192.0.2.{n}")
    with pytest.raises(Refused) as refused:
        daemon.call("login.password", name="ada", password=PASSWORD, address="192.0.2.99")
    assert refused.value.args[0]["kind"] == "TooMany"
    assert daemon.call("login.password", name="ada", password=PASSWORD, address="203.0.113.5")
