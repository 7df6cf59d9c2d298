"""A restore session: one archive, or selected paths of it, readable by one client.

The session's manifest lists one archive. Its metadata is made again under the session
key; chunks are re-wrapped, never recompressed, and only those of the selection are served.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

import msgpack
from borg.hashindex import ChunkIndex

from borgcube.plugins.borg.vault.clientkey import make_client_key, make_manifest
from borgcube.plugins.borg.vault.items import ArchiveRefused
from borgcube.plugins.borg.vault.ledger import Ledger
from borgcube.plugins.borg.vault.owner import KEY
from borgcube.plugins.borg.vault.sessions import Reading
from borgcube.plugins.borg.wire import DATA, GET, Wire, WireError

PIECE = 128 * 1024
SET_ID_BITS = 0o6000
# Capabilities of programs, labels of another machine's policy: as set-user-ID bits are.
SYSTEM_ATTRIBUTES = (b"security.", b"trusted.")
DEVICE_KINDS = (0o020000, 0o060000)


class RestoreSession(Reading):
    """One restore in progress."""

    def __init__(
        self, vault: Any, token: str, *, archive: str, paths: list[str], harmless: bool,
        wire: Wire | None = None, job: str = "",
    ) -> None:  # fmt: skip
        super().__init__(token, archive, wire=wire, job=job)
        self.ledger: Ledger = vault.ledger
        self.paths = frozenset(path.strip("/").encode("utf-8", "surrogateescape") for path in paths)
        self.harmless = harmless
        self.allowed = ChunkIndex()
        self._spool = tempfile.TemporaryFile()
        self._own: dict[bytes, tuple[int, int]] = {}
        self.files = 0
        self.size = 0

    def prepare(self) -> dict[str, Any]:
        """Select the items and make the session's archive and manifest."""
        ledger = self.ledger
        with ledger.lock:
            if self.archive not in ledger.manifest.archives:
                raise ArchiveRefused(f"there is no archive {self.archive} in the repository")
            info = ledger.manifest.archives[self.archive]
        metadata = ledger.archive_metadata(info.id)
        repository_id = ledger.repository.id
        client = make_client_key(
            ledger.key, blake2=ledger.opened.blake2, repository_id=repository_id
        )
        self.key = client.key
        items = self._write_items(self._selected(info.id))
        if self.paths and not self.files and not items:
            raise ArchiveRefused("nothing in the archive matches the given paths")
        own = {
            key.decode(): value
            for key, value in metadata.items()
            if key not in (b"tam", b"items", KEY.encode()) and not key.startswith(b"recreate")
        }
        own["items"] = tuple(items)
        packed = client.key.pack_and_authenticate_metadata(own, context=b"archive")
        archive_id = self._keep(packed)
        envelope, manifest_id = make_manifest(
            client,
            repository_id,
            {self.archive: (archive_id, metadata[b"time"].decode("ascii"))},
        )
        return {
            "token": self.token,
            "repository_id": repository_id.hex(),
            "id_kind": client.id_kind,
            "id_key": ledger.key.id_key.hex(),
            "type_byte": client.key.TYPE,
            "key_blob": client.blob.decode(),
            "manifest": envelope.hex(),
            "manifest_id": manifest_id.hex(),
            "files": self.files,
            "size": self.size,
        }

    def _selected(self, archive_id: bytes) -> Iterator[dict[bytes, Any]]:
        masters: dict[bytes, Any] = {}
        moved: dict[bytes, bytes] = {}
        for item in self.ledger.items(archive_id):
            path = item[b"path"]
            if self.paths and not self._asked_for(path):
                if item.get(b"hardlink_master"):
                    masters[path] = item.get(b"chunks")
                continue
            if self.harmless:
                if item.get(b"mode", 0) & 0o170000 in DEVICE_KINDS:
                    continue
                item[b"mode"] = item.get(b"mode", 0) & ~SET_ID_BITS
                if isinstance(item.get(b"xattrs"), dict):
                    item[b"xattrs"] = {
                        name: value for name, value in item[b"xattrs"].items()
                        if not name.startswith(SYSTEM_ATTRIBUTES)
                    }  # fmt: skip
            source = item.get(b"source")
            if source in moved:
                item[b"source"] = moved[source]
            elif source in masters and item.get(b"mode", 0) & 0o170000 == 0o100000:
                # The first selected name of a file whose own first name is not selected.
                del item[b"source"]
                item[b"chunks"] = masters[source]
                item[b"hardlink_master"] = True
                moved[source] = path
            yield item

    def _asked_for(self, path: bytes) -> bool:
        """Tell whether a path, or a directory that it is in, was selected."""
        while path not in self.paths:
            path, slash, _ = path.rpartition(b"/")
            if not slash:
                return False
        return True

    def _write_items(self, items: Iterator[dict[bytes, Any]]) -> list[bytes]:
        ids: list[bytes] = []
        buffer = bytearray()
        for item in items:
            for chunk_id, size, _ in item.get(b"chunks") or ():
                self.allowed[chunk_id] = (1, size, 0)
                self.size += size
            self.files += 1
            buffer += msgpack.packb(item, use_bin_type=False)
            if len(buffer) >= PIECE:
                ids.append(self._keep(bytes(buffer)))
                buffer.clear()
        if buffer:
            ids.append(self._keep(bytes(buffer)))
        return ids

    def _keep(self, plain: bytes) -> bytes:
        chunk_id: bytes = self.key.id_hash(plain)
        data = self.key.compressor.compress(plain)
        self._own[chunk_id] = (self._spool.seek(0, 2), len(data))
        self._spool.write(data)
        return chunk_id

    def get(self, chunk_id: bytes) -> bytes:
        """Return the compressed data of a chunk of the selection, or nothing."""
        if chunk_id in self._own:
            start, length = self._own[chunk_id]
            self._spool.seek(start)
            return self._spool.read(length)
        if chunk_id not in self.allowed:
            return b""
        with self.ledger.lock:
            envelope = self.ledger.repository.get(chunk_id)
        return self.ledger.sealer.unseal(envelope)

    def converse(self, wire: Wire) -> None:
        """Serve chunks until the gate is gone."""
        while True:
            kind, payload = wire.receive()
            if kind != GET or len(payload) != 32:
                raise WireError("unexpected frame")
            wire.send(DATA, self.get(bytes(payload)))

    def close(self) -> None:
        """Forget the session's own chunks; safe to repeat."""
        self._spool.close()
