"""Rows of measured bounds, and how much a process grows: for ``bench.peaks``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from borgcube.testing.hostile import peak_bytes


@dataclass
class Row:
    """One bound, what was measured at it, and whether that is within."""

    what: str
    bound: int
    peak: int
    note: str = ""
    slack: int = 0  # of the process around what is bounded

    @property
    def kept(self) -> bool:
        """Whether the peak is within the bound."""
        return self.peak <= self.bound + self.slack


def own_growth(work: Callable[[], Any]) -> tuple[int, Any]:
    """Run ``work`` in a fork of this process; return by how many bytes it grew, and its result
    (plain data)."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            Path("/proc/self/clear_refs").write_text("5")
            before = peak_bytes(os.getpid())
            result = work()
            os.write(write, json.dumps([peak_bytes(os.getpid()) - before, result]).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as stream:
        text = stream.read()
    os.waitpid(pid, 0)
    if not text:
        raise RuntimeError("a measurement did not end")
    growth, result = json.loads(text)
    return growth, result
