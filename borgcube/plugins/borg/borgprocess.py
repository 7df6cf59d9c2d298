"""A borg of our own on a repository that nobody else has: it leaves no process and no lock.

It ends with its worker, whatever ends that: asked politely (SIGTERM, after which borg gives its
lock back), by the kernel when the worker is killed, and killed when it does not hear. What a
killed borg left locked is taken away, because its number and ours say whose it was.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

MAX_LINE = 1 << 20
WAITING_MESSAGES = 1000
CHECK_EVERY_S = 0.2
END_S = 8.0  # from the request to end until it is killed
# Becomes borg in a process that the kernel ends with its parent (prctl(2), PR_SET_PDEATHSIG).
TIED = (
    "import ctypes, os, sys\n"
    "ctypes.CDLL(None).prctl(1, {signal}, 0, 0, 0)\n"
    "if os.getppid() != int(sys.argv[1]): sys.exit(1)\n"
    "os.execv(sys.argv[2], sys.argv[2:])\n"
)


def _host() -> str:
    """Return what Borg calls this machine in its locks."""
    from borg.platform import get_process_id

    return str(get_process_id()[0])


def environment(state_dir: Path, passphrase_fd: int) -> dict[str, str]:
    """Return borg's environment; the passphrase is not in it."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("BORG_")}
    return {
        **kept,
        "BORG_BASE_DIR": str(state_dir / "base"),
        "BORG_PASSPHRASE_FD": str(passphrase_fd),
        "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
        "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
        "BORG_EXIT_CODES": "legacy",
        "BORG_LOCK_WAIT": "60",
        "BORG_HOST_ID": _host(),
    }


def forget_locks(place: Path, pid: int) -> list[str]:
    """Take the locks of a dead process of this machine out of a repository or cache directory;
    return their names. Sources: borg/locking.py of Borg 1.4, ``ExclusiveLock`` and
    ``LockRoster``."""
    mine = f"{_host()}.{pid}-"
    gone = []
    held = place / "lock.exclusive"
    for entry in list(held.iterdir()) if held.is_dir() else ():
        if entry.name.startswith(mine):
            entry.unlink(missing_ok=True)
            gone.append(entry.name)
    if gone:
        try:
            held.rmdir()
        except OSError:
            pass  # somebody else has it by now
    roster = place / "lock.roster"
    try:
        data = json.loads(roster.read_text("utf-8"))
        left = {
            kind: [one for one in all_of if one[:2] != [_host(), pid]]
            for kind, all_of in data.items()
        }
    except (OSError, ValueError, TypeError, IndexError, AttributeError):
        return gone
    if left != data:
        gone.append(roster.name)
        if any(left.values()):
            roster.write_text(json.dumps(left), "utf-8")
        else:
            roster.unlink(missing_ok=True)
    return gone


class BorgProcess:
    """One run; a context manager, at whose end neither process nor lock is left."""

    def __init__(
        self, argv: Sequence[str], state_dir: Path, passphrase: str, *, path: Path
    ) -> None:
        self._places = [path, *(state_dir / "base" / ".cache" / "borg").glob("*")]
        reading, writing = os.pipe()
        program = shutil.which(argv[0]) or argv[0]
        tied = [sys.executable, "-I", "-S", "-c", TIED.format(signal=int(signal.SIGTERM)),
                str(os.getpid()), program, *argv[1:]]  # fmt: skip
        try:
            self._process = subprocess.Popen(
                tied, env=environment(state_dir, reading), pass_fds=(reading,),
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                cwd="/",
            )  # fmt: skip
            os.write(writing, passphrase.encode() + b"\n")
        finally:
            os.close(reading)
            os.close(writing)
        self._said: queue.Queue[dict[str, Any] | None] = queue.Queue(WAITING_MESSAGES)
        self._over = threading.Event()
        self._reader = threading.Thread(target=self._read, name="borg", daemon=True)
        self._reader.start()

    def __enter__(self) -> BorgProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._over.set()
        process = self._process
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for place in self._places:
            forget_locks(place, process.pid)
        self._reader.join(5)
        if process.stderr is not None and not self._reader.is_alive():
            process.stderr.close()

    def messages(self, check: Callable[[], None]) -> Iterator[dict[str, Any]]:
        """Yield what it says to its end; ``check`` is called often and ends it by raising."""
        while True:
            check()
            try:
                message = self._said.get(timeout=CHECK_EVERY_S)
            except queue.Empty:
                continue
            if message is None:
                return
            yield message

    def wait(self) -> int:
        """Return its exit code."""
        return self._process.wait()

    def _read(self) -> None:
        assert self._process.stderr is not None
        while line := self._process.stderr.readline(MAX_LINE):
            try:
                message = json.loads(line)
            except ValueError:
                message = {"type": "log_message", "levelname": "WARNING",
                           "message": line.decode("utf-8", "replace").strip()}  # fmt: skip
            if isinstance(message, dict):
                self._put(message)
        self._put(None)

    def _put(self, message: dict[str, Any] | None) -> None:
        while not self._over.is_set():
            try:
                self._said.put(message, timeout=CHECK_EVERY_S)
                return
            except queue.Full:
                continue
