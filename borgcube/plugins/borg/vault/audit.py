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
# Items and references of a block that is judged now; after so many it is taken in.
STEP_WEIGHT = 500
# What all sessions of a vault together may have judged ahead, in items and references: about
# 200 bytes of memory for each.
MAX_AHEAD = 500_000
MAX_REST = 64 * 1024
PAUSE_S = 0.001  # between two chunks, for the sessions that receive data meanwhile

Reference = tuple[bytes, int]
Size = Callable[[bytes], int]


@dataclass
class Figures:
    """How much some items, or all of an archive, come to; sizes in bytes."""

    items: int = 0
    files: int = 0
    size: int = 0
    chunks: int = 0
    changed_files: int = 0  # with content that came with this backup

    def add(self, other: Figures) -> None:
        """Add what other items come to."""
        self.items += other.items
        self.files += other.files
        self.size += other.size
        self.chunks += other.chunks
        self.changed_files += other.changed_files


@dataclass
class Block(Figures):
    """What some items come to. ``rest`` is the beginning of the item after them."""

    references: list[Reference] = field(default_factory=list)
    records: list[bytes] = field(default_factory=list)  # of the files cache
    names: list[bytes] = field(default_factory=list)  # of the catalog
    roots: Counter[bytes] = field(default_factory=Counter)
    rest: bytes = b""

    @property
    def weight(self) -> int:
        """Return by how much its memory grows: with items, and with references."""
        return self.items + len(self.references)


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

    def blocks(self, items: Iterable[Any], *, step: int = STEP_WEIGHT) -> Iterator[Block]:
        """Yield what items come to, in blocks of a weight of about ``step``; no more than one
        item is in memory unpacked. Raises ArchiveRefused."""
        block = Block()
        for item in items:
            self._judge(item, block)
            if block.weight >= step:
                yield block
                block = Block()
        if block.items:
            yield block

    def _judge(self, item: Any, block: Block) -> None:
        size = check_item(item, self._reference_size)
        block.items += 1
        kind = item_kind(item.get(b"mode", 0))
        chunks = item.get(b"chunks") or ()
        ids = [entry[0] for entry in chunks]
        block.references += [(entry[0], entry[1]) for entry in chunks]
        mtime = as_ns(item[b"mtime"])
        if kind == "-":
            block.files += 1
            root = self._roots.of(item[b"path"]) if self._roots is not None else None
            if root is not None:
                block.roots[root] += 1
            if self._fresh is not None and any(map(self._fresh, ids)):
                block.changed_files += 1
            if b"source" not in item and b"chunks" in item:
                times = (as_ns(item.get(b"ctime", 1 << 62)), mtime)
                path_hash = self._id_hash(b"/" + item[b"path"])
                block.records.append(self._record(path_hash, size, times, ids))
        block.size += size
        # Those of chunks_healthy are audited as well, but Borg counts no reference for them.
        block.chunks += len(ids) + len(item.get(b"chunks_healthy") or ())
        block.names.append(self._pack((item[b"path"], kind, size, mtime)))


class Budget:
    """How much all sessions of a vault may have judged ahead, by weight. Safe for threads."""

    def __init__(self, most: int = MAX_AHEAD) -> None:
        self._left = most
        self._lock = threading.Lock()

    def take(self, count: int) -> bool:
        """Take room for a weight of ``count``; False when there is not so much."""
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
                block = self._block(reader, chunk_id) if rest is not None else None
                after = beginning(reader)
                # A long item ends it: whole lists of chunks are not unpacked for a guess.
                if rest is None or block is None or after is None:
                    return
                block.rest = after
                self._blocks[chunk_id, rest] = block
        except Exception as error:
            log.info("an archive is judged ahead no further: %s", error)

    def _block(self, reader: ItemReader, chunk_id: bytes) -> Block | None:
        """Judge one chunk; None when there is no more room, or no more time."""
        whole = Block()
        for block in self._judge.blocks(reader.read(self._read(chunk_id))):
            if self._stopped.is_set() or not self._budget.take(block.weight):
                return None
            self._taken += block.weight
            whole.add(block)
            whole.references += block.references
            whole.records.append(b"".join(block.records))
            whole.names.append(b"".join(block.names))
            whole.roots += block.roots
            time.sleep(0)
        return whole


def beginning(reader: ItemReader) -> bytes | None:
    """Return the beginning of an item with which ``reader`` waits; None for one that is too
    long to be compared."""
    rest = reader.rest
    return bytes(rest) if len(rest) <= MAX_REST and reader.is_plain else None
