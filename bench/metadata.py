"""What it costs to admit metadata: ``python -m bench.metadata [--items 100000]``.

Decodes a client's items in a real reader process, judges, encodes and packs them as a vault does,
with nothing judged ahead, and tells the CPU seconds of both processes. With ``--against DIR``, a
checkout of version 0.1.0, its audit of the very same bytes is measured in turn. The two
alternate; the figure is the median. Neither encrypts, and neither writes to a repository.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgpack
from borg.crypto.key import AuthenticatedKey

from borgcube.plugins.borg.metadata.encode import ItemStream
from borgcube.plugins.borg.metadata.readers import Readers
from borgcube.plugins.borg.vault.admission import Admission, Outputs, path_hash_of
from borgcube.plugins.borg.vault.audit import Judge
from borgcube.plugins.borg.vault.filescache import FilesCacheWriter
from borgcube.plugins.borg.vault.fresh import Roots
from borgcube.plugins.borg.vault.streams import StoredStream, StreamWriter

GOAL_S = 1.0  # that it may take more, per 100,000 items
PATHS = ["/home", "/srv"]
TICKS = os.sysconf("SC_CLK_TCK")

# The audit of 0.1.0; runs with its checkout as PYTHONPATH and tells its CPU seconds.
EARLIER = """
import json, sys, time
from pathlib import Path
from types import SimpleNamespace
from borgcube.plugins.borg.vault.admission import walk
from borgcube.plugins.borg.vault.filescache import FilesCacheWriter
from borgcube.plugins.borg.vault.fresh import Roots
place, paths = Path(sys.argv[1]), json.loads(sys.argv[2])
ids = [bytes.fromhex(line) for line in (place / "ids").read_text().split()]
chunks = {one: (place / one.hex()).read_bytes() for one in ids}
sizes = json.loads((place / "sizes").read_text())
sizes = {bytes.fromhex(one): size for one, size in sizes.items()}
sizes.update({one: len(chunk) for one, chunk in chunks.items()})
ledger = SimpleNamespace(
    opened=SimpleNamespace(blake2=False), key=SimpleNamespace(id_key=bytes(32)),
    read=chunks.__getitem__,
)
cache = FilesCacheWriter(place / "old.files", started_ns=1)
began = time.process_time()
found = walk(ledger, {b"items": ids}, reference_size=sizes.__getitem__, cache=cache,
             catalog=place / "old.zst", step=lambda: None, fresh={}.__contains__,
             roots=Roots(paths))
print(json.dumps([time.process_time() - began, found.items]))
"""


def made_items(count: int) -> Iterator[tuple[bytes, dict[bytes, int]]]:
    """Yield items of small files in directories, packed, each with the sizes of its chunks."""
    rng = random.Random(1)
    pack = msgpack.Packer(use_bin_type=False, autoreset=True).pack
    for number in range(count):
        if number % 50 == 0:
            chunks: list[tuple[bytes, int, int]] = []
            more: dict[str, Any] = {"mode": 0o040755, "path": f"home/user/d{number // 50:06d}"}
        else:
            size = rng.randint(1, 1 << 20)
            chunks = [(rng.randbytes(32), size, size // 2)]
            path = f"home/user/d{number // 50:06d}/file{number:08d}.txt"
            more = {"mode": 0o100644, "path": path, "chunks": chunks, "size": size}
            more["hardlink_master"] = False
        moment = 1_600_000_000_000_000_000 + number * 1_000_003
        item = {
            "uid": 1000, "gid": 1000, "user": "user", "group": "group", "mtime": moment,
            "ctime": moment + 7, **more,
        }  # fmt: skip
        yield pack(dict(sorted(item.items()))), {one[0]: one[1] for one in chunks}


class Data:
    """A stream of items, cut as Borg cuts it, and what it references."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.key = AuthenticatedKey(None)
        self.key.id_key, self.key.chunk_seed = bytes(32), 7
        self.sizes: dict[bytes, int] = {}
        self.chunks: dict[bytes, bytes] = {}
        stream = ItemStream(self.key, self._keep)
        for packed, sizes in made_items(count):
            stream.add_encoded(packed)
            self.sizes |= sizes
        self.ids = stream.finish()

    def _keep(self, chunk: bytes) -> bytes:
        chunk_id: bytes = self.key.id_hash(chunk)
        self.chunks[chunk_id] = chunk
        return chunk_id

    def write(self, place: Path) -> None:
        """Write it for another process."""
        (place / "ids").write_text("\n".join(one.hex() for one in self.ids))
        (place / "sizes").write_text(
            json.dumps({one.hex(): size for one, size in self.sizes.items()})
        )
        for chunk_id, chunk in self.chunks.items():
            (place / chunk_id.hex()).write_bytes(chunk)


def cpu_of(pid: int) -> float:
    """Return the CPU seconds that a process took so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def admitted(data: Data, place: Path, readers: Readers) -> tuple[float, float]:
    """Admit it once; return the CPU seconds of the vault and of the reader."""
    ledger: Any = SimpleNamespace(
        opened=SimpleNamespace(blake2=False), key=data.key, read=data.chunks.__getitem__
    )
    sizes, roots, fresh = data.sizes, Roots(PATHS), {}.__contains__
    outputs = Outputs(
        FilesCacheWriter(place / "new.files", started_ns=1), place / "new.zst",
        StreamWriter(place / "new.stream"),
    )  # fmt: skip
    stored: dict[bytes, bytes] = {}

    def store(chunk: bytes) -> bytes:
        chunk_id: bytes = data.key.id_hash(chunk)
        stored[chunk_id] = data.key.encrypt(chunk)
        return chunk_id

    judge = Judge(
        path_hash_of(ledger), lambda one: (sizes[one], sizes[one] // 2), fresh=fresh, roots=roots
    )
    reader = readers.open()
    assert readers._process is not None
    pid = readers._process.pid
    child = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[-1])
    earlier = StoredStream(place / "none", data.key.id_hash)
    before, began = cpu_of(child), time.process_time()
    admission = Admission(
        ledger, judge, reader, outputs, store=store, step=lambda: None, limits=None, fresh=fresh,
        roots=roots,
    )  # fmt: skip
    found = admission.walk(data.ids, earlier, None)
    outputs.close()
    took = time.process_time() - began, cpu_of(child) - before
    reader.close()
    outputs.discard()
    assert found.items == data.count and found.metadata == data.ids
    return took


def audited_by(checkout: Path, place: Path) -> float:
    """Return the CPU seconds of 0.1.0's audit."""
    done = subprocess.run(
        [sys.executable, "-c", EARLIER, str(place), json.dumps(PATHS)],
        env={**os.environ, "PYTHONPATH": str(checkout)}, cwd=place, capture_output=True, text=True,
        check=True, timeout=600,
    )  # fmt: skip
    return float(json.loads(done.stdout)[0])


def main() -> int:
    """Measure, and tell what was found; exit code 1 when it takes more than it may."""
    parser = argparse.ArgumentParser(prog="python -m bench.metadata")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--against", type=Path, help="a checkout of version 0.1.0")
    options = parser.parse_args()
    data = Data(options.items)
    per = 100_000 / options.items
    now: list[tuple[float, float]] = []
    before: list[float] = []
    readers = Readers()
    with tempfile.TemporaryDirectory(prefix="borgcube-bench-") as temporary:
        place = Path(temporary)
        data.write(place)
        for number in range(options.runs + 1):  # the first warms up
            took = admitted(data, place, readers)
            audit = audited_by(options.against.resolve(), place) if options.against else 0.0
            if number:
                now.append(took)
                before.append(audit)
    readers.close()
    vault, reader = (statistics.median(one[n] for one in now) * per for n in (0, 1))
    print(f"vault {vault:.2f} s, reader {reader:.2f} s, together {vault + reader:.2f} s of CPU "
          "per 100,000 items")  # fmt: skip
    if not options.against:
        return 0
    earlier = statistics.median(before) * per
    more = vault + reader - earlier
    print(f"0.1.0: {earlier:.2f} s; {more:+.2f} s ({(vault + reader) / earlier:.2f} x), "
          f"goal at most {GOAL_S:+.1f} s")  # fmt: skip
    return 0 if more <= GOAL_S else 1


if __name__ == "__main__":
    sys.exit(main())
