"""A backup session: what one client may know, what it uploaded, how it ends.

A session offers the chunk index of its domain and a files cache, takes verified chunks,
and admits exactly one archive. It ends in an archive, or in a partial archive that keeps
its chunks for the next run.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from borg.hashindex import ChunkIndex

from borgcube.core import clocks
from borgcube.core.errors import JobFailed, Problem
from borgcube.plugins.borg.gate.verify import Rejected
from borgcube.plugins.borg.metadata.decode import ArchiveFacts
from borgcube.plugins.borg.metadata.readers import Reader
from borgcube.plugins.borg.metadata.rules import ArchiveRefused
from borgcube.plugins.borg.vault.admission import (
    Admission,
    Outputs,
    Walk,
    add_references,
    check_clock,
    check_references,
    check_stream,
    path_hash_of,
    real_metadata,
)
from borgcube.plugins.borg.vault.audit import Ahead, Judge
from borgcube.plugins.borg.vault.causes import as_answer, home_writes
from borgcube.plugins.borg.vault.clientkey import make_client_key, make_manifest
from borgcube.plugins.borg.vault.filescache import FilesCacheWriter, synthesise
from borgcube.plugins.borg.vault.fresh import Roots
from borgcube.plugins.borg.vault.ledger import PARTIAL_SUFFIX
from borgcube.plugins.borg.vault.limits import ClientLimits, SessionStopped
from borgcube.plugins.borg.vault.memory import scarce
from borgcube.plugins.borg.vault.refusing import refusing
from borgcube.plugins.borg.vault.streams import StoredStream, StreamWriter
from borgcube.plugins.borg.vault.uploads import Uploads
from borgcube.plugins.borg.wire import COMMIT, MANIFEST, PUT, PUT_HEADER, Wire, WireError

log = logging.getLogger("borgcube.vault")


class BackupSession(Uploads):
    """One backup in progress. Its own two threads move it on, one after the other; what others
    ask of it, and what they do to it in their commits, is under the ledger's lock."""

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
        wire: Wire | None = None,
        job: str = "",
    ) -> None:
        super().__init__(
            vault, token, archive, plan=plan, domain=domain, own_domain=own_domain,
            client=client, limits=limits, paths=paths, wire=wire, job=job,
        )  # fmt: skip
        self.comment = comment
        self.files_cache = files_cache
        self.plan_cache = vault.state_dir / "plans" / f"{self.domain.path.name}-{plan}.files"
        self.directory: Path = vault.state_dir / "sessions" / token
        self.paths = paths
        self.manifest_plain = b""
        self.watch = clocks.Watch()  # until the manifest comes, which ends the client's work
        self._ahead: Ahead | None = None
        self.stream_path = self.plan_cache.with_suffix(".stream")
        self._stream: StoredStream | None = None

    def prepare(self) -> dict[str, Any]:
        """Make the session's key, manifest and seed files; return what the worker needs."""
        ledger = self.ledger
        with ledger.lock:
            names = ledger.manifest.archives
            self._check_name()
            count, taken = 1, self.vault.sessions.partials(but=self)
            # That of an attempt in the same second.
            while self.partial_name in names or self.partial_name in taken:
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
        self.offered_bytes = offered.size()
        self.vault.memory.session(self.token, offered=self.offered_bytes)
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

    def _check_name(self) -> None:
        """Raise JobFailed when the archive's name is taken; under the ledger's lock."""
        if self.archive in self.ledger.manifest.archives:
            raise JobFailed(
                "archive-exists",
                Problem.SERVER,
                f"There is an archive {self.archive} in the repository already.",
                next_step="Run the backup again: its archive gets a name of its own.",
            )

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

    # Its conversation -----------------------------------------------------------------

    def converse(self, wire: Wire) -> None:
        """Take chunks, the manifest and the wish to commit, until the gate is gone."""
        header = PUT_HEADER.size
        try:
            while True:
                with scarce():
                    kind, payload = wire.receive()
                if self.result is not None:
                    raise WireError("a frame after the end of the session")
                if kind == PUT and len(payload) > header:
                    chunk_id, size = PUT_HEADER.unpack_from(payload)
                    self.put(chunk_id, size, memoryview(payload)[header:])
                elif kind == MANIFEST:
                    self.manifest_plain = bytes(payload)
                    self.watch.stop()
                elif kind == COMMIT:
                    self._try_to_admit()
                    wire.send_json({"ok": "error" not in (self.result or {})})
                else:
                    raise WireError("unexpected frame")
        except WireError:
            raise
        except (ArchiveRefused, SessionStopped) as error:
            log.warning("session %s is ended: %s", self.token[-8:], error)
            self.result, self.keep = as_answer(error), error.keep
        except Exception as error:
            # The counts in memory may be half changed: only a fresh start is safe.
            log.exception("session %s failed", self.token[-8:])
            self.result = as_answer(error)
            self.vault.fail(error)

    def _try_to_admit(self) -> None:
        try:
            self.result = self.admit()
            self.vault.remember(self.job, self.result)
        except (ArchiveRefused, JobFailed, Rejected) as error:
            log.warning("archive %s not admitted: %s", self.archive, error)
            broken = self.vault.broken  # then whatever else was said follows from that
            self.result = as_answer(error) if broken is None else {"error": broken.as_data()}
            self.keep = getattr(error, "keep", True)

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
                with self.vault.changing():
                    ledger.store(chunk_id, len(plain), envelope, by=self.number)
                self.vault.space.written(len(envelope))
                self.vault.damaged.discard(chunk_id)
                self._own_metadata(chunk_id, len(plain))
        return chunk_id

    def _is_fresh(self) -> Callable[[bytes], bool]:
        """Return what tells whether a chunk came with this backup or its unfinished attempts."""
        uploaded, earlier = self.uploaded, self._earlier
        if not len(earlier):
            found: Callable[[bytes], bool] = uploaded.__contains__
            return found
        return lambda chunk_id: chunk_id in uploaded or chunk_id in earlier

    def _keep_catalog(self, catalog: Path, archive_id: str) -> None:
        catalog.rename(catalog.with_name(f"{archive_id}.zst"))

    def _commit(self, said: ArchiveFacts, found: Walk, *, real: dict[str, Any]) -> dict[str, Any]:
        ledger = self.ledger
        started = time.monotonic()
        self.vault.check_sound()
        self._check_name()  # another attempt may have got it meanwhile
        ledger.begin()
        check_references(ledger, found)
        attempts = self._attempts()
        superseded = self._superseded(attempts)
        charged = self._charged(attempts)
        facts = self._facts(self.archive, partial=False)
        domains = [self.domain] if self.shared is None else [self.domain, self.shared]
        with self.vault.changing():
            add_references(ledger, found)
            real.update(self._owner())
            real.update(
                items=found.metadata, size=found.size, csize=found.stored_size, nfiles=found.files
            )
            self._forget_unreferenced()
            real_id = ledger.add_archive(self.archive, real, time=real["time"])
            for domain in domains:
                domain.intend(real_id.hex(), facts)
            self.vault.commit(finishing=self, remove=superseded)
        self.over = True
        new_size = ledger.count_stored(
            found.references, real_id, by=self.number, runs=self.vault.sessions.runs
        )
        for domain in domains:
            self.vault.derive(partial(domain.add, ledger, real_id.hex(), facts, found.references))
        if superseded:
            self.vault.derive(lambda: self.domain.forget(superseded))
        if left := set(attempts).difference(superseded):
            self.vault.derive(lambda: self.domain.settle(left))
        return {
            "id": real_id.hex(),
            "name": self.archive,
            "start": said.time.isoformat(),
            "end": datetime.now(UTC).isoformat(timespec="seconds"),
            clocks.OFFSET: self.watch.offset_s(said.time, said.time_end),
            "files": found.files,
            "items": found.items,
            "size": found.size,
            "stored_size": found.stored_size,
            "new_size": new_size,
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

    def close(self) -> None:
        """Remove the session's files; safe to repeat."""
        self.vault.memory.forget(self.token)
        if self._ahead is not None:
            self._ahead.close()
        if self._stream is not None:
            self._stream.close()
        shutil.rmtree(self.directory, ignore_errors=True)
