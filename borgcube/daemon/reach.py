"""Whether a client answers now: asked by a child, remembered for a short while.

Used by the scheduler for schedules that wait until their client is there, so that a machine
that is away for a week does not make a week of failed jobs. Touches no store.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any, Protocol

from borgcube.core.errors import BorgCubeError, JobFailed, NotFound, TooMany
from borgcube.core.transports import ClientAddress
from borgcube.daemon.hostanswers import REACH
from borgcube.daemon.hostask import Question

LOG = logging.getLogger(__name__)
GOOD_FOR_S = 60.0
# Whose host does not answer is away; a login that is refused is for a job to report.
AWAY = frozenset({"host-unreachable", "timeout", "connection-lost"})


class Asks(Protocol):
    """Who asks hosts (:class:`borgcube.daemon.hostask.HostAsker`)."""

    def ask(self, question: Question) -> Future[Any]:
        """Begin to ask."""


class Reach:
    """Answers, by client. Only the main thread calls it."""

    def __init__(self, hosts: Asks, clock: Callable[[], float] = time.monotonic) -> None:
        self._hosts, self._clock = hosts, clock
        self._asked: dict[str, Future[Any]] = {}
        self._known: dict[str, tuple[float, bool]] = {}

    def ask(self, address: ClientAddress) -> bool | None:
        """Return whether a client answers, or None while that is being found out."""
        future = self._asked.get(address.name)
        if future is not None:
            if not future.done():
                return None
            del self._asked[address.name]
            self._known[address.name] = (self._clock(), _is_there(future, address.name))
        at, answer = self._known.get(address.name, (0.0, False))
        if address.name in self._known and self._clock() - at < GOOD_FOR_S:
            return answer
        self._known.pop(address.name, None)
        try:
            self._asked[address.name] = self._hosts.ask(Question(REACH, address))
        except NotFound:
            return True  # the job will say what is missing
        except TooMany:
            pass  # asked again with the next turn
        return None


def _is_there(future: Future[Any], name: str) -> bool:
    try:
        future.result()
    except JobFailed as error:
        return error.cause.kind not in AWAY
    except (BorgCubeError, CancelledError):
        return True
    except Exception:
        LOG.exception("client %s could not be asked", name)
    return True
