"""The audit of an archive's items, a block at a time, and blocks that are judged ahead.

A block is what the items of some metadata come to once they are judged and encoded by us. The
archive of a client that changed little has nearly the metadata of the archive before it. So,
while the client still walks its files, a thread of the session has that read and judges it by the
rules of this session; where the new archive has the same chunk after the same beginning of an
item, the block is taken as it is. Used by ``admission.py`` and ``backup.py``; changes nothing in
the repository.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import msgpack

from borgcube.core.untrusted import words
from borgcube.plugins.borg.metadata.encode import ItemEncoder, Lookup, WrongSize
from borgcube.plugins.borg.metadata.form import CHUNKS, CTIME, SOURCE, BadBlock, read_block
from borgcube.plugins.borg.metadata.readers import Reader
from borgcube.plugins.borg.metadata.rules import (
    ArchiveRefused,
    check_record,
    has_long_component,
)
from borgcube.plugins.borg.vault.filescache import pack_record
from borgcube.plugins.borg.vault.fresh import Roots

log = logging.getLogger("borgcube.vault")
# What all sessions of a vault together may have judged ahead, in bytes of memory.
MAX_AHEAD_BYTES = 128 << 20
PAUSE_S = 0.001  # between two chunks, for the sessions that receive data meanwhile
MAX_WARNINGS = 20
LINK_WEIGHT = 200  # bytes of memory that one entry of ``links`` takes
ID_BYTES = 32


@dataclass
class Figures:
    """How much some items, or all of an archive, come to; sizes in bytes."""

    items: int = 0
    files: int = 0
    size: int = 0
    chunks: int = 0
    changed_files: int = 0  # with content that came with this backup
    long_names: int = 0  # paths with a component that most file systems do not take

    def add(self, other: Figures) -> None:
        """Add what other items come to."""
        self.items += other.items
        self.files += other.files
        self.size += other.size
        self.chunks += other.chunks
        self.changed_files += other.changed_files
        self.long_names += other.long_names


@dataclass
class Block(Figures):
    """What some items come to. ``rest`` is the beginning of the item after them.

    ``links`` says in order which first names of hard links there were (True), and which were
    referred to (False), each with its kind: what comes of it depends on the items before.
    """

    encoded: list[bytes] = field(default_factory=list)
    ids: list[bytes] = field(default_factory=list)  # of chunks, each reference
    records: list[bytes] = field(default_factory=list)  # of the files cache
    names: list[bytes] = field(default_factory=list)  # of the catalog
    roots: Counter[bytes] = field(default_factory=Counter)
    links: list[tuple[bool, bytes, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    rest: bytes = b""

    @property
    def weight(self) -> int:
        """Return about how many bytes of memory it takes once it is :meth:`packed`."""
        parts = (self.encoded, self.ids, self.records, self.names)
        return sum(len(one) for part in parts for one in part) + LINK_WEIGHT * len(self.links)

    def packed(self) -> Block:
        """Return it with each list of bytes as one."""
        for name in ("encoded", "ids", "records", "names"):
            setattr(self, name, [b"".join(getattr(self, name))])
        return self

    def each_id(self) -> Iterator[bytes]:
        """Yield the ID of the chunk of each reference."""
        for some in self.ids:
            if len(some) == ID_BYTES:
                yield some
            else:
                for at in range(0, len(some), ID_BYTES):
                    yield some[at : at + ID_BYTES]


class LinkLog:
    """Notes in a block what ``rules.Links`` is to be asked when the block is taken."""

    def __init__(self) -> None:
        self.block = Block()

    def add(self, path: bytes, kind: str) -> None:
        """Note a first name."""
        self.block.links.append((True, path, kind))

    def check(self, source: bytes, kind: str) -> None:
        """Note what refers to one."""
        self.block.links.append((False, source, kind))


class Judge:
    """Judges items by the rules of one session, and encodes them.

    ``lookup`` refuses chunks the session may not use. ``fresh`` tells whether a chunk came with
    this backup; ``roots`` says below which path of the plan a file is.
    """

    def __init__(
        self, id_hash: Callable[[bytes], bytes], lookup: Lookup, *,
        fresh: Callable[[bytes], bool] | None = None, roots: Roots | None = None,
    ) -> None:  # fmt: skip
        self._id_hash, self._lookup = id_hash, lookup
        self._fresh, self._roots = fresh, roots
        self._pack = msgpack.Packer(autoreset=True, use_bin_type=True).pack
        self._record = pack_record()
        self._encoder = ItemEncoder()
        self._links = LinkLog()

    def judge(self, data: bytes) -> Block:
        """Return what a block of records comes to. Raises ArchiveRefused."""
        block = self._links.block = Block()
        encode, lookup, pack = self._encoder.encode, self._lookup, self._pack
        encoded, ids = block.encoded.append, block.ids
        try:
            for record in read_block(data):
                kind = check_record(record, self._links)
                packed, mine = encode(record, lookup)
                encoded(packed)
                ids += mine
                path, mtime = record.path, record.mtime
                if kind == "-":
                    block.files += 1
                    if self._roots is not None:
                        root = self._roots.of(path)
                        if root is not None:
                            block.roots[root] += 1
                    if self._fresh is not None and any(map(self._fresh, mine)):
                        block.changed_files += 1
                    if record.flags & CHUNKS and not record.flags & SOURCE:
                        ctime = record.ctime if record.flags & CTIME else 1 << 62
                        block.records.append(
                            self._record(
                                self._id_hash(b"/" + path), record.size, (ctime, mtime), mine
                            )
                        )
                if len(path) > 255 and has_long_component(path):
                    self._warn(block, path)
                block.items += 1
                block.size += record.size
                block.names.append(pack((path, kind, record.size, mtime)))
        except WrongSize:
            self._encoder.reset()
            raise ArchiveRefused("a chunk reference has the wrong size") from None
        except BadBlock as error:
            raise ArchiveRefused(f"the reader answered something odd: {error}") from None
        except ArchiveRefused:
            self._encoder.reset()
            raise
        block.chunks = len(ids)
        return block

    @staticmethod
    def _warn(block: Block, path: bytes) -> None:
        block.long_names += 1
        if len(block.warnings) < MAX_WARNINGS:
            block.warnings.append(words(path.decode("utf-8", "replace"), limit=300))


class Budget:
    """How many bytes all sessions of a vault may have judged ahead. Safe for threads."""

    def __init__(self, most: int = MAX_AHEAD_BYTES) -> None:
        self._left = most
        self._lock = threading.Lock()

    def take(self, count: int) -> bool:
        """Take room for ``count`` bytes; False when there is not so much."""
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
    """Judges the metadata of an earlier archive in a thread of its own, until :meth:`stop`.

    ``chunks`` yields its chunks, each with its ID; ``opened`` starts the reader that decodes
    them. What goes wrong ends it and harms nothing: the rest is judged at the admission, as
    everything would be without it.
    """

    def __init__(
        self, judge: Judge, chunks: Callable[[], Iterator[tuple[bytes, bytes]]],
        opened: Callable[[], Reader], budget: Budget,
    ) -> None:  # fmt: skip
        self._judge, self._chunks, self._opened, self._budget = judge, chunks, opened, budget
        self._blocks: dict[tuple[bytes, bytes], Sequence[Block]] = {}
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

    def find(self, chunk_id: bytes, rest: bytes | None) -> Sequence[Block] | None:
        """Return the blocks of a chunk that follows ``rest``, if they were judged."""
        return None if rest is None else self._blocks.get((chunk_id, rest))

    def _run(self) -> None:
        reader = None
        try:
            reader = self._opened()
            for chunk_id, chunk in self._chunks():
                if self._stopped.wait(PAUSE_S):
                    return
                rest = reader.rest
                blocks = self._judged(reader, chunk)
                # A long item ends it: whole lists of chunks are not unpacked for a guess.
                if rest is None or blocks is None or reader.rest is None:
                    return
                blocks[-1].rest = reader.rest
                self._blocks[chunk_id, rest] = blocks
        except Exception as error:
            log.info("an archive is judged ahead no further: %s", error)
        finally:
            if reader is not None:
                reader.close()

    def _judged(self, reader: Reader, chunk: bytes) -> list[Block] | None:
        """Judge one chunk; None when there is no more room, or no more time."""
        blocks = []
        for data in reader.read(chunk):
            block = self._judge.judge(data).packed()
            if self._stopped.is_set() or not self._budget.take(block.weight):
                return None
            self._taken += block.weight
            blocks.append(block)
            time.sleep(0)
        return blocks or [Block().packed()]
