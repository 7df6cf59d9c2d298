"""Verify what the repository holds, in slices, while backups go on.

One slice reads whole segment files, those verified longest ago first, and checks each object
that the index refers to: checksum, authentication, decompression, and that its ID is the keyed
MAC of its content. The other kind of slice is in ``archivewalk.py``. What was verified when is
kept in ``verified.py``'s file, so that the next slice goes on where this one ended, and so is
what is damaged.

Called by the vault's server, one at a time. Reads with handles and threads of its own; takes
the ledger's lock only to look at the index, and writes nothing into the repository.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from borg.helpers import IntegrityError, Manifest
from borg.repository import Repository

from borgcube.core.errors import JobFailed, Problem
from borgcube.plugins.borg.gate.verify import Rejected, decompress, id_hash_for
from borgcube.plugins.borg.vault.archivewalk import ArchivesSlice
from borgcube.plugins.borg.vault.segments import (
    PUT,
    PUT_BYTES,
    Entry,
    entries,
    segment_path,
    segment_sizes,
)
from borgcube.plugins.borg.vault.verified import (
    DAY_S,
    MAX_DAMAGED,
    Order,
    Pace,
    Report,
    State,
    due_segments,
    epoch_text,
    now_text,
)

if TYPE_CHECKING:
    from borgcube.plugins.borg.vault.main import Vault

log = logging.getLogger("borgcube.vault")
# Segments whose live objects are looked up at once: one walk over the index each.
GROUP_BYTES = 16 << 30
BATCH_BYTES = 2 << 20  # what one thread checks at a time
BATCHES_IN_FLIGHT = 4
REPORT_EVERY_S = 0.5
SAVE_EVERY_S = 10.0
BUSY_S = 5.0  # how long a check waits for the end of another one
CHECK_NICE = 10  # backups come first where the processors are busy


class DataSlice:
    """One slice over segment files."""

    def __init__(self, vault: Vault, state: State, order: Order, report: Report) -> None:
        self.vault, self.state, self.order, self._report = vault, state, order, report
        self.ledger = vault.ledger
        self.key = self.ledger.key
        kind = "blake2b" if self.ledger.opened.blake2 else "hmac-sha256"
        self._id_hash = id_hash_for(kind, self.key.id_key)
        self._borgs = threading.Lock()
        self._pace = Pace(order, self._step)
        self.planned_bytes = 0
        self.chunks = self.bytes = self.done_segments = 0
        self.found: dict[bytes, tuple[str, bool]] = {}
        self._reported = self._saved = time.monotonic()

    # What one object must be ----------------------------------------------------------

    def problem_with(self, chunk_id: bytes, envelope: bytes | memoryview) -> str:
        """Return what is wrong with a stored object, empty when it is sound."""
        try:
            plain = decompress(self.ledger.sealer.unseal(envelope))
        except (ValueError, Rejected) as error:
            # Older borgs may have written what the gate takes from nobody: ask Borg itself.
            try:
                with self._borgs:
                    plain = self.key.decrypt(None, bytes(envelope))
            except Exception:
                return str(error)
        if chunk_id != Manifest.MANIFEST_ID and self._id_hash(plain) != chunk_id:
            return "its content is not what its ID says"
        return ""

    def _check(self, batch: list[tuple[Entry, bool]]) -> list[tuple[Entry, bool, str]]:
        _be_nice()
        found = []
        for entry, is_live in batch:
            if not entry.checksum_fits:
                found.append((entry, is_live, "its checksum is wrong"))
            elif is_live:
                why = self.problem_with(entry.key, memoryview(entry.raw)[PUT_BYTES:])
                if why:
                    found.append((entry, is_live, why))
        return found

    # Segments -------------------------------------------------------------------------

    def run(self) -> None:
        """Verify what is due, or all there is, until the budget is used up."""
        state = self.state
        began = int(time.time())
        sizes = self._closed_segments()
        state.segments = {k: v for k, v in state.segments.items() if int(k) in sizes}
        state.slack = {k: v for k, v in state.slack.items() if int(k) in sizes}
        verified = {int(number): when for number, (when, _) in state.segments.items()}
        last = state.slices.get("data", 0)
        planned = sorted(sizes, key=lambda n: (verified.get(n, 0), n))
        if not self.order.full:
            planned = due_segments(
                sizes, verified, days=self.order.days, now=began,
                gap_days=(began - last) / DAY_S if last else 1.0,
            )  # fmt: skip
        state.slices["data"] = began
        self.planned_bytes = sum(sizes[number] for number in planned)
        with ThreadPoolExecutor(max(2, os.cpu_count() or 2), "verify") as pool:
            for group in _groups(planned, sizes):
                for number in self._numbers(group, self._live(set(group), set(sizes))):
                    self._segment(number, sizes[number], pool)
                    if self._pace.over:
                        return

    def _numbers(self, group: list[int], live: Mapping[int, Mapping[int, bytes]]) -> Iterator[int]:
        for number in group:
            self._objects: Mapping[int, bytes] = live.get(number, {})
            yield number

    def _closed_segments(self) -> dict[int, int]:
        """Return number -> bytes of the segments that nobody writes to any more."""
        with self.ledger.lock:
            sizes = segment_sizes(Path(self.ledger.repository.path))
            sizes.pop(self._open_segment(), None)
        return sizes

    def _open_segment(self) -> int:
        """Return the segment that is being written, or -1; under the ledger's lock."""
        io = self.ledger.repository.io
        return int(io.segment) if io._write_fd is not None else -1

    def _live(self, wanted: set[int], present: set[int]) -> dict[int, dict[int, bytes]]:
        """Return segment -> offset -> key of the objects in the ``wanted`` segments.

        Notes those that the index has in a segment of which there is no file.
        """
        found: dict[int, dict[int, bytes]] = {}
        lost: list[bytes] = []
        with self.ledger.lock:
            open_segment = self._open_segment()
            for key, (segment, offset) in self.ledger.index.iteritems():
                if segment in wanted:
                    found.setdefault(segment, {})[offset] = key
                elif segment not in present and segment != open_segment:
                    lost.append(key)
        for key in lost[:MAX_DAMAGED]:
            if not self._path(self._place(key)[0]).exists():
                self.found[key] = "the file it was stored in is gone", False
        return found

    def _place(self, key: bytes) -> tuple[int, int]:
        """Return (segment, offset) where the index says that a chunk is, else (-1, -1)."""
        with self.ledger.lock:
            place: tuple[int, int] = self.ledger.index.get(key, (-1, -1))
        return place

    def _path(self, number: int) -> Path:
        repository = self.ledger.repository
        per_directory = int(repository.io.segments_per_dir)
        return segment_path(Path(repository.path), number, per_directory=per_directory)

    def _segment(self, number: int, size: int, pool: ThreadPoolExecutor) -> None:
        live = self._objects
        futures: deque[Future[list[tuple[Entry, bool, str]]]] = deque()
        batch: list[tuple[Entry, bool]] = []
        held = 0
        slack = ""
        bad: list[tuple[Entry, bool, str]] = []
        try:
            for entry in entries(self._path(number), live):
                if entry.problem:
                    bad.append((entry, bool(entry.key), entry.problem))
                    continue
                is_live = live.get(entry.offset) == entry.key and entry.tag == PUT
                self.chunks += is_live
                batch.append((entry, is_live))
                held += len(entry.raw)
                self._took(len(entry.raw))
                if held >= BATCH_BYTES:
                    futures.append(pool.submit(self._check, batch))
                    batch, held = [], 0
                while len(futures) > BATCHES_IN_FLIGHT:
                    bad += futures.popleft().result()
            futures.append(pool.submit(self._check, batch))
            for future in futures:
                bad += future.result()
        except FileNotFoundError:
            return  # compacted away meanwhile; its objects are elsewhere now
        except OSError as error:
            # A disk that cannot be read: what it holds is damaged until it can.
            for offset, key in live.items():
                bad.append((Entry(offset, -1, key, b"", ""), True, f"{error.strerror}"))
        for entry, is_live, why in bad:
            if is_live and self._place(entry.key) == (number, entry.offset):
                self.found[entry.key] = f"segment {number}, offset {entry.offset}: {why}", \
                    entry.tag == PUT  # fmt: skip
            elif not is_live:
                slack = f"offset {entry.offset}: {why}"
        self.state.segments[str(number)] = [int(time.time()), size]
        if slack:
            self.state.slack[str(number)] = slack
        else:
            self.state.slack.pop(str(number), None)
        self.done_segments += 1
        self._keep()

    def _took(self, count: int) -> None:
        self.bytes += count
        self._pace.took(count)

    def _step(self) -> None:
        """Report, which fails when the worker is gone; also while waiting for the pace."""
        self.vault.check_alive()
        if time.monotonic() - self._reported > REPORT_EVERY_S:
            self._reported = time.monotonic()
            self._report(
                bytes_read=self.bytes, bytes_total=self.planned_bytes, chunks=self.chunks,
                damaged=len(self.found),
            )  # fmt: skip

    def _keep(self) -> None:
        for key, (why, heals) in self.found.items():
            self.state.note(key, why, heals=heals)
        if time.monotonic() - self._saved > SAVE_EVERY_S:
            self._saved = time.monotonic()
            self.state.save()

    def look_again(self) -> None:
        """Take what is sound again, or not there any more, off the list of damaged chunks."""
        for text in list(self.state.damaged):
            key = bytes.fromhex(text)
            try:
                with self.ledger.lock:
                    if key not in self.ledger.index:
                        if key not in self.ledger.chunks:
                            del self.state.damaged[text]
                        continue
                    envelope = self.ledger.repository.get(key)
                if not self.problem_with(key, envelope):
                    del self.state.damaged[text]
            except (IntegrityError, Repository.ObjectNotFound, OSError):
                continue

    def facts(self) -> dict[str, Any]:
        """Return what is verified now, in figures."""
        sizes = self._closed_segments()
        done = {int(k): v for k, v in self.state.segments.items() if int(k) in sizes}
        times = [when for when, _ in done.values()]
        return {
            "kind": "data", "at": now_text(),
            "oldest_at": epoch_text(min(times)) if times else "",
            "bytes_total": sum(sizes.values()),
            "bytes_verified": sum(sizes[number] for number in done),
            "segments_total": len(sizes), "segments_verified": len(done),
            "slice_bytes": self.bytes, "slice_chunks": self.chunks,
            "slice_segments": self.done_segments, "seconds": round(self._pace.spent, 2),
            "damaged": len(self.state.damaged), "slack_damaged": len(self.state.slack),
        }  # fmt: skip


def _groups(numbers: list[int], sizes: Mapping[int, int]) -> Iterator[list[int]]:
    group: list[int] = []
    held = 0
    for number in numbers:
        group.append(number)
        held += sizes[number]
        if held >= GROUP_BYTES:
            yield group
            group, held = [], 0
    if group:
        yield group


def _be_nice() -> None:
    """Let this thread take second place; Linux keeps a nice value for each thread."""
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), CHECK_NICE)
    except OSError:
        log.debug("the priority of a thread cannot be changed")


def run_slice(vault: Vault, order: Order, report: Report) -> dict[str, Any]:
    """Do one slice and return ``checked`` and ``damage`` as a check job reports them.

    Raises JobFailed when another one runs, and whatever ``report`` raises to stop it; what
    was verified until then stays verified.
    """
    from borgcube.plugins.borg.vault.damage import account_for

    # One that was cancelled hears of it when it reports next, and finishes its batches.
    if not vault.verifying.acquire(timeout=BUSY_S):
        raise JobFailed(
            "repository-busy", Problem.REPOSITORY, "Another check of this repository runs.",
            next_step="Wait for its end.",
        )  # fmt: skip
    try:
        state = State.load(vault.state_dir)
        data = DataSlice(vault, state, order, report)
        work: DataSlice | ArchivesSlice = data
        if order.kind == "archives":
            work = ArchivesSlice(vault, state, order, report)
        data.look_again()
        try:
            work.run()
        finally:
            data._keep()
            with vault.ledger.lock:
                vault.damaged = state.heals()
            state.save()
        damage = account_for(vault, state, report)
        state.save()
        return {"checked": work.facts(), "damage": damage}
    finally:
        vault.verifying.release()
