"""A hostile SSH daemon: it drips, floods, never ends, never closes, shows other keys.

``python -m borgcube.testing.hostilesshd`` listens on one loopback port for each behaviour and
prints them with its host key as one line of JSON; :class:`HostileSSHD` runs that beside a test.
What is sent before the login is made from raw bytes, the rest by Paramiko's server, whose own
manners (windows, ends) are taken from it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import paramiko  # type: ignore[import-untyped]

from borgcube.core.hostkeys import HostKey

HELLO = b"SSH-2.0-OpenSSH_9.2\r\n"
BLOCK = b"x" * (64 << 10)
LINES = (b"welcome \x1b[2J\x07 to this machine\r\n" * 2000)[: 64 << 10]
DRIP_S = 0.2
FOR_EVER_S = 3600.0


def _send_for_ever(sock: Any, data: bytes = BLOCK) -> None:
    while True:
        sock.sendall(data)


def _drip(sock: Any, data: bytes) -> None:
    while True:
        for byte in data:
            sock.sendall(bytes([byte]))
            time.sleep(DRIP_S)


def _silent(_: socket.socket) -> None:
    time.sleep(FOR_EVER_S)


def _greeting_drip(sock: socket.socket) -> None:
    _drip(sock, b"SSH-2.0-slow-")


def _greeting_flood(sock: socket.socket) -> None:
    _send_for_ever(sock)


def _lines_flood(sock: socket.socket) -> None:
    _send_for_ever(sock, LINES)


def _hang_up(sock: socket.socket) -> None:
    sock.sendall(HELLO)


def _no_ssh(sock: socket.socket) -> None:
    sock.sendall(b"220 mail \x1b[31m ready\r\n")
    time.sleep(FOR_EVER_S)


def _giant_packet(sock: socket.socket) -> None:
    sock.sendall(HELLO + struct.pack(">IB", (1 << 30) + 4, 4))
    _send_for_ever(sock)


def _packet_drip(sock: socket.socket) -> None:
    sock.sendall(HELLO)
    _drip(sock, struct.pack(">IB", 1020, 4))


def _ignored_flood(sock: socket.socket) -> None:
    # SSH_MSG_IGNORE before the keys are agreed upon, again and again.
    payload = bytes([2]) + struct.pack(">I", 1000) + b"i" * 1000
    padding = 8 - (len(payload) + 5) % 8 + 8
    packet = struct.pack(">IB", len(payload) + padding + 1, padding) + payload + b"\0" * padding
    sock.sendall(HELLO)
    _send_for_ever(sock, packet * 50)


def _hang_after_hello(sock: socket.socket) -> None:
    sock.sendall(HELLO)
    time.sleep(FOR_EVER_S)


RAW: dict[str, Callable[[socket.socket], None]] = {
    "silent": _silent, "greeting-drip": _greeting_drip, "greeting-flood": _greeting_flood,
    "lines-flood": _lines_flood, "hang-up": _hang_up, "no-ssh": _no_ssh,
    "hello-only": _hang_after_hello, "giant-packet": _giant_packet, "packet-drip": _packet_drip,
    "ignored-flood": _ignored_flood,
}  # fmt: skip


class _Channel:
    """What a command's other side does; ``token`` is what the guard would announce."""

    def __init__(self, channel: Any, command: str) -> None:
        self.channel = channel
        words = shlex.split(command)
        self.token = words[4] if len(words) > 4 and words[:3] == ["exec", "sh", "-c"] else ""
        self.argv = words[5:]

    def announce(self) -> None:
        self.channel.sendall_stderr(f"{self.token} 4242\n".encode())

    def end(self, code: int = 0) -> None:
        self.channel.send_exit_status(code)
        self.channel.close()


def _quiet(_: _Channel) -> None:
    time.sleep(FOR_EVER_S)


def _announced_quiet(one: _Channel) -> None:
    one.announce()
    time.sleep(FOR_EVER_S)


def _out_flood(one: _Channel) -> None:
    one.announce()
    _send_for_ever(one.channel)


def _window_flood(one: _Channel) -> None:
    one.announce()
    one.channel.out_window_size = 1 << 60  # whatever the other side has room for
    _send_for_ever(one.channel)


def _err_flood(one: _Channel) -> None:
    while True:
        one.channel.sendall_stderr(BLOCK)


def _err_lines_flood(one: _Channel) -> None:
    one.announce()
    while True:
        one.channel.sendall_stderr(LINES)


def _err_drip(one: _Channel) -> None:
    while True:
        one.channel.sendall_stderr(b"z")
        time.sleep(DRIP_S)


def _out_drip(one: _Channel) -> None:
    one.announce()
    while True:
        one.channel.sendall(b"o")
        time.sleep(DRIP_S)


def _wild_words(one: _Channel) -> None:
    one.announce()
    one.channel.sendall(b"\x1b]0;owned\x07borg \xff\xfe\r\n" * 30_000)
    one.end()


def _no_exit(one: _Channel) -> None:
    one.announce()
    one.channel.sendall(b"ok Linux x86_64\nborg 1.4.0\n")
    one.channel.shutdown_write()
    time.sleep(FOR_EVER_S)


def _odd_exit(one: _Channel) -> None:
    one.announce()
    one.channel.sendall_stderr(b"e\x1b[2J\n" * 100_000)
    one.end(0xFFFFFFFF)


COMMANDS: dict[str, Callable[[_Channel], None]] = {
    "exec-quiet": _quiet, "exec-announced": _announced_quiet, "out-flood": _out_flood,
    "window-flood": _window_flood, "err-flood": _err_flood, "err-lines-flood": _err_lines_flood,
    "err-drip": _err_drip, "out-drip": _out_drip, "wild-words": _wild_words,
    "no-exit": _no_exit, "odd-exit": _odd_exit,
}  # fmt: skip


class _Server(paramiko.ServerInterface):  # type: ignore[misc]  # paramiko has no types
    def __init__(self, transport: Any, behaviour: str) -> None:
        self._transport, self._behaviour = transport, behaviour

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_none(self, username: str) -> int:
        return self._judge()

    def check_auth_publickey(self, username: str, key: Any) -> int:
        return self._judge() or int(paramiko.AUTH_SUCCESSFUL)

    def _judge(self) -> int:
        if self._behaviour == "auth-never":
            time.sleep(FOR_EVER_S)
        if self._behaviour == "auth-banners":
            while True:
                message = paramiko.Message()
                message.add_byte(bytes([53]))  # SSH_MSG_USERAUTH_BANNER
                message.add_string(LINES[: 30 << 10])
                message.add_string("")
                self._transport._send_message(message)
        return int(paramiko.AUTH_FAILED) if self._behaviour == "auth-refused" else 0

    def check_channel_request(self, kind: str, chanid: int) -> int:
        if self._behaviour == "no-channel":
            return int(paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED)
        return int(paramiko.OPEN_SUCCEEDED)

    def check_channel_exec_request(self, channel: Any, command: bytes) -> bool:
        if self._behaviour not in COMMANDS:
            return False
        one = _Channel(channel, command.decode("utf-8", "replace"))

        def serve() -> None:
            with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                COMMANDS[self._behaviour](one)

        threading.Thread(target=serve, daemon=True).start()
        return True


LOGINS = ("auth-never", "auth-banners", "auth-refused", "no-channel")
OTHER_KEY = "other-key"
BEHAVIOURS = (*RAW, OTHER_KEY, *LOGINS, *COMMANDS)


def _serve_one(sock: socket.socket, behaviour: str, key: Any) -> None:
    with contextlib.suppress(OSError, EOFError, paramiko.SSHException), sock:
        if behaviour in RAW:
            RAW[behaviour](sock)
            return
        transport = paramiko.Transport(sock)
        transport.add_server_key(key)
        transport.start_server(server=_Server(transport, behaviour))
        transport.join()


def _listen(behaviour: str, key: Any) -> int:
    server = socket.create_server(("127.0.0.1", 0), backlog=16)

    def accept() -> None:
        while True:
            sock, _ = server.accept()
            threading.Thread(target=_serve_one, args=(sock, behaviour, key), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return int(server.getsockname()[1])


def main() -> int:
    """Listen until standard input ends."""
    key, other = (paramiko.ECDSAKey.generate() for _ in range(2))
    ports = {name: _listen(name, other if name == OTHER_KEY else key) for name in BEHAVIOURS}
    line = {"ports": ports, "key": f"{key.get_name()} {key.get_base64()}"}
    print(json.dumps(line), flush=True)
    sys.stdin.read()
    return 0


class HostileSSHD:
    """All behaviours in a process of its own; ``ports`` by behaviour, and its ``key``."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self.ports: dict[str, int] = {}
        self.key = HostKey("", b"")

    def __enter__(self) -> HostileSSHD:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "borgcube.testing.hostilesshd"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert self._process.stdout is not None
        found = json.loads(self._process.stdout.readline())
        self.ports, self.key = found["ports"], HostKey.parse(found["key"])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # some threads sleep for ever
