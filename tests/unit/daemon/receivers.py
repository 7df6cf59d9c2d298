"""Real servers that messages are delivered to: a mail server and a web server on the loopback."""

from __future__ import annotations

import http.server
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from borgcube.testing.consolerig import free_port


@dataclass
class Mailbox:
    """What a mail server took. ``refuse`` is what it answers to recipients with that name."""

    port: int = 0
    mails: list[Any] = field(default_factory=list)
    refuse: dict[str, str] = field(default_factory=dict)
    users: list[str] = field(default_factory=list)

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address in self.refuse:
            return self.refuse[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        mail = message_from_bytes(envelope.content, policy=policy.default)
        mail.given_to = list(envelope.rcpt_tos)
        self.mails.append(mail)
        return "250 taken"

    def authenticate(self, server, session, envelope, mechanism, data):
        good = isinstance(data, LoginPassword) and data.password == b"open sesame"
        if good:
            self.users.append(data.login.decode())
        return AuthResult(success=good, handled=False)


@contextmanager
def mail_server(tls: ssl.SSLContext | None = None, *, port: int = 0) -> Iterator[Mailbox]:
    """Run a mail server; with ``tls`` it wants STARTTLS and a login first."""
    box = Mailbox(port or free_port())
    more: dict[str, Any] = {}
    if tls is not None:
        more = {"tls_context": tls, "require_starttls": True, "auth_required": True,
                "authenticator": box.authenticate}  # fmt: skip
    controller = Controller(box, hostname="127.0.0.1", port=box.port, **more)
    controller.start()
    try:
        yield box
    finally:
        controller.stop()


@dataclass
class Web:
    """What a web server was asked, and how it answers: ``answer(path)`` returns a status."""

    port: int = 0
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    wait_s: float = 0.0
    body_bytes: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"


@contextmanager
def web_server() -> Iterator[Web]:
    """Run a web server that does what its :class:`Web` says."""
    web = Web()
    stop = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            web.asked.append((self.command, self.path, dict(self.headers), body))
            stop.wait(web.wait_s)
            self.send_response(web.status)
            for name, value in web.headers.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                for _ in range(web.body_bytes // 65536):
                    self.wfile.write(b"x" * 65536)
            except OSError:
                web.headers["cut"] = "yes"

        do_GET = do_POST = do_HEAD = answer

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    web.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield web
    finally:
        stop.set()
        server.shutdown()
        server.server_close()
        thread.join(10)


def until(condition: Any, *, timeout_s: float = 60) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)
