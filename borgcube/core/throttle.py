"""Slows guessing down: after a few wrong logins, the next try has to wait.

Counted for each address and, more patiently, for each user name, so that many addresses
cannot guess one password. Who logged in from an address before does not wait there for what
others do to the name: nobody can lock a user out. The daemon keeps one for passwords, the
console one for API tokens.
"""

from __future__ import annotations

import hashlib
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

FREE_TRIES = {"address": 5, "user": 10}
LONGEST_S = {"address": 900.0, "user": 60.0}
FORGET_S = 3600.0
MAX_KEPT = 10_000


def network_of(address: str) -> str:
    """Return what counts as one address: for IPv6 its /64, which is what one line has."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4 or parsed.ipv4_mapped is not None:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False))


def _name(user: str) -> str:
    """Return what is kept of a name: some type their password there."""
    return hashlib.sha256(user.encode("utf-8", "surrogatepass")).hexdigest() if user else ""


class LoginThrottle:
    """Failures by address and user name, in memory and bounded."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def wait_s(self, *, address: str = "", user: str = "", known: bool = False) -> float:
        """Return how long the next try has to wait, in seconds; 0 for not at all.

        ``known`` says that the user is known to log in from this address.
        """
        waits = [self._wait("address", network_of(address))] if address else []
        name = _name(user)
        if user and not known and (network_of(address), name) not in self._known:
            waits.append(self._wait("user", name))
        return max(waits, default=0.0)

    def _wait(self, kind: str, value: str) -> float:
        count, last = self._failures.get((kind, value), (0, 0.0))
        beyond = count - FREE_TRIES[kind]
        if beyond < 0:
            return 0.0
        pause = min(LONGEST_S[kind], 2.0 ** min(beyond + 1, 20))
        return max(0.0, last + pause - self._clock())

    @staticmethod
    def _keys(address: str, user: str) -> list[tuple[str, str]]:
        keys = (("address", network_of(address)), ("user", _name(user)))
        return [(kind, value) for kind, value in keys if value]

    def failed(self, *, address: str = "", user: str = "") -> None:
        """Note a wrong login."""
        now = self._clock()
        for key in self._keys(address, user):
            count, last = self._failures.pop(key, (0, now))
            self._failures[key] = (1 if now - last > FORGET_S else count + 1, now)
        while len(self._failures) > MAX_KEPT:
            self._failures.popitem(last=False)

    def succeeded(self, *, address: str = "", user: str = "") -> None:
        """Forget the failures before a right login, and know its address."""
        for key in self._keys(address, user):
            self._failures.pop(key, None)
        if address and user:
            self._known[network_of(address), _name(user)] = None
            while len(self._known) > MAX_KEPT:
                self._known.popitem(last=False)
