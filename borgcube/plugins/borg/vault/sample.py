"""Draw files of an archive for a restore drill, with what each must be like once restored.

One walk over the items; a sample by lot in bounded memory (reservoir sampling, Vitter's
algorithm R), or all files written to a spool, one JSON object a line. Only reads.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from borgcube.core.errors import JobFailed, Problem
from borgcube.plugins.borg.vault.items import as_ns, item_kind
from borgcube.plugins.borg.vault.ledger import Ledger

# A larger file is not drawn by lot: its list of pieces alone would fill the answer.
MAX_PIECES = 20_000
MAX_PIECES_IN_ALL = 100_000


def _described(item: dict[bytes, Any]) -> dict[str, Any]:
    chunks = item.get(b"chunks") or ()
    return {
        "path": item[b"path"].decode("utf-8", "surrogateescape"),
        "size": sum(entry[1] for entry in chunks),
        "mode": item.get(b"mode", 0),
        "mtime_ns": as_ns(item[b"mtime"]),
        "pieces": [[entry[0].hex(), entry[1]] for entry in chunks],
    }


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
    kept: list[dict[str, Any]] = []
    planted: dict[str, Any] | None = None
    items = regular = size = seen = 0
    out = whole.open("x", encoding="utf-8", errors="surrogateescape") if whole else None
    try:
        for item in ledger.items(info.id):
            items += 1
            if items % 500 == 0:
                step()
            # A further name of a hard link has no chunks of its own.
            if item_kind(item.get(b"mode", 0)) != "-" or b"source" in item:
                continue
            regular += 1
            size += sum(entry[1] for entry in item.get(b"chunks") or ())
            if wanted and item[b"path"] == wanted:
                planted = _described(item)
            if out is not None:
                out.write(json.dumps(_described(item)) + "\n")
                continue
            if len(item.get(b"chunks") or ()) > MAX_PIECES:
                continue
            seen += 1
            if len(kept) < files:
                kept.append(_described(item))
            elif (place := lot.randrange(seen)) < files:
                kept[place] = _described(item)
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


def _within(kept: list[dict[str, Any]], *, most_bytes: int) -> list[dict[str, Any]]:
    """Return files up to ``most_bytes`` in all; at least one, if there is any."""
    chosen: list[dict[str, Any]] = []
    size = pieces = 0
    for one in kept:
        if chosen and (
            size + one["size"] > most_bytes or pieces + len(one["pieces"]) > MAX_PIECES_IN_ALL
        ):
            continue
        chosen.append(one)
        size += one["size"]
        pieces += len(one["pieces"])
    return chosen
