"""Borg's repository RPC as seen from a server that trusts nobody. Pure parsing.

Wire form: a stream of msgpack objects. A request is ``{i: number, m: method, a: {...}}``,
only ``negotiate`` comes as the tuple ``(1, number, b"negotiate", args)`` (Borg 1.4,
``borg.remote``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgpack

from borgcube.plugins.borg.gate.verify import Rejected

MAX_OBJECT = 20971520  # Borg's MAX_OBJECT_SIZE in bytes
MAX_BUFFER = MAX_OBJECT + (4 << 20)
MANIFEST_ID = bytes(32)
SERVER_VERSION = (1, 4, 5)
# Maps and arrays in one message; a put has two. An empty map takes one byte on the wire and
# sixty-four in memory.
MAX_CONTAINERS = 64


@dataclass(frozen=True)
class Request:
    """One call of the client."""

    number: int
    method: str
    arguments: dict[bytes, Any]
    positional: bool = False


class RequestParser:
    """Turns bytes into requests; raises Rejected for anything malformed."""

    def __init__(self) -> None:
        self._containers = 0
        self._unpacker = msgpack.Unpacker(
            raw=True,
            use_list=False,
            strict_map_key=False,
            max_buffer_size=MAX_BUFFER,
            max_str_len=MAX_OBJECT,
            max_bin_len=MAX_OBJECT,
            max_array_len=64,
            max_map_len=64,
            max_ext_len=0,
            object_hook=self._count,
            list_hook=self._count,
        )

    def feed(self, data: bytes) -> Iterator[Request]:
        """Yield the requests completed by ``data``.

        What comes before malformed bytes is yielded first, so that the pieces in which a
        stream arrives make no difference; then Rejected is raised.
        """
        try:
            self._unpacker.feed(data)
            for message in self._unpacker:
                self._containers = 0
                yield _request(message)
        except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
            raise Rejected(f"a request does not parse: {type(error).__name__}") from None

    def _count(self, container: Any) -> Any:
        self._containers += 1
        if self._containers > MAX_CONTAINERS:
            raise Rejected("a request has too many parts")
        return container


def _request(message: Any) -> Request:
    if type(message) is dict:
        number, method = message.get(b"i"), message.get(b"m")
        arguments = message.get(b"a")
        if type(number) is int and type(method) is bytes and type(arguments) is dict:
            return Request(number, method[:64].decode("ascii", "replace"), arguments)
    elif type(message) is tuple and len(message) == 4:
        _, number, method, arguments = message
        if type(number) is int and type(method) is bytes:
            client = arguments[0] if type(arguments) is tuple and arguments else None
            return Request(
                number, method[:64].decode("ascii", "replace"),
                client if type(client) is dict else {}, positional=True,
            )  # fmt: skip
    raise Rejected("a request has an unknown shape")


def client_version(request: Request) -> list[int]:
    """Return the version a negotiating client claims, such as ``[1, 4, 5]``; [] for none."""
    version = request.arguments.get(b"client_version")
    if type(version) is not tuple or not 3 <= len(version) <= 8:
        return []
    numbers = list(version[:3])
    return numbers if all(type(n) is int and 0 <= n < 1000 for n in numbers) else []


def reply(request: Request, result: Any) -> bytes:
    """Return the wire form of a result."""
    if request.positional:
        packed = msgpack.packb((1, request.number, None, result), use_bin_type=False)
    else:
        packed = msgpack.packb({b"i": request.number, b"r": result}, use_bin_type=False)
    return bytes(packed)


def refusal(request: Request) -> bytes:
    """Return a generic error: the peer learns that, not why, it was refused."""
    text = b"refused"
    if request.positional:
        return bytes(msgpack.packb((1, request.number, text, None), use_bin_type=False))
    error = {
        b"i": request.number,
        b"exception_class": b"Error",
        b"exception_args": [text],
        b"exception_full": text,
        b"exception_short": text,
        b"exception_trace": False,
        b"sysinfo": b"",
    }
    return bytes(msgpack.packb(error, use_bin_type=False))
