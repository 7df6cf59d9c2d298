"""A restore session: one archive, or selected paths of it, readable by one client.

The session's manifest lists one archive. Its metadata is made again under the session
key; chunks are re-wrapped, never recompressed, and only those of the selection are served.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
from borg.hashindex import ChunkIndex

from borgcube.core.budget import Disk, Spool
from borgcube.core.errors import JobFailed, Problem
from borgcube.plugins.borg.gate.verify import MAX_PLAIN
from borgcube.plugins.borg.remote import RESTORED_NAME
from borgcube.plugins.borg.vault.causes import as_answer, home_writes
from borgcube.plugins.borg.vault.clientkey import make_client_key, make_manifest
from borgcube.plugins.borg.vault.items import ArchiveRefused
from borgcube.plugins.borg.vault.ledger import Ledger
from borgcube.plugins.borg.vault.memory import scarce
from borgcube.plugins.borg.vault.owner import KEY
from borgcube.plugins.borg.vault.sessions import Reading
from borgcube.plugins.borg.vault.sources import Sources
from borgcube.plugins.borg.wire import DATA, GET, Wire, WireError

log = logging.getLogger("borgcube.vault")
PIECE = 128 * 1024
# An item can be larger than Borg takes an object to be: it then goes on in the next one.
MAX_PIECE = 1 << 20
# What the items of one restore, and sources of hard links beside them, may take on disk.
MAX_SPOOL = 64 << 30
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
        self.vault = vault
        self.ledger: Ledger = vault.ledger
        self.paths = frozenset(path.strip("/").encode("utf-8", "surrogateescape") for path in paths)
        self.harmless = harmless
        # As large as the archive's part of the repository's own index, and smaller.
        self.allowed = ChunkIndex()
        vault.memory.session(token)
        self.directory: Path = vault.state_dir / "sessions" / token
        with home_writes():
            self.directory.mkdir(mode=0o700, parents=True)
            self._disk = Disk(
                self.directory, what="The list of files of this restore", most=MAX_SPOOL,
                kind="restore-no-room",
            )  # fmt: skip
            self._spool = Spool(self.directory, self._disk)
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
        with home_writes(reads_repository=True):
            items = self._write_items(self._selected(info.id))
        if self.paths and not self.files and not items:
            raise ArchiveRefused("nothing in the archive matches the given paths")
        own = {
            key.decode(): value
            for key, value in metadata.items()
            if key not in (b"tam", b"items", KEY.encode()) and not key.startswith(b"recreate")
        }
        own |= {"items": tuple(items), "name": RESTORED_NAME.encode()}
        self.vault.memory.session(self.token, offered=self.allowed.size())
        packed = client.key.pack_and_authenticate_metadata(own, context=b"archive")
        if len(packed) > MAX_PLAIN:
            raise JobFailed(
                "restore-too-large", Problem.SERVER,
                f"The archive {self.archive} has more files than Borg takes in one list.",
                next_step="Restore its directories one after the other.",
            )  # fmt: skip
        archive_id = self._keep(packed)
        envelope, manifest_id = make_manifest(
            client,
            repository_id,
            {RESTORED_NAME: (archive_id, metadata[b"time"].decode("ascii"))},
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
        if not self.paths:
            yield from (item for item in self.ledger.items(archive_id) if self._harmless(item))
            return
        sources = Sources(self.directory, self._disk, self._spool)
        try:
            for item in self.ledger.items(archive_id):
                path = item[b"path"]
                if not self._asked_for(path):
                    if item.get(b"hardlink_master"):
                        sources.add(path, item.get(b"chunks"))
                elif self._harmless(item):
                    self._follow(sources, item)
                    yield item
        finally:
            sources.close()

    def _harmless(self, item: dict[bytes, Any]) -> bool:
        """Tell whether an item is restored; takes away what a harmless restore leaves out."""
        if self.harmless:
            if item.get(b"mode", 0) & 0o170000 in DEVICE_KINDS:
                return False
            item[b"mode"] = item.get(b"mode", 0) & ~SET_ID_BITS
            if isinstance(item.get(b"xattrs"), dict):
                item[b"xattrs"] = {
                    name: value for name, value in item[b"xattrs"].items()
                    if not name.startswith(SYSTEM_ATTRIBUTES)
                }  # fmt: skip
        return True

    def _follow(self, sources: Sources, item: dict[bytes, Any]) -> None:
        """Make the first selected name of a file whose own first name is not selected the file,
        and the others links to that."""
        source = item.get(b"source")
        if source is None or item.get(b"mode", 0) & 0o170000 != 0o100000:
            return
        known = None if self._asked_for(source) else sources.find(source)
        if known is None:
            return
        moved, place = known
        if moved is not None:
            item[b"source"] = moved
            return
        del item[b"source"]
        if (chunks := sources.chunks(place)) is not None:
            item[b"chunks"] = chunks
        item[b"hardlink_master"] = True
        sources.move(source, item[b"path"])

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
                ids += self._keep_all(buffer)
        ids += self._keep_all(buffer)
        return ids

    def _keep_all(self, buffer: bytearray) -> list[bytes]:
        """Keep what is in a buffer, in pieces, and empty it."""
        ids = []
        while buffer:
            ids.append(self._keep(bytes(buffer[:MAX_PIECE])))
            del buffer[:MAX_PIECE]
        return ids

    def _keep(self, plain: bytes) -> bytes:
        chunk_id: bytes = self.key.id_hash(plain)
        data = self.key.compressor.compress(plain)
        self._own[chunk_id] = self._spool.add(data)
        return chunk_id

    def get(self, chunk_id: bytes) -> bytes:
        """Return the compressed data of a chunk of the selection, or nothing."""
        if chunk_id in self._own:
            return self._spool.get(self._own[chunk_id])
        if chunk_id not in self.allowed:
            return b""
        with self.ledger.reading(chunk_id):
            with self.ledger.lock:
                envelope = self.ledger.repository.get(chunk_id)
            return self.ledger.sealer.unseal(envelope)

    def converse(self, wire: Wire) -> None:
        """Serve chunks until the gate is gone."""
        while True:
            kind, payload = wire.receive()
            if kind != GET or len(payload) != 32:
                raise WireError("unexpected frame")
            try:
                with scarce():
                    data = self.get(bytes(payload))
            except Exception as error:
                # The worker asks for the reason at the end: it is no fault of the client.
                log.warning("a restore cannot go on: %s", error)
                self.result = as_answer(error)
                raise WireError(str(error)) from error
            wire.send(DATA, data)

    def close(self) -> None:
        """Forget the session's own chunks; safe to repeat."""
        self.vault.memory.forget(self.token)
        self._spool.close()
        shutil.rmtree(self.directory, ignore_errors=True)
