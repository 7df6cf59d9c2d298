"""The console as a service beside the daemon: one thread with an event loop for the
connections and the live feed, and a few threads for pages."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
from typing import Any

import uvicorn
from a2wsgi import WSGIMiddleware

from borgcube.core.errors import ConfigurationError
from borgcube.core.services import ServiceContext
from borgcube.web.app import make_app, session_cookie
from borgcube.web.asgi import FrontDoor
from borgcube.web.downloads import Downloads
from borgcube.web.live import LiveHub
from borgcube.web.settings import WebSettings

LOG = logging.getLogger(__name__)
# ZODB keeps seven connections ready. A file of an archive may take long to open, so pages do
# not wait for it; to send it takes no thread.
PAGE_THREADS, OPENING_THREADS = 5, 2
STOP_S = 10.0


class ConsoleService:
    """Serves the console; see ``core.services.Service``."""

    name = "console"

    def __init__(self, context: ServiceContext) -> None:
        self._context = context
        self.problem = ""
        self.port = 0
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Listen, and serve in a thread; raises ConfigurationError when it cannot."""
        settings = WebSettings.of(self._context.config.console)
        check_certificate(settings)
        cookie = session_cookie(self._context.store)
        hub = LiveHub(self._context.home, self._context.store, settings, cookie=cookie)
        pages = make_app(self._context, settings, hub=hub, cookie=cookie)
        self._socket = _listen(settings)
        self.port = self._socket.getsockname()[1]
        wsgi: Any = WSGIMiddleware(pages, workers=PAGE_THREADS)
        opening: Any = WSGIMiddleware(pages, workers=OPENING_THREADS)
        config = uvicorn.Config(
            FrontDoor(settings, pages=wsgi, live=hub.serve, files=Downloads(opening)),
            interface="asgi3", lifespan="off",
            ws="wsproto", ws_max_size=1024, http="h11", loop="asyncio", access_log=False,
            log_config=None, proxy_headers=False, server_header=False, date_header=True,
            limit_concurrency=1200, timeout_keep_alive=30, timeout_graceful_shutdown=3,
            h11_max_incomplete_event_size=32 * 1024,
            ssl_certfile=settings.certificate or None, ssl_keyfile=settings.key or None,
        )  # fmt: skip
        config.load()
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._run, args=(self._server, hub), name="console", daemon=True
        )
        self._thread.start()
        LOG.info("the console is at %s", settings.public_url(self.port))

    def _run(self, server: uvicorn.Server, hub: LiveHub) -> None:
        async def main() -> None:
            live = asyncio.create_task(self._live(hub))
            await server.serve(sockets=[self._socket] if self._socket else None)
            live.cancel()
            await asyncio.gather(live, return_exceptions=True)

        try:
            asyncio.run(main())
        except Exception as error:
            LOG.exception("the console ended")
            self.problem = f"The console ended: {type(error).__name__}. See logs/borgcubed.log."

    @staticmethod
    async def _live(hub: LiveHub) -> None:
        while True:
            try:
                await hub.run()
            except Exception:
                LOG.exception("the live feed failed and begins again")
                await asyncio.sleep(2)

    def stop(self) -> None:
        """End the server and wait for its thread."""
        if self._server is not None:
            self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(STOP_S)
        if self._socket is not None:
            self._socket.close()


def check_certificate(settings: WebSettings) -> None:
    """Raise ConfigurationError unless certificate and key can be used together."""
    if not settings.certificate:
        return

    def no_passphrase() -> str:
        raise ValueError

    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
            settings.certificate, settings.key, password=no_passphrase
        )
    except ValueError:
        why = f"the key {settings.key} is sealed with a passphrase"
    except ssl.SSLError as error:
        why = f"{settings.certificate} and {settings.key} are not PEM files that OpenSSL takes"
        if error.reason == "KEY_VALUES_MISMATCH":
            why = f"the key {settings.key} does not belong to the certificate"
    except OSError as error:
        why = f"{error.filename or settings.key} cannot be read: {error.strerror}"
    else:
        return
    raise ConfigurationError(
        f"The console has no TLS: {why}.",
        next_step="Correct console.certificate and console.key, then start again.",
    )


def _listen(settings: WebSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # Named TCP, or asyncio leaves Nagle's delay on: 40 ms for each answer on an open connection.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"The console cannot listen on {settings.host}:{settings.port}: {error.strerror}.",
            next_step="Choose another console.listen in borgcube.toml.",
        ) from error
    listener.set_inheritable(False)
    return listener
