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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from borg.hashindex import ChunkIndex

from borgcube.core.errors import JobFailed, Problem
from borgcube.plugins.borg.gate.verify import Rejected
from borgcube.plugins.borg.vault.admission import (
    add_references,
    check_clock,
    check_metadata,
    check_references,
    claimed_archive,
    path_hash_of,
    real_metadata,
    started_at,
    walk,
)
from borgcube.plugins.borg.vault.audit import Ahead, Judge
from borgcube.plugins.borg.vault.causes import as_answer, home_writes
from borgcube.plugins.borg.vault.clientkey import make_client_key, make_manifest
from borgcube.plugins.borg.vault.domains import Domain
from borgcube.plugins.borg.vault.filescache import FilesCacheWriter, synthesise
from borgcube.plugins.borg.vault.fresh import Fresh, Roots
from borgcube.plugins.borg.vault.items import ArchiveRefused
from borgcube.plugins.borg.vault.ledger import PARTIAL_SUFFIX, Ledger
from borgcube.plugins.borg.vault.limits import Account, ClientLimits, SessionStopped
from borgcube.plugins.borg.vault.sessions import Session
from borgcube.plugins.borg.wire import COMMIT, MANIFEST, PUT, PUT_HEADER, Wire, WireError

log = logging.getLogger("borgcube.vault")
INLINE_BYTES = 32 * 1024
IN_FLIGHT = 16
SEAL_WAIT_S = 600.0
# Chunks one session may upload: each takes about 250 bytes of the vault's memory.
MAX_UPLOADED = 20_000_000


@contextmanager
def _audit() -> Iterator[None]:
    """Turn whatever goes wrong with a client's data, while nothing is changed, into a refusal.

    Only the client's session ends then, not the vault with everybody's.
    """
    try:
        yield
    except (
        Rejected, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError,
        RecursionError, MemoryError,
    ) as error:  # fmt: skip
        log.exception("an archive cannot be audited")
        raise ArchiveRefused(f"the archive cannot be read ({type(error).__name__})") from error


@dataclass
class Sealing:
    """A chunk that is being encrypted, and the sessions that uploaded it meanwhile."""

    future: Future[None]
    owners: list[BackupSession] = field(default_factory=list)


class BackupSession(Session):
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
        super().__init__(token, archive, wire=wire, job=job)
        self.vault = vault
        self.ledger: Ledger = vault.ledger
        self.pool: ThreadPoolExecutor = vault.pool
        self.partial_name = archive + PARTIAL_SUFFIX
        self.client = client
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
        self.order = bytearray()
        self.partial_written = 0
        self.began = datetime.now(UTC)
        self.bytes_new = 0
        self.chunks_new = 0
        self.paths = paths
        self.fresh = Fresh(paths)
        self.manifest_plain = b""
        self._ahead: Ahead | None = None
        self._pending: deque[tuple[Future[None], bytes]] = deque()

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
        with home_writes():
            self.directory.mkdir(mode=0o700, parents=True)
            offered.write(str(self.directory / "chunks"))
            entries = synthesise(
                self.plan_cache, self.directory / "files", offered, mode=self.files_cache
            )
        self.advertised_count = len(offered)
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
        """Begin to audit the plan's last archive, which the new one will mostly repeat."""
        present = self.ledger.manifest.archives
        last = ""
        for key, facts in self.domain.archives().items():
            if facts.get("plan") == self.plan and not facts.get("partial") \
                    and facts["name"] in present:  # fmt: skip
                last = key
        if not last:
            return

        def offered_size(chunk_id: bytes) -> int:
            size: int = offered[chunk_id][1]
            return size

        def ids() -> Sequence[bytes]:
            found: Sequence[bytes] = self.ledger.archive_metadata(bytes.fromhex(last))[b"items"]
            return found

        judge = Judge(path_hash_of(self.ledger), offered_size, roots=Roots(self.paths))
        self._ahead = Ahead(judge, ids, self.ledger.read, self.vault.ahead)
        self._ahead.start()

    def _attempts(self) -> list[str]:
        """Return the names of this plan's unfinished backups that are over; under the lock."""
        running = self.vault.sessions.partials()
        return [name for name in self.domain.partials(self.plan, before="") if name not in running]

    def _chunks_of_attempts(self) -> Any:
        """Return the chunks that unfinished backups of this plan uploaded, as a ChunkIndex."""
        found = ChunkIndex()
        for name in self._attempts():
            info = self.ledger.manifest.archives.get(name)
            if info is None:
                continue
            try:
                found.merge(self.ledger.references(info.id))
            except JobFailed as error:
                log.warning("%s is not counted: %s", name, error)
        self.ledger.count_again(found)
        return found

    # Chunks ---------------------------------------------------------------------------

    def put(self, chunk_id: bytes, size: int, data: memoryview) -> None:
        """Take a verified chunk. What is stored already is dropped."""
        ledger = self.ledger
        if chunk_id in self.uploaded:
            return
        if len(self.uploaded) >= MAX_UPLOADED:
            raise ArchiveRefused("the client uploaded more chunks than an archive may have")
        with ledger.lock:
            if ledger.lookup(chunk_id) is not None and chunk_id not in self.vault.damaged:
                self._own(chunk_id, size)
                return
            sealing = self.vault.sealing.get(chunk_id)
            if sealing is None:
                self._count_new(len(data))
                self.fresh.count(size, data)
                if len(data) <= INLINE_BYTES:
                    self.vault.space.written(len(data))
                    with self.vault.changing():
                        ledger.store(chunk_id, size, ledger.sealer.seal(data), by=self.number)
                    self.vault.damaged.discard(chunk_id)
                    self._own(chunk_id, size)
                    return
                sealing = Sealing(self.pool.submit(self._seal, chunk_id, size, data))
                self.vault.sealing[chunk_id] = sealing
            sealing.owners.append(self)
            self._pending.append((sealing.future, chunk_id))
        while len(self._pending) > IN_FLIGHT or (self._pending and self._pending[0][0].done()):
            self._settle()

    def _seal(self, chunk_id: bytes, size: int, data: memoryview) -> None:
        self.vault.check_sound()
        envelope = self.ledger.sealer.seal(data)
        with self.vault.changing():
            sealing: Sealing = self.vault.sealing.pop(chunk_id)
            self.vault.space.written(len(data))
            self.ledger.store(chunk_id, size, envelope, by=self.number)
            self.vault.damaged.discard(chunk_id)
            # Owned at once, by all who uploaded it: the next commit must find it in their
            # partial archives, or it may go with the first of them that fails.
            for session in sealing.owners:
                session._own(chunk_id, size)

    def _count_new(self, length: int) -> None:
        # Before it is stored: these raise SessionStopped when it would be too much.
        if self.account is not None:
            self.account.charge(length)
        self.vault.space.spend(length)
        self.bytes_new += length
        self.chunks_new += 1

    def _settle(self) -> None:
        try:
            # Without the lock, which the thread that seals needs.
            self._pending[0][0].result(timeout=SEAL_WAIT_S)
        finally:
            with self.ledger.lock:
                self._pending.popleft()  # it is owned by now

    def domains(self) -> frozenset[Path]:
        """Return the directories of the domains whose chunks it was offered."""
        both = (self.domain, self.shared)
        return frozenset(domain.path for domain in both if domain is not None)

    def partial(self) -> str:
        """Return the name of its partial archive."""
        return self.partial_name

    def relies_on(self, chunk_id: bytes) -> bool:
        """Tell whether this session uploaded a chunk and is not over."""
        if self.over:
            return False
        return chunk_id in self.uploaded or any(chunk_id == one for _, one in self._pending)

    def _own(self, chunk_id: bytes, size: int) -> None:
        if chunk_id not in self.uploaded:
            self.uploaded[chunk_id] = (1, size, 0)
            self.order += chunk_id

    def drain(self) -> None:
        """Wait until every chunk taken so far is in the repository."""
        while self._pending:
            self._settle()

    # Its conversation -----------------------------------------------------------------

    def figures(self) -> dict[str, int]:
        """Return what it stored so far."""
        return {"bytes_new": self.bytes_new, "chunks_new": self.chunks_new}

    def converse(self, wire: Wire) -> None:
        """Take chunks, the manifest and the wish to commit, until the gate is gone."""
        header = PUT_HEADER.size
        try:
            while True:
                kind, payload = wire.receive()
                if self.result is not None:
                    raise WireError("a frame after the end of the session")
                if kind == PUT and len(payload) > header:
                    chunk_id, size = PUT_HEADER.unpack_from(payload)
                    self.put(chunk_id, size, memoryview(payload)[header:])
                elif kind == MANIFEST:
                    self.manifest_plain = bytes(payload)
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
            self.result = as_answer(error)
            self.keep = getattr(error, "keep", True)

    # Ending ---------------------------------------------------------------------------

    def admit(self) -> dict[str, Any]:
        """Audit the client's archive and commit it; return its figures.

        Raises ArchiveRefused; the repository then is as it was.
        """
        self.drain()
        if self._ahead is not None:
            self._ahead.stop()
        ledger = self.ledger
        archive_id = claimed_archive(self.manifest_plain, expected=self.archive)
        if archive_id not in self.uploaded:
            raise ArchiveRefused("the manifest names an archive that was not uploaded")
        with ledger.lock:
            # Reads then come from closed segments, without a sync for each of them.
            ledger.repository.io.close_segment()
        advertised = ChunkIndex.read(str(self.directory / "chunks"))
        uploaded = self.uploaded

        def reference_size(chunk_id: bytes) -> int:
            entry = uploaded.get(chunk_id) or advertised.get(chunk_id)
            if entry is None:
                raise ArchiveRefused("an item references a chunk outside the session")
            size: int = entry[1]
            return size

        with _audit():
            metadata = check_metadata(ledger.read(archive_id), expected=self.archive)
            check_clock(metadata, began=self.began, now=datetime.now(UTC))
            real = real_metadata(metadata, name=self.archive, comment=self.comment)
        started_ns = int(started_at(metadata).timestamp() * 1e9)
        catalog = self.vault.state_dir / "catalog" / f"{self.token}.zst"
        with home_writes():
            cache = FilesCacheWriter(self.plan_cache, started_ns=started_ns)
            catalog.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            with _audit(), home_writes(reads_repository=True):
                found = walk(
                    ledger,
                    metadata,
                    reference_size=reference_size,
                    cache=cache,
                    catalog=catalog,
                    step=self.vault.check_alive,
                    limits=self.limits,
                    fresh=self._is_fresh(),
                    roots=self.fresh.roots,
                    ahead=self._ahead,
                )
            log.info("%d of %d items were judged ahead", found.ahead, found.items)
            with ledger.lock:
                added = self._commit(metadata, found, real=real)
        except BaseException:
            cache.discard()
            catalog.unlink(missing_ok=True)
            raise
        self.vault.derive(cache.commit)
        self.vault.derive(lambda: self._keep_catalog(catalog, str(added["id"])))
        return added

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
            if chunk_id in self.ledger.fresh and not self.vault.sessions.rely_on(
                chunk_id, but=self
            ):
                self.ledger.forget_fresh(chunk_id)
        self.order.clear()

    def _commit(
        self, metadata: dict[bytes, Any], found: Any, *, real: dict[str, Any]
    ) -> dict[str, Any]:
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
            real.update(size=found.size, csize=found.stored_size, nfiles=found.files)
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
            "start": started_at(metadata).isoformat(),
            "end": datetime.now(UTC).isoformat(timespec="seconds"),
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
            "commit_seconds": round(time.monotonic() - started, 3),
        }

    def _facts(self, name: str, *, partial: bool) -> dict[str, Any]:
        return {
            "name": name, "plan": self.plan, "client": self.client, "job": self.job,
            "partial": partial, "charged": self.account.charged if self.account else 0,
        }  # fmt: skip

    def _carried(self) -> int:
        """Return the bytes that unfinished backups of this client hold, but no open one."""
        running = self.vault.sessions.partials()
        return sum(
            int(facts.get("charged", 0))
            for facts in self.domain.archives().values()
            if facts.get("partial")
            and facts.get("client") == self.client
            and facts["name"] not in running
            and facts["name"] in self.ledger.manifest.archives
        )

    def _charged(self, attempts: list[str]) -> int:
        """Return what this backup stored, with what its earlier attempts did."""
        earlier = sum(
            int(facts.get("charged", 0))
            for facts in self.domain.archives().values()
            if facts["name"] in attempts
        )
        return earlier + (self.account.charged if self.account else 0)

    def _superseded(self, attempts: list[str]) -> list[str]:
        """Return the partial archives that this one makes unnecessary and that can go now.

        While another session was offered their chunks, they stay until its end.
        """
        names = {*attempts, self.partial_name}
        present = sorted(name for name in names if name in self.ledger.manifest.archives)
        readable = []
        for name in present:
            try:
                self.ledger.check_readable(name)
                readable.append(name)
            except JobFailed as error:
                log.warning("%s stays: %s", name, error)
        if self.vault.sessions.offered(self.domain.path, but=self):
            self.vault.superseded.update(dict.fromkeys(readable, self.domain))
            return []
        return readable

    def write_partial(self) -> bool:
        """Reference what was uploaded so far, if there is something new; under the lock."""
        if not self.order or len(self.order) == self.partial_written:
            return False  # after its end a session has nothing to keep
        with self.vault.changing():
            self.ledger.begin()
            self.ledger.write_partial(self.partial_name, self.order)
        self.partial_written = len(self.order)
        return True

    def finish(self) -> None:
        """End without an archive, as its last word was: with or without its chunks."""
        if self.keep:
            self.abandon()
        else:
            self.discard()

    def abandon(self) -> None:
        """End without an archive: keep the chunks in a partial archive for the next run."""
        self.drain()
        with self.ledger.lock:
            if self.order and self.chunks_new:
                self.write_partial()
                self.intend_partial()
                self.vault.commit(finishing=self)
                self.vault.derive(self.remember_partial)
            else:
                # What it uploaded was there. Who stored it may be gone, and it the last to
                # rely on it.
                with self.vault.changing():
                    self._forget_unreferenced()
            self.over = True

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
        with self.ledger.lock:
            name = self.partial_name
            with self.vault.changing():
                self._forget_unreferenced()
            self.over = True
            offered = self.vault.sessions.offered(self.domain.path, but=self)
            if self.partial_written and not offered:
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
        if self._ahead is not None:
            self._ahead.close()
        if self.account is not None:
            with self.ledger.lock:
                self.account.close()
        shutil.rmtree(self.directory, ignore_errors=True)
