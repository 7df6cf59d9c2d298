"""Repositories from outside that somebody crafted, each with one whole archive beside its trick.

``python -m tests.functional.borg.outsiders PLACE MAIN`` makes them in ``PLACE``, in a process of
its own because borg's library keeps its state there; ``MAIN`` is a repository whose ID and whose
files two of them claim. Their passphrase is :data:`PASSPHRASE`, their whole archive is ``good`` and
holds one file, ``note``, of :func:`content`.
"""

from __future__ import annotations

import configparser
import lzma
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

PASSPHRASE = "from outside"
TIME = "2026-01-01T00:00:00.000000"
BOMB_BYTES = 512 << 20
# Braces, line ends, an escape sequence, what is no UTF-8, and what a browser would run.
NAMES = (
    "{now}-{0.__class__}-%s", "line\nend\rhere", "\x1b]0;owned\x07\x1b[2J", "not \udcff UTF-8",
    "<script>alert(1)<x", "\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe",
)  # fmt: skip
# Those that are taken in, and what else they hold.
TAKEN = ("names", "missing", "poisoned", "hollow", "bomb", "climbs", "metadata")


def content(name: str) -> bytes:
    """Return what the file of a repository's whole archive holds."""
    return f"what {name} keeps\n".encode() * 1000


def claimed_id(repository: Path) -> str:
    """Return the ID in a repository's configuration."""
    found = configparser.ConfigParser(interpolation=None)
    found.read(repository / "config")
    return found.get("repository", "id").strip()


def bomb() -> bytes:
    """Return Borg's lzma form of 512 MiB of nothing, in 80 kB."""
    packer = lzma.LZMACompressor(preset=0)
    block = bytes(1 << 22)
    parts = [packer.compress(block) for _ in range(BOMB_BYTES // len(block))]
    return b"\2\0" + b"".join(parts) + packer.flush()


class Outsider:
    """One repository in the making."""

    def __init__(self, place: Path, *, claims: str = "") -> None:
        from borg.crypto.key import Passphrase, RepoKey
        from borg.helpers import Manifest
        from borg.repository import Repository

        self.repository: Any = Repository(str(place), create=True, exclusive=True).__enter__()
        if claims:
            self.repository.config.set("repository", "id", claims)
            self.repository.save_config(str(place), self.repository.config)
            self.repository.id = bytes.fromhex(claims)
        self.key: Any = RepoKey(self.repository)
        self.key.repository_id = self.repository.id
        self.key.init_from_random_data()
        self.key.init_ciphers()
        self.key.save(self.repository, Passphrase(PASSPHRASE), create=True)
        self.manifest: Any = Manifest(self.key, self.repository)
        self.archive("good", [self.file("note", content(place.name))])

    def put(self, plain: bytes, *, payload: bytes = b"", stored: bytes | None = None) -> bytes:
        """Store a chunk under the ID of ``plain``; what is stored may be something else."""
        usual = self.key.compressor
        if payload:
            self.key.compressor = SimpleNamespace(compress=lambda _: payload)
        chunk_id: bytes = self.key.id_hash(plain)
        self.repository.put(chunk_id, self.key.encrypt(plain if stored is None else stored))
        self.key.compressor = usual
        return chunk_id

    def file(self, path: str, data: bytes) -> dict[str, Any]:
        """Return the item of a file, whose content is stored."""
        return {
            "path": path, "mode": 0o100644, "uid": 0, "gid": 0, "user": "root", "group": "root",
            "mtime": 0, "size": len(data), "chunks": [(self.put(data), len(data), len(data))],
        }  # fmt: skip

    def archive(
        self, name: str, items: list[dict[str, Any]], *, list_id: bytes = b"", **more: Any
    ) -> bytes:
        """Add an archive; return the ID of the one chunk of its list of files."""
        from borg.helpers import msgpack

        stream = b"".join(msgpack.packb(dict(sorted(item.items()))) for item in items)
        list_id = list_id or self.put(stream)
        metadata = {
            "version": 1, "name": os.fsencode(name), "items": [list_id],
            "cmdline": ["borg", "create"], "hostname": "away", "username": "who",
            "time": TIME, "time_end": TIME, "comment": "",
            "chunker_params": ("buzhash", 19, 23, 21, 4095), "size": 1, "csize": 1, "nfiles": 1,
            **more,
        }  # fmt: skip
        packed = self.key.pack_and_authenticate_metadata(metadata, context=b"archive")
        self.manifest.archives[name] = (self.put(packed), TIME)
        return list_id

    def done(self) -> None:
        """Commit."""
        self.manifest.write()
        self.repository.commit(compact=False)
        self.repository.__exit__(None, None, None)


def make(place: Path, main: Path) -> None:
    """Make all of them."""
    from borg.helpers import Manifest

    exploding = bomb()
    Outsider(place / "claims", claims=claimed_id(main)).done()
    shutil.copytree(main, place / "copy", ignore=shutil.ignore_patterns("lock.*"))

    one = Outsider(place / "names")
    for number, name in enumerate(NAMES):
        said = os.fsencode(name)
        one.archive(name, [one.file(f"f{number}", said)], comment=said, hostname=said,
                    username=said, cmdline=[said])  # fmt: skip
    one.done()

    one = Outsider(place / "missing")
    one.repository.delete(one.archive("bad", [one.file("lost", b"lost" * 100)]))
    one.done()

    one = Outsider(place / "poisoned")
    list_id = one.put(b"\x80 a list of files", stored=b"something else")
    one.archive("bad", [], list_id=list_id)
    one.done()

    one = Outsider(place / "hollow")
    lost = one.file("lost", b"lost" * 100)
    one.archive("bad", [lost])
    one.repository.delete(lost["chunks"][0][0])
    one.done()

    one = Outsider(place / "bomb")
    one.archive("bad", [], list_id=one.put(b"short", payload=exploding))
    one.done()

    one = Outsider(place / "climbs")
    one.archive("bad", [one.file("a/../../outside/planted", b"planted")])
    one.done()

    one = Outsider(place / "metadata")
    one.manifest.archives["bad"] = (one.put(b"also short", payload=exploding), TIME)
    one.done()

    one = Outsider(place / "manifest")
    one.manifest.write()
    one.key.compressor = SimpleNamespace(compress=lambda _: exploding)
    one.repository.put(Manifest.MANIFEST_ID, one.key.encrypt(b""))
    one.repository.commit(compact=False)
    one.repository.__exit__(None, None, None)

    Outsider(place / "links").done()
    shutil.rmtree(place / "links" / "data" / "0")
    os.symlink(main / "data" / "0", place / "links" / "data" / "0")

    Outsider(place / "waits").done()
    (index,) = (place / "waits").glob("index.*")
    index.unlink()
    os.mkfifo(index)

    Outsider(place / "honest").done()
    Outsider(place / "swapped").done()


if __name__ == "__main__":
    from borg import logger

    logger.setup_logging(level="warning")
    make(Path(sys.argv[1]), Path(sys.argv[2]))
