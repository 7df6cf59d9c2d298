"""``borgcube console serve``: the console as a process of its own, beside the daemon.

It composes the same service that the daemon runs in its own process otherwise. It needs a
store that both can open (ZEO, RelStorage), and the home, where the daemon's sockets are.
It changes nothing itself, and outlives a daemon that is restarted.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from pathlib import Path

from borgcube.cli import access
from borgcube.core import config
from borgcube.core import home as places
from borgcube.core.errors import BorgCubeError, ConfigurationError
from borgcube.core.registry import Registry
from borgcube.core.services import ServiceContext

LOG = logging.getLogger(__name__)
LOG_NAME = "console.log"
CHECK_S = 1.0


def serve(home: Path, _options: argparse.Namespace) -> int:
    """Run the console alone, when the daemon's store is shared (ZEO, RelStorage)."""
    from borgcube.daemon.main import set_up_logging

    places.require_home(home)
    settings = config.load(home)
    if settings.console.enabled:
        raise ConfigurationError(
            "The daemon serves the console already: console.enabled is true.",
            next_step="Set it to false, restart the daemon, and start this again.",
        )
    os.umask(0o077)
    handler = set_up_logging(home, settings.log, name=LOG_NAME)
    try:
        return _serve(home, settings)
    except BorgCubeError as error:
        LOG.error("%s", error)
        raise
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


def _serve(home: Path, settings: config.Config) -> int:
    from borgcube.core.store import Store
    from borgcube.web.service import ConsoleService

    plugins = settings.plugins
    registry = Registry.load(disabled=plugins.disabled, required=plugins.required)
    store = Store.join(settings.store_uri(home))
    console = ConsoleService(ServiceContext(home, settings, store, registry))
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    try:
        console.start()
        print(f"The console is at {access.console_url(home)}; its log is "
              f"{places.log_dir(home) / LOG_NAME}.", file=sys.stderr, flush=True)  # fmt: skip
        while not ended.wait(CHECK_S) and not console.problem:
            pass
    finally:
        console.stop()
        store.close()
    if console.problem:
        raise ConfigurationError(console.problem)
    return 0
