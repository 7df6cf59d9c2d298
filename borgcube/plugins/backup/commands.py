"""A plan's commands on the client: one before the backup, one after it.

They are for dumps of databases, snapshots and mounts. They run as the user that the server
logs in as, through the same transport. What they print is the client's words: escaped,
bounded, logged. Only ``backup`` calls this.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from borgcube.core.errors import BorgCubeError, FailureCause, JobCancelled, JobFailed, Problem
from borgcube.core.jobs import JOB_DONE, JOB_WARNING, JobContext, JobResult
from borgcube.core.transports import Connection, RemoteProcess
from borgcube.core.untrusted import words

BLOCK_BYTES = 64 * 1024
MAX_LINE_BYTES = 8 * 1024
MAX_LOGGED = 2000  # lines of one command
LOOK_EVERY_S = 0.2
END_WAIT_S = 10.0
BEFORE, AFTER = "before", "after"
# What happens when the command before the backup fails: the plan's before_failure.
FAIL, WARN = "fail", "warn"


@dataclass
class _Lines:
    """Bytes of one stream into log lines."""

    context: JobContext
    name: str
    last: str = ""
    count: int = 0
    _rest: bytearray = field(default_factory=bytearray)

    def take(self, block: bytes) -> None:
        """Take what was read; an empty block is the end."""
        *ended, rest = block.split(b"\n")
        for end in ended:
            self._say(bytes(self._rest) + end)
            self._rest.clear()
        if len(self._rest) < MAX_LINE_BYTES:  # of a longer line, its beginning counts
            self._rest += rest
        if not block and self._rest:
            self._say(bytes(self._rest))
            self._rest.clear()

    def _say(self, line: bytes) -> None:
        text = words(line[:MAX_LINE_BYTES].decode("utf-8", "replace").rstrip("\r"))
        if not text.strip():
            return
        self.last = text
        self.count += 1
        if self.count <= MAX_LOGGED:
            self.context.log("info", f"{self.name}: {text}")
        elif self.count == MAX_LOGGED + 1:
            self.context.log("warning", f"{self.name}: more than {MAX_LOGGED} lines, no more here")


def _drain(
    process: RemoteProcess, lines: _Lines, *, timeout_s: float, context: JobContext, heed: bool
) -> int:
    """Read both streams to their end and return the exit code.

    Raises JobFailed ``command-timeout``, and JobCancelled when the job is to stop and
    ``heed`` is set.
    """
    deadline = time.monotonic() + timeout_s
    os.close(process.stdin_fd)
    selector = selectors.DefaultSelector()
    open_fds = {process.stdout_fd, process.stderr_fd}
    try:
        for descriptor in open_fds:
            selector.register(descriptor, selectors.EVENT_READ)
        code = None
        while open_fds or code is None:
            if heed:
                context.check_cancelled()
            if time.monotonic() > deadline:
                raise JobFailed(
                    "command-timeout", Problem.CLIENT,
                    f"The command {lines.name} the backup did not end within {timeout_s:g} s.",
                    next_step="See why it hangs, or raise the plan's command timeout.",
                )  # fmt: skip
            if not open_fds:
                code = process.wait(LOOK_EVERY_S)
                continue
            for key, _ in selector.select(LOOK_EVERY_S):
                block = os.read(key.fd, BLOCK_BYTES)
                lines.take(block)
                if not block:
                    selector.unregister(key.fd)
                    open_fds.discard(key.fd)
                    os.close(key.fd)
        return code
    except BaseException:
        process.terminate()
        process.wait(END_WAIT_S)
        raise
    finally:
        for descriptor in open_fds:
            os.close(descriptor)
        selector.close()


class Commands:
    """The commands of one job."""

    def __init__(self, context: JobContext) -> None:
        options = context.order.parameters
        self._context = context
        self._commands = {
            when: str(options.get(f"{when}_command") or "") for when in (BEFORE, AFTER)
        }
        self._before_failure = str(options.get("before_failure") or FAIL)
        self._timeout_s = float(options.get("command_timeout_s") or 3600)
        self._connection: Connection | None = None
        self._begun = False
        self._warnings: list[str] = []

    def _argv(self, when: str, state: str) -> Sequence[str]:
        order = self._context.order
        facts = {
            "JOB": order.job_id, "PLAN": str(order.parameters.get("plan", "")),
            "ARCHIVE": str(order.parameters.get("archive", "")), "STATE": state,
        }  # fmt: skip
        told = [f"BORGCUBE_{name}={value}" for name, value in facts.items() if value]
        return ["env", *told, "sh", "-c", self._commands[when]]

    def _run(self, when: str, *, state: str = "") -> None:
        context = self._context
        context.log("info", f"the command {when} the backup begins")
        if self._connection is None:
            self._connection = context.connect()
        process = self._connection.start(self._argv(when, state))
        lines = _Lines(context, when)
        code = _drain(
            process, lines, timeout_s=self._timeout_s, context=context, heed=when == BEFORE
        )
        if code != 0:
            said = f": {lines.last}" if lines.last else ""
            raise JobFailed(
                f"{when}-command-failed", Problem.CLIENT,
                f"The command {when} the backup ended with code {code}{said}",
                next_step="The job's log has all it printed. Mend it, then run the backup again.",
            )  # fmt: skip

    def before(self) -> None:
        """Run the command before the backup, if there is one.

        Raises JobFailed when it fails, unless the plan says to go on with a warning.
        """
        self._begun = True
        if not self._commands[BEFORE]:
            return
        self._context.phase("before-command")
        try:
            self._run(BEFORE)
        except JobCancelled:
            raise
        except JobFailed as error:
            if self._before_failure != WARN or error.cause.problem != Problem.CLIENT:
                raise
            self._warn(error)

    def after(self, state: str) -> None:
        """Run the command after the backup whatever became of it; never raises for it."""
        if not self._commands[AFTER] or not self._begun:
            return
        if state in (JOB_DONE, JOB_WARNING):
            with contextlib.suppress(JobCancelled):  # it cleans up: cancelled or not, it runs
                self._context.phase("after-command")
        try:
            self._run(AFTER, state=state)
        except JobFailed as error:
            if error.cause.problem != Problem.NETWORK or self._connection is None:
                self._warn(error)
                return
            # The login may have broken with the backup; what it cleans up matters.
            self._connection.close()
            self._connection = None
            try:
                self._run(AFTER, state=state)
            except BorgCubeError as again:
                self._warn(again)
        except BorgCubeError as error:
            self._warn(error)

    def _warn(self, error: BorgCubeError) -> None:
        self._context.log("warning", error.message)
        self._warnings.append(error.message)

    def judge(self, result: JobResult) -> JobResult:
        """Return the backup's result with what the commands add to it."""
        if self._warnings:
            result.warnings = [*self._warnings, *result.warnings]
            if result.state == JOB_DONE:
                result.state = JOB_WARNING
                result.cause = FailureCause(
                    "command-failed", Problem.CLIENT, self._warnings[0],
                    "The archive is complete; mend the plan's command.",
                )  # fmt: skip
        return result
