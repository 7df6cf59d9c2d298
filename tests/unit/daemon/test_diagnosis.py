"""The test of a client names the first step that fails and says what to do about it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from borgcube.core.errors import JobFailed, Problem
from borgcube.core.hostkeys import HostKey
from borgcube.core.transports import ClientAddress, Completed, TransportContext
from borgcube.daemon.diagnosis import Diagnosis


def key(text: bytes) -> HostKey:
    return HostKey("ssh-ed25519", b"\0\0\0\x0bssh-ed25519" + text)


class Way:
    """A transport whose other side does what a test says."""

    name = "way"

    def __init__(self, *, keys: list[HostKey], login: bool = True, prints: bytes = b"ok Linux\n"):
        self.keys, self.login, self.prints = keys, login, prints
        self.closed = 0

    def scan_host_keys(self, address: Any, context: Any) -> list[HostKey]:
        return self.keys

    def connect(self, address: Any, context: Any) -> Any:
        if not self.login:
            raise JobFailed("login-refused", Problem.CLIENT, "Refused.", next_step="Paste it.")
        return self

    def run(self, argv: Any, **_: Any) -> Completed:
        return Completed(0, self.prints, b"")

    def close(self) -> None:
        self.closed += 1


@contextmanager
def answering(greeting: bytes) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            try:
                peer, _ = server.accept()
                with peer:
                    peer.sendall(greeting)
            except OSError:
                return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]


def diagnosed(place: Path, way: Way, port: int, *, host: str = "127.0.0.1", known: bytes = b"",
           probe: Any = lambda _: "borg 1.4.5") -> list[tuple[str, str]]:  # fmt: skip
    keys = [key(known).text] if known else []
    address = ClientAddress("web", "way", host=host, port=port, user="root", host_keys=keys)
    context = TransportContext(place / "known_hosts", place)
    found = Diagnosis(way, address, context, probe=probe).run()  # type: ignore[arg-type]
    bad = [step for step in found if step.state == "bad"]
    assert all(step.said and step.next_step for step in bad)
    assert all(step.said.isprintable() for step in found)
    assert [s.state for s in found if s.state != "good"] == ["bad", *["skipped"] * 5][
        : len([s for s in found if s.state != "good"])
    ]
    return [(step.name, step.said) for step in bad] or [("all", found[-1].said)]


HELLO = b"SSH-2.0-OpenSSH_9.2\x1b[2J\r\n"


def test_every_step_that_can_fail_is_named(tmp_path: Path) -> None:
    with answering(HELLO) as port:
        way = Way(keys=[key(b"good")])
        assert diagnosed(tmp_path, way, port, known=b"good") == [("all", "borg 1.4.5")]
        assert way.closed == 1
    assert diagnosed(tmp_path, way, 1, host="no.such.name.invalid")[0][0] == "resolve"
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    assert diagnosed(tmp_path, way, closed)[0][0] == "connect"
    with answering(b"220 mail \x1b[31m ready\r\n") as port:
        ((step, said),) = diagnosed(tmp_path, way, port)
        assert step == "connect" and "no SSH daemon" in said

    def with_host(way: Way, *, known: bytes = b"good", **more: Any) -> tuple[str, str]:
        with answering(HELLO) as port:
            way.keys = [key(b"good")]
            return diagnosed(tmp_path, way, port, known=known, **more)[0]

    assert with_host(Way(keys=[]), known=b"other")[1].startswith("The machine shows another")
    assert "not compared" in with_host(Way(keys=[]), known=b"")[1]
    assert with_host(Way(keys=[], login=False)) == ("login", "Refused.")
    step, said = with_host(Way(keys=[], prints=b"Welcome!\x1b[2J\nok Linux\n"))
    assert step == "shell" and "Welcome!" in said
    assert with_host(Way(keys=[], prints=b"full Linux\n"))[0] == "shell"

    def no_borg(_: Any) -> str:
        raise JobFailed("borg-missing", Problem.CLIENT, "No borg.", next_step="Install it.")

    way = Way(keys=[])
    assert with_host(way, probe=no_borg) == ("borg", "No borg.") and way.closed == 1
