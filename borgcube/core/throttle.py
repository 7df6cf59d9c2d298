"""Slows guessing down: after a few wrong logins, the next try has to wait.

Counted for each address and, more patiently, for each user name, so that many addresses
cannot guess one password, and nobody can lock a user out for long.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

FREE_TRIES = {"address": 5, "user": 10}
LONGEST_S = {"address": 900.0, "user": 60.0}
FORGET_S = 3600.0
MAX_KEPT = 10_000


class LoginThrottle:
    """Failures by address and user name, in memory and bounded."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()

    def wait_s(self, *, address: str, user: str) -> float:
        """Return how long the next try has to wait, in seconds; 0 for not at all."""
        return max(self._wait("address", address), self._wait("user", user))

    def _wait(self, kind: str, value: str) -> float:
        count, last = self._failures.get((kind, value), (0, 0.0))
        beyond = count - FREE_TRIES[kind]
        if beyond < 0:
            return 0.0
        pause = min(LONGEST_S[kind], 2.0 ** min(beyond + 1, 20))
        return max(0.0, last + pause - self._clock())

    def failed(self, *, address: str, user: str) -> None:
        """Note a wrong login."""
        now = self._clock()
        for key in (("address", address), ("user", user)):
            count, last = self._failures.pop(key, (0, now))
            self._failures[key] = (1 if now - last > FORGET_S else count + 1, now)
        while len(self._failures) > MAX_KEPT:
            self._failures.popitem(last=False)

    def succeeded(self, *, address: str, user: str) -> None:
        """Forget the failures before a right login."""
        for key in (("address", address), ("user", user)):
            self._failures.pop(key, None)
