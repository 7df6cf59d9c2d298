"""What decoding and judging one client's metadata takes at its bounds: for ``bench.peaks``."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import psutil

from bench.measured import Row, own_growth
from bench.metadata import made_items
from borgcube.plugins.borg.gate import confine
from borgcube.plugins.borg.metadata import process, rules
from borgcube.plugins.borg.metadata.encode import ItemEncoder
from borgcube.plugins.borg.metadata.readers import Reader, Readers
from borgcube.plugins.borg.metadata.stream import MAX_ITEM
from borgcube.plugins.borg.vault import audit, streams
from borgcube.testing.hostile import peak_bytes

MIB = 1 << 20
PIECE = 2 * MIB  # of a stream, as long as Borg cuts it at most
CHUNK = b"\x93\xda\x00\x20" + b"%32d" + b"\xce\x00\x10\x00\x00\xcd\x10\x00"  # one reference


def _large_item() -> bytes:
    """Return an item as long as one may be: a file with chunks beyond number."""
    count = (MAX_ITEM - 4096) // len(CHUNK % 1)
    chunks = b"\xdd" + count.to_bytes(4, "big") + b"".join(CHUNK % n for n in range(count))
    packed, _sizes = next(
        (data, sizes) for data, sizes in made_items(2) if sizes
    )  # fmt: skip
    at = packed.index(b"\xa6chunks") + 7
    size = packed.index(b"\xa4size") + 5
    after = next(n for n in range(at, len(packed)) if packed.startswith(b"\xa5ctime", n))
    whole = packed[:at] + chunks + packed[after:size]
    end = next(n for n in range(size, len(packed)) if packed.startswith(b"\xa3uid", n))
    return whole + b"\xcf" + (count * MIB).to_bytes(8, "big") + packed[end:]


def _read(reader: Reader, data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), PIECE):
        yield from reader.read(data[start : start + PIECE])


def readers(place: Path) -> Iterator[Row]:
    """Read the longest item, judge ahead without end, and fill what an admission remembers."""
    found = Readers()
    reader = found.open()
    process_of = found._process
    assert process_of is not None
    (child,) = psutil.Process(process_of.pid).children()
    blocks = [len(block) for block in _read(reader, _large_item())]
    yield Row("reader: the longest item, the whole process", confine.MEMORY_BYTES,
              peak_bytes(child.pid))  # fmt: skip
    yield Row("vault: a block of decoded items", process.MAX_ANSWER, max(blocks))
    found.close()
    yield from _ahead()
    yield from _remembered(place)


def _ahead() -> Iterator[Row]:
    rng, stream = random.Random(2), b"".join(data for data, _sizes in made_items(5000))

    def chunks() -> Iterator[tuple[bytes, bytes]]:
        while True:
            yield rng.randbytes(32), stream

    def judge() -> int:
        budget, found = audit.Budget(), Readers()
        judged = audit.Ahead(
            audit.Judge(lambda data: data[-32:].rjust(32, b"0"), lambda _id: (0, 1)),
            chunks, found.open, budget,
        )  # fmt: skip
        with mock.patch.object(ItemEncoder, "encode", lambda _s, r, _l: (b"x" * 200, [
            b"i" * 32] * bool(r.chunks))):  # fmt: skip
            judged.start()
            deadline = time.monotonic() + 300
            while judged._thread.is_alive() and time.monotonic() < deadline:
                time.sleep(0.1)
        taken = judged._taken
        found.close()
        return taken

    growth, taken = own_growth(judge)
    yield Row("vault: what is judged ahead, as it is counted", audit.MAX_AHEAD_BYTES, taken)
    yield Row("vault: the same in memory", audit.MAX_AHEAD_BYTES, growth, slack=16 * MIB)


def _remembered(place: Path) -> Iterator[Row]:
    def link() -> int:
        links, count = rules.Links(), 0
        try:
            while True:
                links.add(b"a/%d" % count, "-")
                count += 1
        except rules.ArchiveRefused:
            return count

    growth, count = own_growth(link)
    yield Row("vault: first names of hard links in an admission", rules.MAX_LINK_BYTES, growth,
              note=f"{count:,} names", slack=MIB)  # fmt: skip
    rng, path = random.Random(3), place / "plan.stream"
    with mock.patch.object(streams, "MAX_BYTES", 64 * MIB):
        writer = streams.StreamWriter(path)
        for _ in range(200):
            writer.add(rng.randbytes(32), rng.randbytes(MIB))
        writer.commit()
    yield Row("a plan's last metadata, on disk", 64 * MIB, path.stat().st_size,
              note="set to 64 MiB here, 1 GiB else")  # fmt: skip
