"""Whether a client answers now: asked in a small pool, remembered for a short while.

Used by the scheduler for schedules that wait until their client is there, so that a machine
that is away for a week does not make a week of failed jobs. Touches no store.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from borgcube.core import home as places
from borgcube.core.errors import BorgCubeError, JobFailed
from borgcube.core.transports import ClientAddress, TransportContext
from borgcube.daemon import hostkeys

LOG = logging.getLogger(__name__)
GOOD_FOR_S = 60.0
# Whose host does not answer is away; a login that is refused is for a job to report.
AWAY = frozenset({"host-unreachable", "timeout", "connection-lost"})


class Reach:
    """Answers, by client. Only the main thread calls it."""

    def __init__(
        self, home: Path, transports: Mapping[str, Any],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._home, self._transports, self._clock = home, transports, clock
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="reach")
        self._asked: dict[str, Future[bool]] = {}
        self._known: dict[str, tuple[float, bool]] = {}

    def ask(self, address: ClientAddress) -> bool | None:
        """Return whether a client answers, or None while that is being found out."""
        future = self._asked.get(address.name)
        if future is not None:
            if not future.done():
                return None
            del self._asked[address.name]
            self._known[address.name] = (self._clock(), future.result())
        at, answer = self._known.get(address.name, (0.0, False))
        if address.name in self._known and self._clock() - at < GOOD_FOR_S:
            return answer
        self._known.pop(address.name, None)
        self._asked[address.name] = self._pool.submit(self._try, address)
        return None

    def _try(self, address: ClientAddress) -> bool:
        transport = self._transports.get(address.transport)
        if transport is None:
            return True  # the job will say what is missing
        directory = places.private_directory(
            places.runtime_dir(self._home) / f"ctl-{secrets.token_hex(4)}"
        )
        context = TransportContext(places.known_hosts_file(self._home), directory)
        try:
            transport.connect(address, context).close()
        except JobFailed as error:
            return error.cause.kind not in AWAY
        except BorgCubeError:
            return True
        except Exception:
            LOG.exception("client %s could not be asked", address.name)
            return True
        finally:
            hostkeys.remove_directory(directory)
        return True

    def close(self) -> None:
        """End the pool without waiting."""
        self._pool.shutdown(wait=False, cancel_futures=True)
