"""A real repository with a real vault, without a daemon: for tests of the engine.

Jobs run in this process on a connection that is a plain local shell; borg, gate and vault
are the real ones.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from borgcube.core.jobs import JobOrder, JobResult
from borgcube.core.streams import blocks_of
from borgcube.core.transports import Completed, Source
from borgcube.plugins.borg.engine import BorgEngine

PASSPHRASE = "correct horse"


def stock_borg() -> str:
    """Return the path of the borg that is installed with BorgCube."""
    return str(Path(sys.executable).with_name("borg"))


class ShellProcess:
    """A local process with the streams of a RemoteProcess."""

    def __init__(self, argv: Sequence[str]) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            argv, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
        )
        streams = (self.process.stdin, self.process.stdout, self.process.stderr)
        self.stdin_fd, self.stdout_fd, self.stderr_fd = (
            os.dup(stream.fileno()) for stream in streams if stream is not None
        )
        for stream in streams:
            if stream is not None:
                stream.close()

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Return the exit code, or None after ``timeout_s``."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def terminate(self) -> None:
        """End it."""
        self.process.terminate()


class ShellConnection:
    """A connection that is no connection: commands run here."""

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: Source = b"",
        timeout_s: float = 60.0,
        max_output: int = 1 << 20,
    ) -> Completed:
        """Run to its end."""
        data = b"".join(blocks_of(stdin))
        try:
            done = subprocess.run(
                argv, input=data, capture_output=True, timeout=timeout_s, check=False
            )
        except FileNotFoundError:
            return Completed(127, b"", b"not found")
        return Completed(done.returncode, done.stdout[:max_output], done.stderr[:max_output])

    def start(self, argv: Sequence[str]) -> ShellProcess:
        """Start a command."""
        return ShellProcess(argv)

    def close(self) -> None:
        """Nothing is open."""


class RecordingContext:
    """A JobContext that remembers what a job reported."""

    def __init__(self, order: JobOrder, home: Path) -> None:
        self.order = order
        self.home = self.runtime_dir = self.state_dir = home
        self.phases: list[str] = []
        self.lines: list[str] = []
        self.figures: dict[str, Any] = {}
        self.stop = threading.Event()

    def phase(self, name: str) -> None:
        """Remember a phase."""
        self.phases.append(name)

    def progress(self, **figures: Any) -> None:
        """Remember the last figures."""
        self.figures.update(figures)

    def log(self, level: str, message: str, **_fields: Any) -> None:
        """Remember a line."""
        self.lines.append(f"{level} {message}")

    def check_cancelled(self) -> None:
        """Raise when the test asked for it."""
        from borgcube.core.errors import JobCancelled

        if self.stop.is_set():
            raise JobCancelled("cancelled")

    def connect(self) -> ShellConnection:
        """Return the local shell."""
        return ShellConnection()

    def passphrase(self) -> str:
        """Return the rig's."""
        return PASSPHRASE

    def engine(self) -> BorgEngine:
        """Return the Borg engine."""
        return BorgEngine()


class Rig:
    """A repository, its vault and jobs on it; a context manager."""

    def __init__(self, root: Path, *, encryption: str = "repokey") -> None:
        self.root = root
        self.state_dir = root / "state"
        self.path = root / "repository"
        # A unix socket's path is short; test directories are not.
        self.socket = Path(f"/tmp/bc-{os.getpid()}-{id(self):x}.sock")
        self.server = f"rig{secrets.token_hex(4)}"  # its name on the clients
        self.engine = BorgEngine()
        self.vault: subprocess.Popen[bytes] | None = None
        self.state_dir.mkdir(parents=True)
        self.facts = self.engine.create(
            self.path, encryption=encryption, passphrase=PASSPHRASE, state_dir=self.state_dir
        )

    def __enter__(self) -> Rig:
        self.start_vault()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop_vault()

    @property
    def cache(self) -> Path:
        """The directory of Borg's cache that the vault keeps."""
        (found,) = (self.state_dir / "base" / ".cache" / "borg").glob("*/chunks")
        return found.parent

    def start_vault(self, *, partial_days: int = 14, free_floor_bytes: int = 0) -> bytes:
        """Start the vault and return its first line."""
        self.vault = subprocess.Popen(
            self.engine.vault_command(
                name="rig",
                path=self.path,
                socket=self.socket,
                state_dir=self.state_dir,
                partial_days=partial_days,
                free_floor_bytes=free_floor_bytes,
            ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(self.root / "vault.log").open("ab"),
        )
        assert self.vault.stdin is not None and self.vault.stdout is not None
        self.vault.stdin.write(PASSPHRASE.encode() + b"\n")
        self.vault.stdin.close()
        return self.vault.stdout.readline()

    def stop_vault(self) -> int:
        """Stop the vault as the daemon does and return its exit code."""
        assert self.vault is not None
        self.vault.terminate()
        code = self.vault.wait(60)
        if self.vault.stdout is not None:
            self.vault.stdout.close()
        return code

    def context(self, job_type: str, /, **parameters: Any) -> RecordingContext:
        """Return a context for a job of this repository."""
        order = JobOrder(
            f"test-{time.monotonic_ns()}",
            job_type,
            vault_socket=str(self.socket),
            server_id=self.server,
            parameters=parameters,
        )
        return RecordingContext(order, self.root)

    def backup(
        self,
        archive: str,
        *paths: Path,
        plan: str = "plan",
        domain: str = "client:a",
        borg: str = "",
        context: RecordingContext | None = None,
        **options: Any,
    ) -> JobResult:
        """Run a backup job to its end."""
        parameters = {
            "archive": archive,
            "plan": plan,
            "domain": domain,
            "borg": borg or stock_borg(),
            "paths": [str(path) for path in paths],
            **options,
        }
        context = context or self.context("backup")
        context.order.parameters.update(parameters)
        return self.engine.backup(context)

    def restore(
        self, archive: str, target: Path, *paths: str, borg: str = "", **options: Any
    ) -> JobResult:
        """Run a restore job to its end."""
        return self.engine.restore(
            self.context(
                "restore",
                archive=archive,
                target=str(target),
                paths=list(paths),
                borg=borg or stock_borg(),
                **options,
            )
        )

    def plain_borg(self, *argv: str, same_caches: bool = False) -> subprocess.CompletedProcess[str]:
        """Run borg without BorgCube; the vault must be stopped."""
        base = self.state_dir / "base" if same_caches else self.root / "plain"
        environment = {
            **os.environ,
            "BORG_PASSPHRASE": PASSPHRASE,
            "BORG_BASE_DIR": str(base),
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
        }
        return subprocess.run(
            [stock_borg(), *argv],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
