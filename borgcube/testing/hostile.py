"""A hostile client in front of a real gate and a real vault, in this process.

:class:`Peer` speaks Borg's RPC by hand, so that a test can say what no borg would. Used by
``tests/functional/borg`` and by ``bench attack``; :mod:`borgcube.testing.hostileborg` is its
twin for real jobs over SSH.
"""

from __future__ import annotations

import json
import os
import select
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgpack

from borgcube.core.errors import JobFailed
from borgcube.plugins.borg.gate.verify import id_hash_for
from borgcube.plugins.borg.gateprocess import start_gate
from borgcube.plugins.borg.vaultclient import VaultSession

MANIFEST_ID = bytes(32)
PATIENCE_S = 100.0
Chunk = tuple[bytes, int, int]


def at(moment: datetime) -> str:
    """Return a time as borg writes it into an archive: UTC, without a zone."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")


def in_order(value: Any) -> Any:
    """Return a value with the keys of its maps in the order in which Borg writes them.

    What an attack does is then what is wrong with it, and nothing else.
    """
    if isinstance(value, dict):
        made = {key: in_order(one) for key, one in value.items()}
        try:
            return dict(sorted(made.items(), key=lambda pair: pair[0]))
        except TypeError:
            return made  # keys of several types
    if isinstance(value, list | tuple):
        return type(value)(in_order(one) for one in value)
    return value


def borg_packed(value: Any) -> bytes:
    """Return a value as Borg packs it."""
    packed: bytes = msgpack.packb(in_order(value), use_bin_type=False)
    return packed


def file_item(path: str, chunks: Sequence[Chunk], **more: Any) -> dict[str, Any]:
    """Return the archive item of a regular file; ``more`` adds to it or replaces."""
    made = {
        "path": path,
        "mode": 0o100644,
        "mtime": 1,
        "uid": 0,
        "gid": 0,
        "user": "u",
        "group": "g",
        "size": sum(size for _, size, _ in chunks),
        "chunks": chunks,
        **more,
    }
    return dict(sorted(made.items()))


class Refused(PermissionError):
    """The gate answered a call with an error, or ended the stream."""


class Peer:
    """One session of a client that means harm. ``socket`` is the vault's."""

    def __init__(self, socket: Path | str, mode: str = "backup", **request: Any) -> None:
        self.archive_name = str(request.get("archive", "bad-1"))
        request = {
            "op": mode,
            "archive": self.archive_name,
            "plan": "bad",
            "domain": "client:bad",
            **request,
        }
        self.session = VaultSession(socket, request)
        self.terms = self.session.terms
        self.type_byte = bytes([self.terms["type_byte"]])
        self.id_hash = id_hash_for(self.terms["id_kind"], bytes.fromhex(self.terms["id_key"]))
        to_gate, self.to_gate = os.pipe()
        self.from_gate, from_gate = os.pipe()
        report_in, report = os.pipe()
        self.gate = start_gate(
            self.session,
            peer_in=to_gate,
            peer_out=from_gate,
            report=report,
            mode=mode,
            max_bytes=1 << 40,
        )
        for descriptor in (to_gate, from_gate, report):
            os.close(descriptor)
        self.sent = bytearray()
        self.gate_peak = 0
        self._reports: list[dict[str, Any]] = []
        self._listener = threading.Thread(target=self._listen, args=(report_in,), daemon=True)
        self._listener.start()
        self._unpacker = msgpack.Unpacker(raw=True, max_buffer_size=1 << 26)
        self._number = 0
        self._over = False
        self._drained = threading.Event()  # no thread reads the answers now
        self._drained.set()

    def _listen(self, descriptor: int) -> None:
        with os.fdopen(descriptor) as lines:
            for line in lines:
                self._reports.append(json.loads(line))
                self.gate_peak = max(self.gate_peak, peak_bytes(self.gate.pid))

    # Talking --------------------------------------------------------------------------

    def raw(self, data: bytes) -> None:
        """Send bytes; a gate that has hung up is fine."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self.to_gate, view) :]
        except BrokenPipeError:
            pass

    def send(self, method: str, **arguments: Any) -> None:
        """Send one call without waiting."""
        self._number += 1
        message = {"i": self._number, "m": method, "a": arguments}
        packed: bytes = msgpack.packb(message, use_bin_type=True)
        self.sent += packed[: max(0, (1 << 20) - len(self.sent))]
        self.raw(packed)

    def answer(self) -> Any:
        """Return the next reply, or None when the gate has ended the stream."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            for message in self._unpacker:
                return message
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.from_gate], [], [], left)[0]:
                raise TimeoutError("the gate does not answer")
            data = os.read(self.from_gate, 65536)
            if not data:
                return None
            self._unpacker.feed(data)

    def call(self, method: str, **arguments: Any) -> Any:
        """Call and return the result; raises Refused."""
        self.send(method, **arguments)
        reply = self.answer()
        if reply is None or b"exception_class" in reply:
            raise Refused("refused")
        return reply[b"r"]

    def negotiate(self) -> None:
        """Make the first call."""
        self.raw(msgpack.packb((1, 1, "negotiate", ({"client_data": {}},))))
        reply = self.answer()
        if reply is None or not reply[3]:
            raise Refused("refused")

    def greet(self) -> None:
        """Do what every client does first."""
        self.negotiate()
        assert self.call("open", path=b"/r") == bytes.fromhex(self.terms["repository_id"])

    def put(self, plain: bytes, chunk_id: bytes | None = None) -> bytes:
        """Upload an uncompressed chunk and return its ID."""
        chunk_id = self.id_hash(plain) if chunk_id is None else chunk_id
        self.call("put", id=chunk_id, data=self.type_byte + b"\0\0" + plain)
        return chunk_id

    def put_packed(self, chunk_id: bytes, payload: bytes) -> None:
        """Upload an already compressed chunk and wait until the gate has judged it."""
        self.call("put", id=chunk_id, data=self.type_byte + payload)
        self.settle()

    def settle(self) -> None:
        """Let the gate's threads finish: a refusal may come after the answer to a put."""
        deadline = time.monotonic() + PATIENCE_S
        for _ in range(40):
            self.call("rollback")
            time.sleep(0.01)
            assert time.monotonic() < deadline

    # Archives -------------------------------------------------------------------------

    def metadata(self, ids: Sequence[bytes], /, **more: Any) -> dict[str, Any]:
        """Return the metadata of an archive as a stock borg of now would write it."""
        now = datetime.now(UTC)
        made = {
            "version": 1,
            "name": self.archive_name,
            "items": list(ids),
            "cmdline": ["borg", "create"],
            "hostname": "h",
            "username": "u",
            "time": at(now - timedelta(seconds=1)),
            "time_end": at(now),
            "chunker_params": ["buzhash", 19, 23, 21, 4095],
            **more,
        }
        return dict(sorted(made.items()))

    def manifest(self, archives: dict[str, Any], **more: Any) -> bytes:
        """Return the plaintext of a manifest."""
        return borg_packed(
            {
                "version": 1,
                "timestamp": at(datetime.now(UTC)),
                "config": {},
                "item_keys": [],
                "archives": archives,
                **more,
            }
        )

    def list_archive(self, archive_id: bytes, *, name: str | None = None) -> None:
        """Write a manifest that lists one archive."""
        entry = {"id": archive_id, "time": at(datetime.now(UTC))}
        listed = self.archive_name if name is None else name
        self.put(self.manifest({listed: entry}), MANIFEST_ID)

    def archive(
        self,
        items: Sequence[Any],
        /,
        *,
        ids: Sequence[bytes] | None = None,
        list_as: str | None = None,
        **metadata: Any,
    ) -> None:
        """Write an archive and a manifest as a client would, with the given items.

        ``list_as`` is its name in the manifest, ``metadata`` replaces what the archive says.
        """
        if ids is None:
            ids = [self.put(b"".join(borg_packed(item) for item in items))]
        packed = borg_packed(self.metadata(ids, **metadata))
        self.list_archive(self.put(packed), name=list_as)

    def honest_items(self) -> list[dict[str, Any]]:
        """Upload a small file and return its item, as the only one of an archive."""
        plain = b"nothing wrong here"
        return [file_item("fine", [(self.put(plain), len(plain), len(plain))])]

    # Ends -----------------------------------------------------------------------------

    def reported(self, key: str) -> Any:
        """Return the last thing the gate reported under a key; waits for the first."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            for message in reversed(self._reports):
                if key in message:
                    return message[key]
            if not self._listener.is_alive():
                return None
            assert time.monotonic() < deadline, f"the gate reports no {key}"
            time.sleep(0.01)

    def drain_answers(self) -> None:
        """Read and forget all answers from here on, so that the gate never waits for us."""
        self._drained.clear()
        threading.Thread(target=self._forget, daemon=True).start()

    def _forget(self) -> None:
        try:
            while os.read(self.from_gate, 65536):
                pass
        finally:
            self._drained.set()

    def hang_up(self) -> dict[str, Any]:
        """End the conversation and return the last line of the gate's report."""
        if not self._over:
            self._over = True
            os.close(self.to_gate)
            if self._drained.is_set():
                self.drain_answers()
            self.gate.wait(PATIENCE_S)
            self._listener.join(PATIENCE_S)
            self._drained.wait(PATIENCE_S)
            os.close(self.from_gate)
        return self._reports[-1] if self._reports else {}

    def refusal(self) -> tuple[str, str]:
        """End the conversation; return kind and words of the gate's refusal, or nothing."""
        last = self.hang_up()
        return str(last.get("kind", "")), str(last.get("refused", ""))

    def finish(self) -> tuple[str, str]:
        """End the session as a worker does; return kind and words of the vault's refusal."""
        refused = bool(self.refusal()[1])
        try:
            self.session.end(discard=refused)
        except JobFailed as error:
            return error.cause.kind, error.cause.message
        return "", ""

    def commit(self) -> None:
        """Ask for the commit; raises Refused."""
        self.call("commit")

    def close(self) -> None:
        """Leave nothing running; safe to repeat."""
        if self.gate.poll() is None:
            self.gate.kill()
        self.hang_up()
        self.session.close()


def peak_bytes(pid: int) -> int:
    """Return the most memory a process ever had resident; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
