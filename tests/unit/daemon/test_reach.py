"""Whether a client is there is asked aside, and only an absent host counts as away."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from borgcube.core.errors import JobFailed, Problem
from borgcube.core.home import init_home, runtime_dir
from borgcube.core.transports import ClientAddress
from borgcube.daemon.reach import GOOD_FOR_S, Reach


class Transport:
    """Fails as it is told, and counts how often it was asked."""

    def __init__(self, kind: str) -> None:
        self.kind, self.asked = kind, 0

    def connect(self, address: Any, context: Any) -> Any:
        self.asked += 1
        assert context.runtime_dir.is_dir()
        if self.kind:
            raise JobFailed(self.kind, Problem.NETWORK, "No.")
        return SimpleNamespace(close=lambda: None)


def answer(reach: Reach, address: ClientAddress) -> bool:
    deadline = time.monotonic() + 30
    while (found := reach.ask(address)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


@pytest.mark.parametrize(
    ("kind", "there"),
    [("", True), ("host-unreachable", False), ("timeout", False), ("connection-lost", False),
     ("login-refused", True), ("host-key-changed", True)],
)  # fmt: skip
def test_a_client_is_away_only_when_its_host_does_not_answer(
    tmp_path: Path, kind: str, there: bool
) -> None:
    home = init_home(tmp_path / "home")
    clock = [0.0]
    transport = Transport(kind)
    reach = Reach(home, {"t": transport}, clock=lambda: clock[0])
    address = ClientAddress(name="web", transport="t")
    assert reach.ask(address) is None, "nobody waits for it"
    assert answer(reach, address) is there
    assert reach.ask(address) is there and transport.asked == 1, "remembered for a while"
    clock[0] += GOOD_FOR_S + 1
    assert answer(reach, address) is there and transport.asked == 2
    reach.close()
    assert list(runtime_dir(home).iterdir()) == [], "nothing is left of it"


def test_a_client_whose_transport_is_missing_is_left_to_its_job(tmp_path: Path) -> None:
    reach = Reach(init_home(tmp_path / "home"), {})
    assert answer(reach, ClientAddress(name="web", transport="gone")) is True
    reach.close()
