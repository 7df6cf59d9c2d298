"""How fast stored data is verified: ``python -m bench.verify [--bytes N] [--rounds N]``.

Makes a repository with a real backup, then measures in turns: a check of all data through the
vault; reading the same files and a MAC over them, on as many threads, which nothing that
proves the content can beat; and ``borg check --verify-data``, which is what Borg offers. The
page cache is warm in all three: it is the processors that are compared, not the disk.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from borgcube.testing.rig import Rig

MIB = 1 << 20
FILE_BYTES = 8 * MIB


def make_tree(place: Path, size: int) -> Path:
    """Make files of ``size`` bytes in all, half of which compresses."""
    place.mkdir()
    words = b"".join(f"line {number} of a text that repeats itself\n".encode()
                     for number in range(2000))  # fmt: skip
    for number in range(max(1, size // FILE_BYTES)):
        text = (words * (FILE_BYTES // 2 // len(words) + 1))[: FILE_BYTES // 2]
        content = bytearray(os.urandom(FILE_BYTES // 2) + text)
        content[FILE_BYTES // 2 :: 4096] = os.urandom(len(content[FILE_BYTES // 2 :: 4096]))
        (place / f"file-{number:05}").write_bytes(content)
    return place


def segments(repository: Path) -> list[Path]:
    """Return the repository's segment files."""
    return [path for path in (repository / "data").glob("*/*") if path.name.isdigit()]


def raw(repository: Path, *, blake2: bool) -> None:
    """Read all segment files and make a MAC of them, on as many threads as the vault has."""
    key = bytes(32)

    def one(path: Path) -> bytes:
        state: hmac.HMAC | hashlib.blake2b = (
            hashlib.blake2b(key) if blake2 else hmac.new(key, digestmod="sha256")
        )
        with path.open("rb", buffering=0) as file:
            while piece := file.read(2 * MIB):
                state.update(piece)
        return state.digest()

    with ThreadPoolExecutor(max(2, os.cpu_count() or 2)) as pool:
        list(pool.map(one, segments(repository)))


def timed(work: Callable[[], object]) -> float:
    """Return how many seconds it takes."""
    started = time.monotonic()
    work()
    return time.monotonic() - started


def main(argv: list[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.verify", description=__doc__)
    parser.add_argument("--bytes", type=int, default=1 << 30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--encryption", default="repokey")
    options = parser.parse_args(argv)
    found: dict[str, list[float]] = {"vault": [], "raw": [], "borg": []}
    with (
        tempfile.TemporaryDirectory(prefix="borgcube-verify-") as name,
        Rig(Path(name) / "rig", encryption=options.encryption) as rig,
    ):
        rig.backup("a-1", make_tree(Path(name) / "tree", options.bytes))
        size = sum(path.stat().st_size for path in segments(rig.path))
        for _ in range(options.rounds):
            found["raw"].append(timed(lambda: raw(rig.path, blake2="blake2" in options.encryption)))
            result = rig.engine.check(rig.context("check", kind="data", full=True))
            assert result.state == "done", result.cause
            found["vault"].append(float(result.checked["seconds"]))
            rig.stop_vault()
            started = time.monotonic()
            done = rig.plain_borg("check", "--verify-data", str(rig.path))
            found["borg"].append(time.monotonic() - started)
            assert done.returncode == 0, done.stderr
            rig.start_vault()
    print(f"{size / MIB:.0f} MiB stored, {options.encryption}, {os.cpu_count()} processors")
    for what, times in found.items():
        middle = statistics.median(times)
        shown = ", ".join(f"{one:.2f}" for one in times)
        print(f"{what:6} {middle:7.2f} s  {size / MIB / middle:6.0f} MiB/s   ({shown})")
    ratio = statistics.median(v / r for v, r in zip(found["vault"], found["raw"], strict=True))
    against = statistics.median(v / b for v, b in zip(found["vault"], found["borg"], strict=True))
    print(f"vault takes {ratio:.2f} x raw reading with a MAC, {against:.2f} x borg's check")
    return 0


if __name__ == "__main__":
    sys.exit(main())
