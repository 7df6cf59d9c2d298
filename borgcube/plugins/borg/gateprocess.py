"""Start a gate and hear its report; used by ``rpcrun.py`` and by tests.

A gate may have been taken over by its client, so that its report is read with the same
care as the client's words: bounded, checked, escaped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from borgcube.core.jobs import JobContext
from borgcube.core.untrusted import words
from borgcube.plugins.borg import remote
from borgcube.plugins.borg.gate.session import CLIENT
from borgcube.plugins.borg.hearing import Outcome
from borgcube.plugins.borg.vaultclient import VaultSession

MAX_LINE = 16 * 1024
# A gate says every second whose turn it is. Of a longer gap nothing is known.
MOST_OF_A_TURN_S = 3.0
UNREADABLE = (
    ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError,
)  # fmt: skip
TERMS = ("repository_id", "key_blob", "manifest", "type_byte", "id_kind", "id_key")


def start_gate(
    session: VaultSession, *, peer_in: int, peer_out: int, report: int, mode: str, max_bytes: int
) -> subprocess.Popen[bytes]:
    """Start the gate of a session on the given descriptors, which stay the caller's.

    It gets the session's terms, an attached connection to the vault and no environment.
    """
    data = session.data_socket()
    with data:
        descriptors = (peer_in, peer_out, data.fileno(), report)
        command = [sys.executable, "-m", "borgcube.plugins.borg.gate.main"]
        names = ("peer-in", "peer-out", "vault", "report")
        for name, descriptor in zip(names, descriptors, strict=True):
            command += [f"--{name}", str(descriptor)]
        gate = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            pass_fds=descriptors,
            # Where Python finds BorgCube, when it is not installed.
            env={key: os.environ[key] for key in ("PYTHONPATH",) if key in os.environ},
        )
    order = {key: session.terms[key] for key in TERMS}
    order |= {"mode": mode, "opens": remote.REPOSITORY_PATH, "max_bytes": max_bytes}
    assert gate.stdin is not None
    try:
        gate.stdin.write(json.dumps(order).encode() + b"\n")
        gate.stdin.close()
    except BrokenPipeError:
        pass  # it is gone: who waits for it notices
    return gate


def _count(value: Any) -> int:
    """Return a number of bytes or the like, within what a figure may be."""
    return min(max(int(value), 0), (1 << 63) - 1)


class Silence:
    """For how long a client has not said what it had to say, in seconds.

    Only time counts of which the gate said that the client has to speak next: not what the
    vault takes to commit or to wait for its disk, and not what a gate that stands still keeps
    to itself.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._moved: tuple[int, int] = (-1, -1)
        self._told_at: float | None = None
        self.heard = clock()  # when the gate last said anything
        self.server = 0.0  # seconds in all in which the client had nothing to say
        self.client = 0.0  # seconds since it last said something, of those in which it had to

    def take(self, turn: str, moved: tuple[int, int]) -> None:
        """Note that the gate said whose turn it is, and how many bytes came and went."""
        now = self._clock()
        before, self._told_at = self._told_at, now
        passed = now - before if before is not None else 0.0
        if moved != self._moved:
            self._moved, self.client = moved, 0.0
        elif turn == CLIENT:
            self.client += min(passed, MOST_OF_A_TURN_S)
        if turn != CLIENT:
            self.server += passed
            self.client = 0.0
        elif passed > MOST_OF_A_TURN_S:
            self.server += passed - MOST_OF_A_TURN_S


class GateReport:
    """A gate's report, line by line, into an Outcome and the job's log."""

    def __init__(self, outcome: Outcome, context: JobContext, *, mode: str) -> None:
        self.outcome = outcome
        self.context = context
        self.mode = mode
        self.ended = threading.Event()
        self.silence = Silence()

    def read(self, descriptor: int) -> None:
        """Read to the end and close."""
        with os.fdopen(descriptor, "rb") as stream:
            while line := stream.readline(MAX_LINE):
                self.silence.heard = time.monotonic()
                try:
                    self.take(json.loads(line))
                except UNREADABLE:
                    self.context.log("warning", "the gate reported something unreadable")
        self.ended.set()

    def take(self, message: dict[str, Any]) -> None:
        """Take one message; raises one of UNREADABLE for an odd one."""
        outcome, log = self.outcome, self.context.log
        outcome.bytes_in = _count(message.get("bytes_in", 0))
        if "turn" in message:
            bytes_out = _count(message.get("bytes_out", 0))
            self.silence.take(str(message["turn"]), (outcome.bytes_in, bytes_out))
        outcome.committed = bool(message.get("committed", False))
        outcome.gate_ended = outcome.gate_ended or bool(message.get("ended"))
        if message.get("refused"):
            outcome.refused = words(message["refused"])
            outcome.refused_kind = words(message.get("kind") or "protocol", limit=50)
            log("error", f"gate: {outcome.refused}")
        outcome.vault_lost = outcome.vault_lost or bool(message.get("vault_lost"))
        if message.get("failed"):
            outcome.gate_failed = words(message["failed"])
        if message.get("memory"):
            outcome.gate_memory = _count(message["memory"])
        if message.get("client_version"):
            outcome.version = tuple(_count(part) for part in list(message["client_version"])[:3])
            log("info", f"the client runs borg {'.'.join(map(str, outcome.version))}")
        if message.get("committing"):
            log("info", "the client asks for the commit")
        if message.get("confined"):
            self._confined(message["confined"])
        if self.mode == "backup":
            self.context.progress(bytes_new=outcome.bytes_in)
        else:
            self.context.progress(bytes_read=_count(message.get("bytes_out", 0)))

    def _confined(self, layers: dict[str, Any]) -> None:
        version, filtered = _count(layers["landlock"]), bool(layers["call_filter"])
        missing = [
            what
            for what, present in (("Landlock", version), ("system-call filter", filtered))
            if not present
        ]
        if missing:
            self.context.log(
                "warning", f"the gate runs with less around it: no {' and no '.join(missing)} here"
            )
        else:
            self.context.log(
                "info", f"the gate is confined (Landlock {version}, system-call filter)"
            )
