"""Starting child processes that do not outlive the daemon and inherit nothing by accident."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

CHILD = Path(__file__).with_name("child.py")


def clean_environment() -> dict[str, str]:
    """Return this environment without borg's and ssh-agent's variables."""
    unwanted = ("BORG_", "SSH_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(unwanted)}
    # An absent entry of PYTHONPATH means the current directory, which changes for a child.
    if "PYTHONPATH" in kept:
        paths = [str(Path(part).absolute()) for part in kept["PYTHONPATH"].split(":") if part]
        kept["PYTHONPATH"] = ":".join(paths)
    kept.setdefault("LC_ALL", "C.UTF-8")
    return kept


def spawn(
    argv: Sequence[str], *, stdout: int | IO[bytes], stderr: int | IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start ``argv`` in a session of its own, with a pipe as standard input.

    Must be called in a thread that lives as long as the daemon, such as the main thread: the
    parent-death signal follows the thread.
    """
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(CHILD), str(os.getpid()), *argv],
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=stderr,
        env=clean_environment(),
        cwd="/",
        start_new_session=True,
    )


def give(process: subprocess.Popen[bytes], data: bytes) -> None:
    """Write a small secret or order to a child's standard input and close it."""
    assert process.stdin is not None
    try:
        process.stdin.write(data)
        process.stdin.close()
    except BrokenPipeError:
        pass  # it ended already; its exit is noticed where it is reaped
