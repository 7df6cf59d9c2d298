"""A home with a daemon and its console in a process of its own, and a small HTTP client.

For tests of pages: real sockets, real cookies, no browser. It needs the packages of the
test extra only for browsers, not here.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import secrets
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import unescape
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from borgcube.control.client import Control
from borgcube.core.errors import BorgCubeError
from borgcube.core.home import init_home

PASSWORD = "correct horse battery"


def free_port() -> int:
    """Return a port of the loopback that nobody uses now, and that no connection is given: the
    kernel takes those from 32768 on, and between now and the server's start it may well do so."""
    while True:
        port = secrets.choice(range(20_000, 32_768))
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@dataclass
class Answer:
    """What came back. ``headers`` has lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """Return the body as text."""
        return self.body.decode("utf-8")

    @property
    def location(self) -> str:
        """Return where a redirect leads, as a path."""
        return re.sub(r"^https?://[^/]+", "", self.headers.get("location", ""))


@dataclass
class Visitor:
    """A browser without a screen: it keeps cookies and sends forms with their token.

    ``source`` is the loopback address that it comes from, such as 127.0.0.9.
    """

    port: int
    cookies: dict[str, str] = field(default_factory=dict)
    extra: dict[str, str] = field(default_factory=dict)
    source: str = "127.0.0.1"
    tls: ssl.SSLContext | None = None

    @property
    def origin(self) -> str:
        """Return scheme and host as a browser names them."""
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one request."""
        sent = {"Host": f"127.0.0.1:{self.port}", **self.extra, **(headers or {})}
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{k}={v}" for k, v in self.cookies.items())
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.port, timeout=60, source_address=(self.source, 0)
        )
        if self.tls is not None:
            connection = http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=60, context=self.tls
            )
        try:
            connection.request(method, path, body or None, sent)
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        for line in answer.headers.get_all("Set-Cookie") or ():
            for name, morsel in SimpleCookie(line).items():
                if morsel["max-age"] == "0":
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = morsel.value
        return Answer(answer.status, {k.lower(): v for k, v in answer.headers.items()}, data)

    def get(self, path: str, **headers: str) -> Answer:
        """Get a page."""
        return self.ask("GET", path, headers=headers)

    def token(self, path: str) -> str:
        """Return the form token of a page."""
        found = re.search(r'name="csrf_token" value="([^"]+)"', self.get(path).text)
        return unescape(found.group(1)) if found else ""

    def post(
        self, path: str, values: Mapping[str, Any] | None = None, *, form: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:  # fmt: skip
        """Send a form as the page ``form`` (default: the dashboard) would."""
        data = {"csrf_token": self.token(form or "/"), **(values or {})}
        body = urlencode(data, doseq=True).encode()
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return self.ask("POST", path, body, {**kind, **(headers or {})})

    def log_in(self, name: str, password: str = PASSWORD, **more: str) -> Answer:
        """Log in with a password."""
        return self.post("/login", {"name": name, "password": password, **more}, form="/login")


class ConsoleRig:
    """A running daemon with its console; a context manager.

    ``python_path`` and ``disabled`` choose the plugins, as an installation would.
    """

    def __init__(
        self, place: Path, *, config: str = "", python_path: tuple[str, ...] = (),
        disabled: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self.place = place
        self.home = init_home(place / "home")
        self.port = free_port()
        self.env = {
            **os.environ, "BORGCUBE_HOME": str(self.home), "HOME": str(place),
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
            "PYTHONPATH": ":".join([*python_path, os.environ.get("PYTHONPATH", "")]).strip(":"),
        }  # fmt: skip
        listed = json.dumps(list(disabled))
        (self.home / "borgcube.toml").write_text(
            f'[console]\nenabled = true\nlisten = "127.0.0.1:{self.port}"\n{config}\n'
            f"[plugins]\ndisabled = {listed}\n[daemon]\ngrace_seconds = 1\n"
        )
        self.daemon: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ConsoleRig:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Return the console's address."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the daemon and wait until it and the console answer."""
        self.start_daemon()
        assert self.daemon is not None
        self.wait_for_console(self.daemon)

    def start_daemon(self) -> None:
        """Start the daemon and wait until it answers."""
        self.daemon = subprocess.Popen(
            [sys.executable, "-m", "borgcube", "serve"], env=self.env,
            stdin=subprocess.DEVNULL, stderr=(self.place / "serve.log").open("ab"),
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while True:
            try:
                self.call("ping")
                return
            except (BorgCubeError, OSError) as error:
                assert self.daemon.poll() is None, (self.place / "serve.log").read_text()
                if time.monotonic() > deadline:
                    raise AssertionError("the daemon does not answer") from error
                time.sleep(0.1)

    def wait_for_console(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until the console answers, which that process serves."""
        deadline = time.monotonic() + 60
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 2):
                    return
            except OSError as error:
                assert process.poll() is None, (self.place / "serve.log").read_text()
                if time.monotonic() > deadline:
                    raise AssertionError("the console does not answer") from error
                time.sleep(0.1)

    def stop(self) -> None:
        """Stop the daemon, and the console with it."""
        self.stop_daemon()

    def stop_daemon(self) -> None:
        """Stop the daemon."""
        if self.daemon is not None:
            self.daemon.terminate()
            self.daemon.wait(60)
            self.daemon = None

    def call(self, method: str, **params: Any) -> Any:
        """Ask the daemon over control."""
        with Control(self.home) as control:
            return control.call(method, **params)

    def cli(self, *words: str) -> str:
        """Run the command line; it must succeed."""
        done = subprocess.run(
            [sys.executable, "-m", "borgcube", *words], env=self.env, capture_output=True,
            text=True, timeout=110, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def user(self, name: str, role: str = "administrator", *clients: str) -> None:
        """Make a user with the usual password."""
        self.call("user.add", name=name, role=role, clients=list(clients), password=PASSWORD)

    def visitor(self, name: str = "") -> Visitor:
        """Return a visitor, logged in if a name is given."""
        made = Visitor(self.port)
        if name:
            answer = made.log_in(name)
            assert answer.status == 303, answer.text
        return made

    def ended(self, job_id: str, *, timeout_s: float = 60) -> dict[str, Any]:
        """Wait for the end of a job."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            job: dict[str, Any] = self.call("job.show", id=job_id)
            if job["finished_at"]:
                return job
            time.sleep(0.05)
        raise AssertionError(f"job stays {job}")
