"""The gate's conversation: which call is allowed when, and what happens to a chunk.

Backup: negotiate, open, load_key, get of the manifest, then put and commit. Restore: the
same beginning, then get. Everything else ends the session; the peer is told nothing but
"refused", the reason goes to the job's log through the report.
"""

from __future__ import annotations

import hmac
import os
import select
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from borgcube.core.budget import Room
from borgcube.plugins.borg.gate.rpc import (
    MANIFEST_ID,
    SERVER_VERSION,
    Request,
    RequestParser,
    client_version,
    refusal,
    reply,
)
from borgcube.plugins.borg.gate.verify import MAX_MANIFEST, IdHash, Rejected, decompress
from borgcube.plugins.borg.wire import COMMIT, DATA, GET, MANIFEST, PUT, PUT_HEADER, Wire

READ_BYTES = 1 << 20
INLINE_BYTES = 32 * 1024
# What waits for the verifying threads, as the client sent it.
IN_FLIGHT_BYTES = 48 << 20
VERIFIERS = 2
REPORT_EVERY_S = 0.4
TURN_EVERY_S = 1.0
CLIENT, VAULT = "client", "vault"  # who has to speak next
# Answers that are held for a moment: few, and of few bytes. One that is longer goes at once.
HELD_ANSWERS = 64
HELD_BYTES = 1 << 20
HELD_MS = 5
KEPT_FUTURES = 32  # then those that are done are forgotten; what they hold is in the room
SETTLE_MS = 100
# Calls other than put, and than get in a restore. Stock borg needs about six.
MAX_OTHER_CALLS = 1000


@dataclass
class Terms:
    """What this session may do; ``opens`` is the one path a client may open."""

    mode: str
    opens: bytes
    repository_id: bytes
    key_blob: bytes
    manifest: bytes
    type_byte: int
    id_hash: IdHash
    max_bytes: int


class GateSession:
    """Answers one client until it closes the stream. Raises Rejected when it misbehaves."""

    def __init__(
        self,
        terms: Terms,
        peer_in: int,
        peer_out: int,
        vault: Wire,
        report: Callable[[dict[str, Any]], None],
    ) -> None:
        self.terms = terms
        self.peer_in, self.peer_out = peer_in, peer_out
        self.vault = vault
        self.report = report
        self.phase = "new"
        self.bytes_in = self.bytes_out = self.chunks = 0
        self.committed = False
        self.turn = VAULT
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(VERIFIERS, thread_name_prefix="verify")
        self._room = Room(IN_FLIGHT_BYTES)
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._failure: BaseException | None = None
        self._pending: list[Future[None]] = []
        self._next_report = 0.0
        self._other_calls = 0
        self._handlers: dict[str, Callable[[Request], bytes]] = {
            "negotiate": self._negotiate,
            "open": self._open,
            "load_key": self._load_key,
            "get": self._get,
            "put": self._put,
            "commit": self._commit,
            "rollback": self._no_effect,
            "get_free_nonce": self._no_effect,
            "commit_nonce_reservation": self._no_effect,
        }

    def start_threads(self) -> None:
        """Start the threads that verify, which later may want for memory."""
        together = threading.Barrier(VERIFIERS + 1)
        for _ in range(VERIFIERS):
            self._pool.submit(together.wait)
        together.wait()

    def run(self) -> None:
        """Serve to the end of the stream."""
        turns = threading.Thread(target=self._tell_turns, name="turns", daemon=True)
        turns.start()
        try:
            self._serve()
        finally:
            self._over.set()
            turns.join()

    def _tell_turns(self) -> None:
        """Report again and again who has to speak next: only a client that has to, and does
        not, is silent. A gate that stands still itself reports nothing."""
        while not self._over.wait(TURN_EVERY_S):
            self.tell(turn=self.turn)

    def _serve(self) -> None:
        parser = RequestParser()
        poller = select.poll()
        poller.register(self.peer_in, select.POLLIN)
        while True:
            # Answers to puts are held for a moment: the client does not wait for them, and
            # every one that goes alone costs each process on its way several system calls.
            if self._held and not poller.poll(HELD_MS):
                self._flush()
            # What the verifying threads find counts although the client says no more.
            while self._unsettled() and not poller.poll(SETTLE_MS):
                self._raise_failure()
            self.turn = CLIENT
            data = os.read(self.peer_in, READ_BYTES)
            self.turn = VAULT
            if not data:
                break
            self.bytes_in += len(data)
            if self.bytes_in > self.terms.max_bytes:
                raise Rejected("the client sent more than the job's byte limit", kind="too-much")
            urgent = False
            for request in parser.feed(data):
                try:
                    self._hold(self._answer(request))
                except Rejected:
                    self._flush()
                    self._write(refusal(request))
                    raise
                urgent = urgent or request.method != "put"
            if urgent:
                self._flush()
            self._raise_failure()
            now = time.monotonic()
            if now >= self._next_report:
                self._next_report = now + REPORT_EVERY_S
                self.tell()
        self._drain()

    def tell(self, **more: Any) -> None:
        """Report the figures so far to the worker."""
        self.report(
            {"bytes_in": self.bytes_in, "bytes_out": self.bytes_out, "chunks": self.chunks, **more}
        )

    def _hold(self, answer: bytes) -> None:
        """Keep an answer for a moment, within both bounds."""
        if self._held_bytes + len(answer) > HELD_BYTES:
            self._flush()
            if len(answer) > HELD_BYTES:
                self._write(answer)
                return
        self._held.append(answer)
        self._held_bytes += len(answer)
        if len(self._held) >= HELD_ANSWERS:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            self._write(b"".join(self._held))
            self._held.clear()
            self._held_bytes = 0

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        self.turn = CLIENT  # to take what is written
        while view:
            view = view[os.write(self.peer_out, view) :]
        self.turn = VAULT

    def _answer(self, request: Request) -> bytes:
        handler = self._handlers.get(request.method)
        if handler is None:
            raise Rejected(
                f"the client called {request.method!r}, which no backup needs",
                kind="forbidden-call",
            )
        if request.method != "put" and not (request.method == "get" and self._restores):
            self._other_calls += 1
            if self._other_calls > MAX_OTHER_CALLS:
                raise Rejected("the client calls without end", kind="flood")
        return handler(request)

    @property
    def _restores(self) -> bool:
        return self.terms.mode == "restore"

    def _require(self, *phases: str, what: str) -> None:
        if self.phase not in phases:
            raise Rejected(f"the client called {what} out of order", kind="out-of-order")

    def _no_effect(self, request: Request) -> bytes:
        self._require("open", "manifest", "committed", what=request.method)
        return reply(request, None)

    def _negotiate(self, request: Request) -> bytes:
        self._require("new", what="negotiate")
        self.phase = "negotiated"
        self.tell(client_version=client_version(request))
        return reply(request, {b"server_version": SERVER_VERSION})

    def _open(self, request: Request) -> bytes:
        self._require("negotiated", what="open")
        if request.arguments.get(b"path") != self.terms.opens:
            raise Rejected("the client opened another repository path", kind="forbidden-call")
        if request.arguments.get(b"create"):
            raise Rejected("the client asked to create a repository", kind="forbidden-call")
        # Stock borg asks for exclusive use; the client gets no lock of any kind.
        self.phase = "open"
        return reply(request, self.terms.repository_id)

    def _load_key(self, request: Request) -> bytes:
        self._require("open", what="load_key")
        return reply(request, self.terms.key_blob)

    def _get(self, request: Request) -> bytes:
        self._require("open", what="get")
        chunk_id = request.arguments.get(b"id")
        if chunk_id == MANIFEST_ID:
            return reply(request, self.terms.manifest)
        if not self._restores or type(chunk_id) is not bytes or len(chunk_id) != 32:
            raise Rejected("the client asked to read a chunk", kind="forbidden-read")
        self.vault.send(GET, chunk_id)
        kind, payload = self.vault.receive()
        if kind != DATA or not payload:
            raise Rejected(
                "the client asked for a chunk outside its restore", kind="forbidden-read"
            )
        self.bytes_out += len(payload)
        self.chunks += 1
        return reply(request, b"".join((bytes([self.terms.type_byte]), payload)))

    def _put(self, request: Request) -> bytes:
        self._require("open", "manifest", what="put")
        if self.terms.mode != "backup":
            raise Rejected("the client tried to write during a restore", kind="forbidden-call")
        chunk_id, data = request.arguments.get(b"id"), request.arguments.get(b"data")
        if type(chunk_id) is not bytes or len(chunk_id) != 32 or type(data) is not bytes:
            raise Rejected("a put is malformed")
        if len(data) < 3 or data[0] != self.terms.type_byte:
            raise Rejected(
                "a chunk has another envelope than the session's key makes", kind="bad-envelope"
            )
        if chunk_id == MANIFEST_ID:
            self._drain()
            if self.phase == "manifest":
                raise Rejected("the client wrote a second manifest", kind="out-of-order")
            manifest = decompress(memoryview(data)[1:], limit=MAX_MANIFEST)
            self.vault.send(MANIFEST, manifest)
            self.phase = "manifest"
        elif self.phase == "manifest":
            raise Rejected("the client wrote a chunk after its manifest", kind="out-of-order")
        elif len(data) <= INLINE_BYTES:
            self._verify(chunk_id, data)
        else:
            self._room.acquire(len(data))
            self._pending.append(self._pool.submit(self._verify_in_pool, chunk_id, data))
            if len(self._pending) > KEPT_FUTURES:
                self._pending = [one for one in self._pending if not one.done()]
        self.chunks += 1
        return reply(request, None)

    def _verify(self, chunk_id: bytes, data: bytes) -> None:
        payload = memoryview(data)[1:]
        plain = decompress(payload)
        if not plain:
            raise Rejected("a chunk is empty", kind="bad-envelope")
        if not hmac.compare_digest(self.terms.id_hash(plain), chunk_id):
            raise Rejected("a chunk's ID is not the MAC of its content", kind="wrong-id")
        self.vault.send(PUT, PUT_HEADER.pack(chunk_id, len(plain)), payload)

    def _verify_in_pool(self, chunk_id: bytes, data: bytes) -> None:
        try:
            if self._failure is None:
                self._verify(chunk_id, data)
        except BaseException as error:  # handed to the reading thread, which raises it
            self._failure = error
        finally:
            self._room.release(len(data))

    def _unsettled(self) -> bool:
        self._raise_failure()
        while self._pending and self._pending[-1].done():
            self._pending.pop()
        return bool(self._pending)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _drain(self) -> None:
        for future in self._pending:
            future.result()
        self._pending.clear()
        self._raise_failure()

    def _commit(self, request: Request) -> bytes:
        self._require("manifest", what="commit")
        self._drain()
        self.tell(committing=True)
        self.vault.send(COMMIT)
        if not self.vault.receive_json().get("ok"):
            raise Rejected("the vault did not admit the archive", kind="archive-refused")
        self.phase = "committed"
        self.committed = True
        return reply(request, None)
