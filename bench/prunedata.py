"""Make the repository of the scenario `prune`: a million small chunks in 600 archives.

`python -m bench.prunedata DIR ARCHIVES CHUNKS SEED`, in a process of its own because it sets
Borg's directories. The archives are a client whose files are replaced bit by bit: each has a
window of the chunks, and the next one's window is moved on. What is written is what a backup
writes: chunks, items, archives, manifest, and Borg's cache in step with it.
"""

from __future__ import annotations

import json
import random
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgpack

from borgcube.plugins.borg import borgenv, tool

PASSPHRASE = "of the bench"
CHUNK_BYTES = 1000
WINDOW = 8000  # chunks that one archive has
CHUNKS_A_FILE = 4
ITEMS_BYTES = 64 * 1024  # of a chunk of item metadata; Borg's are about as large
COMMIT_EVERY = 100


def _items(window: list[bytes], csize: int) -> list[bytes]:
    """Return the archive's item stream in pieces, as Borg's chunker would leave them."""
    pieces, piece = [], bytearray()
    for number in range(0, len(window), CHUNKS_A_FILE):
        chunks = [(key, CHUNK_BYTES, csize) for key in window[number : number + CHUNKS_A_FILE]]
        item = {
            "path": f"srv/data/{window[number].hex()[:24]}", "mode": 0o100644, "uid": 0,
            "gid": 0, "user": "root", "group": "root", "mtime": 1_700_000_000_000_000_000,
            "size": CHUNK_BYTES * len(chunks), "chunks": chunks,
        }  # fmt: skip
        piece += msgpack.packb(item, use_bin_type=False)
        if len(piece) >= ITEMS_BYTES:
            pieces.append(bytes(piece))
            piece = bytearray()
    return [*pieces, bytes(piece)] if piece else pieces


def make(directory: Path, *, archives: int, chunks: int, seed: int) -> dict[str, Any]:
    """Make `directory/repository` and its cache in `directory/base`; return what is in it."""
    from borgcube.plugins.borg.vault.ledger import Ledger
    from borgcube.plugins.borg.vault.opened import OpenedRepository

    chance = random.Random(seed)
    path = directory / "repository"
    made = tool.create(path, "repokey", PASSPHRASE)
    if "error" in made:
        raise RuntimeError(made["error"]["message"])
    ledger = Ledger(OpenedRepository(path, PASSPHRASE))
    key = ledger.key
    step = max(1, (chunks - WINDOW) // max(1, archives - 1))
    at = datetime.now(UTC).replace(tzinfo=None, microsecond=0) - timedelta(days=archives)
    window: list[bytes] = []
    for number in range(archives):
        window = window[step:]
        while len(window) < WINDOW:
            plain = chance.randbytes(CHUNK_BYTES)
            chunk_id = key.id_hash(plain)
            ledger.store(chunk_id, CHUNK_BYTES, key.encrypt(plain))
            window.append(chunk_id)
        csize = int((ledger.lookup(window[0]) or (0, 0))[1])
        ledger.begin()
        pieces = [ledger.add_metadata(piece) for piece in _items(window, csize)]
        for chunk_id in window:
            ledger.add_reference(chunk_id)
        moment = (at + timedelta(days=number)).isoformat(timespec="microseconds")
        ledger.add_archive(f"alpha-{number:04d}", {
            "version": 1, "name": f"alpha-{number:04d}", "items": tuple(pieces),
            "cmdline": ("borg", "create"), "hostname": "alpha", "username": "root",
            "time": moment, "time_end": moment, "comment": "",
            "chunker_params": ("buzhash", 19, 23, 21, 4095),
            "size": WINDOW * CHUNK_BYTES, "csize": WINDOW * csize,
            "nfiles": WINDOW // CHUNKS_A_FILE,
        }, time=moment)  # fmt: skip
        if number % COMMIT_EVERY == COMMIT_EVERY - 1 or number == archives - 1:
            ledger.commit()
    found = {"archives": archives, "chunks": len(ledger.chunks), "window": WINDOW}
    ledger.opened.close()
    return found


def main() -> int:
    """Entry point of ``python -m bench.prunedata``."""
    directory = Path(sys.argv[1])
    borgenv.prepare(directory)
    archives, chunks, seed = map(int, sys.argv[2:5])
    print(json.dumps(make(directory, archives=archives, chunks=chunks, seed=seed)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
