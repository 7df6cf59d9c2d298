"""The audit of an archive's items, a block at a time, and blocks that are judged ahead.

A block is what the items of one metadata chunk come to. The archive of a client that changed
little has nearly the metadata chunks of the archive before it. So, while the client still walks
its files, a thread of the session judges that earlier archive by the rules of this session;
where the new one has the same chunk after the same beginning of an item, the block is taken as
it is. Used by ``admission.py`` and ``backup.py``; changes nothing in the repository.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack

from borgcube.plugins.borg.vault.filescache import pack_record
from borgcube.plugins.borg.vault.fresh import Roots
from borgcube.plugins.borg.vault.items import ItemReader, as_ns, check_item, item_kind

log = logging.getLogger("borgcube.vault")
STEP_ITEMS = 500
# What all sessions of a vault together may have judged ahead: about 300 bytes for each item.
MAX_AHEAD_ITEMS = 300_000
MAX_BLOCK_ITEMS = 50_000
MAX_REST = 64 * 1024
PAUSE_S = 0.001  # between two chunks, for the sessions that receive data meanwhile

Reference = tuple[bytes, int]
Size = Callable[[bytes], int]


@dataclass
class Block:
    """What some items come to; sizes in bytes. ``rest`` is the beginning of the next item."""

    items: int = 0
    files: int = 0
    size: int = 0
    chunks: int = 0
    changed_files: int = 0
    references: list[Reference] = field(default_factory=list)
    records: list[bytes] = field(default_factory=list)  # of the files cache
    names: list[bytes] = field(default_factory=list)  # of the catalog
    roots: Counter[bytes] = field(default_factory=Counter)
    rest: bytes = b""


class Judge:
    """Judges items by the rules of one session.

    ``reference_size`` refuses chunks the session may not use. ``fresh`` tells whether a chunk
    came with this backup; ``roots`` says below which path of the plan a file is.
    """

    def __init__(
        self, id_hash: Callable[[bytes], bytes], reference_size: Size, *,
        fresh: Callable[[bytes], bool] | None = None, roots: Roots | None = None,
    ) -> None:  # fmt: skip
        self._id_hash, self._reference_size = id_hash, reference_size
        self._fresh, self._roots = fresh, roots
        self._pack = msgpack.Packer(autoreset=True, use_bin_type=True).pack
        self._record = pack_record()

    def judge(self, items: Iterable[Any], block: Block) -> None:
        """Add items to ``block``. Raises ArchiveRefused."""
        reference_size, fresh, roots, pack = (
            self._reference_size,
            self._fresh,
            self._roots,
            self._pack,
        )
        refer, name, record = block.references.append, block.names.append, block.records.append
        for item in items:
            size = check_item(item, reference_size)
            block.items += 1
            kind = item_kind(item.get(b"mode", 0))
            chunks = item.get(b"chunks") or ()
            ids = [entry[0] for entry in chunks]
            for entry in chunks:
                refer((entry[0], entry[1]))
            mtime = as_ns(item[b"mtime"])
            if kind == "-":
                block.files += 1
                if roots is not None:
                    root = roots.of(item[b"path"])
                    if root is not None:
                        block.roots[root] += 1
                if fresh is not None and any(map(fresh, ids)):
                    block.changed_files += 1
                if b"source" not in item and b"chunks" in item:
                    times = (as_ns(item.get(b"ctime", 1 << 62)), mtime)
                    record(self._record(self._id_hash(b"/" + item[b"path"]), size, times, ids))
            block.size += size
            # Those of chunks_healthy are audited as well, but Borg counts no reference for them.
            block.chunks += len(ids) + len(item.get(b"chunks_healthy") or ())
            name(pack((item[b"path"], kind, size, mtime)))


class Budget:
    """How many items all sessions of a vault may have judged ahead. Safe for threads."""

    def __init__(self, most: int = MAX_AHEAD_ITEMS) -> None:
        self._left = most
        self._lock = threading.Lock()

    def take(self, count: int) -> bool:
        """Take room for ``count`` items; False when there is not so much."""
        with self._lock:
            if count > self._left:
                return False
            self._left -= count
            return True

    def give_back(self, count: int) -> None:
        """Give room back."""
        with self._lock:
            self._left += count


class Ahead:
    """Judges the chunks of an earlier archive in a thread of its own, until :meth:`stop`.

    ``read`` returns the plaintext of a chunk. What goes wrong ends it and harms nothing: the
    rest is judged at the admission, as everything would be without it.
    """

    def __init__(
        self, judge: Judge, ids: Callable[[], Sequence[bytes]], read: Callable[[bytes], bytes],
        budget: Budget,
    ) -> None:  # fmt: skip
        self._judge, self._ids, self._read, self._budget = judge, ids, read, budget
        self._blocks: dict[tuple[bytes, bytes], Block] = {}
        self._taken = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ahead", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Judge no more; what is judged stays. Waits for the chunk at hand."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join(30)

    def close(self) -> None:
        """Stop and forget everything; safe to repeat."""
        self.stop()
        self._blocks.clear()
        taken, self._taken = self._taken, 0
        self._budget.give_back(taken)

    def find(self, chunk_id: bytes, reader: ItemReader) -> Block | None:
        """Return the block of a chunk that comes next in ``reader``, if it was judged."""
        rest = beginning(reader)
        return None if rest is None else self._blocks.get((chunk_id, rest))

    def _run(self) -> None:
        try:
            reader = ItemReader()
            for chunk_id in self._ids():
                if self._stopped.wait(PAUSE_S):
                    return
                rest = beginning(reader)
                block = self._block(reader, chunk_id)
                if block is None:
                    return
                after = beginning(reader)
                if rest is not None and after is not None:
                    block.rest = after
                    block.records, block.names = [b"".join(block.records)], [b"".join(block.names)]
                    self._blocks[chunk_id, rest] = block
        except Exception as error:
            log.info("an archive is judged ahead no further: %s", error)

    def _block(self, reader: ItemReader, chunk_id: bytes) -> Block | None:
        """Judge one chunk; None when there is no more room, or no more time."""
        block = Block()
        for items in in_steps(reader.read(self._read(chunk_id))):
            if self._stopped.is_set() or block.items > MAX_BLOCK_ITEMS:
                return None
            if not self._budget.take(len(items)):
                return None
            self._taken += len(items)
            self._judge.judge(items, block)
            time.sleep(0)
        return block


def beginning(reader: ItemReader) -> bytes | None:
    """Return the beginning of an item with which ``reader`` waits; None for one that is too
    long to be compared."""
    rest = reader.rest
    return bytes(rest) if len(rest) <= MAX_REST and reader.is_plain else None


def in_steps(items: Iterator[Any]) -> Iterator[list[Any]]:
    """Yield items in lists of up to 500."""
    step: list[Any] = []
    for item in items:
        step.append(item)
        if len(step) == STEP_ITEMS:
            yield step
            step = []
    if step:
        yield step
