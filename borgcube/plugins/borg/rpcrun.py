"""Run one borg on a client with a gate in front of it; shared by backup and restore.

The worker owns the login, the gate process and the remote process, and watches all three:
silence for too long, a refusal by the gate, a cancelled job end the run.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from borgcube.core.errors import JobFailed, Problem
from borgcube.core.jobs import JobContext
from borgcube.core.transports import Connection, RemoteProcess
from borgcube.plugins.borg import remote
from borgcube.plugins.borg.vaultclient import VaultSession

MINIMUM_VERSION = (1, 2, 0)
MAX_LINE = 64 * 1024
MAX_WARNINGS = 1000
DEFAULT_MAX_BYTES = 1 << 50
END_WAIT_S = 120.0


@dataclass
class Outcome:
    """What a run left behind besides the archive. ``warnings`` are the client's words."""

    exit_code: int | None = None
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    refused: str = ""
    committed: bool = False
    bytes_in: int = 0
    version: tuple[int, ...] = ()
    gate_ended: bool = False


def find_borg(context: JobContext, connection: Connection, borg: str) -> str:
    """Return the client's borg version; raises JobFailed when it is missing or too old."""
    done = connection.run([borg, "--version"], timeout_s=60)
    text = done.stdout.decode("utf-8", "replace")
    match = re.search(r"borg[^ \n]* (\d+)\.(\d+)\.(\d+)", text)
    if done.exit_code != 0 or match is None:
        raise JobFailed(
            "borg-missing",
            Problem.CLIENT,
            f"There is no usable borg at {borg!r} on the client.",
            next_step="Install borgbackup there, or set the client's --borg to its path.",
        )
    check_version(tuple(int(part) for part in match.groups()))
    context.log("info", f"client has borg {'.'.join(match.groups())}")
    return ".".join(match.groups())


def check_version(version: tuple[int, ...]) -> None:
    """Raise JobFailed when a client's borg is not one that BorgCube speaks with."""
    if version < MINIMUM_VERSION or version >= (2,):
        raise JobFailed(
            "borg-version",
            Problem.CLIENT,
            f"The client's borg {'.'.join(map(str, version))} is not one of 1.2 to 1.4.",
            next_step="Install borgbackup 1.4 there.",
        )


class RemoteBorg:
    """The seeded directory on the client and the borg that runs in it."""

    def __init__(
        self, context: JobContext, connection: Connection, session: VaultSession, *, mode: str
    ) -> None:
        self.context = context
        self.connection = connection
        self.session = session
        self.mode = mode
        self.directory = ""
        self.outcome = Outcome()
        self.on_message: Callable[[dict[str, Any]], None] = lambda _message: None
        self.last_sign = time.monotonic()

    def prepare(self, command: Sequence[str], *, into: str = "") -> None:
        """Make the directory on the client and fill it with the session's seed."""
        terms = self.session.terms
        server, token = self.context.order.server_id or "server", terms["token"]
        script = remote.prepare_script(
            server=server,
            token=token,
            repository_id=terms["repository_id"],
            manifest_id=terms["manifest_id"],
            key_type=int(terms["type_byte"]),
            others=terms.get("others", ()),
            run=remote.run_script(
                command=command, environment=remote.borg_environment(), into=into
            ),
        )
        done = self.connection.run(["sh"], stdin=script.encode(), timeout_s=120)
        directory = remote.ready_directory(done.stdout, server=server, token=token)
        if done.exit_code != 0 or directory is None:
            raise JobFailed(
                "seed-failed",
                Problem.CLIENT,
                "The session directory cannot be made on the client: "
                + (done.stderr.decode("utf-8", "replace").strip()[-300:] or "no answer"),
                next_step="Check that TMPDIR or /tmp there is writable and has room.",
            )
        self.directory = directory
        for name in ("chunks", "files"):
            source = terms.get(f"{name}_file")
            if source:
                self._upload(
                    Path(source), f"{directory}/b/.cache/borg/{terms['repository_id']}/{name}"
                )

    def _upload(self, source: Path, target: str) -> None:
        done = self.connection.run(
            ["sh", "-c", 'cat >"$1"', "sh", target], stdin=source, timeout_s=3600
        )
        if done.exit_code != 0:
            raise JobFailed(
                "seed-failed",
                Problem.CLIENT,
                "The session's index cannot be written on the client: "
                + done.stderr.decode("utf-8", "replace").strip()[-300:],
                next_step="Make room in TMPDIR or /tmp there.",
            )

    def run(self, *, idle_timeout_s: float, max_bytes: int) -> Outcome:
        """Run to the end; raises JobCancelled, or JobFailed for a silent client."""
        process = self.connection.start(["sh", f"{self.directory}/run"])
        if not remote.skip_banner(process.stdout_fd):
            process.terminate()
            for fd in (process.stdin_fd, process.stdout_fd, process.stderr_fd):
                os.close(fd)
            raise JobFailed(
                "login-output",
                Problem.CLIENT,
                "The login prints something other than the output of the command.",
                next_step="Try `ssh CLIENT true`: it must print nothing.",
            )
        report_in, report_out = os.pipe()
        try:
            gate = self._start_gate(process, report_out, max_bytes=max_bytes)
        finally:
            os.close(report_out)
            os.close(process.stdin_fd)
            os.close(process.stdout_fd)
        readers = [
            threading.Thread(target=self._read_lines, args=(fd, handle), daemon=True)
            for fd, handle in ((process.stderr_fd, self._client_line), (report_in, self._gate_line))
        ]
        for reader in readers:
            reader.start()
        self.last_sign = time.monotonic()
        try:
            while gate.poll() is None:
                self.context.check_cancelled()
                if self.outcome.version:
                    check_version(self.outcome.version)
                if time.monotonic() - self.last_sign > idle_timeout_s:
                    raise JobFailed(
                        "client-silent",
                        Problem.CLIENT,
                        f"The client sent nothing for {idle_timeout_s:.0f} s.",
                        next_step="Look at the client; the next run goes on from here.",
                    )
                time.sleep(0.05)
            self.outcome.exit_code = process.wait(END_WAIT_S if not self.outcome.refused else 10)
        finally:
            if gate.poll() is None:
                gate.kill()
            gate.wait()
            if self.outcome.exit_code is None:
                process.terminate()
            for reader in readers:
                reader.join(timeout=5)
        if not self.outcome.gate_ended:
            raise JobFailed(
                "gate-died",
                Problem.SERVER,
                f"The gate ended without a word (code {gate.returncode}).",
                next_step="Run the backup again; what was stored is reused.",
            )
        return self.outcome

    def _start_gate(
        self, process: RemoteProcess, report_out: int, *, max_bytes: int
    ) -> subprocess.Popen[bytes]:
        terms = self.session.terms
        data = self.session.data_socket()
        with data:
            descriptors = (process.stdout_fd, process.stdin_fd, data.fileno(), report_out)
            command = [sys.executable, "-m", "borgcube.plugins.borg.gate.main"]
            names = ("peer-in", "peer-out", "vault", "report")
            for name, fd in zip(names, descriptors, strict=True):
                command += [f"--{name}", str(fd)]
            gate = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=descriptors)
        keep = ("repository_id", "key_blob", "manifest", "type_byte", "id_kind", "id_key")
        order = {key: terms[key] for key in keep}
        order |= {"mode": self.mode, "opens": remote.REPOSITORY_PATH, "max_bytes": max_bytes}
        assert gate.stdin is not None
        gate.stdin.write(json.dumps(order).encode() + b"\n")
        gate.stdin.close()
        return gate

    def _read_lines(self, fd: int, handle: Callable[[bytes], None]) -> None:
        buffer = b""
        with os.fdopen(fd, "rb", buffering=0) as stream:
            while data := stream.read(65536):
                self.last_sign = time.monotonic()
                *lines, buffer = (buffer + data).split(b"\n")
                for line in lines:
                    handle(line[:MAX_LINE])
                if len(buffer) > MAX_LINE:
                    handle(buffer[:MAX_LINE])
                    buffer = b""
            if buffer:
                handle(buffer)

    def _gate_line(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            return
        self.outcome.bytes_in = int(message.get("bytes_in", 0))
        self.outcome.committed = bool(message.get("committed", False))
        self.outcome.gate_ended = self.outcome.gate_ended or bool(message.get("ended"))
        if message.get("refused"):
            self.outcome.refused = str(message["refused"])[:500]
            self.context.log("error", f"gate: {self.outcome.refused}")
        if message.get("client_version"):
            self.outcome.version = tuple(message["client_version"])
            version = ".".join(map(str, self.outcome.version))
            self.context.log("info", f"the client runs borg {version}")
        if message.get("committing"):
            self.context.log("info", "the client asks for the commit")
        if self.mode == "backup":
            self.context.progress(bytes_new=self.outcome.bytes_in)
        else:
            self.context.progress(bytes_read=int(message.get("bytes_out", 0)))

    def _client_line(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace")
        try:
            message = json.loads(text) if text.startswith("{") else None
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            if text.strip():
                self.context.log("info", f"client: {text[:500]}")
            return
        kind = message.get("type")
        if kind == "log_message":
            words = str(message.get("message", ""))[:500]
            level = str(message.get("levelname", "INFO")).lower()
            if level == "warning" and len(self.outcome.warnings) < MAX_WARNINGS:
                self.outcome.warnings.append(words)
            elif level in ("error", "critical") and len(self.outcome.errors) < MAX_WARNINGS:
                self.outcome.errors.append(words)
            self.context.log(level if level in ("warning", "error") else "info", f"client: {words}")
        else:
            self.on_message(message)

    def clean_up(self) -> None:
        """Remove the directory on the client, if the run did not."""
        if not self.directory:
            return
        try:
            self.connection.run(["rm", "-rf", self.directory], timeout_s=30)
        except JobFailed as error:
            self.context.log("warning", f"the session directory is left for the next run: {error}")
