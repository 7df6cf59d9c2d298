"""Frames between worker, gate, vault and reader on a local stream socket.

A frame is a 4-byte big-endian length, one type byte and the payload. Peers on this wire
are our own processes, but a gate may have been taken over by a client, so that the vault
reads with a bound on every frame.

==== ============================ ==========================================
type payload                      meaning
==== ============================ ==========================================
J    JSON object                  a request, an answer, an attach
P    id (32), size (4), data      a verified chunk, still compressed
M    manifest plaintext           the client wrote its manifest
C    empty                        the client asks for a commit
G    id (32)                      a restore asks for a chunk
D    data, empty when refused     the answer to G
B    bytes                        a reader begins with them, as if just read
S    bytes                        to a reader: the next bytes to decode
F    empty                        to a reader: there are no more
R    a block of records           from a reader, see ``metadata/form.py``
T    flag, bytes                  from a reader: done; what it waits with
==== ============================ ==========================================
"""

from __future__ import annotations

import io
import json
import socket
import struct
import threading
from typing import Any, cast

HEADER = struct.Struct(">IB")
PUT_HEADER = struct.Struct(">32sI")
JSON, PUT, MANIFEST, COMMIT, GET, DATA = (ord(c) for c in "JPMCGD")
BEGIN, STREAM, FINISH, RECORDS, STATE = (ord(c) for c in "BSFRT")
MAX_FRAME = 32 << 20
BUFFER = 1 << 20
READ_AHEAD = 64 * 1024
DIRECT_BYTES = 64 * 1024


class WireError(Exception):
    """The stream ended or broke the framing."""


class Wire:
    """One end of a framed stream. Reading is for one thread; writing is locked."""

    def __init__(self, sock: socket.socket, *, max_frame: int = MAX_FRAME) -> None:
        self.sock = sock
        self.max_frame = max_frame
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, BUFFER)
        self._file = cast(io.BufferedReader, sock.makefile("rb", buffering=READ_AHEAD))
        self._lock = threading.Lock()

    def give_up_after(self, seconds: float) -> None:
        """Take the peer for gone when it does not take a frame for so long (``SO_SNDTIMEO``)."""
        option = struct.pack("@ll", int(seconds), 0)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, option)

    def send(self, kind: int, *parts: bytes | bytearray | memoryview) -> None:
        """Send one frame made of ``parts``; raises WireError when the peer is gone."""
        length = sum(len(part) for part in parts)
        views = [memoryview(part) for part in (HEADER.pack(length, kind), *parts)]
        try:
            with self._lock:
                while views:
                    sent = self.sock.sendmsg(views)
                    while views and sent >= len(views[0]):
                        sent -= len(views.pop(0))
                    if sent:
                        views[0] = views[0][sent:]
        except (OSError, ValueError) as error:
            raise WireError(f"the other process is gone ({error})") from error

    def send_json(self, data: dict[str, Any]) -> None:
        """Send one JSON frame."""
        self.send(JSON, json.dumps(data).encode())

    def receive(self) -> tuple[int, bytearray]:
        """Return the next frame; raises WireError at the end of the stream."""
        try:
            header = self._file.read(HEADER.size)
            if len(header) < HEADER.size:
                raise WireError("the other process closed the stream")
            length, kind = HEADER.unpack(header)
            if length > self.max_frame:
                raise WireError("a frame is too long")
            payload = bytearray(length)
            if length < DIRECT_BYTES:
                got = self._file.readinto(payload)
            else:
                # What the buffer holds already, then from the socket into place: no copy.
                view = memoryview(payload)
                got = self._file.readinto(view[: len(self._file.peek(1)[:length])])
                while got < length:
                    more = self.sock.recv_into(view[got:], 0, socket.MSG_WAITALL)
                    if not more:
                        break
                    got += more
        except (OSError, ValueError) as error:
            # ValueError: another thread closed this end while we were about to read.
            raise WireError(f"the stream is closed ({error})") from error
        if got < length:
            raise WireError("the stream ended inside a frame")
        return kind, payload

    def receive_json(self) -> dict[str, Any]:
        """Return the next frame, which must be a JSON object."""
        kind, payload = self.receive()
        if kind != JSON:
            raise WireError("expected a JSON frame")
        return self.parse_json(payload)

    @staticmethod
    def parse_json(payload: bytearray) -> dict[str, Any]:
        """Return the object in the payload of a JSON frame; raises WireError."""
        try:
            data = json.loads(payload)
        except (ValueError, RecursionError) as error:
            raise WireError("a JSON frame does not parse") from error
        if not isinstance(data, dict):
            raise WireError("a JSON frame is not an object")
        return data

    def close(self) -> None:
        """Close the stream; safe to repeat."""
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        try:
            self._file.close()
        except OSError:
            pass
        self.sock.close()
