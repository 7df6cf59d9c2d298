"""How far guessing gets, and what a flood of logins does to everybody else.

``python -m bench.bruteforce --seconds 30`` starts a daemon with its console and attacks it
over the loopback, whose many addresses (127.0.0.0/8) stand for many machines. Printed:

- one address, one user: guesses that reached a password check, in a minute;
- many addresses, one user: the same, and whether that user still logs in, from where they
  did before and from elsewhere;
- many addresses, many users, as many logins at once as the server takes: how long pages and
  the daemon's other work take meanwhile, and a right login;
- wrong API tokens from one address.
"""

from __future__ import annotations

import argparse
import http.client
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from borgcube.core.errors import BorgCubeError
from borgcube.testing.apiclient import Api
from borgcube.testing.consolerig import ConsoleRig, Visitor


def addresses() -> Iterator[str]:
    """Yield loopback addresses, each once."""
    for number in range(1 << 16):
        yield f"127.{1 + number // 65_025}.{number // 255 % 255}.{1 + number % 254}"


def attack(
    rig: ConsoleRig, seconds: float, threads: int, target: Callable[[int], tuple[str, str]]
) -> Counter[int]:
    """Guess from ``threads`` at once; ``target`` gives address and user of each guess.
    Returns how often each status was answered: 403 is a guess that was checked."""
    found: Counter[int] = Counter()
    lock, until, numbers = threading.Lock(), time.monotonic() + seconds, iter(range(1 << 30))

    def guess() -> None:
        form = Visitor(rig.port)
        token = form.token("/login")
        while time.monotonic() < until:
            with lock:
                number = next(numbers)
            source, user = target(number)
            visitor = Visitor(rig.port, cookies=dict(form.cookies), source=source)
            body = f"csrf_token={token}&name={user}&password=guess+{number}".encode()
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
            try:
                status = visitor.ask("POST", "/login", body, kind).status
            except (OSError, http.client.HTTPException):
                status = 0
            with lock:
                found[status] += 1

    running = [threading.Thread(target=guess) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return found


def per_minute(found: Counter[int], seconds: float) -> str:
    """Return the counts of an attack in words."""
    checked, tries = found[403], sum(found.values())
    return (
        f"{tries * 60 / seconds:.0f} tries a minute, of which {checked * 60 / seconds:.0f} were"
        f" checked ({checked} in {seconds:.0f} s), {found[429]} had to wait, {found[503]} were"
        f" turned away, {found[0]} got no answer"
    )


class Bystander:
    """Somebody with a login who looks at pages, and asks the daemon, during a flood."""

    def __init__(self, rig: ConsoleRig, visitor: Visitor) -> None:
        self._rig, self._visitor = rig, visitor
        self.pages: list[float] = []
        self.actions: list[float] = []
        self.wrong: Counter[str] = Counter()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Bystander:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.is_set():
            begin = time.perf_counter()
            status = self._visitor.get("/jobs").status
            self.pages.append(1000 * (time.perf_counter() - begin))
            if status != 200:
                self.wrong[f"page {status}"] += 1
            begin = time.perf_counter()
            try:
                # Its slow part is done in the pool that logins once filled.
                self._rig.call("client.test", name="here")
            except BorgCubeError as error:
                self.wrong[error.message] += 1
            self.actions.append(1000 * (time.perf_counter() - begin))


def spread(times_ms: list[float]) -> str:
    """Return median and 95th percentile."""
    ordered = sorted(times_ms)
    return (f"median {statistics.median(ordered):.0f} ms, 95 % under"
            f" {ordered[int(len(ordered) * 0.95)]:.0f} ms, {len(ordered)} times")  # fmt: skip


def timed_login(rig: ConsoleRig, name: str, source: str) -> str:
    """Log in and say what came of it."""
    visitor = Visitor(rig.port, source=source)
    begin = time.perf_counter()
    status = visitor.log_in(name).status
    words = {303: "logged in", 429: "has to wait", 503: "turned away"}.get(status, str(status))
    return f"{words} after {1000 * (time.perf_counter() - begin):.0f} ms"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Guess passwords and flood the login.")
    parser.add_argument("--seconds", type=float, default=30, help="for each attack")
    parser.add_argument("--threads", type=int, default=32, help="of the flood")
    options = parser.parse_args()
    seconds: float = options.seconds
    with (
        tempfile.TemporaryDirectory(prefix="borgcube-bruteforce-") as name,
        ConsoleRig(Path(name)) as rig,
    ):
        run(rig, seconds, options.threads)


def run(rig: ConsoleRig, seconds: float, threads: int) -> None:
    """Attack, and print what came of it."""
    for user in ("ada", "olga", "gina"):
        rig.user(user)
    rig.call("client.add", name="here", transport="local")
    fresh = addresses()

    print("one address, one user:")
    print(" ", per_minute(attack(rig, seconds, 4, lambda _: ("127.9.9.9", "gina")), seconds))
    print("  gina from elsewhere:", timed_login(rig, "gina", "127.8.8.1"))

    home = "127.8.8.2"
    Visitor(rig.port, source=home).log_in("ada")
    print("many addresses, one user:")
    found = attack(rig, seconds, 8, lambda _: (next(fresh), "ada"))
    print(" ", per_minute(found, seconds))
    print("  ada from a new place:", timed_login(rig, "ada", "127.8.8.3"))
    print("  ada from where she logged in before:", timed_login(rig, "ada", home))
    print("  olga from a new place:", timed_login(rig, "olga", "127.8.8.4"))

    visitor = Visitor(rig.port, source="127.8.8.5")
    visitor.log_in("olga")
    with Bystander(rig, visitor) as calm:
        time.sleep(min(seconds, 10))
    print("nobody attacks: a page", spread(calm.pages), "| a client's test", spread(calm.actions))
    print(f"many addresses, many users, {threads} at once:")
    logins: list[str] = []

    def log_in_meanwhile() -> None:
        time.sleep(seconds / 2)
        logins.append(timed_login(rig, "olga", "127.8.8.6"))

    meanwhile = threading.Thread(target=log_in_meanwhile)
    meanwhile.start()
    with Bystander(rig, visitor) as bystander:
        found = attack(rig, seconds, threads, lambda number: (next(fresh), f"user{number}"))
    meanwhile.join()
    print(" ", per_minute(found, seconds))
    print("  a page", spread(bystander.pages), "| a client's test", spread(bystander.actions))
    print("  went wrong for the bystander:", dict(bystander.wrong) or "nothing")
    print("  olga from a new place, in the middle of it:", *logins)

    print("wrong API tokens from one address:")
    statuses: Counter[int] = Counter()
    begin = time.monotonic()
    while time.monotonic() - begin < min(seconds, 15):
        guess = Api(rig.port, f"bcu_{time.monotonic_ns():043d}", source="127.9.9.8")
        statuses[guess.ask("GET", "/me").status] += 1
    took = time.monotonic() - begin
    print(f"  {sum(statuses.values()) * 60 / took:.0f} a minute, of which {statuses[401]} were"
          f" looked up in {took:.0f} s and {statuses[429]} were not")  # fmt: skip


if __name__ == "__main__":
    main()
