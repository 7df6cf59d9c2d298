"""Figures of a backup that later ones are compared with: what is new, and where files are.

Counted where chunks and items pass anyway. Pure; judged by ``core.anomalies`` in the daemon.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import lz4.block

# Below it, what compresses badly may just be short.
LEAST_BYTES = 4096
INCOMPRESSIBLE = 0.97
SAMPLE_BYTES = 16 * 1024
MAX_ROOTS = 100


class Roots:
    """How many files there are below each path of a plan."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._names = {
            path.strip("/").encode("utf-8", "surrogateescape"): path for path in paths[:MAX_ROOTS]
        }
        # The longest first: /srv/data within /srv has its own count.
        self._sorted = sorted(self._names, key=len, reverse=True)
        self._counts = dict.fromkeys(self._sorted, 0)

    def of(self, path: bytes) -> bytes | None:
        """Return the path that a file lies below, None when it is nowhere below them."""
        for root in self._sorted:
            if not root or path == root or path.startswith(root + b"/"):
                return root
        return None

    def count(self, counted: Mapping[bytes, int]) -> None:
        """Add files, by what :meth:`of` says of them."""
        for root, files in counted.items():
            self._counts[root] += files

    def files(self) -> dict[str, int]:
        """Return path of the plan -> files."""
        return {self._names[root]: count for root, count in self._counts.items()}


class Fresh:
    """New content of one backup, in bytes before compression."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.roots = Roots(paths)
        self.size = 0
        self.incompressible = 0

    def count(self, size: int, data: memoryview) -> None:
        """Count a new chunk: ``size`` bytes of content, ``data`` as Borg compressed it."""
        self.size += size
        if size < LEAST_BYTES:
            return
        if len(data) < size * INCOMPRESSIBLE:
            return
        if data[0] == 0 and data[1] == 0:
            # Not compressed, by the plan's wish or because it was of no use: try a little.
            sample = data[2 : 2 + SAMPLE_BYTES]
            if len(lz4.block.compress(sample, store_size=False)) < len(sample) * INCOMPRESSIBLE:
                return
        self.incompressible += size
