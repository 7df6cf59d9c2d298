"""One connection to the daemon: one request, one answer, with timeouts.

A connection belongs to one thread.
"""

from __future__ import annotations

import json
import os
import pwd
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zmq

from borgcube.core import home as places
from borgcube.core.errors import BorgCubeError, DaemonUnreachable

QUICK_S = 20.0
SLOW_S = 600.0  # creating a repository, logging in to a host that does not answer


class Refused(BorgCubeError):
    """The daemon refused a request; message and next step are its own."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(str(error.get("message")), next_step=str(error.get("next_step") or ""))
        self.kind = str(error.get("kind", ""))
        self.field = str(error.get("field") or "")
        self.exit_code = int(error.get("exit_code", 2))


def local_user() -> str:
    """Return the name of the user this process runs as, for the audit trail."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


class Control:
    """A connection to the daemon of one home; a context manager.

    ``actor`` says who asks, for the audit trail: ``user``, ``via`` and ``address``.
    """

    def __init__(self, home: Path, *, actor: Mapping[str, str] | None = None) -> None:
        self.home = places.require_home(home)
        self._actor = dict(actor or {"user": local_user(), "via": "command line"})
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket: zmq.Socket[bytes] | None = None

    def __enter__(self) -> Control:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._drop()
        self._context.destroy(linger=0)

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close(linger=0)
            self._socket = None

    def _connected(self) -> zmq.Socket[bytes]:
        endpoint = places.control_endpoint(self.home)
        if not os.path.exists(endpoint.removeprefix("ipc://")):
            # A daemon that stopped took its socket away: nobody has to wait to be told so.
            self._drop()
            raise self._unreachable()
        if self._socket is None:
            self._socket = self._context.socket(zmq.DEALER)
            self._socket.setsockopt(zmq.LINGER, 0)
            self._socket.connect(endpoint)
        return self._socket

    def _unreachable(self) -> DaemonUnreachable:
        return DaemonUnreachable(
            f"No daemon answers for {self.home}.",
            next_step=f"Start it: borgcube --home {self.home} serve",
        )

    def call(
        self, method: str, *, timeout_s: float = QUICK_S,
        actor: Mapping[str, str] | None = None, asker: Mapping[str, Any] | None = None,
        **params: Any,
    ) -> Any:  # fmt: skip
        """Call a method and return its result; ``actor`` stands in for the connection's own.

        ``asker`` is whose request it is (``Identity.as_data``, empty for a stranger): the
        daemon judges it. Without one it is the local administrator's.

        Raises Refused with the daemon's words, or DaemonUnreachable.
        """
        socket = self._connected()
        request = {"v": 1, "id": uuid.uuid4().hex, "method": method, "params": params,
                   "actor": dict(actor or self._actor)}  # fmt: skip
        if asker is not None:
            request["asker"] = dict(asker)
        socket.send(json.dumps(request).encode())
        while socket.poll(int(timeout_s * 1000)):
            answer = json.loads(socket.recv())
            if answer.get("id") not in (request["id"], None):
                continue  # the answer of an earlier call that was given up
            if answer["ok"]:
                return answer["result"]
            raise Refused(answer["error"])
        # A late answer must not be taken for that of the next request.
        self._drop()
        raise self._unreachable()

    def subscribe(self, *topics: str) -> zmq.Socket[bytes]:
        """Return a subscriber of topics, or of everything; raises DaemonUnreachable."""
        endpoint = self.call("bus")["endpoint"]
        socket = self._context.socket(zmq.SUB)
        socket.setsockopt(zmq.LINGER, 0)
        for topic in topics or ("",):
            socket.subscribe(topic.encode())
        socket.connect(endpoint)
        return socket
