"""A backup session: what one client may know, what it uploaded, how it ends.

A session offers the chunk index of its domain and a files cache, takes verified chunks,
and admits exactly one archive. It ends in an archive, or in a partial archive that keeps
its chunks for the next run.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from borg.hashindex import ChunkIndex

from borgcube.core.errors import JobFailed, Problem
from borgcube.plugins.borg.metadata.decode import ArchiveFacts
from borgcube.plugins.borg.metadata.readers import Reader
from borgcube.plugins.borg.metadata.rules import ArchiveRefused
from borgcube.plugins.borg.vault.admission import (
    Admission,
    Outputs,
    Walk,
    add_references,
    check_clock,
    check_stream,
    path_hash_of,
    real_metadata,
)
from borgcube.plugins.borg.vault.audit import Ahead, Judge
from borgcube.plugins.borg.vault.causes import home_writes
from borgcube.plugins.borg.vault.clientkey import make_client_key, make_manifest
from borgcube.plugins.borg.vault.domains import Domain
from borgcube.plugins.borg.vault.filescache import FilesCacheWriter, synthesise
from borgcube.plugins.borg.vault.fresh import Fresh, Roots
from borgcube.plugins.borg.vault.ledger import PARTIAL_SUFFIX, Ledger
from borgcube.plugins.borg.vault.limits import Account, ClientLimits, SessionStopped
from borgcube.plugins.borg.vault.memory import scarce
from borgcube.plugins.borg.vault.owner import owner_metadata
from borgcube.plugins.borg.vault.refusing import refusing
from borgcube.plugins.borg.vault.streams import StoredStream, StreamWriter

log = logging.getLogger("borgcube.vault")
INLINE_BYTES = 32 * 1024
IN_FLIGHT = 16


class BackupSession:
    """One backup in progress. Its methods are called by the session's own two threads."""

    def __init__(
        self,
        vault: Any,
        token: str,
        *,
        archive: str,
        plan: str,
        domain: str,
        own_domain: str = "",
        files_cache: str,
        comment: str,
        paths: Sequence[str] = (),
        client: str = "",
        limits: ClientLimits | None = None,
    ) -> None:
        self.vault = vault
        self.ledger: Ledger = vault.ledger
        self.pool: ThreadPoolExecutor = vault.pool
        self.token = token
        self.archive = archive
        self.partial_name = archive + PARTIAL_SUFFIX
        self.client, self.job = client, ""
        self.limits = limits or ClientLimits(client)
        self.account: Account | None = None
        self.plan = plan
        self.comment = comment
        self.files_cache = files_cache
        domains = vault.state_dir / "domains"
        # The client's own, which nobody else is offered, and the one it shares, if any.
        self.domain = Domain(domains, own_domain or domain)
        self.shared = Domain(domains, domain) if own_domain not in ("", domain) else None
        self.plan_cache = vault.state_dir / "plans" / f"{self.domain.path.name}-{plan}.files"
        self.directory: Path = vault.state_dir / "sessions" / token
        self.uploaded = ChunkIndex()
        self.own_metadata = ChunkIndex()  # chunks of its archive's metadata that we made
        self.stream_path = self.plan_cache.with_suffix(".stream")
        self.order = bytearray()
        self.partial_written = 0
        self.began = datetime.now(UTC)
        self.bytes_new = 0
        self.chunks_new = 0
        self.paths = paths
        self.fresh = Fresh(paths)
        self.manifest_plain = b""
        self.result: dict[str, Any] | None = None
        self._ahead: Ahead | None = None
        self._stream: StoredStream | None = None
        self._pending: deque[tuple[Future[None], bytes, int]] = deque()

    def prepare(self) -> dict[str, Any]:
        """Make the session's key, manifest and seed files; return what the worker needs."""
        ledger = self.ledger
        with ledger.lock:
            names = ledger.manifest.archives
            if self.archive in names:
                raise JobFailed(
                    "archive-exists",
                    Problem.SERVER,
                    f"There is an archive {self.archive} in the repository already.",
                    next_step="Run the backup again: its archive gets a name of its own.",
                )
            count = 1
            while self.partial_name in names:  # that of an attempt in the same second
                count += 1
                self.partial_name = f"{self.archive}.{count}{PARTIAL_SUFFIX}"
            self.vault.space.check()
            self.account = self.vault.accounts.open(self.limits, carried=self._carried())
            offered = self.domain.index(ledger)
            if self.shared is not None:
                self.shared.index(ledger, into=offered)
            for chunk_id in self.vault.damaged:
                # Not offered, so that the client reads those files again and mends them.
                if chunk_id in offered:
                    del offered[chunk_id]
        self._stream = StoredStream(self.stream_path, ledger.key.id_hash)
        for chunk_id, size in self._stream.sizes():
            if chunk_id not in offered:
                offered[chunk_id] = (1, size, size)
        with home_writes():
            self.directory.mkdir(mode=0o700, parents=True)
            offered.write(str(self.directory / "chunks"))
            entries = synthesise(
                self.plan_cache, self.directory / "files", offered, mode=self.files_cache
            )
        self._offered_bytes = offered.size()
        self.vault.memory.session(self.token, offered=self._offered_bytes)
        with ledger.lock:
            self._earlier = self._chunks_of_attempts()
        self._judge_ahead(offered)
        repository_id = ledger.repository.id
        client = make_client_key(
            ledger.key, blake2=ledger.opened.blake2, repository_id=repository_id
        )
        self.client_key = client.key
        envelope, manifest_id = make_manifest(client, repository_id, {})
        return {
            "token": self.token,
            "repository_id": repository_id.hex(),
            "id_kind": client.id_kind,
            "id_key": ledger.key.id_key.hex(),
            "type_byte": client.key.TYPE,
            "key_blob": client.blob.decode(),
            "manifest": envelope.hex(),
            "manifest_id": manifest_id.hex(),
            "chunks_file": str(self.directory / "chunks"),
            "files_file": str(self.directory / "files"),
            "files_known": entries,
        }

    def _judge_ahead(self, offered: Any) -> None:
        """Begin to audit what the client wrote last time, which it will mostly repeat."""
        assert self._stream is not None
        judge = Judge(
            path_hash_of(self.ledger),
            self._lookup(lambda chunk_id: chunk_id in offered),
            roots=Roots(self.paths),
        )
        self._ahead = Ahead(judge, self._stream.chunks, self.vault.readers.open, self.vault.ahead)
        self._ahead.start()

    def _lookup(self, may_use: Callable[[bytes], bool]) -> Callable[[bytes], tuple[int, int]]:
        """Return what tells size and stored size of a chunk that the session may reference."""
        ledger = self.ledger

        def lookup(chunk_id: bytes) -> tuple[int, int]:
            found = ledger.lookup(chunk_id) if may_use(chunk_id) else None
            if found is None:
                raise ArchiveRefused("an item references a chunk outside the session")
            return found

        return lookup

    def _chunks_of_attempts(self) -> Any:
        """Return the chunks that unfinished backups of this plan uploaded, as a ChunkIndex."""
        found = ChunkIndex()
        for name in self.domain.partials(self.plan, before=""):
            info = self.ledger.manifest.archives.get(name)
            if info is None:
                continue
            try:
                for chunk_id, entry in self.ledger.references(info.id).iteritems():
                    found[chunk_id] = (1, entry[1], 0)
            except JobFailed as error:
                log.warning("%s is not counted: %s", name, error)
        return found

    # Chunks ---------------------------------------------------------------------------

    def put(self, chunk_id: bytes, size: int, data: memoryview) -> None:
        """Take a verified chunk. What is stored already is dropped."""
        if chunk_id in self.uploaded:
            return
        self.vault.memory.uploads(self.token, len(self.uploaded), offered=self._offered_bytes)
        room, handed_on = self.vault.sealing_room, False
        room.acquire(len(data))  # without the lock, which those who give room back need
        try:
            handed_on = self._take(chunk_id, size, data)
        finally:
            if not handed_on:
                room.release(len(data))
        while len(self._pending) > IN_FLIGHT or (self._pending and self._pending[0][0].done()):
            self._settle()

    def _take(self, chunk_id: bytes, size: int, data: memoryview) -> bool:
        """Take a chunk; tell whether it is being sealed, and gives its room back after that."""
        ledger = self.ledger
        with ledger.lock:
            if ledger.lookup(chunk_id) is not None and chunk_id not in self.vault.damaged:
                self._own(chunk_id, size)
                return False
            sealing: Future[None] | None = self.vault.sealing.get(chunk_id)
            handed_on = sealing is None
            if sealing is None:
                self._count_new(len(data))
                self.fresh.count(size, data)
                if len(data) <= INLINE_BYTES:
                    self.vault.space.written(len(data))
                    ledger.store(chunk_id, size, ledger.sealer.seal(data))
                    self.vault.damaged.discard(chunk_id)
                    self._own(chunk_id, size)
                    return False
                sealing = self.pool.submit(self._seal_in_room, chunk_id, size, data)
                self.vault.sealing[chunk_id] = sealing
            self._pending.append((sealing, chunk_id, size))
        return handed_on

    def _seal_in_room(self, chunk_id: bytes, size: int, data: memoryview) -> None:
        try:
            self._seal(chunk_id, size, data)
        finally:
            self.vault.sealing_room.release(len(data))

    def _seal(self, chunk_id: bytes, size: int, data: memoryview) -> None:
        try:
            with scarce():
                envelope = self.ledger.sealer.seal(data)
        except SessionStopped:
            with self.ledger.lock:
                del self.vault.sealing[chunk_id]
                self.vault.space.written(len(data))
            raise
        with self.ledger.lock:
            try:
                self.ledger.store(chunk_id, size, envelope)
                self.vault.damaged.discard(chunk_id)
                # Owned at once: a commit by another session must find it in our partial.
                self._own(chunk_id, size)
            finally:
                del self.vault.sealing[chunk_id]
                self.vault.space.written(len(data))

    def _count_new(self, length: int) -> None:
        # Before it is stored: these raise SessionStopped when it would be too much.
        if self.account is not None:
            self.account.charge(length)
        self.vault.space.spend(length)
        self.bytes_new += length
        self.chunks_new += 1

    def _settle(self) -> None:
        future, chunk_id, size = self._pending[0]
        try:
            future.result(timeout=600)
        except BaseException:
            with self.ledger.lock:
                self._pending.popleft()
            raise
        with self.ledger.lock:
            # Until it is owned it is pending: no moment in which nobody relies on it.
            self._own(chunk_id, size)
            self._pending.popleft()

    def relies_on(self, chunk_id: bytes) -> bool:
        """Tell whether this session uploaded a chunk; under the ledger's lock."""
        return (
            chunk_id in self.uploaded
            or chunk_id in self.own_metadata
            or any(chunk_id == one for _, one, _ in self._pending)
        )

    def _own(self, chunk_id: bytes, size: int) -> None:
        if chunk_id not in self.uploaded:
            self.uploaded[chunk_id] = (1, size, 0)
            self.order += chunk_id

    def drain(self) -> None:
        """Wait until every chunk taken so far is in the repository."""
        while self._pending:
            self._settle()

    # Ending ---------------------------------------------------------------------------

    def admit(self) -> dict[str, Any]:
        """Audit the client's archive and commit it; return its figures.

        Raises ArchiveRefused; the repository then is as it was.
        """
        self.drain()
        if self._ahead is not None:
            self._ahead.stop()
        reader = self.vault.readers.open()
        try:
            return self._admit(reader)
        finally:
            reader.close()

    def _admit(self, reader: Reader) -> dict[str, Any]:
        ledger = self.ledger
        with refusing():
            archive_id = reader.manifest(self.manifest_plain, expected=self.archive)
        if archive_id not in self.uploaded:
            raise ArchiveRefused("the manifest names an archive that was not uploaded")
        with ledger.lock:
            # Reads then come from closed segments, without a sync for each of them.
            ledger.repository.io.close_segment()
        advertised = ChunkIndex.read(str(self.directory / "chunks"))
        uploaded = self.uploaded

        def size_of(chunk_id: bytes) -> int:
            entry = uploaded.get(chunk_id) or advertised.get(chunk_id)
            if entry is None:
                raise ArchiveRefused("the archive's metadata has a chunk outside the session")
            size: int = entry[1]
            return size

        with refusing():
            facts = reader.archive(ledger.read(archive_id), expected=self.archive)
            check_clock(facts, began=self.began, now=datetime.now(UTC))
            check_stream(facts.items, size_of)
            real = real_metadata(facts, name=self.archive, comment=self.comment)
        outputs = self._outputs(facts)
        try:
            with refusing(), home_writes(reads_repository=True):
                fresh = self._is_fresh()
                lookup = self._lookup(lambda one: one in uploaded or one in advertised)
                admission = Admission(
                    ledger,
                    Judge(path_hash_of(ledger), lookup, fresh=fresh, roots=self.fresh.roots),
                    reader,
                    outputs,
                    store=self._keep_metadata,
                    step=self.vault.check_alive,
                    limits=self.limits,
                    fresh=fresh,
                    roots=self.fresh.roots,
                )
                assert self._stream is not None
                found = admission.walk(facts.items, self._stream, self._ahead)
                outputs.close()
            log.info("%d of %d items were judged ahead", found.ahead, found.items)
            with ledger.lock:
                added = self._commit(facts, found, real=real)
        except BaseException:
            outputs.discard()
            raise
        self.vault.derive(outputs.cache.commit)
        self.vault.derive(outputs.stream.commit)
        self.vault.derive(lambda: self._keep_catalog(outputs.catalog, str(added["id"])))
        return added

    def _outputs(self, facts: ArchiveFacts) -> Outputs:
        catalog = self.vault.state_dir / "catalog" / f"{self.token}.zst"
        with home_writes():
            started_ns = int(facts.time.timestamp() * 1e9)
            cache = FilesCacheWriter(self.plan_cache, started_ns=started_ns)
            catalog.parent.mkdir(mode=0o700, exist_ok=True)
            return Outputs(cache, catalog, StreamWriter(self.stream_path))

    def _keep_metadata(self, plain: bytes) -> bytes:
        """Store a metadata chunk that we made, unless it is there; return its ID.

        It is the session's until the commit: a neighbour's commit keeps it with what the client
        uploaded.
        """
        ledger = self.ledger
        chunk_id: bytes = ledger.key.id_hash(plain)
        with ledger.lock:
            there = ledger.lookup(chunk_id) is not None and chunk_id not in self.vault.damaged
            if there:
                self._own_metadata(chunk_id, len(plain))
        if not there:
            envelope = ledger.key.encrypt(plain)
            with ledger.lock:
                self.vault.check_alive()
                self.vault.space.spend(len(envelope))
                ledger.store(chunk_id, len(plain), envelope)
                self.vault.space.written(len(envelope))
                self.vault.damaged.discard(chunk_id)
                self._own_metadata(chunk_id, len(plain))
        return chunk_id

    def _own_metadata(self, chunk_id: bytes, size: int) -> None:
        if chunk_id not in self.uploaded and chunk_id not in self.own_metadata:
            self.own_metadata[chunk_id] = (1, size, 0)
            self.order += chunk_id

    def _is_fresh(self) -> Callable[[bytes], bool]:
        """Return what tells whether a chunk came with this backup or its unfinished attempts."""
        uploaded, earlier = self.uploaded, self._earlier
        if not len(earlier):
            found: Callable[[bytes], bool] = uploaded.__contains__
            return found
        return lambda chunk_id: chunk_id in uploaded or chunk_id in earlier

    def _keep_catalog(self, catalog: Path, archive_id: str) -> None:
        catalog.rename(catalog.with_name(f"{archive_id}.zst"))

    def _forget_unreferenced(self) -> None:
        """Take back what the archive does not use, such as its own first metadata."""
        for start in range(0, len(self.order), 32):
            chunk_id = bytes(self.order[start : start + 32])
            if chunk_id in self.ledger.fresh and not self.vault.relied_upon(chunk_id, but=self):
                self.ledger.forget_fresh(chunk_id)
        self.order.clear()

    def _commit(self, said: ArchiveFacts, found: Walk, *, real: dict[str, Any]) -> dict[str, Any]:
        ledger = self.ledger
        started = time.monotonic()
        ledger.begin()
        add_references(ledger, found)
        real.update(self._owner())
        real.update(
            items=found.metadata, size=found.size, csize=found.stored_size, nfiles=found.files
        )
        self._forget_unreferenced()
        real_id = ledger.add_archive(self.archive, real, time=real["time"])
        superseded = self._superseded()
        charged = self._charged(superseded)
        facts = self._facts(self.archive, partial=False)
        domains = [self.domain] if self.shared is None else [self.domain, self.shared]
        for domain in domains:
            domain.intend(real_id.hex(), facts)
        self.vault.commit(finishing=self, remove=superseded)
        for domain in domains:
            self.vault.derive(partial(domain.add, ledger, real_id.hex(), facts, found.references))
        if superseded:
            self.vault.derive(lambda: self.domain.forget(superseded))
        return {
            "id": real_id.hex(),
            "name": self.archive,
            "start": said.time.isoformat(),
            "end": datetime.now(UTC).isoformat(timespec="seconds"),
            "files": found.files,
            "items": found.items,
            "size": found.size,
            "stored_size": found.stored_size,
            "new_size": found.new_size,
            "charged_size": min(charged, found.stored_size),
            "chunks": found.chunks,
            "new_chunks": self.chunks_new,
            "changed_files": found.changed_files,
            "fresh_size": self.fresh.size,
            "incompressible_size": self.fresh.incompressible,
            "roots": found.roots,
            "superseded": superseded,
            "long_names": found.long_names,
            "long_name_paths": found.warnings,
            "commit_seconds": round(time.monotonic() - started, 3),
        }

    def _facts(self, name: str, *, partial: bool) -> dict[str, Any]:
        return {
            "name": name, "plan": self.plan, "client": self.client, "job": self.job,
            "partial": partial, "charged": self.account.charged if self.account else 0,
        }  # fmt: skip

    def _owner(self) -> dict[str, Any]:
        return owner_metadata(
            client=self.client, plan=self.plan, job=self.job,
            began=self.began.isoformat(timespec="seconds"),
        )  # fmt: skip

    def _carried(self) -> int:
        """Return the bytes that unfinished backups of this client hold, but no open one."""
        running = {getattr(one, "partial_name", "") for one in self.vault.sessions.values()}
        return sum(
            int(facts.get("charged", 0))
            for facts in self.domain.archives().values()
            if facts.get("partial")
            and facts.get("client") == self.client
            and facts["name"] not in running
            and facts["name"] in self.ledger.manifest.archives
        )

    def _charged(self, superseded: list[str]) -> int:
        """Return what this backup stored, with what its earlier attempts did."""
        earlier = sum(
            int(facts.get("charged", 0))
            for facts in self.domain.archives().values()
            if facts["name"] in superseded and facts["name"] != self.partial_name
        )
        return earlier + (self.account.charged if self.account else 0)

    def _superseded(self) -> list[str]:
        """Return the partial archives that this one makes unnecessary and that can go now.

        While another session was offered their chunks, they stay until its end.
        """
        names = {*self.domain.partials(self.plan, before=""), self.partial_name}
        present = sorted(name for name in names if name in self.ledger.manifest.archives)
        readable = []
        for name in present:
            try:
                self.ledger.check_readable(name)
                readable.append(name)
            except JobFailed as error:
                log.warning("%s stays: %s", name, error)
        if self.vault.others_of_domain(self.domain.path, but=self):
            self.vault.superseded.update(dict.fromkeys(readable, self.domain))
            return []
        return readable

    def write_partial(self) -> bool:
        """Reference what was uploaded so far, if there is something new; under the lock."""
        if not self.order or len(self.order) == self.partial_written:
            return False  # after its end a session has nothing to keep
        self.ledger.begin()
        self.ledger.write_partial(self.partial_name, self.order, self._owner())
        self.partial_written = len(self.order)
        return True

    def abandon(self) -> None:
        """End without an archive: keep the chunks in a partial archive for the next run."""
        self.drain()
        ledger = self.ledger
        with ledger.lock:
            if not self.order or not self.chunks_new:
                return
            self.write_partial()
            self.intend_partial()
            self.vault.commit(finishing=self)
            self.vault.derive(self.remember_partial)

    def intend_partial(self) -> None:
        """Note the partial archive before the commit that makes it."""
        info = self.ledger.manifest.archives[self.partial_name]
        self.domain.intend(info.id.hex(), self._facts(self.partial_name, partial=True))

    def discard(self) -> None:
        """End without an archive and without a trace: of a client that was refused.

        A chunk that another session relies on stays. What a commit by another session has
        put into a partial archive is taken out again, unless that session still runs: then
        the partial archive is left to the plan's next run.
        """
        self.drain()
        ledger = self.ledger
        with ledger.lock:
            name = self.partial_name
            self._forget_unreferenced()
            if self.partial_written and not self.vault.others_of_domain(self.domain.path, but=self):
                ledger.begin()
                self.vault.commit(finishing=self, remove=[name])
                self.vault.derive(lambda: self.domain.forget([name]))

    def remember_partial(self) -> None:
        """Offer the chunks of the committed partial archive to the domain."""
        ledger = self.ledger
        info = ledger.manifest.archives[self.partial_name]
        chunks = ChunkIndex()
        for start in range(0, len(self.order), 32):
            chunk_id = bytes(self.order[start : start + 32])
            found = ledger.lookup(chunk_id)
            if found:
                chunks[chunk_id] = (1, found[0], 0)
        self.domain.add(
            ledger,
            info.id.hex(),
            self._facts(self.partial_name, partial=True),
            chunks,
        )

    def close(self) -> None:
        """Remove the session's files; safe to repeat."""
        self.vault.memory.forget(self.token)
        if self._ahead is not None:
            self._ahead.close()
        if self._stream is not None:
            self._stream.close()
        if self.account is not None:
            with self.ledger.lock:
                self.account.close()
        shutil.rmtree(self.directory, ignore_errors=True)
