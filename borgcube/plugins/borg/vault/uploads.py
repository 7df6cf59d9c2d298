"""What a session uploads, whose it is, and how it is kept when no archive comes of it.

A chunk belongs to every session that uploaded it, wherever it was stored from. What belongs to
an open session is referenced, at every commit, by a partial archive of its own. Used by
``backup.py``, which adds the archive; sessions and their locks: ``sessions.py``.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from borg.hashindex import ChunkIndex

from borgcube.core.errors import JobFailed
from borgcube.plugins.borg.vault.domains import Domain
from borgcube.plugins.borg.vault.fresh import Fresh
from borgcube.plugins.borg.vault.ledger import PARTIAL_SUFFIX, Ledger
from borgcube.plugins.borg.vault.limits import Account, ClientLimits, SessionStopped
from borgcube.plugins.borg.vault.memory import scarce
from borgcube.plugins.borg.vault.owner import owner_metadata
from borgcube.plugins.borg.vault.sessions import Session
from borgcube.plugins.borg.wire import Wire

if TYPE_CHECKING:
    from pathlib import Path

    from borgcube.plugins.borg.vault.main import Vault

log = logging.getLogger("borgcube.vault")
INLINE_BYTES = 32 * 1024
IN_FLIGHT = 16
SEAL_WAIT_S = 600.0


@dataclass
class Sealing:
    """A chunk that is being encrypted, and the sessions that uploaded it meanwhile."""

    future: Future[None]
    owners: list[Uploads] = field(default_factory=list)


class Uploads(Session):
    """A session with chunks. Its own two threads move it on, one after the other; what others
    ask of it, and what they do to it in their commits, is under the ledger's lock."""

    def __init__(
        self,
        vault: Vault,
        token: str,
        archive: str,
        *,
        plan: str,
        domain: str,
        own_domain: str,
        client: str,
        limits: ClientLimits | None,
        paths: Sequence[str],
        wire: Wire | None,
        job: str,
    ) -> None:
        super().__init__(token, archive, wire=wire, job=job)
        self.vault = vault
        self.ledger: Ledger = vault.ledger
        self.pool: ThreadPoolExecutor = vault.pool
        self.partial_name = archive + PARTIAL_SUFFIX
        self.plan = plan
        self.client = client
        self.limits = limits or ClientLimits(client)
        self.account: Account | None = None
        domains = vault.state_dir / "domains"
        # The client's own, which nobody else is offered, and the one it shares, if any.
        self.domain = Domain(domains, own_domain or domain)
        self.shared = Domain(domains, domain) if own_domain not in ("", domain) else None
        self.uploaded = ChunkIndex()
        self.own_metadata = ChunkIndex()  # chunks of its archive's metadata that we made
        self.order = bytearray()
        self.partial_written = 0
        self.offered_bytes = 0  # of the chunk index that the client was given
        self.bytes_new = 0
        self.chunks_new = 0
        self.fresh = Fresh(paths)
        self.began = datetime.now(UTC)
        self._pending: deque[tuple[Future[None], bytes]] = deque()

    # Chunks ---------------------------------------------------------------------------

    def put(self, chunk_id: bytes, size: int, data: memoryview) -> None:
        """Take a verified chunk. What is stored already is dropped."""
        if chunk_id in self.uploaded:
            return
        self.vault.memory.uploads(self.token, len(self.uploaded), offered=self.offered_bytes)
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
            sealing = self.vault.sealing.get(chunk_id)
            handed_on = sealing is None
            if sealing is None:
                self._count_new(len(data))
                self.fresh.count(size, data)
                if len(data) <= INLINE_BYTES:
                    self.vault.space.written(len(data))
                    with self.vault.changing():
                        ledger.store(chunk_id, size, ledger.sealer.seal(data), by=self.number)
                    self.vault.damaged.discard(chunk_id)
                    self._own(chunk_id, size)
                    return False
                sealing = Sealing(self.pool.submit(self._seal_in_room, chunk_id, size, data))
                self.vault.sealing[chunk_id] = sealing
            sealing.owners.append(self)
            self._pending.append((sealing.future, chunk_id))
        return handed_on

    def _seal_in_room(self, chunk_id: bytes, size: int, data: memoryview) -> None:
        try:
            self._seal(chunk_id, size, data)
        finally:
            self.vault.sealing_room.release(len(data))

    def _seal(self, chunk_id: bytes, size: int, data: memoryview) -> None:
        self.vault.check_sound()
        try:
            with scarce():
                envelope = self.ledger.sealer.seal(data)
        except SessionStopped:
            with self.ledger.lock:
                del self.vault.sealing[chunk_id]
                self.vault.space.written(len(data))
            raise
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

    def left(self) -> None:
        """End its account: from now on its partial archive tells what it holds."""
        if self.account is not None:
            self.account.close()

    def relies_on(self, chunk_id: bytes) -> bool:
        """Tell whether this session uploaded a chunk and is not over."""
        if self.over:
            return False
        return (
            chunk_id in self.uploaded
            or chunk_id in self.own_metadata
            or any(chunk_id == one for _, one in self._pending)
        )

    def _own(self, chunk_id: bytes, size: int) -> None:
        if chunk_id not in self.uploaded:
            self.uploaded[chunk_id] = (1, size, 0)
            self.order += chunk_id

    def _own_metadata(self, chunk_id: bytes, size: int) -> None:
        if chunk_id not in self.uploaded and chunk_id not in self.own_metadata:
            self.own_metadata[chunk_id] = (1, size, 0)
            self.order += chunk_id

    def drain(self) -> None:
        """Wait until every chunk taken so far is in the repository."""
        while self._pending:
            self._settle()

    def figures(self) -> dict[str, int]:
        """Return what it stored so far."""
        return {"bytes_new": self.bytes_new, "chunks_new": self.chunks_new}

    # Its unfinished backup, and those before ----------------------------------------------

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
            self.ledger.write_partial(self.partial_name, self.order, self._owner())
        self.partial_written = len(self.order)
        return True

    # Ending without an archive --------------------------------------------------------------

    def _forget_unreferenced(self) -> None:
        """Take back what the archive does not use, such as its own first metadata."""
        for start in range(0, len(self.order), 32):
            chunk_id = bytes(self.order[start : start + 32])
            if chunk_id in self.ledger.fresh and not self.vault.sessions.rely_on(
                chunk_id, but=self
            ):
                self.ledger.forget_fresh(chunk_id)
        self.order.clear()

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
