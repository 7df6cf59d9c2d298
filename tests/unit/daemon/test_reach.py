"""Whether a client is there is asked aside, and only an absent host counts as away."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from borgcube.core.errors import JobFailed, Problem
from borgcube.core.home import init_home
from borgcube.core.registry import Registry
from borgcube.core.transports import ClientAddress
from borgcube.daemon.hostask import HostAsker, Question
from borgcube.daemon.reach import GOOD_FOR_S, Reach


class Hosts:
    """Fails as it is told, and counts how often it was asked."""

    def __init__(self, kind: str) -> None:
        self.kind, self.asked = kind, 0
        self.future: Future[Any] = Future()

    def ask(self, question: Question) -> Future[Any]:
        self.asked += 1
        self.future = Future()
        return self.future

    def end(self) -> None:
        if self.kind:
            self.future.set_exception(JobFailed(self.kind, Problem.NETWORK, "No."))
        else:
            self.future.set_result(None)


@pytest.mark.parametrize(
    ("kind", "there"),
    [("", True), ("host-unreachable", False), ("timeout", False), ("connection-lost", False),
     ("login-refused", True), ("host-key-changed", True)],
)  # fmt: skip
def test_a_client_is_away_only_when_its_host_does_not_answer(kind: str, there: bool) -> None:
    clock = [0.0]
    hosts = Hosts(kind)
    reach = Reach(hosts, clock=lambda: clock[0])
    address = ClientAddress(name="web", transport="t")
    assert reach.ask(address) is None, "nobody waits for it"
    assert reach.ask(address) is None and hosts.asked == 1
    hosts.end()
    assert reach.ask(address) is there
    assert reach.ask(address) is there and hosts.asked == 1, "remembered for a while"
    clock[0] += GOOD_FOR_S + 1
    assert reach.ask(address) is None and hosts.asked == 2
    hosts.end()
    assert reach.ask(address) is there


def test_a_client_whose_transport_is_missing_is_left_to_its_job(tmp_path: Path) -> None:
    hosts = HostAsker(init_home(tmp_path / "home"), Registry())
    assert Reach(hosts).ask(ClientAddress(name="web", transport="gone")) is True
    hosts.close()
