"""What a hostile host answers ends in time and in bounds, and a person is told in words.

The cells here are a selection; ``python -m borgcube.testing.hostilehosts`` plays all of them with
the daemon's own deadlines and measures every process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from borgcube.cli.control import Control
from borgcube.core import hostkeys
from borgcube.core.errors import BorgCubeError, JobFailed, TooMany
from borgcube.core.home import init_home
from borgcube.core.transports import TransportContext
from borgcube.daemon import hostchild
from borgcube.daemon.hostanswers import DIAGNOSE, KEYS, REACH, TEST
from borgcube.daemon.hostask import GRACE_S, Question
from borgcube.testing.hostilehosts import COMMAND, KILL, TRANSPORTS, Cell, Range

LIMIT_S = 1.5
DEADLINES_S = {KEYS: 8.0, TEST: 8.0, DIAGNOSE: 8.0, REACH: 8.0}
BEFORE_LOGIN = (
    "silent", "greeting-drip", "greeting-flood", "lines-flood", "giant-packet", "packet-drip",
    "ignored-flood", "other-key", "auth-never", "auth-banners",
)  # fmt: skip
SCANNED = ("silent", "greeting-drip", "greeting-flood", "giant-packet")
AFTER_LOGIN = ("exec-quiet", "out-flood", "err-flood", "err-drip", "odd-exit")
PROCESS_BYTES = 120 << 20


@pytest.fixture(scope="module")
def place() -> Iterator[Range]:
    with (
        tempfile.TemporaryDirectory(prefix="bc", ignore_cleanup_errors=True) as name,
        Range(Path(name), deadlines_s=DEADLINES_S) as made,
    ):
        yield made


def found_out(place: Range, cell: Cell) -> tuple[Cell, float, str]:
    """Call what the child calls, with short limits; return what a person is told."""
    address = place.address(cell)
    transport = place.registry.transports[cell.transport]
    with tempfile.TemporaryDirectory(prefix="bc") as name:
        directory = Path(name)
        known = hostkeys.known_hosts_for(address, directory, directory)
        context = TransportContext(known, directory, LIMIT_S)
        began = time.monotonic()
        try:
            if cell.place == KEYS:
                told = f"keys: {transport.scan_host_keys(address, context)}"
            else:
                connection = transport.connect(address, context)
                try:
                    if cell.place == COMMAND:
                        done = connection.run(["true"], timeout_s=2)
                        told = f"code: {done.exit_code}"
                    elif cell.place == KILL:
                        connection.start(["sleep", "60"]).terminate()
                        told = "ended:"
                    else:
                        told = "logged in:"
                finally:
                    connection.close()
        except JobFailed as error:
            told = f"{error.cause.kind}: {error}"
    return cell, time.monotonic() - began, told


def test_every_hostile_host_ends_in_time_and_words(place: Range) -> None:
    cells = [
        *(Cell(one, REACH, way) for way in TRANSPORTS for one in BEFORE_LOGIN),
        *(Cell(one, KEYS, way) for way in TRANSPORTS for one in SCANNED),
        *(Cell(one, COMMAND, way) for way in TRANSPORTS for one in AFTER_LOGIN),
        *(Cell(one, KILL, way) for way in TRANSPORTS for one in ("out-flood", "exec-announced")),
    ]  # fmt: skip
    assert len(cells) >= 30
    with ThreadPoolExecutor(10) as pool:
        outcomes = list(pool.map(lambda cell: found_out(place, cell), cells))
    expected = {
        "auth-never": {"host-unreachable", "login-refused"}, "other-key": {"host-key-changed"},
        "err-drip": {"connection-lost"}, "exec-quiet": {"connection-lost"},
        "err-flood": {"connection-lost"}, "odd-exit": {"code", "timeout", "connection-lost"},
    }  # fmt: skip
    for cell, seconds, told in outcomes:
        kind, _, text = told.partition(":")
        assert seconds < 30, (cell, seconds, told)  # a loaded machine; the limits add up to 12
        assert told.isprintable() and len(text) < 1500, (cell, told)
        if cell.place in (REACH, KEYS):
            assert kind in expected.get(cell.behaviour, {"host-unreachable"}), (cell, told)
        elif cell.place == COMMAND:
            assert kind in expected.get(cell.behaviour, {"timeout", "connection-lost"}), (
                cell, told,
            )  # fmt: skip
        else:
            assert kind in ("ended", "connection-lost"), (cell, told)


@pytest.mark.parametrize("cell", [
    Cell("greeting-flood", TEST, "paramiko"), Cell("window-flood", TEST, "paramiko"),
    Cell("wild-words", DIAGNOSE, "openssh"),
], ids=lambda one: one.name)  # fmt: skip
def test_a_child_reads_it_within_its_limits(place: Range, cell: Cell) -> None:
    outcome = place.play(cell)
    assert outcome.seconds < DEADLINES_S[cell.place] + GRACE_S + 12, outcome
    assert outcome.peaks and max(outcome.peaks.values()) < PROCESS_BYTES, outcome
    assert outcome.told.isprintable() and len(outcome.told) < 2500
    assert list((place.home / "run").glob("ctl-*")) == []


def ask(place: Range, behaviour: str) -> Any:
    return place.asker.ask(Question(REACH, place.address(Cell(behaviour, REACH, "paramiko"))))


def test_a_question_has_one_deadline_and_can_be_given_up(place: Range) -> None:
    first, second = ask(place, "silent"), ask(place, "silent")
    with pytest.raises(TooMany):
        ask(place, "silent")
    name = place.address(Cell("silent", REACH, "paramiko")).name
    began = time.monotonic()
    while len(place.asker.running().get(name, [])) < 2:
        assert time.monotonic() - began < 20
        time.sleep(0.02)
    place.asker.cancel(name)
    for future in (first, second):
        with pytest.raises(JobFailed, match="given up"):
            future.result(20)
    with pytest.raises(JobFailed) as failure:
        ask(place, "auth-never").result(40)
    assert failure.value.cause.kind == "timeout" and "kept the server waiting" in str(failure.value)


def test_an_answer_that_is_none_is_told_as_one(
    place: Range, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A child that was taken over says what it likes, and as much as it likes."""
    for code in ('print(\'{"there": "yes"}\')', "print('x' * 10_000_000)", "raise SystemExit(3)"):
        (tmp_path / "child.py").write_text(code)
        monkeypatch.setattr(
            "borgcube.daemon.hostask.CHILD", [sys.executable, str(tmp_path / "child.py")]
        )
        with pytest.raises(JobFailed) as failure:
            ask(place, "silent").result(30)
        assert failure.value.cause.kind == "host-unreadable"


def test_a_child_without_memory_says_so(place: Range) -> None:
    order = {"asked": TEST, "address": {"name": "web", "transport": "none"}}

    class Greedy:
        def __getattr__(self, name: str) -> Any:
            raise MemoryError

    line = hostchild.answer({**order, "known_hosts": "", "runtime_dir": ""}, Greedy())  # type: ignore[arg-type]
    assert b"host-flood" in line


def peak_of(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(one for one in status if one.startswith("VmHWM")).split()[1]) << 10


def test_the_daemon_reads_nothing_of_it(place: Range) -> None:
    """Of the release 0.1.0, one test of such a client took the daemon to 2 GB."""
    with tempfile.TemporaryDirectory(prefix="bc") as name:
        home = init_home(Path(name) / "home")
        code = ("import sys; from pathlib import Path; from borgcube.daemon.main import serve; "
                "sys.exit(serve(Path(sys.argv[1])))")  # fmt: skip
        port = place.sshd.ports["giant-packet"]
        with subprocess.Popen([sys.executable, "-c", code, str(home)]) as daemon:
            try:
                line = f"[127.0.0.1]:{port} {place.sshd.key.text}"
                _ask_hostile(home, daemon.pid, port, line)
            finally:
                daemon.terminate()
                daemon.wait(40)


def _ask_hostile(home: Path, pid: int, port: int, line: str) -> None:
    deadline = time.monotonic() + 40
    while True:
        try:
            with Control(home) as control:
                control.call("ping")
                break
        except BorgCubeError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    with Control(home) as control:
        control.call("client.add", name="evil", transport="paramiko", host="127.0.0.1", port=port,
                     user="root")  # fmt: skip
        control.call("client.trust", name="evil", lines=[line])
        before = peak_of(pid)
        with pytest.raises(BorgCubeError):
            control.call("client.test", timeout_s=100, name="evil")
        assert peak_of(pid) - before < 16 << 20
    assert os.path.exists(f"/proc/{pid}")
