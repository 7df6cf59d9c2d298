"""Run one borg on a client with a gate in front of it; shared by backup and restore.

The worker owns the login, the gate process and the remote process, and watches all three:
silence for too long, a refusal by the gate, a cancelled job end the run.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from borgcube.core.errors import JobFailed, Problem, Violation
from borgcube.core.fence import Fence
from borgcube.core.jobs import JobContext
from borgcube.core.transports import Connection, RemoteProcess
from borgcube.core.untrusted import last_words, words
from borgcube.plugins.borg import binaries, clientend, remote
from borgcube.plugins.borg.gateprocess import GateReport, start_gate
from borgcube.plugins.borg.hearing import ClientOutput, Outcome
from borgcube.plugins.borg.vaultclient import VaultSession
from borgcube.plugins.borg.wanted import Wanted

MINIMUM_VERSION = (1, 2, 0)
DEFAULT_MAX_BYTES = 1 << 50
DEFAULT_MAX_DURATION_S = 14 * 86400.0
DEFAULT_IDLE_TIMEOUT_S = 900.0
# What a client may print: room for a million warnings, and for its progress lines.
MAX_OUTPUT_BYTES = 256 << 20
OUTPUT_BYTES_PER_S = 64 << 10
END_WAIT_S = 120.0
DEPLOY = "deploy"
# A gate says every second whose turn it is; one that says nothing for so long is stopped.
GATE_SILENT_S = 300.0
CODE_LEFT_BEHIND = 120  # the run script's own code, or that of a signal
REFUSED_WAIT_S = 10.0


@dataclass(frozen=True)
class Limits:
    """How long one run may be silent, how long it may take, how much it may send.

    ``client_duration_s`` is the client's own limit beside the plan's; 0 is none.
    """

    idle_timeout_s: float = DEFAULT_IDLE_TIMEOUT_S
    max_duration_s: float = DEFAULT_MAX_DURATION_S
    max_bytes: int = DEFAULT_MAX_BYTES
    client_duration_s: float = 0.0

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Limits:
        """Return the limits in the parameters of an order."""
        return cls(
            idle_timeout_s=float(options.get("idle_timeout_s") or DEFAULT_IDLE_TIMEOUT_S),
            max_duration_s=float(options.get("max_duration_s") or DEFAULT_MAX_DURATION_S),
            max_bytes=int(options.get("max_bytes") or DEFAULT_MAX_BYTES),
            client_duration_s=float((options.get("limits") or {}).get("duration_s") or 0),
        )


def client_of(context: JobContext) -> str:
    """Return how causes name the client of a job."""
    client = context.order.client
    return f"Client {client.name}" if client is not None else "The client"


def find_borg(context: JobContext, connection: Connection, borg: str) -> None:
    """Log the client's borg version; raises JobFailed when it is missing or too old."""
    context.log("info", f"the client has borg {borg_version(connection, borg)}")


def borg_version(connection: Connection, borg: str) -> str:
    """Return the client's borg version; raises JobFailed when it is missing or too old."""
    done = connection.run([borg, "--version"], timeout_s=60)
    text = done.stdout.decode("utf-8", "replace")
    match = re.search(r"borg[^ \n]* (\d+)\.(\d+)\.(\d+)", text)
    if done.exit_code != 0 or match is None:
        raise JobFailed(
            "borg-missing",
            Problem.CLIENT,
            f"There is no usable borg at {borg!r} on the client.",
            next_step="Install borgbackup there, or set the client's --borg to a path or deploy.",
        )
    check_version(tuple(int(part) for part in match.groups()))
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
        self, context: JobContext, connection: Connection, session: VaultSession, *, mode: str,
        fence: Fence | None = None,
    ) -> None:  # fmt: skip
        self.context = context
        self.connection = connection
        self.session = session
        self.mode = mode
        self.fence = fence
        self.directory = ""
        self.outcome = Outcome()
        self.client = client_of(context)
        self.output = ClientOutput(self.outcome, context.log)
        self.report = GateReport(self.outcome, context, mode=mode)
        self.started = time.monotonic()

    @property
    def on_message(self) -> Callable[[dict[str, Any]], None]:
        """What is called with each of borg's messages that is no line of its log."""
        return self.output.on_message

    @on_message.setter
    def on_message(self, function: Callable[[dict[str, Any]], None]) -> None:
        self.output.on_message = function

    def prepare(
        self, command: Sequence[str], *, into: str = "", wanted: Sequence[str] = ()
    ) -> Wanted:
        """Make the session's directory on the client with everything in it, in one command.

        ``command`` begins with borg's path there, or with ``deploy``: then a borg that
        fits the client goes along. Returns what there is of the ``wanted`` paths.
        """
        borg, *arguments = command
        seed: list[tuple[str, bytes | Path]] = [("rsh", remote.RSH.encode())]
        if borg == DEPLOY:
            binary = binaries.fitting(self.connection, self.context.state_dir)
            self.context.log("info", f"borg {binary.borg} for {binary.platform} goes along")
            seed.append(("borg", binary.path))
        script = remote.run_script(
            command=[remote.DEPLOYED_BORG if borg == DEPLOY else borg, *arguments],
            environment=remote.borg_environment(), into=into, fenced=self.fence is not None,
        )  # fmt: skip
        seed.append(("run", os.fsencode(script)))
        terms = self.session.terms
        seed += [
            (name, Path(terms[f"{name}_file"]))
            for name in ("chunks", "files")
            if terms.get(f"{name}_file")
        ]
        server, token = self.context.order.server_id or "server", terms["token"]
        prepare = remote.prepare_script(
            server=server, token=token,
            repository_id=terms["repository_id"], manifest_id=terms["manifest_id"],
            key_type=int(terms["type_byte"]),
            others=terms.get("others", ()),
            sizes=[
                (name, len(part) if isinstance(part, bytes) else part.stat().st_size)
                for name, part in seed
            ],
        )  # fmt: skip
        done = self.connection.run(
            ["sh", "-c", prepare, "sh", borg, *wanted],
            stdin=[part for _, part in seed], timeout_s=3600,
        )  # fmt: skip
        if done.exit_code == 255:
            raise JobFailed(
                "connection-lost", Problem.NETWORK,
                "The connection ended while the client was being prepared: "
                + (last_words(done.stderr) or "no reason given"),
                next_step="Run the job again.",
            )  # fmt: skip
        if done.exit_code == 127 and borg != DEPLOY:
            find_borg(self.context, self.connection, borg)
        if done.exit_code == clientend.CANNOT_RUN and borg == DEPLOY:
            raise clientend.no_place_to_run(self.client)
        directory = remote.ready_directory(done.stdout, server=server, token=token)
        if done.exit_code != 0 or directory is None:
            raise JobFailed(
                "seed-failed", Problem.CLIENT,
                "The session directory cannot be made on the client: "
                + (last_words(done.stderr) or "no answer"),
                next_step="Check that TMPDIR or /tmp there is writable and has room.",
            )  # fmt: skip
        self.directory = directory
        asked = {os.fsencode(path): path for path in wanted}
        missing, links = remote.looked_at(done.stdout)
        return Wanted(
            [asked[path] for path in missing if path in asked],
            {asked[path]: target for path, target in links.items() if path in asked},
        )

    def run(self, limits: Limits) -> Outcome:
        """Run to the end; raises JobCancelled, or JobFailed for a client that holds it up."""
        argv = ["sh", f"{self.directory}/run"]
        if self.fence is not None:
            argv = self.fence.command(
                argv, writable=[self.directory], pid_file=f"{self.directory}/pid"
            )
        process = self.connection.start(argv)
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
            gate = start_gate(
                self.session,
                peer_in=process.stdout_fd,
                peer_out=process.stdin_fd,
                report=report_out,
                mode=self.mode,
                max_bytes=limits.max_bytes,
            )
        finally:
            os.close(report_out)
            os.close(process.stdin_fd)
            os.close(process.stdout_fd)
        readers = [
            threading.Thread(target=self.output.read, args=(process.stderr_fd,), daemon=True),
            threading.Thread(target=self.report.read, args=(report_in,), daemon=True),
        ]
        for reader in readers:
            reader.start()
        self.started = time.monotonic()
        self.output.last_sign = self.report.silence.heard = self.started
        try:
            while gate.poll() is None:
                self._check(limits)
                time.sleep(0.05)
            self.report.ended.wait(10)
            self.outcome.exit_code = self._exit_code(process)
            code = self.outcome.exit_code
            if self.fence is None and code is not None and code < CODE_LEFT_BEHIND:
                self.directory = ""  # the script removed it before it ended
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
        if self.outcome.gate_memory:
            raise JobFailed(
                "gate-memory",
                Problem.SERVER,
                f"The gate needed more than its {self.outcome.gate_memory >> 20} MiB of memory.",
                next_step="Run the job again. If it ends like this again, please report it.",
            )
        if self.outcome.gate_failed:
            raise JobFailed(
                "gate-failed",
                Problem.SERVER,
                f"The gate made a mistake ({self.outcome.gate_failed}).",
                next_step="What was stored is reused. Please report it.",
            )
        return self.outcome

    def _exit_code(self, process: RemoteProcess) -> int | None:
        """Wait for the end of borg on the client; None when it does not end."""
        if self.outcome.refused:
            return process.wait(REFUSED_WAIT_S)
        deadline = time.monotonic() + END_WAIT_S
        while time.monotonic() < deadline:
            code = process.wait(0.2)
            if code is not None:
                return code
            self._check_output(time.monotonic())
        return None

    def _check(self, limits: Limits) -> None:
        """Raise when the run is to end although the client goes on."""
        self.context.check_cancelled()
        if self.outcome.version:
            check_version(self.outcome.version)
        now, output, silence = time.monotonic(), self.output, self.report.silence
        if min(silence.client, now - output.last_sign) > limits.idle_timeout_s:
            raise self.violated(
                "client-silent",
                f"sent nothing for {limits.idle_timeout_s:.0f} s",
                next_step="Look at the client; the next run goes on from here.",
            )
        if now - silence.heard > GATE_SILENT_S:
            raise JobFailed(
                "gate-hung", Problem.SERVER,
                f"The gate has said nothing for {GATE_SILENT_S:.0f} s: it stands still.",
                next_step="Look at the load of this server; the next run goes on from here.",
            )  # fmt: skip
        # What the server took counts once at most: a gate may have been taken over.
        served = min(silence.server, limits.max_duration_s)
        if now - self.started - served > limits.max_duration_s:
            raise self.violated(
                "client-overtime",
                f"took more than {limits.max_duration_s:.0f} s",
                next_step="Look at the client, or give the plan a longer --max-duration.",
            )
        if 0 < limits.client_duration_s < now - self.started:
            name = self.client.removeprefix("Client ")
            raise JobFailed(
                "limit-duration",
                Problem.CLIENT,
                f"{self.client} took more than {limits.client_duration_s:.0f} s, its limit.",
                next_step="Run it again, it goes on from here, or raise the limit: "
                f"borgcube client set {name} --max-duration SECONDS",
            )
        self._check_output(now)

    def _check_output(self, now: float) -> None:
        output = self.output
        if output.received > MAX_OUTPUT_BYTES + (now - self.started) * OUTPUT_BYTES_PER_S:
            raise self.violated(
                "client-output",
                f"printed more than {output.received >> 20} MiB of messages",
                next_step="Stock borg does not do this: look at the client.",
            )

    def violated(self, kind: str, what: str, *, next_step: str) -> JobFailed:
        """Return the failure of this job for what its client did."""
        return JobFailed(
            kind,
            Problem.CLIENT,
            f"{self.client} {what}.",
            next_step=next_step,
            violation=Violation(kind, words(what)),
        )

    def clean_up(self) -> None:
        """Remove the directory on the client, if the run did not."""
        if not self.directory:
            return
        try:
            self.connection.run(["rm", "-rf", self.directory], timeout_s=30)
        except JobFailed as error:
            self.context.log("warning", f"the session directory is left for the next run: {error}")
