"""Paramiko with bounds: what a host may send, and for how long, until the login is done.

Paramiko reads a greeting of any length, a packet of the size that it announces, and keeps what a
host sends beyond the window that it was given. A host that uses that would fill our memory.
"""

from __future__ import annotations

import errno
import socket
import time
from typing import Any

import paramiko  # type: ignore[import-untyped]
from paramiko.common import (  # type: ignore[import-untyped]
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EXTENDED_DATA,
)

# Key exchange and login take some tens of kilobytes.
LOGIN_BYTES = 1 << 20
# OpenSSH's largest packet is 256 KiB (PACKET_MAX_SIZE); Paramiko asks for 32 KiB.
MAX_PACKET = 320 << 10


class BoundedSocket:
    """A socket that gives up when a host sends too much, or takes too long, before the login."""

    def __init__(self, sock: socket.socket, *, limit_s: float, most: int = LOGIN_BYTES) -> None:
        self._sock, self._limit_s = sock, limit_s
        self._deadline: float | None = time.monotonic() + limit_s
        self._left = self._most = most
        self.reason = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def recv(self, size: int) -> bytes:
        """Receive as a socket does; raises OSError beyond a bound."""
        if self._deadline is None:
            return self._sock.recv(size)
        if time.monotonic() > self._deadline:
            self._give_up(f"the login did not end within {self._limit_s:.0f} s")
        if self._left <= 0:
            self._give_up(f"more than {self._most >> 10} KiB were sent before the login was done")
        data = self._sock.recv(min(size, self._left))
        self._left -= len(data)
        return data

    def _give_up(self, reason: str) -> None:
        self.reason = reason
        raise OSError(errno.EPROTO, reason)

    def lift(self) -> None:
        """Let everything through from now on: the login is done."""
        self._deadline = None


def _bounded(feed: Any) -> Any:
    def handle(channel: Any, message: Any) -> None:
        feed(channel, message)
        unread = len(channel.in_buffer) + len(channel.in_stderr_buffer)
        if unread > channel.in_window_size + MAX_PACKET:
            raise paramiko.SSHException("the host sent more than the window it was given")

    return handle


class BoundedTransport(paramiko.Transport):  # type: ignore[misc]  # paramiko has no types
    """A transport that ends when a host breaks the bounds of the protocol."""

    # Paramiko's own table, two entries of it changed.
    _channel_handler_table = {
        **paramiko.Transport._channel_handler_table,
        MSG_CHANNEL_DATA: _bounded(paramiko.Channel._feed),
        MSG_CHANNEL_EXTENDED_DATA: _bounded(paramiko.Channel._feed_extended),
    }

    def __init__(self, sock: Any, **options: Any) -> None:
        super().__init__(sock, **options)
        read_all = self.packetizer.read_all

        def bounded(size: int, check_rekey: bool = False) -> bytes:
            if size > MAX_PACKET:
                raise paramiko.SSHException("the host announced a packet that is too large")
            data: bytes = read_all(size, check_rekey)
            return data

        self.packetizer.read_all = bounded
