"""What is fuzzed: functions of bytes that return for good input and for refused input.

Anything they raise is a finding. Used by ``python -m borgcube.testing.fuzz`` under coverage
guidance, and by ``tests/unit/plugins/borg/test_fuzz_corpus.py``, which replays the corpus.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from borgcube.plugins.borg.gate.rpc import RequestParser, client_version, refusal, reply
from borgcube.plugins.borg.gate.session import GateSession, Terms
from borgcube.plugins.borg.gate.verify import MAX_PLAIN, Rejected, decompress, id_hash_for
from borgcube.plugins.borg.hearing import ClientOutput, Outcome, archive_progress
from borgcube.plugins.borg.metadata import form
from borgcube.plugins.borg.metadata.decode import decode_archive, decode_manifest, read_records
from borgcube.plugins.borg.metadata.encode import ItemEncoder, WrongSize
from borgcube.plugins.borg.metadata.rules import ArchiveRefused, Links, check_record
from borgcube.plugins.borg.wire import DATA, PUT, PUT_HEADER, Wire, WireError
from borgcube.testing.agreement import agree

ID_KEY = bytes(range(32))
ID_HASH = id_hash_for("hmac-sha256", ID_KEY)
LIMIT = 1 << 20  # bytes of plaintext; small, so that a bomb costs little time
# The one chunk that an item may reference here, and its size.
CHUNK = b"c" * 32
CHUNK_SIZE = 4


class Finding(AssertionError):
    """A target broke its promise."""


def wire(data: bytes) -> None:
    """Read frames from a stream; every frame is within its bound."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    reader = Wire(right, max_frame=4096)
    try:
        left.sendall(data[: 1 << 16])
        left.shutdown(socket.SHUT_WR)
        while True:
            kind, payload = reader.receive()
            if len(payload) > 4096 or not 0 <= kind < 256:
                raise Finding("a frame is out of its bound")
    except WireError:
        pass
    finally:
        reader.close()
        left.close()


def rpc(data: bytes) -> None:
    """Parse requests, in two pieces; each can be answered."""
    parser = RequestParser()
    half = len(data) // 2
    try:
        for piece in (data[:half], data[half:]):
            for request in parser.feed(piece):
                if len(request.method) > 64 or len(client_version(request)) > 3:
                    raise Finding("a request is out of its bound")
                reply(request, None)
                refusal(request)
    except Rejected:
        pass


class _Vault:
    """Stands where the vault's stream is: admits nothing, and checks what it is given."""

    def send(self, kind: int, *parts: bytes | memoryview) -> None:
        if kind != PUT:
            return
        chunk_id, size = PUT_HEADER.unpack(bytes(parts[0]))
        plain = decompress(bytes(parts[1]))
        if len(plain) != size or ID_HASH(plain) != chunk_id:
            raise Finding("a chunk was passed on under an ID that is not its own")

    def receive(self) -> tuple[int, bytes]:
        return DATA, b""

    def receive_json(self) -> dict[str, Any]:
        return {"ok": False}


def session(data: bytes) -> None:
    """Hold a whole conversation; the first byte chooses between backup and restore."""
    mode = "restore" if data[:1] == b"r" else "backup"
    terms = Terms(
        mode=mode,
        opens=b"/r",
        repository_id=bytes(32),
        key_blob=b"key",
        manifest=b"\x07manifest",
        type_byte=7,
        id_hash=ID_HASH,
        max_bytes=1 << 20,
    )
    to_gate, from_peer = os.pipe()
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        writer = threading.Thread(target=_write_all, args=(from_peer, data[1:]))
        writer.start()
        vault: Any = _Vault()
        gate = GateSession(terms, to_gate, nothing, vault, lambda _figures: None)
        try:
            gate.run()
        except Rejected as error:
            if not str(error) or not error.kind:
                raise Finding("a refusal without words") from error
        if gate.committed:
            raise Finding("a commit that the vault did not admit")
    finally:
        os.close(to_gate)  # before the join: it ends the writer
        writer.join()
        os.close(nothing)


def _write_all(descriptor: int, data: bytes) -> None:
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
    except BrokenPipeError:
        pass
    finally:
        os.close(descriptor)


def compressed(data: bytes) -> None:
    """Decompress; never more than the limit."""
    try:
        if len(decompress(data, limit=LIMIT)) > LIMIT < MAX_PLAIN:
            raise Finding("more than the limit")
    except Rejected:
        pass


def _lookup(chunk_id: bytes) -> tuple[int, int]:
    if chunk_id != CHUNK:
        raise ArchiveRefused("foreign")
    return CHUNK_SIZE, CHUNK_SIZE


def items(data: bytes) -> None:
    """Walk an item stream that comes in pieces; what passes keeps the rules, and comes out of our
    encoder as it came in, but for the stored sizes."""
    third = len(data) // 3
    links, encoder = Links(), ItemEncoder()
    try:
        for record in read_records((data[:third], data[third : 2 * third], data[2 * third :])):
            kind = check_record(record, links)
            packed, ids = encoder.encode(record, _lookup)
            path = record.path
            if path.startswith(b"/") or b".." in path.split(b"/") or not path:
                raise Finding("a path leaves its root")
            if any(one != CHUNK for one in ids):
                raise Finding("a foreign chunk is referenced")
            if kind == "-" and record.size != CHUNK_SIZE * len(ids):
                raise Finding("a size is not the sum of its chunks")
            (again,) = read_records([packed])
            if again != record:
                raise Finding("what is encoded is not what was decoded")
            if not form.ALL_FLAGS & record.flags == record.flags:
                raise Finding("an unknown flag")
    except WrongSize:
        pass
    except ArchiveRefused as error:
        if not str(error):
            raise Finding("a refusal without words") from error


def archive(data: bytes) -> None:
    """Judge a manifest and an archive's metadata, and make the real metadata of it."""
    from borgcube.plugins.borg.vault.admission import check_clock, real_metadata

    try:
        if len(decode_manifest(data, expected="a")) != 32:
            raise Finding("an archive ID of another length")
    except ArchiveRefused:
        pass
    try:
        facts = decode_archive(data, expected="a")
        real = real_metadata(facts, name="a", comment="")
        if not real["hostname"].isprintable() or any(len(one) != 32 for one in facts.items):
            raise Finding("metadata that breaks the rules")
        now = datetime.now(UTC)
        check_clock(facts, began=now, now=now)
    except ArchiveRefused:
        pass


def words(data: bytes) -> None:
    """Hear what a client prints; all that is kept of it is printable and short."""
    outcome = Outcome()
    kept: list[str] = []
    output = ClientOutput(outcome, lambda _level, text: kept.append(text))
    output.on_message = lambda message: kept.append(str(archive_progress(message).get("path", "")))
    for line in data.split(b"\n"):
        output.take(line)
    for text in [*kept, *outcome.warnings, *outcome.errors]:
        if not text.isprintable() or len(text) > 4200:
            raise Finding("words that are not harmless")


TARGETS: dict[str, Callable[[bytes], None]] = {
    "wire": wire,
    "rpc": rpc,
    "session": session,
    "compressed": compressed,
    "items": items,
    "archive": archive,
    "words": words,
    "agree": agree,
}
