"""A dry run keeps what a client lists up to so many bytes; the rest is counted."""

from __future__ import annotations

import os
import sys
import tracemalloc
from typing import Any

from borgcube.core.listings import FILE, Entry
from borgcube.core.transports import Completed
from borgcube.plugins.borg import dryrun

MIB = 1 << 20
WIDE = "\N{LINEAR B SYLLABLE B008 A}" * 4000  # four bytes each in memory


def test_a_list_is_kept_up_to_its_bytes_whatever_its_paths_are() -> None:
    """200,000 paths of 16 KB were 3 GB."""
    listing = dryrun.Listing()
    tracemalloc.start()
    try:
        for number in range(6000):
            listing.take({"type": "file_status", "status": "-", "path": f"/{number}{WIDE}"})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < dryrun.KEPT_BYTES + 2 * MIB, f"{peak / 1e6:.0f} MB"
    assert listing.included == 6000 and listing.cut and 3000 < len(listing.kept) < 6000
    held = sum(sys.getsizeof(path) for path, _ in listing.kept)
    assert held <= dryrun.KEPT_BYTES


def test_the_sums_of_directories_take_few_bytes_as_well() -> None:
    tracemalloc.start()
    try:
        found = dryrun.summary(Entry(FILE, f"/{number}{WIDE}/x/y", 1) for number in range(3000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found["files"] == found["size"] == 3000
    # The largest files are 1,250 paths at most before they are sorted.
    assert peak < dryrun.PLACES_BYTES + 24 * MIB, f"{peak / 1e6:.0f} MB"


class Connection:
    """Answers as stat does, and notes how much it is asked for at once."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def run(self, argv: Any, *, stdin: bytes, timeout_s: float, max_output: int) -> Completed:
        self.asked.append(len(stdin))
        names = stdin.split(b"\0")[:-1]
        return Completed(0, b"".join(b"7 81a4 " + name + b"\0" for name in names)[:max_output], b"")


def test_sizes_are_asked_for_a_few_megabytes_at_a_time() -> None:
    connection: Any = Connection()
    paths = [f"/{number}/" + "x" * 4000 for number in range(4000)]
    found = dryrun.measure(connection, [*paths, "with\0nul"])
    assert found == dict.fromkeys(paths, (7, 0o100644))
    assert len(connection.asked) == 4 and max(connection.asked) < dryrun.MEASURED_AT_ONCE + 8192


def test_a_client_without_stat_is_asked_once() -> None:
    connection: Any = Connection()
    connection.run = lambda *_, **__: connection.asked.append(1) or Completed(127, b"", b"")
    assert dryrun.measure(connection, [os.urandom(2000).hex() for _ in range(4000)]) == {}
    assert connection.asked == [1]
