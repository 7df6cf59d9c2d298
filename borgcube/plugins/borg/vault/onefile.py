"""One file of an archive, as bytes to whoever may read it on this server.

Finds its item, answers how long it is, then writes its content and nothing else to the
connection. Each chunk is authenticated and its ID recomputed before its first byte goes out;
where one is damaged the connection ends early, so that nobody takes a part for the whole.
Only reads; while it does, its archive stays, as with a restore.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from borgcube.core.errors import JobFailed, Problem
from borgcube.plugins.borg.vault.items import as_ns, item_kind
from borgcube.plugins.borg.vault.ledger import Ledger
from borgcube.plugins.borg.vault.sessions import reading
from borgcube.plugins.borg.wire import Wire

if TYPE_CHECKING:
    from borgcube.plugins.borg.vault.main import Vault

log = logging.getLogger("borgcube.vault")
MISSING, NOT_REGULAR, DAMAGED = "file-missing", "file-not-regular", "file-damaged"
KINDS = {"d": "a directory", "l": "a symbolic link", "p": "a named pipe", "s": "a socket",
         "c": "a device", "b": "a device"}  # fmt: skip
STEP_ITEMS = 500


def _failed(kind: str, message: str, next_step: str) -> JobFailed:
    return JobFailed(kind, Problem.REPOSITORY, message, next_step=next_step)


def _item(ledger: Ledger, archive_id: bytes, path: bytes, step: Callable[[], None]) -> Any:
    """Return the item of a path, None when there is none."""
    for number, item in enumerate(ledger.items(archive_id)):
        if number % STEP_ITEMS == 0:
            step()
        if item[b"path"] == path:
            return item
    return None


def find(
    ledger: Ledger, archive_id: bytes, path: bytes, step: Callable[[], None]
) -> dict[bytes, Any]:
    """Return the item that has the content of a regular file: its own, or that of the first
    name of a hard link. Raises JobFailed for what is no regular file, or not there."""
    item = _item(ledger, archive_id, path, step)
    if item is not None:
        kind = item_kind(item.get(b"mode", 0))
        if kind != "-":
            raise _failed(NOT_REGULAR, f"This is {KINDS.get(kind, 'no file')}, not a file.",
                          "Restore it instead.")  # fmt: skip
        if b"source" in item:
            # A walk of its own: keeping all first names on the way could take any memory.
            item = _item(ledger, archive_id, item[b"source"], step)
            if item is not None and item_kind(item.get(b"mode", 0)) != "-":
                item = None
    if item is None:
        raise _failed(MISSING, "There is no such file in this archive.",
                      "See what it has in its list of files.")  # fmt: skip
    if item.get(b"chunks_healthy"):
        raise _failed(
            DAMAGED, "Parts of this file were lost; borg check put zeros in their place.",
            "Take it from another archive, or restore it with its holes.",
        )  # fmt: skip
    return dict(item)


def content(ledger: Ledger, item: dict[bytes, Any], step: Callable[[], None]) -> Iterator[bytes]:
    """Yield the content of an item, chunk by chunk; raises JobFailed at what is damaged."""
    for chunk_id, size, _ in item.get(b"chunks") or ():
        step()
        plain = ledger.read(chunk_id)
        if len(plain) != size:
            raise _failed(DAMAGED, f"Chunk {chunk_id.hex()[:16]} has another length than the"
                          " archive says.", "Run borg check on the repository.")  # fmt: skip
        yield plain


def serve(vault: Vault, wire: Wire, request: dict[str, Any]) -> None:
    """Answer one request: a JSON frame with ``size`` in bytes and ``mtime_ns``, then so many
    raw bytes. Raises JobFailed before the answer; after it, only the connection ends."""
    archive_id = str(request["archive"])
    path = unquote_to_bytes(str(request["key"])).strip(b"/")
    with reading(vault, wire, archive_id=archive_id) as session:
        if not session.archive:
            raise _failed(MISSING, "The archive is not in the repository any more.",
                          "See: borgcube archive list")  # fmt: skip
        item = find(vault.ledger, bytes.fromhex(archive_id), path, vault.check_alive)
        blocks = content(vault.ledger, item, vault.check_alive)
        # A file whose beginning is damaged already is refused in words.
        first = next(blocks, b"")
        size = sum(entry[1] for entry in item.get(b"chunks") or ())
        wire.send_json({"size": size, "mtime_ns": as_ns(item[b"mtime"])})
        try:
            wire.sock.sendall(first)
            for block in blocks:
                wire.sock.sendall(block)
        except OSError:
            log.info("the reader of a file is gone")
        except JobFailed as error:
            log.error("a file could not be read to its end: %s", error)
