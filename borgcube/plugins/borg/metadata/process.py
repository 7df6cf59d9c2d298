"""The reader: decodes what clients wrote, in a process that has nothing to lose.

One parent is started for each vault. It has loaded everything and never reads a client's byte.
For each archive it forks a child with one socket, which confines itself as the gate does (no
files, no key, no memory beyond its limit; ``gate/confine.py``), then decodes what the vault sends
and answers records. Talked to by ``readers.py``.

A conversation is a few of these, the vault's part first:

- JSON ``{"op": "manifest", "expected": name}`` and the bytes: JSON with the archive's ``id``;
- JSON ``{"op": "archive", "expected": name}`` and the bytes: JSON with what it says, then its
  list of items as bytes;
- JSON ``{"op": "stored"}`` and the bytes: the list of items of an archive that is stored already;
- JSON ``{"op": "salvage"}``: from here on, such a stream; what is refused of it is left out;
- JSON ``{"op": "compare"}``: such a stream, without records; the end says what both readers count;
- BEGIN with the beginning of an item, then STREAM again and again: RECORDS, and a STATE for each;
- FINISH: a STATE, or JSON with the figures of a comparison, or with what was left out.

Where something is refused, the answer is JSON with ``refused``, and the child ends.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import socket
import sys
from typing import Any

from borgcube.plugins.borg.gate.confine import confine
from borgcube.plugins.borg.malloc import keep_large_buffers
from borgcube.plugins.borg.metadata import form
from borgcube.plugins.borg.metadata.compare import Comparison
from borgcube.plugins.borg.metadata.decode import (
    ItemDecoder,
    decode_archive,
    decode_manifest,
    decode_stored_archive,
)
from borgcube.plugins.borg.metadata.rules import ArchiveRefused
from borgcube.plugins.borg.wire import (
    BEGIN,
    FINISH,
    MAX_FRAME,
    RECORDS,
    STATE,
    STREAM,
    Wire,
    WireError,
)

BLOCK_BYTES = 256 << 10
# The beginning of an item that is longer is not told: nothing is compared with it.
MAX_REST = 64 << 10
MAX_ANSWER = 128 << 20  # one item of `stream.MAX_ITEM` bytes, as a record


class Conversation:
    """What one child does with its socket."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.decoder = ItemDecoder()
        self.comparison: Comparison | None = None

    def run(self) -> None:
        """Answer until the vault closes the socket, or something is refused."""
        try:
            while True:
                self._answer(*self.wire.receive())
        except ArchiveRefused as error:
            self._refuse(str(error), kind=error.kind, keep=error.keep)
        except MemoryError:
            self._refuse("the archive takes more memory to read than a reader may have",
                         kind="archive-too-large", keep=True)  # fmt: skip

    def _refuse(self, message: str, *, kind: str, keep: bool) -> None:
        self.wire.send_json({"refused": message, "kind": kind, "keep": keep})

    def _answer(self, kind: int, payload: bytearray) -> None:
        if kind == STREAM:
            self._stream(bytes(payload))
        elif kind == BEGIN:
            self.decoder.reader.skip_to(bytes(payload))
        elif kind == FINISH:
            self.decoder.reader.finish()
            if self.comparison is not None:
                self.wire.send_json(self.comparison.figures())
            elif self.decoder.skip:
                self.wire.send_json(
                    {"skipped": self.decoder.skipped_count, "names": self.decoder.skipped}
                )
            else:
                self.wire.send(STATE, b"\1")
        else:
            self._order(payload)

    def _stream(self, chunk: bytes) -> None:
        if self.comparison is not None:
            self.comparison.take(chunk, self.decoder)
        else:
            block: list[tuple[bytes, bytes]] = []
            size = 0
            for record in self.decoder.read(chunk):
                block.append(record)
                size += len(record[0]) + len(record[1])
                if size >= BLOCK_BYTES:
                    self.wire.send(RECORDS, form.pack_block(block))
                    block, size = [], 0
            if block:
                self.wire.send(RECORDS, form.pack_block(block))
        reader = self.decoder.reader
        known = reader.is_plain and len(reader.rest) <= MAX_REST
        self.wire.send(STATE, b"\1" if known else b"\0", bytes(reader.rest) if known else b"")

    def _order(self, payload: bytearray) -> None:
        order = self.wire.parse_json(payload)
        if order.get("op") == "salvage":
            self.decoder = ItemDecoder(lenient=True, skip=True)
            return
        if order.get("op") == "compare":
            self.decoder, self.comparison = ItemDecoder(lenient=True), Comparison()
            return
        kind, plain = self.wire.receive()
        if kind != STREAM:
            raise WireError("unexpected frame")
        if order.get("op") == "stored":
            self.wire.send(STREAM, b"".join(decode_stored_archive(bytes(plain))))
            return
        expected = str(order["expected"])
        if order.get("op") == "manifest":
            self.wire.send_json({"id": decode_manifest(bytes(plain), expected=expected).hex()})
            return
        facts = decode_archive(bytes(plain), expected=expected)
        self.wire.send_json({
            "time": facts.time.isoformat(), "time_end": facts.time_end.isoformat(),
            "cmdline": [word.hex() for word in facts.cmdline],
            "hostname": facts.hostname.hex(), "username": facts.username.hex(),
            "chunker_params": list(facts.chunker_params),
        })  # fmt: skip
        self.wire.send(STREAM, b"".join(facts.items))


def _child(sock: socket.socket) -> None:
    """Confine this process and serve one conversation."""
    wire = Wire(sock, max_frame=MAX_FRAME)
    confined = confine(keep=(sock.fileno(),))
    wire.send_json({"confined": confined.as_data()})
    try:
        Conversation(wire).run()
    except WireError:
        pass  # the vault has what it wanted


def _rehearse() -> None:
    """Use once what is used later, so that nothing is loaded after a child is confined."""
    item: dict[bytes, Any] = {
        b"gid": 0, b"group": None, b"mode": 0o040755, b"mtime": 0, b"path": b"a", b"uid": 0,
        b"user": None,
    }  # fmt: skip
    decoder, comparison = ItemDecoder(), Comparison()
    packed = decoder._pack(item)
    list(form.read_block(form.pack_block(list(decoder.read(packed)))))
    comparison.take(packed, ItemDecoder(lenient=True))
    comparison.figures()
    try:
        decode_archive(b"\x80", expected="")
    except ArchiveRefused:
        pass
    try:
        ctypes.CDLL("libseccomp.so.2")
    except OSError:
        pass  # the confinement says so


def main() -> int:
    """Entry point of ``python -m borgcube.plugins.borg.metadata.process``."""
    parser = argparse.ArgumentParser(prog="borgcube-reader")
    parser.add_argument("--socket", type=int, required=True)
    options = parser.parse_args()
    keep_large_buffers()
    _rehearse()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are reaped by the kernel
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=options.socket)
    # When the vault dies, this socket ends. (A signal at the parent's death would come with the
    # death of the one thread that started this process.)
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not message:
            return 0
        (descriptor,) = descriptors
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                _child(socket.socket(fileno=descriptor))
                code = 0
            finally:
                os._exit(code)
        os.close(descriptor)
        # So that the vault can end a child that never answers, whatever its number is by then.
        try:
            handle = os.pidfd_open(pid)
        except OSError:
            control.sendall(b"-")  # it has ended already, or the kernel has no such thing
            continue
        socket.send_fds(control, [b"+"], [handle])
        os.close(handle)


if __name__ == "__main__":
    sys.exit(main())
