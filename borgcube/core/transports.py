"""How the server reaches a client: the contract every transport plugin keeps.

The bulk of a backup flows through the file descriptors of a :class:`RemoteProcess`, so
these are real descriptors of this process that a child may inherit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from borgcube.core.hostkeys import HostKey


@dataclass(frozen=True)
class ClientAddress:
    """Where and as whom to log in. ``options`` belong to the transport alone; ``host_keys`` are
    those that were trusted for this client, each ``ALGORITHM BASE64``."""

    name: str
    transport: str
    host: str = ""
    port: int = 22
    user: str = ""
    identity: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    host_keys: Sequence[str] = ()


@dataclass(frozen=True)
class TransportContext:
    """What the server gives a transport: its known_hosts file and a private directory.

    ``known_hosts`` has the keys of this one host in OpenSSH's format, made for this connection.
    ``runtime_dir`` is a 0700 directory for control sockets; its path is short enough for a unix
    socket.
    """

    known_hosts: Path
    runtime_dir: Path
    connect_timeout_s: float = 20.0


# What a short command reads: bytes, a file, or several of them one after the other.
Source = bytes | Path | Sequence[bytes | Path]


@dataclass(frozen=True)
class Completed:
    """The end of a short remote command. Output is cut off at the asked-for limit."""

    exit_code: int
    stdout: bytes
    stderr: bytes


class RemoteProcess(Protocol):
    """A running remote command. The three descriptors belong to the caller, who closes
    them; a closed standard input is the end of file on the other side."""

    stdin_fd: int
    stdout_fd: int
    stderr_fd: int

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Return the exit code, or None when it still runs after ``timeout_s``."""

    def terminate(self) -> None:
        """End it; safe to repeat. Returns at once."""


class Connection(Protocol):
    """One login. Commands are argument vectors; the transport quotes them for the
    remote shell. Raises :class:`~borgcube.core.errors.JobFailed` with kinds
    ``host-unreachable``, ``host-key-changed``, ``host-key-unknown``,
    ``login-refused``, ``connection-lost`` or ``timeout``.

    One whose commands run on this very machine says ``runs_here = True``: what extracts an
    archive through it is fenced (``core/fence``)."""

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: Source = b"",
        timeout_s: float = 60.0,
        max_output: int = 1 << 20,
    ) -> Completed:
        """Run to its end. ``stdin`` is streamed; files are opened when their turn comes."""

    def start(self, argv: Sequence[str]) -> RemoteProcess:
        """Start a command whose streams the caller handles."""

    def close(self) -> None:
        """End the login and everything started through it; safe to repeat."""


class Transport(Protocol):
    """A way to reach clients, registered by name.

    It may have ``option_fields() -> Sequence[core.forms.Field]``: the options of a client that
    it reads, as fields named like the options. The console draws them in a group named after
    the transport, and the daemon refuses values that do not fit them. Called often, so it must
    be quick. Options that no field describes are text, and the transport's own to check.
    """

    name: str
    # A transport that reaches this very machine says ``runs_here = True``: its clients, their
    # plans and restores to them are then for administrators only.

    def connect(self, address: ClientAddress, context: TransportContext) -> Connection:
        """Log in and return the connection."""

    def scan_host_keys(self, address: ClientAddress, context: TransportContext) -> list[HostKey]:
        """Return the keys offered by the host, unverified; empty when the transport has no host
        keys. Like ``connect``, it is called in a process of its own that has bounds of memory
        and time: the host is not trusted."""
