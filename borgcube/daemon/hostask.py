"""Asking a host: a child does it, with bounds; the daemon gets one small record.

Test, diagnosis, host-key scan and the question whether a client is there: whatever a host
answers is read by :mod:`borgcube.daemon.hostchild` alone. It has a limit of memory, of processor
time and of files, and one deadline for all that it does. What it hands back is read up to a
bound and parsed by :mod:`borgcube.daemon.hostanswers`. A child can be ended at any time.

The main thread starts a question; a pool of threads waits for children. Touches no store.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import selectors
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from borgcube.core import home as places
from borgcube.core import hostkeys
from borgcube.core.errors import JobFailed, NotFound, Problem, TooMany
from borgcube.core.registry import Registry
from borgcube.core.transports import ClientAddress
from borgcube.core.untrusted import last_words
from borgcube.daemon import hostanswers
from borgcube.daemon.hostanswers import DIAGNOSE, KEYS, MAX_ANSWER, REACH, TEST, Answer
from borgcube.daemon.spawn import give, spawn

LOG = logging.getLogger(__name__)
# For everything from the first packet to the last word, whatever a host does. The slowest
# honest way: a login, and a borg that is started from a slow disk.
DEADLINES_S: Mapping[str, float] = {KEYS: 30.0, REACH: 40.0, TEST: 90.0, DIAGNOSE: 120.0}
GRACE_S = 3.0  # to end what runs on the client
AT_ONCE, FOR_ONE_CLIENT = 8, 2
MAX_WAITING = 64
MAX_STDERR = 8 << 10
_BLOCK = 1 << 16
CHILD = [sys.executable, "-m", "borgcube.daemon.hostchild"]


@dataclass(frozen=True)
class Question:
    """What is to be found out, of whom; ``borg`` is the client's, ``engine`` who judges it."""

    asked: str
    address: ClientAddress
    borg: str = ""
    engine: str = ""


class HostAsker:
    """All questions of this daemon. ``ask`` is called in the main thread."""

    def __init__(
        self, home: Path, registry: Registry, *, deadlines_s: Mapping[str, float] = DEADLINES_S
    ) -> None:
        self._home, self._registry, self._deadlines_s = home, registry, deadlines_s
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="hosts")
        self._lock = threading.Lock()
        self._waiting: dict[str, int] = {}  # by client
        self._running: dict[str, list[_Child]] = {}
        self._closed = False

    def ask(self, question: Question) -> Future[Answer]:
        """Begin to ask. The answer's ``failure`` is raised by the future; raises NotFound for a
        transport that is missing, TooMany when too many are being asked."""
        address = question.address
        if address.transport not in self._registry.transports:
            raise NotFound(f"There is no transport {address.transport!r}.",
                           next_step="See: borgcube plugins")  # fmt: skip
        with self._lock:
            of_client = self._waiting.get(address.name, 0)
            if of_client >= FOR_ONE_CLIENT or sum(self._waiting.values()) >= MAX_WAITING:
                who = address.name if of_client >= FOR_ONE_CLIENT else "Many a client"
                raise TooMany(f"{who} is being asked already.", next_step="Try again in a moment.")
            self._waiting[address.name] = of_client + 1
        future = self._pool.submit(self._ask, question)
        future.add_done_callback(lambda _: self._over(address.name))
        return future

    def _over(self, name: str) -> None:
        with self._lock:
            self._waiting[name] -= 1
            if not self._waiting[name]:
                del self._waiting[name]

    def cancel(self, client: str) -> None:
        """End what is being asked of a client now."""
        with self._lock:
            for child in self._running.get(client, []):
                child.cancel()

    def running(self) -> dict[str, list[int]]:
        """Return the process IDs of children by client, for those who measure them."""
        with self._lock:
            return {name: [one.process.pid for one in children]
                    for name, children in self._running.items()}  # fmt: skip

    def close(self) -> None:
        """End all children; waits for none."""
        with self._lock:
            self._closed = True
            for children in self._running.values():
                for child in children:
                    child.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, question: Question) -> Answer:
        # One directory for each question: two of them may log in to the same client.
        directory = places.private_directory(
            places.runtime_dir(self._home) / f"ctl-{secrets.token_hex(4)}"
        )
        name, asked = question.address.name, question.asked
        try:
            child = _Child(self._order(question, directory), directory, asked=asked,
                           deadline_s=self._deadlines_s[asked])  # fmt: skip
            with self._lock:
                self._running.setdefault(name, []).append(child)
                if self._closed:
                    child.cancel()
            try:
                answer = child.answer(name)
            finally:
                with self._lock:
                    self._running[name].remove(child)
                    if not self._running[name]:
                        del self._running[name]
                child.release()
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        if answer.failure is not None:
            raise answer.failure
        return answer

    def _order(self, question: Question, directory: Path) -> dict[str, Any]:
        owners = {self._registry.owner_of("register_transports", question.address.transport)}
        if question.engine:
            owners.add(self._registry.owner_of("register_engines", question.engine))
        known = hostkeys.known_hosts_for(question.address, self._home, directory)
        state = places.engine_state_dir(self._home, question.engine) if question.engine else ""
        return {
            "asked": question.asked, "address": asdict(question.address), "borg": question.borg,
            "engine": question.engine, "state_dir": str(state), "known_hosts": str(known),
            "runtime_dir": str(directory), "plugins": sorted(owners),
            "deadline_s": self._deadlines_s[question.asked],
        }  # fmt: skip


class _Child:
    """One child, and what comes from it."""

    def __init__(
        self, order: dict[str, Any], directory: Path, *, asked: str, deadline_s: float
    ) -> None:
        self._asked, self._deadline_s = asked, deadline_s
        self._began = time.monotonic()
        self._cancelled = threading.Event()
        self._wake_in, self._wake_out = os.pipe()
        self._errors = bytearray()
        # This thread lives as long as the pool, and so until the daemon ends.
        self.process = spawn(CHILD, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        give(self.process, json.dumps(order).encode())

    def cancel(self) -> None:
        """Have it ended soon; any thread may, while :meth:`answer` goes on."""
        self._cancelled.set()
        os.write(self._wake_out, b"x")

    def answer(self, client: str) -> Answer:
        """Wait for the answer, for the deadline at most; raises JobFailed without one."""
        try:
            line = self._read()
        finally:
            self._end()
        if self._cancelled.is_set():
            raise JobFailed("cancelled", Problem.SERVER, f"Asking {client} was given up.")
        if line is None:
            raise JobFailed(
                "timeout", Problem.CLIENT,
                f"{client} kept the server waiting for {self._deadline_s:.0f} s without an end.",
                next_step="Check the machine's load and its sshd. Stock software does not do this.",
            )  # fmt: skip
        try:
            return hostanswers.parse(self._asked, line)
        except hostanswers.Unreadable as error:
            code = self.process.returncode
            LOG.warning("the child that asked %s ended with code %s (%s): %s", client, code, error,
                        last_words(bytes(self._errors), limit=2000))  # fmt: skip
            raise JobFailed(
                "host-unreadable", Problem.CLIENT,
                f"What {client} answers could not be read within the bounds that are set for it.",
                next_step="Stock software does not do this: look at the machine before you trust "
                "it.",
            ) from error  # fmt: skip

    def _read(self) -> bytes | None:
        """Return what it wrote, up to a bound; None when the time is over."""
        out, err = self.process.stdout, self.process.stderr
        assert out is not None and err is not None
        said = bytearray()
        deadline = self._began + self._deadline_s + GRACE_S
        with selectors.DefaultSelector() as selector:
            for stream in (out, err):
                os.set_blocking(stream.fileno(), False)
                selector.register(stream, selectors.EVENT_READ)
            selector.register(self._wake_in, selectors.EVENT_READ)
            while True:
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                for key, _ in selector.select(left):
                    if key.fd == self._wake_in:
                        return None
                    block = os.read(key.fd, _BLOCK)
                    if key.fileobj is err:
                        self._errors += block[: MAX_STDERR - len(self._errors)]
                        if not block:
                            selector.unregister(err)
                        continue
                    said += block
                    # What is too long is refused where it is parsed.
                    if not block or len(said) > MAX_ANSWER:
                        return bytes(said)

    def _end(self) -> None:
        """End the process and all that it started; it has a moment to end its login."""
        process = self.process
        deadline = time.monotonic() + GRACE_S
        if not self._has_ended():
            process.terminate()
        while not self._has_ended() and time.monotonic() < deadline:
            time.sleep(0.02)
        # Not reaped yet, so that the number of its group is still its own.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()

    def _has_ended(self) -> bool:
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.process.pid, flags) is not None

    def release(self) -> None:
        """Close what :meth:`cancel` uses, when nobody can call that any more."""
        os.close(self._wake_in)
        os.close(self._wake_out)
