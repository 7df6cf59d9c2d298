"""Test the way to a client, one step after the other, as a person would.

Name, port, host key, login, shell, borg: the first step that fails says what to do, and
those after it are not tried. Runs in :mod:`borgcube.daemon.hostchild`. What the other side says
is bounded and escaped.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

from borgcube.core.errors import BorgCubeError
from borgcube.core.hostkeys import from_texts
from borgcube.core.transports import ClientAddress, Connection, Transport, TransportContext
from borgcube.core.untrusted import words
from borgcube.daemon.hostanswers import STEPS, Step

GOOD, BAD, SKIPPED = "good", "bad", "skipped"
CONNECT_TIMEOUT_S = 10.0
MAX_GREETING = 255
# Prints one word, and after it what the system is called; the directory is where a session's
# own would be made.
SHELL_TEST = 'd="${TMPDIR:-/tmp}"; [ -w "$d" ] && printf "ok " || printf "full "; uname -sm'


class _Failed(Exception):
    def __init__(self, said: str, next_step: str) -> None:
        super().__init__(said)
        self.said, self.next_step = said, next_step


class Diagnosis:
    """The steps to one client. ``probe`` returns in words which borg would run there."""

    def __init__(
        self, transport: Transport, address: ClientAddress, context: TransportContext,
        *, probe: Callable[[Connection], str],
    ) -> None:  # fmt: skip
        self._transport, self._address, self._context = transport, address, context
        self._probe = probe
        self._connection: Connection | None = None
        self._found: list[tuple[Any, ...]] = []

    def run(self) -> list[Step]:
        """Take all steps; never raises for what the other side does."""
        tries = {
            "resolve": self._resolve, "connect": self._connect, "host-key": self._host_key,
            "login": self._login, "shell": self._shell, "borg": self._borg,
        }  # fmt: skip
        steps: list[Step] = []
        failed = False
        try:
            for name in STEPS:
                if failed:
                    steps.append(Step(name, SKIPPED))
                    continue
                try:
                    said = tries[name]()
                    steps.append(Step(name, SKIPPED if said is None else GOOD, said or ""))
                    continue
                except _Failed as error:
                    steps.append(Step(name, BAD, error.said, error.next_step))
                except BorgCubeError as error:
                    steps.append(Step(name, BAD, error.message, error.next_step))
                except OSError as error:
                    steps.append(Step(name, BAD, words(error.strerror or error), "Try again."))
                failed = True
        finally:
            if self._connection is not None:
                self._connection.close()
        return steps

    @property
    def _direct(self) -> bool:
        # An ssh_config may lead elsewhere, by another name or through another machine.
        return bool(self._address.host) and not self._address.options.get("ssh_config")

    def _resolve(self) -> str | None:
        if not self._direct:
            return None
        try:
            self._found = socket.getaddrinfo(
                self._address.host, self._address.port, type=socket.SOCK_STREAM
            )
        except (OSError, UnicodeError) as error:
            raise _Failed(
                f"The name {self._address.host} leads to no address: {error}.",
                "Correct the address, or mend the name service of this server.",
            ) from error
        return ", ".join(sorted({str(entry[4][0]) for entry in self._found}))

    def _connect(self) -> str | None:
        if not self._direct:
            return None
        last: OSError | None = None
        for family, kind, protocol, _name, place in self._found:
            try:
                with socket.socket(family, kind, protocol) as sock:
                    sock.settimeout(CONNECT_TIMEOUT_S)
                    sock.connect(place)
                    return self._greeting(sock)
            except OSError as error:
                last = error
        raise _Failed(
            f"Port {self._address.port} of {self._address.host} does not answer: "
            f"{last.strerror or last if last else 'no address'}.",
            "Is the machine on, does its SSH daemon run, and does a firewall let this server in?",
        )

    def _greeting(self, sock: socket.socket) -> str:
        said, deadline = b"", time.monotonic() + CONNECT_TIMEOUT_S
        while b"\n" not in said and len(said) < MAX_GREETING and time.monotonic() < deadline:
            part = sock.recv(MAX_GREETING - len(said))
            if not part:
                break
            said += part
        text = words(said.split(b"\n")[0].rstrip(b"\r").decode("utf-8", "replace"))
        if not said.startswith(b"SSH-"):
            raise _Failed(
                f"Something answers at port {self._address.port}, but it is no SSH daemon"
                + (f": {text}" if text else "."),
                "Correct the port.",
            )
        return text

    def _host_key(self) -> str | None:
        offered = self._transport.scan_host_keys(self._address, self._context)
        if not offered:
            return None
        trusted = from_texts(self._address.host_keys)
        if all(key in trusted for key in offered):
            return ", ".join(f"{key.algorithm} {key.fingerprint}" for key in offered)
        if trusted:
            raise _Failed(
                "The machine shows another host key than the one that was trusted.",
                "Find out why before you trust it: it was set up anew, or somebody is in between.",
            )
        raise _Failed("The host key was not compared yet.", "Compare it and trust it.")

    def _login(self) -> str:
        self._connection = self._transport.connect(self._address, self._context)
        return f"as {self._address.user}" if self._address.user else "as this server's user"

    def _shell(self) -> str:
        assert self._connection is not None
        done = self._connection.run(["sh", "-c", SHELL_TEST], timeout_s=30)
        word, _, system = done.stdout.decode("utf-8", "replace").strip().partition(" ")
        if word == "full":
            raise _Failed("The directory for temporary files cannot be written there.",
                          "Make TMPDIR or /tmp writable for this login.")  # fmt: skip
        if word != "ok":
            raise _Failed(
                "The login prints something of its own, or has no POSIX shell: "
                + words((done.stdout or done.stderr).decode("utf-8", "replace"), limit=200),
                "Try `ssh CLIENT true`: it must print nothing.",
            )
        return words(system)

    def _borg(self) -> str:
        assert self._connection is not None
        return words(self._probe(self._connection))
