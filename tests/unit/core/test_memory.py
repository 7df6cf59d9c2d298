"""Limits of memory: taken by a process for itself, and not handed on to whom they are not for."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import subprocess, sys
from borgcube.core import memory
memory.limit(1 << 30)
try:
    bytearray(2 << 30)
except MemoryError:
    print("limited")
ask = [sys.executable, "-c", "import resource; print(resource.getrlimit(resource.RLIMIT_AS)[0])"]
run = lambda: int(subprocess.run(ask, capture_output=True, check=True).stdout)
print(run())
with memory.for_children():
    print(run())
with memory.for_children(3 << 30):
    print(run())
print(run())
"""


def test_a_process_limits_itself_and_its_children_as_it_is_said() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["limited", str(1 << 30), "-1", str(3 << 30), str(1 << 30)]
