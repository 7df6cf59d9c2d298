"""One Paramiko login and the commands over it, bridged to real pipes by pump threads.

Memory stays bounded: a pump holds one block, and the SSH window limits the rest.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence

import paramiko  # type: ignore[import-untyped]

from borgcube.core import streams
from borgcube.core.errors import InvalidInput
from borgcube.core.hostkeys import HostKey
from borgcube.core.transports import ClientAddress, Completed, Source, TransportContext
from borgcube.core.untrusted import words
from borgcube.plugins.transport_paramiko.bounds import BoundedSocket, BoundedTransport

LOGIN_SPARE_S = 5.0
_BLOCK = 1 << 16
_LOST = (paramiko.SSHException, OSError, EOFError)


def open_socket(address: ClientAddress, timeout_s: float) -> BoundedSocket:
    """Connect by TCP; raises JobFailed ``host-unreachable``. The time is that of the whole
    login, and a little more."""
    deadline = time.monotonic() + timeout_s
    failure: OSError | None = None
    try:
        places = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise streams.host_unreachable(address, str(error)) from error
    for family, kind, protocol, _name, place in places:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(left)
            sock.connect(place)
        except OSError as error:
            failure = error
            sock.close()
            continue
        return BoundedSocket(sock, limit_s=timeout_s + LOGIN_SPARE_S)
    raise streams.host_unreachable(address, str(failure or "no answer"))


def offered_key(address: ClientAddress, limit_s: float) -> HostKey:
    """Return the key that the host shows first; raises JobFailed ``host-unreachable``."""
    sock = open_socket(address, limit_s)
    try:
        transport = BoundedTransport(sock)
        try:
            transport.start_client(timeout=limit_s)
            key = transport.get_remote_server_key()
            return HostKey.parse(f"{key.get_name()} {key.get_base64()}")
        finally:
            transport.close()
    except (*_LOST, InvalidInput) as error:
        raise streams.host_unreachable(address, _reason(sock, error)) from error
    finally:
        sock.close()


def _reason(sock: BoundedSocket, error: BaseException) -> str:
    return sock.reason or words(error) or type(error).__name__


class ParamikoProcess:
    """A command on a channel of its own."""

    def __init__(self, connection: ParamikoConnection, argv: Sequence[str]) -> None:
        self._connection = connection
        self._ended = False
        token = secrets.token_hex(8)
        self._channel = connection.open_channel()
        try:
            self._channel.settimeout(connection.context.connect_timeout_s)
            self._channel.exec_command(os.fsencode(streams.guarded_command(token, argv)))
            self.pid = self._announcement(token)
        except _LOST as error:
            self._channel.close()
            raise streams.connection_lost(connection.address, str(error)) from error
        self._channel.settimeout(None)
        stdin, self.stdin_fd = os.pipe()
        self.stdout_fd, stdout = os.pipe()
        self.stderr_fd, stderr = os.pipe()
        for descriptor in (stdin, stdout, stderr):
            streams.enlarge_pipe(descriptor)
        for pump in (
            lambda: self._push(stdin),
            lambda: self._pull(self._channel.recv, stdout),
            lambda: self._pull(self._channel.recv_stderr, stderr),
        ):
            threading.Thread(target=pump, daemon=True).start()

    def _announcement(self, token: str) -> int:
        line = b""
        deadline = time.monotonic() + self._connection.context.connect_timeout_s
        for _ in range(1 << 16):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            self._channel.settimeout(left)
            byte = self._channel.recv_stderr(1)
            if not byte:
                break
            line += byte
            if byte == b"\n":
                pid = streams.announced_pid(line, token)
                if pid is not None:
                    return pid
                line = b""
        raise EOFError("The command did not start.")

    def _push(self, source: int) -> None:
        with contextlib.suppress(*_LOST):
            while data := os.read(source, _BLOCK):
                self._channel.sendall(data)
            self._channel.shutdown_write()
        os.close(source)

    def _pull(self, receive: Callable[[int], bytes], target: int) -> None:
        writable = True
        with contextlib.suppress(*_LOST):
            while data := receive(_BLOCK):
                view = memoryview(data)
                while view and writable:
                    try:
                        view = view[os.write(target, view) :]
                    except BrokenPipeError:
                        writable = False  # the caller closed its end: drain, do not stall
        os.close(target)

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Return the exit code or None; raises JobFailed when the connection broke."""
        if not self._channel.status_event.wait(timeout_s):
            return None
        code = int(self._channel.exit_status)
        if code >= 0:
            return code
        if not self._ended and not self._connection.alive():
            raise streams.connection_lost(self._connection.address)
        return 137  # ended by a signal; SSH gives no number for it

    def running(self) -> bool:
        """Whether the command has not ended yet."""
        return not self._channel.status_event.is_set()

    def terminate(self) -> None:
        """Kill the remote process group, then close the channel."""
        if self.running():
            self._ended = True
            self._connection.kill_remote([self.pid])
            self._channel.close()


class ParamikoConnection:
    """One login. The guard on the client ends the commands when the socket goes."""

    def __init__(self, address: ClientAddress, context: TransportContext) -> None:
        self.address = address
        self.context = context
        self._started: list[ParamikoProcess] = []
        limit = context.connect_timeout_s
        self._client = paramiko.SSHClient()
        self._client.set_missing_host_key_policy(paramiko.RejectPolicy())
        if not context.known_hosts.exists():
            raise streams.host_key_unknown(address)
        self._client.load_host_keys(str(context.known_hosts))
        stored = self._client.get_host_keys().lookup(streams.known_hosts_name(address))
        if not stored:
            raise streams.host_key_unknown(address)
        sock = open_socket(address, limit)
        try:
            self._client.connect(
                address.host, address.port, address.user or None,
                key_filename=address.identity or None, look_for_keys=False,
                allow_agent=False, compress=False, sock=sock,
                timeout=limit, banner_timeout=limit, auth_timeout=limit, channel_timeout=limit,
                transport_factory=BoundedTransport,
            )  # fmt: skip
        except BaseException as error:
            self._client.close()
            sock.close()
            if isinstance(error, paramiko.BadHostKeyException):
                raise streams.host_key_changed(
                    address, _print(error.expected_key), _print(error.key)
                ) from error
            if isinstance(error, paramiko.AuthenticationException):
                raise streams.login_refused(address, words(error, limit=300)) from error
            if "No authentication methods" in str(error):
                raise streams.login_refused(address, "no key was given for it") from error
            if sock.reason:
                raise streams.host_unreachable(address, sock.reason) from error
            if "not found in known_hosts" in str(error):
                offered = "a key of another type"
                raise streams.host_key_changed(
                    address, ", ".join(_print(key) for key in stored.values()), offered
                ) from error
            if isinstance(error, FileNotFoundError | PermissionError):
                raise streams.login_refused(address, str(error)) from error
            if isinstance(error, _LOST):
                raise streams.host_unreachable(address, _reason(sock, error)) from error
            raise
        sock.lift()
        transport = self._client.get_transport()
        assert transport is not None
        transport.set_keepalive(15)
        self._transport = transport

    def alive(self) -> bool:
        """Whether the login still stands."""
        return bool(self._transport.is_active())

    def open_channel(self) -> paramiko.Channel:
        """Open a session channel; raises JobFailed ``connection-lost``."""
        try:
            return self._transport.open_session(timeout=self.context.connect_timeout_s)
        except _LOST as error:
            raise streams.connection_lost(self.address, str(error)) from error

    def kill_remote(self, pids: Sequence[int]) -> threading.Thread:
        """Kill remote process groups in the background."""

        def kill() -> None:
            with contextlib.suppress(Exception):  # the guard remains when this fails
                channel = self.open_channel()
                channel.exec_command(streams.kill_command(pids))
                channel.status_event.wait(10)
                channel.close()

        thread = threading.Thread(target=kill, daemon=True)
        thread.start()
        return thread

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: Source = b"",
        timeout_s: float = 60.0,
        max_output: int = 1 << 20,
    ) -> Completed:
        """Run to its end."""
        process = self.start(argv)
        return streams.run_to_end(process, stdin, timeout_s=timeout_s, max_output=max_output)

    def start(self, argv: Sequence[str]) -> ParamikoProcess:
        """Start a command whose streams the caller handles."""
        self._started = [one for one in self._started if one.running()]
        process = ParamikoProcess(self, argv)
        self._started.append(process)
        return process

    def close(self) -> None:
        """End every command and the login."""
        pids = [one.pid for one in self._started if one.running()]
        if pids and self.alive():
            self.kill_remote(pids).join(5)
        self._started.clear()
        self._client.close()


def _print(key: paramiko.PKey) -> str:
    return streams.fingerprint(key.get_name(), key.get_base64())
