"""What bounded things take at their bounds: ``python -m bench.peaks [--only WORD] [--json FILE]``.

Drives each list, queue and file that a client or an archive can fill to its bound, and prints
the bound and what was measured, in bytes. Memory is the growth of a process's resident set
(``VmHWM``), each in a process of its own; of gate and vault it is the whole process. A bound on
disk that is too large for a bench is set to less, and the table says so.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import msgpack
import zstandard
from rich.console import Console
from rich.table import Table

from bench import readerpeaks
from bench.measured import Row, own_growth
from borgcube.core import expected
from borgcube.core.listings import FILE, Entry
from borgcube.daemon import joblog, worker
from borgcube.plugins.borg import catalogindex, dryrun, exclusions, hearing, rpcrun
from borgcube.plugins.borg.gate import confine, rpc, session
from borgcube.plugins.borg.gate.verify import hmac_sha256_id
from borgcube.plugins.borg.gateprocess import start_gate
from borgcube.plugins.borg.vault import main, memory, restore, sample
from borgcube.testing.hostile import Peer, Refused, peak_bytes
from borgcube.testing.rig import Rig

MIB = 1 << 20
WIDE = "\N{LINEAR B SYLLABLE B008 A}" * 4000  # 16 KB in memory
REGULAR = 0o100644


# Gate and vault ------------------------------------------------------------------------


def gate_and_vault(place: Path) -> Iterator[Row]:
    """Restore the largest chunks, then upload the largest in six sessions at once."""
    tree = place / "tree"
    tree.mkdir()
    blocks = [os.urandom(16 * MIB) for _ in range(2)]
    with (tree / "image").open("wb") as file:
        for number in range(64):
            file.write(blocks[number % 2])
    peaks: list[int] = []

    def watched(*args: Any, **more: Any) -> subprocess.Popen[bytes]:
        gate = start_gate(*args, **more)
        peaks.append(0)

        def watch() -> None:
            while (peak := peak_bytes(gate.pid)) or gate.poll() is None:
                peaks[-1] = max(peaks[-1], peak)
                time.sleep(0.02)

        threading.Thread(target=watch, daemon=True).start()
        return gate

    with Rig(place / "rig") as rig:
        rig.stop_vault()
        done = rig.plain_borg("create", "--chunker-params", f"fixed,{16 * MIB}", "--compression",
                              "none", f"{rig.path}::adopted", str(tree))  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        rig.start_vault()
        assert rig.vault is not None
        with mock.patch.object(rpcrun, "start_gate", watched):
            rig.restore("adopted", place / "out")
        limit = resource.prlimit(rig.vault.pid, resource.RLIMIT_AS)[0]
        yield Row("gate: a restore of a gigabyte in chunks of 16 MiB, the whole process",
                  confine.MEMORY_BYTES, max(peaks))  # fmt: skip
        yield Row("vault: the same restore, the whole process", limit, peak_bytes(rig.vault.pid))
        yield from _uploads(rig)


def _uploads(rig: Rig) -> Iterator[Row]:
    assert rig.vault is not None
    Path(f"/proc/{rig.vault.pid}/clear_refs").write_text("5")
    before = peak_bytes(rig.vault.pid)
    gates: list[int] = []
    limits: list[int] = []

    def upload(number: int) -> None:
        peer = Peer(rig.socket, archive=f"up-{number}", domain=f"client:{number}")
        try:
            peer.greet()
            peer.drain_answers()
            for _ in range(10):
                plain = os.urandom(20 * MIB - 100)
                peer.send("put", id=peer.id_hash(plain), data=peer.type_byte + b"\0\0" + plain)
            assert rig.vault is not None
            limits.append(resource.prlimit(rig.vault.pid, resource.RLIMIT_AS)[0])
            peer.hang_up()
            gates.append(peer.gate_peak)
        finally:
            peer.close()

    threads = [threading.Thread(target=upload, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    yield Row("gate: chunks of 20 MiB as fast as they come, the whole process",
              confine.MEMORY_BYTES, max(gates),
              note=f"of that, {session.IN_FLIGHT_BYTES >> 20} MiB wait to be verified")  # fmt: skip
    yield Row("vault: six such sessions at once, the whole process", max(limits),
              peak_bytes(rig.vault.pid),
              note=f"{before >> 20} MiB before; {main.SEALING_BYTES >> 20} MiB may wait to be "
              "encrypted")  # fmt: skip


def requests(_place: Path) -> Iterator[Row]:
    """Feed a parser what takes most for its length."""

    def feed() -> None:
        parser = rpc.RequestParser()
        part = {b"%02d" % n: [b"x" * 20] * 60 for n in range(60)}
        small = msgpack.packb({b"i": 1, b"m": b"put", b"a": part})
        large = msgpack.packb({b"i": 1, b"m": b"put", b"a": {b"data": bytes(20 * MIB)}})
        for data in (large, small, large):
            for start in range(0, len(data), session.READ_BYTES):
                for _ in parser.feed(data[start : start + session.READ_BYTES]):
                    pass

    growth, _ = own_growth(feed)
    yield Row("gate: a request while it is read", 4 * rpc.MAX_BUFFER, growth,
              note="the buffer, what is made of it, a piece that grows, and one that the "
              "allocator keeps")  # fmt: skip


# Sessions ------------------------------------------------------------------------------


def uploads(_place: Path) -> Iterator[Row]:
    """Count what a million uploaded chunks take in the vault."""
    count = 1_000_000

    def take() -> None:
        from borg.hashindex import ChunkIndex, NSIndex

        uploaded, fresh, order, index = ChunkIndex(), ChunkIndex(), bytearray(), NSIndex()
        for number in range(count):
            key = hash((number, 7)).to_bytes(8, "little", signed=True) * 4
            uploaded[key], fresh[key], index[key] = (1, 2, 0), (1, 2, 3), (1, 2)
            order.extend(key)

    growth, _ = own_growth(take)
    yield Row("vault: a million uploaded chunks of a session", memory.UPLOAD * count, growth,
              note=f"a session ends at {memory.UPLOADED_BYTES >> 30} GiB of them")  # fmt: skip


def restores(place: Path) -> Iterator[Row]:
    """Leave out sources of hard links with long lists of chunks."""
    chunks = tuple((os.urandom(32), 100_000, 90_000) for _ in range(2000))

    def items() -> Iterator[dict[bytes, Any]]:
        for number in range(2000):
            yield {b"path": b"old/%d" % number, b"mode": REGULAR, b"mtime": 1,
                   b"hardlink_master": True, b"chunks": chunks}  # fmt: skip
        yield {b"path": b"new/1", b"mode": REGULAR, b"mtime": 1, b"source": b"old/1"}

    def select() -> int:
        from borg.compress import Compressor

        quiet = SimpleNamespace(session=lambda *_, **__: None, forget=lambda *_: None)
        ledger = SimpleNamespace(items=lambda _metadata: items())
        made = restore.RestoreSession(
            SimpleNamespace(ledger=ledger, state_dir=place / "restore", memory=quiet), "token",
            archive="a", paths=["new"], harmless=True,
        )  # fmt: skip
        key: Any = SimpleNamespace(id_hash=hmac_sha256_id(b"k"), compressor=Compressor("lz4"))
        made.key = key
        made._write_items(made._selected(b""))
        written = made._disk.written
        made.close()
        return written

    growth, written = own_growth(select)
    yield Row("vault: sources of hard links beside selected paths, in memory", 32 * MIB, growth)
    yield Row("vault: the same, on disk", restore.MAX_SPOOL, written)


def samples(place: Path) -> Iterator[Row]:
    """Draw a large sample of files with long lists of pieces; list a whole archive."""
    chunks = tuple((os.urandom(32), 100_000, 90_000) for _ in range(1600))

    def ledger(count: int) -> Any:
        items = ({b"path": b"f%d" % n, b"mode": REGULAR, b"mtime": 1, b"chunks": chunks}
                 for n in range(count))  # fmt: skip
        return SimpleNamespace(
            lock=threading.RLock(), items=lambda _metadata: items,
            archive_metadata=lambda _id: {}, repository=SimpleNamespace(id_str="r"),
            manifest=SimpleNamespace(archives={"a": SimpleNamespace(id=b"i")}),
            key=SimpleNamespace(id_key=b"k"), opened=SimpleNamespace(blake2=False),
        )  # fmt: skip

    def draw(count: int, whole: Path | None) -> int:
        answer = sample.draw(ledger(count), "a", files=1000, most_bytes=1 << 50, canary="",
                             whole=whole, step=lambda: None)  # fmt: skip
        return len(json.dumps(answer))

    growth, answer = own_growth(lambda: draw(2500, None))
    yield Row("vault: what is drawn for a drill, with its answer",
              sample.SAMPLE_BYTES + 6 * sample.ANSWER_BYTES, growth)  # fmt: skip
    yield Row("vault: the answer on the wire", sample.ANSWER_BYTES, answer, slack=64 * 1024)
    path = place / "expected"
    growth, _ = own_growth(lambda: draw(2000, path))
    yield Row("vault: a whole drill's list, in memory", 16 * MIB, growth)
    yield Row("vault: the same, on disk", expected.MAX_BYTES, path.stat().st_size)

    def read() -> int:
        return sum(1 for one in expected.read_expected(path) for _ in one["pieces"])

    growth, _ = own_growth(read)
    yield Row("worker: the same while it compares", 2 * expected.MAX_LINE, growth)


# Indexes of files ----------------------------------------------------------------------


def _builder(place: Path, items: Iterator[Any]) -> tuple[int, int]:
    """Run the builder on a catalog; return its peak and the size of the index."""
    catalog, index = place / "catalog.zst", place / "index.db"
    pack = msgpack.Packer(use_bin_type=True).pack
    with zstandard.open(catalog, "wb") as out:
        for item in items:
            out.write(pack(item))
    index.unlink(missing_ok=True)
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "borgcube.plugins.borg.catalogindex", str(catalog), str(index)],
        {**os.environ, "SQLITE_TMPDIR": str(place)},
    )
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise RuntimeError(f"the builder ended with {status}")
    return usage.ru_maxrss * 1024, index.stat().st_size


def indexes(place: Path) -> Iterator[Row]:
    """Index more directories than fit, then long names, then more than fits on disk."""
    most = catalogindex.DIRECTORIES_BYTES // catalogindex.DIRECTORY_BYTES
    peak, _ = _builder(place, ((b"%d/f" % n, "-", 1, 0) for n in range(most + 50_000)))
    yield Row("builder of the file index: more directories than fit, the whole process",
              catalogindex.MEMORY_BYTES, peak, note=f"{most:,} directories")  # fmt: skip
    name = b"n" * 16_000
    peak, _ = _builder(place, ((b"%d%s" % (n, name), "-", 1, 0) for n in range(10_000)))
    yield Row("builder of the file index: names of 16 KB", catalogindex.MEMORY_BYTES, peak)
    bound, catalogindex.INDEX_BYTES = catalogindex.INDEX_BYTES, 64 * MIB
    try:
        small = place / "small.db"
        catalogindex.build(((b"%d%s" % (n, name), "-", 1, 0) for n in range(10_000)), small)
        size = small.stat().st_size
    finally:
        catalogindex.INDEX_BYTES = bound
    yield Row("the file index on disk", 64 * MIB, size,
              note=f"set to 64 MiB here, {bound >> 30} GiB else")  # fmt: skip


# The worker ----------------------------------------------------------------------------


def dry_runs(place: Path) -> Iterator[Row]:
    """List paths of 16 KB without end."""

    def listen() -> None:
        listing = dryrun.Listing()
        for number in range(20_000):
            listing.take({"type": "file_status", "status": "-", "path": f"/{number}{WIDE}"})

    growth, _ = own_growth(listen)
    yield Row("worker: a dry run's list in memory", dryrun.KEPT_BYTES, growth, slack=4 * MIB)

    def add_up() -> None:
        dryrun.summary(Entry(FILE, f"/{number}{WIDE}/x/y", 1) for number in range(20_000))

    growth, _ = own_growth(add_up)
    yield Row("worker: its sums and largest files", dryrun.PLACES_BYTES + 24 * MIB, growth,
              note="of that, 1,250 paths that may be the largest", slack=4 * MIB)  # fmt: skip

    def leave_out() -> None:
        excluded = exclusions.Excluded()
        for number in range(20_000):
            excluded.add(f"/{number}{WIDE}")

    growth, _ = own_growth(leave_out)
    yield Row("worker: paths that exclusions are matched with", exclusions.MAX_BYTES, growth,
              slack=2 * MIB)  # fmt: skip
    yield from _words(place)


def _words(place: Path) -> Iterator[Row]:
    directory, most = place / "job", 4 * MIB

    def hear() -> None:
        log = joblog.JobLog(directory, most)
        output = hearing.ClientOutput(
            hearing.Outcome(), lambda level, text: log.write(level, text, {})
        )
        line = json.dumps({"type": "log_message", "levelname": "WARNING", "message": WIDE})
        read, write = os.pipe()
        reader = threading.Thread(target=output.read, args=(read,))
        reader.start()
        with os.fdopen(write, "wb") as stream:
            for _ in range(1500):
                stream.write(line.encode() + b"\n")
            for _ in range(64):
                stream.write(b"x" * MIB)  # a line that does not end
        reader.join()
        log.close()

    growth, _ = own_growth(hear)
    yield Row("worker: what borg prints on a client, while it is heard", 8 * MIB, growth)
    sizes = [(directory / name).stat().st_size for name in (joblog.TEXT, joblog.LINES)]
    yield Row("a job's log, each of its two files", most, max(sizes), slack=64 * 1024,
              note="set to 4 MiB here, log_max_bytes else")  # fmt: skip

    def warn() -> int:
        import io
        import logging

        sys.stderr = io.StringIO()
        log = logging.Logger("x")
        log.addHandler(worker.Said())
        for _ in range(100_000):
            log.warning("a packet of an unknown type")
        return len(sys.stderr.getvalue())

    _, said = own_growth(warn)
    yield Row("a worker's standard error", worker.MAX_SAID, said, slack=1024)


PARTS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "gate": gate_and_vault, "request": requests, "uploads": uploads, "restore": restores,
    "drill": samples, "index": indexes, "worker": dry_runs, "reader": readerpeaks.readers,
}  # fmt: skip


def run(only: str = "") -> list[Row]:
    """Measure everything, or the parts whose name has a word in it."""
    rows: list[Row] = []
    for name, part in PARTS.items():
        if only and only not in name:
            continue
        with tempfile.TemporaryDirectory(prefix="borgcube-peaks-") as place, suppress(Refused):
            rows += part(Path(place))
    return rows


def cli(argv: list[str] | None = None) -> int:
    """Print the table; return 1 when something went beyond its bound."""
    parser = argparse.ArgumentParser(prog="python -m bench.peaks", description=__doc__)
    parser.add_argument("--only", default="", choices=["", *PARTS], help="one part of it")
    parser.add_argument("--json", type=Path, help="write all figures here")
    options = parser.parse_args(argv)
    rows = run(options.only)
    table = Table(title="Bounds, and what is taken at them, in bytes")
    for head in ("what", "bound", "peak", ""):
        table.add_column(head, justify="right" if head in ("bound", "peak") else "left")
    for row in rows:
        table.add_row(row.what, f"{row.bound:,}", f"{row.peak:,}",
                      ("" if row.kept else "BEYOND ITS BOUND ") + row.note)  # fmt: skip
    Console(width=150).print(table)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    return 0 if all(row.kept for row in rows) else 1


if __name__ == "__main__":
    sys.exit(cli())
