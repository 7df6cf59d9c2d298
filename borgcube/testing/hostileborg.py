"""A malicious borg, to be given as a client's ``--borg``: ``install`` writes one for a deed.

It stands where borg would stand on the client and knows what borg would know there: it
speaks to the gate through ``BORG_RSH``, opens the session's key, and does the deed. Deeds
that need an honest backup around them run the stock borg. Its twin in one process, with many
more attacks, is :mod:`borgcube.testing.hostile`.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shlex
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgpack
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from borgcube.plugins.borg.gate.verify import IdHash, id_hash_for
from borgcube.testing.attacks import SECRET
from borgcube.testing.hostile import MANIFEST_ID, at, borg_packed, file_item

DEEDS: dict[str, Callable[[], int]] = {}


def deed(name: str) -> Callable[[Callable[[], int]], Callable[[], int]]:
    """Name a deed; the function returns the exit code."""

    def add(function: Callable[[], int]) -> Callable[[], int]:
        DEEDS[name] = function
        return function

    return add


def install(path: Path, name: str, *, stock: str) -> None:
    """Write an executable that takes borg's place and does the deed of that name."""
    if name not in DEEDS:
        raise KeyError(name)
    words = [sys.executable, "-m", "borgcube.testing.hostileborg", name, stock]
    quoted = " ".join("'" + word.replace("'", "'\\''") + "'" for word in words)
    temporary = path.with_suffix(".new")
    temporary.write_text(f'#!/bin/sh\nexec {quoted} "$@"\n')
    temporary.chmod(0o755)
    os.replace(temporary, path)


class Line:
    """The conversation with the gate, as borg has it."""

    def __init__(self) -> None:
        self.rsh = subprocess.Popen(
            [*shlex.split(os.environ["BORG_RSH"]), "borgcube", "borg", "serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.rsh.stdin is not None and self.rsh.stdout is not None
        self._in, self._out = self.rsh.stdin, self.rsh.stdout
        self._unpacker = msgpack.Unpacker(raw=True, strict_map_key=False)
        self.call("negotiate", client_data={b"client_version": (1, 4, 5)})

    def raw(self, data: bytes) -> None:
        """Send bytes."""
        self._in.write(data)
        self._in.flush()

    def call(self, method: str, **arguments: Any) -> Any:
        """Call and return the reply; ends the process with 2 when there is none."""
        message: Any = {"i": 7, "m": method, "a": arguments}
        if method == "negotiate":
            message = (1, 7, "negotiate", (arguments,))
        self.raw(msgpack.packb(message, use_bin_type=True))
        while True:
            for answer in self._unpacker:
                return answer
            data = os.read(self._out.fileno(), 65536)
            if not data:
                sys.exit(2)
            self._unpacker.feed(data)

    def result(self, method: str, **arguments: Any) -> Any:
        """Call and return the result; ends the process with 2 when it is refused."""
        reply = self.call(method, **arguments)
        if b"r" not in reply:
            sys.exit(2)
        return reply[b"r"]

    def open(self) -> None:
        """Open the repository as borg does."""
        self.result("open", path=b"/r", create=False, lock=True, lock_wait=1, exclusive=True)

    def close(self) -> None:
        """End the conversation in order."""
        self._in.close()
        self.rsh.wait()


class Borg(Line):
    """A conversation in which chunks and archives can be written."""

    def __init__(self) -> None:
        super().__init__()
        self.open()
        self.type_byte: bytes = self.result("get", id=MANIFEST_ID)[:1]
        self.id_hash = self._id_hash(self.result("load_key"))
        target = next(word for word in sys.argv if "::" in word)
        self.archive = target.partition("::")[2]

    def _id_hash(self, blob: bytes) -> IdHash:
        """Open the session's key with its empty passphrase: it makes chunk IDs, no more."""
        sealed = msgpack.unpackb(base64.b64decode(blob), raw=True)
        key = hashlib.pbkdf2_hmac("sha256", b"", sealed[b"salt"], sealed[b"iterations"], 32)
        decryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).decryptor()
        plain = msgpack.unpackb(decryptor.update(sealed[b"data"]), raw=True)
        kind = "hmac-sha256" if self.type_byte == b"\x07" else "blake2b"
        return id_hash_for(kind, plain[b"id_key"])

    def put(self, plain: bytes, chunk_id: bytes | None = None) -> bytes:
        """Write a chunk."""
        chunk_id = self.id_hash(plain) if chunk_id is None else chunk_id
        self.result("put", id=chunk_id, data=self.type_byte + b"\0\0" + plain, wait=True)
        return chunk_id

    def write(self, item: dict[str, Any], *, names: tuple[str, ...] = (), **more: Any) -> None:
        """Write an archive with one item and commit it, under ``names`` if not its own."""
        now = at(datetime.now(UTC))
        metadata = {
            "version": 1,
            "name": self.archive,
            "items": [self.put(borg_packed(item))],
            "cmdline": [],
            "hostname": "h",
            "username": "u",
            "time": now,
            "time_end": now,
            "chunker_params": ["buzhash", 19, 23, 21, 4095],
            **more,
        }
        entry = {"id": self.put(borg_packed(metadata)), "time": now}
        manifest = {"version": 1, "archives": dict.fromkeys(names or (self.archive,), entry)}
        self.put(borg_packed(manifest), MANIFEST_ID)
        self.result("commit", compact=False)
        self.close()


def stock() -> int:
    """Run the stock borg with our arguments and return its exit code."""
    return subprocess.run([sys.argv[2], *sys.argv[3:]], check=False).returncode


def say(data: bytes) -> None:
    """Print to standard error, all of it."""
    view = memoryview(data)
    while view:
        view = view[os.write(2, view) :]


# What is refused ------------------------------------------------------------------------


def _calling(method: str, **arguments: Any) -> Callable[[], int]:
    def do() -> int:
        line = Line()
        line.open()
        line.call(method, **arguments)
        return 0

    return do


DEEDS["lists the repository"] = _calling("list", limit=10, marker=None)
DEEDS["saves a key"] = _calling("save_key", keydata=b"mine")
DEEDS["destroys the repository"] = _calling("destroy")
DEEDS["calls what has control characters"] = _calling("\x1b[2J\n<b>")


@deed("opens another path")
def _() -> int:
    Line().call("open", path=b"/srv/other", create=False, lock=True, lock_wait=1)
    return 0


@deed("reads another client's chunk")
def _() -> int:
    borg = Borg()
    borg.call("get", id=borg.id_hash(SECRET))
    return 0


@deed("stores a chunk under an ID it chose")
def _() -> int:
    Borg().put(b"poison", b"\1" * 32)
    return 0


@deed("sends a decompression bomb")
def _() -> int:
    borg = Borg()
    bomb = zlib.compress(bytes(300 << 20), 9)
    borg.call("put", id=b"\2" * 32, data=borg.type_byte + bomb, wait=True)
    while True:
        borg.call("rollback")
        time.sleep(0.05)


@deed("stays after it was refused")
def _() -> int:
    line = Line()
    line.open()
    line.call("list")
    time.sleep(600)
    return 0


@deed("commits a chunk of another client")
def _() -> int:
    borg = Borg()
    borg.write(file_item("loot", [(borg.id_hash(SECRET), len(SECRET), len(SECRET))]))
    return 0


@deed("commits two archives")
def _() -> int:
    borg = Borg()
    borg.write(file_item("f", []), names=(borg.archive, "another"))
    return 0


@deed("commits under another name")
def _() -> int:
    borg = Borg()
    borg.archive = "mine"
    borg.write(file_item("f", []))
    return 0


@deed("commits a path out of its root")
def _() -> int:
    Borg().write(file_item("../../etc/passwd", []))
    return 0


@deed("commits an archive from the future")
def _() -> int:
    later = at(datetime.now(UTC) + timedelta(days=400))
    Borg().write(file_item("f", []), time=later, time_end=later)
    return 0


# Time -----------------------------------------------------------------------------------


@deed("sends half a message and is silent")
def _() -> int:
    borg = Borg()
    borg.raw(msgpack.packb({"i": 8, "m": "put", "a": {"data": bytes(1000)}})[:200])
    time.sleep(600)
    return 0


@deed("says nothing at all")
def _() -> int:
    time.sleep(600)
    return 0


@deed("holds the connection for ever")
def _() -> int:
    borg = Borg()
    while True:
        borg.call("rollback")
        say(b"still here\n")
        time.sleep(0.5)


# Words and codes ------------------------------------------------------------------------


@deed("prints without end")
def _() -> int:
    Borg()
    while True:
        say(b"and on and on and on and on and on and on\n" * 20_000)


@deed("says it is done and wrote nothing")
def _() -> int:
    Borg().close()
    return 0


@deed("says it is done and never spoke")
def _() -> int:
    return 0


NASTY = (
    b"\x1b[2J\x1b]0;owned\x07\x1b[31mred\r\n"
    b"<script>alert(1)</script><img src=x onerror=alert(1)>\n"
    b"\xff\xfe\xc3\x28 not UTF-8 \x00\x01\x9b31m\n"
    b"\xe2\x80\xaereversed\xe2\x80\xac\n"
    b'{"type": "log_message", "levelname": "WARNING", "message": "\\u001b[2J\\ud800 <b>"}\n'
    b'{"type": "archive_progress", "nfiles": -5, "original_size": 1e400, "path": "\\u001b]0;x"}\n'
    b'{"type": "archive_progress", "nfiles": "many", "original_size": [], "path": {"a": 1}}\n'
    b'{"type": "archive_progress", "nfiles": ' + b"9" * 5000 + b"}\n"
    b'{"type": "archive_progress", "nfiles": ' + b"9" * 4000 + b"}\n"
    b"[" + b"[" * 50_000 + b"\n"
    b'{"a":' * 10_000 + b"\n"
    b'{"type": ["log_message"], "message": 7}\n'
    b'{"type": "log_message", "levelname": {}, "message": [1]}\n'
)


@deed("prints what terminals, consoles and parsers fear")
def _() -> int:
    say(NASTY)
    code = stock()
    say(NASTY)
    return code


@deed("prints a line of a hundred megabytes")
def _() -> int:
    for _block in range(100):
        say(b"x" * (1 << 20))
    say(b"\n")
    return stock()


@deed("fails after its archive is complete")
def _() -> int:
    stock()
    return 2


def main() -> int:
    """Do the deed; ``--version`` is answered as borg does."""
    if "--version" in sys.argv:
        print("borg 1.4.5")
        return 0
    return DEEDS[sys.argv[1]]()


if __name__ == "__main__":
    sys.exit(main())
