"""The local transport: commands run on the server itself, without a shell."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence

from borgcube.core import memory
from borgcube.core.hookspecs import hookimpl
from borgcube.core.hostkeys import HostKey
from borgcube.core.streams import run_to_end, take_descriptors
from borgcube.core.transports import ClientAddress, Completed, Connection, Source, TransportContext


class LocalProcess:
    """A child in a session of its own; ending it ends the whole process group."""

    def __init__(self, argv: Sequence[str]) -> None:
        setpriv = shutil.which("setpriv")
        guard = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
        with memory.for_children():  # a client's own programs, and its own memory
            self._process = subprocess.Popen(
                [*guard, *argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
        self.stdin_fd, self.stdout_fd, self.stderr_fd = take_descriptors(self._process)

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Return the exit code (128 + number for a signal), or None while it runs."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        return code if code >= 0 else 128 - code

    def terminate(self) -> None:
        """Kill the process group."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)


class LocalConnection:
    """No login at all; keeps track of what it started."""

    runs_here = True

    def __init__(self) -> None:
        self._started: list[LocalProcess] = []

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: Source = b"",
        timeout_s: float = 60.0,
        max_output: int = 1 << 20,
    ) -> Completed:
        """Run to its end."""
        return run_to_end(self.start(argv), stdin, timeout_s=timeout_s, max_output=max_output)

    def start(self, argv: Sequence[str]) -> LocalProcess:
        """Start a command whose streams the caller handles."""
        self._started = [one for one in self._started if one.wait(0) is None]
        process = LocalProcess(argv)
        self._started.append(process)
        return process

    def close(self) -> None:
        """End everything started here."""
        for process in self._started:
            process.terminate()
            process.wait(5)
        self._started.clear()


class LocalTransport:
    """Reaches the server itself."""

    name = "local"
    runs_here = True

    def connect(self, address: ClientAddress, context: TransportContext) -> Connection:
        """Return a connection; there is nothing to log in to."""
        return LocalConnection()

    def scan_host_keys(self, address: ClientAddress, context: TransportContext) -> list[HostKey]:
        """Return nothing: there are no host keys."""
        return []


@hookimpl
def register_transports() -> list[LocalTransport]:
    """Offer the local transport."""
    return [LocalTransport()]
