"""The vault's side of the reader process: start it, and have an archive read by a child of it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from borgcube.core.errors import JobFailed, Problem
from borgcube.core.untrusted import words
from borgcube.plugins.borg.metadata.decode import (
    MAX_SKIPPED,
    ArchiveFacts,
    check_chunker,
    check_words,
)
from borgcube.plugins.borg.metadata.process import MAX_ANSWER
from borgcube.plugins.borg.metadata.rules import ArchiveRefused
from borgcube.plugins.borg.wire import BEGIN, FINISH, JSON, RECORDS, STATE, STREAM, Wire, WireError

log = logging.getLogger("borgcube.vault")
# How long a child may be silent; decoding a chunk takes milliseconds.
ANSWER_WAIT_S = 120.0


def _failed(what: str) -> JobFailed:
    return JobFailed(
        "reader-failed", Problem.SERVER,
        f"The process that reads what clients wrote {what}.",
        next_step="Run the backup again. If it happens again, see the log of the daemon: the "
        "machine may be short of memory.",
    )  # fmt: skip


class Readers:
    """Starts the parent process when it is needed first, and again when it ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._told = False

    def open(self) -> Reader:
        """Return a new child's conversation. Raises JobFailed ``reader-failed``."""
        mine, theirs = socket.socketpair()
        try:
            with theirs:
                handle = self._ask(theirs)
            reader = Reader(mine, handle)
            self._tell(reader.confined)
            return reader
        except BaseException:
            mine.close()
            raise

    def _ask(self, theirs: socket.socket) -> int | None:
        """Have a child made for a socket; return a handle of its process."""
        with self._lock:
            for attempt in (1, 2):
                try:
                    control = self._started()
                    socket.send_fds(control, [b"+"], [theirs.fileno()])
                    answer, handles, _, _ = socket.recv_fds(control, 1, 1)
                    if answer:
                        return handles[0] if handles else None
                except OSError as error:
                    log.warning("the reader process does not answer: %s", error)
                self._end()
                if attempt == 2:
                    break
        raise _failed("cannot be started")

    def _started(self) -> socket.socket:
        if self._process is not None and self._process.poll() is None:
            assert self._control is not None
            return self._control
        self._end()
        mine, theirs = socket.socketpair()
        mine.settimeout(ANSWER_WAIT_S)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "borgcube.plugins.borg.metadata.process",
                 "--socket", str(theirs.fileno())],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                # Where Python finds BorgCube, when it is not installed.
                env={key: os.environ[key] for key in ("PYTHONPATH",) if key in os.environ},
            )  # fmt: skip
        self._control = mine
        return mine

    def _tell(self, layers: dict[str, Any]) -> None:
        if not self._told and not (layers.get("landlock") and layers.get("call_filter")):
            log.warning("the reader runs with less around it than it could: %s", layers)
        self._told = True

    def _end(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._control = None

    def close(self) -> None:
        """End the process; safe to repeat."""
        with self._lock:
            self._end()


class Reader:
    """One child: decodes one client's bytes, then is thrown away. For one thread at a time.

    Raises ArchiveRefused for what it refuses, and JobFailed ``reader-failed`` when it ends or is
    silent.
    """

    def __init__(self, sock: socket.socket, handle: int | None) -> None:
        sock.settimeout(ANSWER_WAIT_S)
        self._wire = Wire(sock, max_frame=MAX_ANSWER)
        self._handle = handle
        self.left_out: tuple[int, list[str]] = (0, [])
        self.rest: bytes | None = b""  # the beginning of an item it waits with; None: a long one
        with self._talking():
            self.confined: dict[str, Any] = self._wire.receive_json().get("confined") or {}

    @contextlib.contextmanager
    def _talking(self) -> Iterator[None]:
        try:
            yield
        except (WireError, ValueError, KeyError, TypeError, AttributeError) as error:
            self.close()
            raise _failed(f"ended or said something odd ({error})") from error

    def _json(self) -> dict[str, Any]:
        answer = self._wire.receive_json()
        self._check(answer)
        return answer

    def _check(self, answer: dict[str, Any]) -> None:
        if "refused" in answer:
            self.close()
            # A child that was taken over says what it likes: a kind of our list, text as such.
            ours = answer.get("kind") == "archive-too-large"
            raise ArchiveRefused(
                words(answer["refused"], limit=300),
                kind="archive-too-large" if ours else "archive-refused", keep=ours,
            )  # fmt: skip

    def manifest(self, plain: bytes, *, expected: str) -> bytes:
        """Return the ID of the one archive that a client's manifest lists."""
        with self._talking():
            self._wire.send_json({"op": "manifest", "expected": expected})
            self._wire.send(STREAM, plain)
            archive_id = bytes.fromhex(self._json()["id"])
            if len(archive_id) != 32:
                raise ValueError("an ID of another length")
            return archive_id

    def archive(self, plain: bytes, *, expected: str) -> ArchiveFacts:
        """Return what the metadata of a client's archive says."""
        with self._talking():
            self._wire.send_json({"op": "archive", "expected": expected})
            self._wire.send(STREAM, plain)
            said = self._json()
            kind, ids = self._wire.receive()
            if kind != STREAM or len(ids) % 32:
                raise ValueError("no list of items")
            # Judged once more: what a child that was taken over says is packed at the commit.
            name, *numbers = said["chunker_params"]
            facts = ArchiveFacts(
                items=_cut(ids),
                time=_aware(said["time"]), time_end=_aware(said["time_end"]),
                cmdline=tuple(bytes.fromhex(word) for word in said["cmdline"]),
                hostname=bytes.fromhex(said["hostname"]),
                username=bytes.fromhex(said["username"]),
                chunker_params=check_chunker((name.encode(), *numbers)),
            )  # fmt: skip
            check_words(facts.cmdline, facts.hostname, facts.username)
            return facts

    def stored(self, plain: bytes) -> tuple[bytes, ...]:
        """Return the IDs of the metadata chunks of an archive that is stored already."""
        with self._talking():
            self._wire.send_json({"op": "stored"})
            self._wire.send(STREAM, plain)
            kind, ids = self._wire.receive()
            if kind == JSON:
                self._check(self._wire.parse_json(ids))
            if kind != STREAM or len(ids) % 32:
                raise ValueError("no list of items")
            return _cut(ids)

    def begin(self, rest: bytes) -> None:
        """Go on as if what ends with ``rest`` had been read."""
        with self._talking():
            self._wire.send(BEGIN, rest)
        self.rest = rest

    def read(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the blocks of records that a chunk completes; then :attr:`rest` is new."""
        with self._talking():
            self._wire.send(STREAM, chunk)
        while True:
            with self._talking():
                kind, payload = self._wire.receive()
                if kind == JSON:
                    self._check(self._wire.parse_json(payload))
                    raise ValueError("an answer to another question")
                if kind == STATE:
                    self.rest = bytes(payload[1:]) if payload[:1] == b"\1" else None
                    return
                if kind != RECORDS:
                    raise ValueError("an unexpected frame")
            yield bytes(payload)

    def finish(self) -> None:
        """Raise ArchiveRefused when the stream ends inside an item."""
        with self._talking():
            self._wire.send(FINISH)
            kind, payload = self._wire.receive()
            if kind == JSON:
                self._check(self._wire.parse_json(payload))
            if kind != STATE:
                raise ValueError("an unexpected frame")

    def compare(self, chunks: Iterator[bytes]) -> dict[str, int]:
        """Read a whole stored stream with both readers; return its figures."""
        with self._talking():
            self._wire.send_json({"op": "compare"})
        for chunk in chunks:
            for _ in self.read(chunk):
                pass
        with self._talking():
            self._wire.send(FINISH)
            return {str(key): int(value) for key, value in self._json().items()}

    def salvage(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the blocks of a stored stream, without items that are refused; at the end
        :attr:`left_out` says which."""
        with self._talking():
            self._wire.send_json({"op": "salvage"})
        for chunk in chunks:
            yield from self.read(chunk)
        with self._talking():
            self._wire.send(FINISH)
            said = self._json()
            names = [words(str(name), limit=400) for name in said["names"][:MAX_SKIPPED]]
            self.left_out = int(said["skipped"]), names

    def close(self) -> None:
        """End the child; safe to repeat."""
        self._wire.close()
        handle, self._handle = self._handle, None
        if handle is not None:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            os.close(handle)


def _cut(ids: bytes | bytearray) -> tuple[bytes, ...]:
    return tuple(bytes(ids[at : at + 32]) for at in range(0, len(ids), 32))


def _aware(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time without its zone")
    return moment
