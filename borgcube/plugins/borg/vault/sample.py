"""Draw files of an archive for a restore drill, with what each must be like once restored.

One walk over the items; a sample by lot in bounded memory (reservoir sampling, Vitter's
algorithm R), or all files written to a list on disk (``core.expected``). Only reads.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgpack

from borgcube.core.errors import JobFailed, Problem
from borgcube.core.expected import ExpectedWriter
from borgcube.plugins.borg.vault.items import as_ns, item_kind
from borgcube.plugins.borg.vault.ledger import Ledger

# A larger file is not drawn by lot: its list of pieces alone would fill the answer.
MAX_PIECES = 20_000
# What is drawn waits packed, about 40 bytes for a piece. Of a sample of many files, each has
# its share of this, and a file with a longer list of pieces is not drawn.
SAMPLE_BYTES = 64 << 20
ANSWER_BYTES = 12 << 20  # of JSON; a frame takes 32 MiB


def _facts(item: dict[bytes, Any]) -> dict[str, Any]:
    return {
        "path": item[b"path"].decode("utf-8", "surrogateescape"),
        "size": sum(entry[1] for entry in item.get(b"chunks") or ()),
        "mode": item.get(b"mode", 0),
        "mtime_ns": as_ns(item[b"mtime"]),
    }


def _pieces(item: dict[bytes, Any]) -> Sequence[Any]:
    found: Sequence[Any] = item.get(b"chunks") or ()
    return found


def _packed(item: dict[bytes, Any]) -> bytes:
    """Return a file as it waits for the end of the draw."""
    pieces = [(entry[0], entry[1]) for entry in _pieces(item)]
    packed: bytes = msgpack.packb(
        (item[b"path"], item.get(b"mode", 0), as_ns(item[b"mtime"]), pieces), use_bin_type=True
    )
    return packed


def _described(packed: bytes) -> dict[str, Any]:
    path, mode, mtime, pieces = msgpack.unpackb(packed, raw=False)
    return {
        "path": path.decode("utf-8", "surrogateescape"), "size": sum(size for _, size in pieces),
        "mode": mode, "mtime_ns": mtime, "pieces": [[key.hex(), size] for key, size in pieces],
    }  # fmt: skip


def _canary(item: dict[bytes, Any]) -> dict[str, Any]:
    if len(_pieces(item)) > MAX_PIECES:
        raise JobFailed(
            "canary-too-large", Problem.CONFIGURATION,
            "The plan's canary is too large to be compared.",
            next_step="Choose a smaller file: borgcube drill set PLAN --canary PATH",
        )  # fmt: skip
    return _described(_packed(item))


def draw(
    ledger: Ledger, archive: str, *, files: int, most_bytes: int, canary: str,
    whole: Path | None, step: Callable[[], None],
) -> dict[str, Any]:  # fmt: skip
    """Return the sample; see ``core.engines.Engine.sample``. Raises JobFailed."""
    with ledger.lock:
        info = ledger.manifest.archives.get(archive)
    if info is None:
        raise JobFailed(
            "archive-missing", Problem.REPOSITORY,
            f"There is no archive {archive} in the repository.",
            next_step="See: borgcube archive list",
        )  # fmt: skip
    lot = secrets.SystemRandom()
    wanted = canary.strip("/").encode("utf-8", "surrogateescape")
    kept: list[bytes] = []
    share = SAMPLE_BYTES // max(1, files)
    planted: dict[str, Any] | None = None
    items = regular = size = seen = 0
    out = ExpectedWriter(whole) if whole else None
    try:
        for item in ledger.items(info.id):
            items += 1
            if items % 500 == 0:
                step()
            # A further name of a hard link has no chunks of its own.
            if item_kind(item.get(b"mode", 0)) != "-" or b"source" in item:
                continue
            regular += 1
            pieces = _pieces(item)
            size += sum(entry[1] for entry in pieces)
            if wanted and item[b"path"] == wanted:
                planted = _canary(item)
            if out is not None:
                out.add(_facts(item), ((entry[0].hex(), entry[1]) for entry in pieces))
                continue
            if len(pieces) > MAX_PIECES or len(packed := _packed(item)) > share:
                continue
            seen += 1
            if len(kept) < files:
                kept.append(packed)
            elif (place := lot.randrange(seen)) < files:
                kept[place] = packed
    finally:
        if out is not None:
            out.close()
    lot.shuffle(kept)
    drawn = _within(kept, most_bytes=most_bytes)
    if planted is not None:
        drawn = [planted, *(one for one in drawn if one["path"] != planted["path"])]
    return {
        "items": drawn, "canary_found": planted is not None, "files": regular, "size": size,
        "entries": items, "id_key": ledger.key.id_key.hex(),
        "id_kind": "blake2b" if ledger.opened.blake2 else "hmac-sha256",
        "repository_id": ledger.repository.id_str,
    }  # fmt: skip


def _within(kept: list[bytes], *, most_bytes: int) -> list[dict[str, Any]]:
    """Return files up to ``most_bytes`` in all, within what an answer takes; at least one, if
    there is any."""
    chosen: list[dict[str, Any]] = []
    size = answer = 0
    for packed in kept:
        one = _described(packed)
        length = len(json.dumps(one))
        if chosen and (size + one["size"] > most_bytes or answer + length > ANSWER_BYTES):
            continue
        chosen.append(one)
        size += one["size"]
        answer += length
    return chosen
