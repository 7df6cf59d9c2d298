"""Browsers that only listen: WebSockets on the live feed, many in one thread.

They read what comes and measure how old each event is when it arrives (both clocks are this
machine's). For :mod:`bench.pages`.
"""

from __future__ import annotations

import json
import selectors
import socket
import threading
import time
from datetime import datetime

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Request, TextMessage

from borgcube.testing.consolerig import Visitor


class Watcher:
    """One WebSocket that was accepted."""

    def __init__(self, visitor: Visitor) -> None:
        self.socket = socket.create_connection(("127.0.0.1", visitor.port), 30)
        self.ws = WSConnection(ConnectionType.CLIENT)
        host = f"127.0.0.1:{visitor.port}"
        headers = [("cookie", "; ".join(f"{k}={v}" for k, v in visitor.cookies.items())),
                   ("origin", f"http://{host}")]  # fmt: skip
        encoded = [(name.encode(), value.encode()) for name, value in headers]
        request = Request(host=host, target="/live", extra_headers=encoded)
        self.socket.sendall(self.ws.send(request))
        self._part = ""
        self._accepted = False
        while not self._accepted:
            self.read()

    def read(self) -> list[float]:
        """Take in what has come; return the ages of its events, in seconds."""
        data = self.socket.recv(1 << 18)
        if not data:
            raise ConnectionError("the live feed closed the connection")
        self.ws.receive_data(data)
        ages: list[float] = []
        for event in self.ws.events():
            if isinstance(event, AcceptConnection):
                self._accepted = True
            elif isinstance(event, TextMessage):
                self._part += event.data
                if event.message_finished:
                    ages += _ages(self._part)
                    self._part = ""
        return ages


def _ages(message: str) -> list[float]:
    now = time.time()
    envelopes = json.loads(message).get("events", ())
    return [now - datetime.fromisoformat(one["at"]).timestamp() for one in envelopes]


class Watchers:
    """A number of watchers, read by one thread; a context manager. ``ages`` are those of the
    events that the first of them got; the others' bytes are only counted."""

    def __init__(self, visitor: Visitor, count: int) -> None:
        self._all = [Watcher(visitor) for _ in range(count)]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.ages: list[float] = []
        self.bytes = 0

    def __enter__(self) -> Watchers:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._over.set()
        self._thread.join()
        for one in self._all:
            one.socket.close()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for one in self._all:
                selector.register(one.socket, selectors.EVENT_READ, one)
            while not self._over.is_set():
                for key, _ in selector.select(0.2):
                    if key.data is self._all[0]:
                        self.ages += key.data.read()
                    else:
                        data = key.data.socket.recv(1 << 18)
                        if not data:
                            raise ConnectionError("the live feed closed a connection")
                        self.bytes += len(data)
