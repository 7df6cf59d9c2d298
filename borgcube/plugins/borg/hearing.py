"""Hear what borg prints on the client: hostile text, bounded and escaped here.

Used by ``rpcrun.py``, in a thread of its own. What a client says is shown as its words and
decides nothing: figures, archives and refusals are the gate's and the vault's.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from borgcube.core.untrusted import words

READ_BYTES = 64 * 1024
MAX_LINE = 64 * 1024
MAX_WARNINGS = 1000
MAX_LOGGED = 20_000  # lines; what comes after them is counted, and read no further than that
TRACE, MAX_TRACE_LINES = "Traceback (most recent call last):", 200
LEVELS = {"warning": "warning", "error": "error", "critical": "error"}


@dataclass
class Outcome:
    """What a run left behind besides the archive. ``warnings`` are the client's words."""

    exit_code: int | None = None
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    refused: str = ""
    refused_kind: str = ""
    gate_failed: str = ""
    gate_memory: int = 0  # the limit in bytes that ended the gate, 0 for none
    committed: bool = False
    bytes_in: int = 0
    version: tuple[int, ...] = ()
    gate_ended: bool = False
    vault_lost: bool = False


class ClientOutput:
    """Standard error of the client's borg, line by line, into an Outcome and a log."""

    def __init__(self, outcome: Outcome, log: Callable[[str, str], None]) -> None:
        self.outcome = outcome
        self.log = log
        self.on_message: Callable[[dict[str, Any]], None] = lambda _message: None
        self.received = 0
        self.lines = 0
        self.last_sign = time.monotonic()

    def read(self, descriptor: int) -> None:
        """Read to the end and close; of a longer line, its first 64 KiB count."""
        line, too_long = bytearray(), False
        with os.fdopen(descriptor, "rb", buffering=0) as stream:
            while data := stream.read(READ_BYTES):
                self.received += len(data)
                self.last_sign = time.monotonic()
                *ends, rest = data.split(b"\n")
                for end in ends:
                    if not too_long:
                        self.take((line + end)[:MAX_LINE])
                    line.clear()
                    too_long = False
                if not too_long:
                    line += rest
                    if len(line) > MAX_LINE:
                        self.take(line[:MAX_LINE])
                        line.clear()
                        too_long = True
        if line:
            self.take(line)

    def take(self, line: bytes | bytearray) -> None:
        """Take one line; never raises for what is in it."""
        message = None
        if line.startswith(b"{"):
            try:
                message = json.loads(line.decode("utf-8", "replace"))
            except (ValueError, RecursionError):
                pass
        if not isinstance(message, dict):
            self._log("info", line.decode("utf-8", "replace"))
        elif message.get("type") == "log_message":
            level = LEVELS.get(str(message.get("levelname", "")).lower(), "info")
            kept = {"warning": self.outcome.warnings, "error": self.outcome.errors}.get(level)
            said = message.get("message", "")
            reason = reason_of(said) if isinstance(said, str) else ""
            if kept is not None and len(kept) < MAX_WARNINGS:
                kept.append(words(reason or said))
            for one in said.splitlines()[:MAX_TRACE_LINES] if reason else (said,):
                self._log(level, one)
        else:
            self.on_message(message)

    def _log(self, level: str, said: object) -> None:
        self.lines += 1
        if self.lines <= MAX_LOGGED:
            if str(said).strip():
                self.log(level, f"client: {words(said)}")
        elif self.lines == MAX_LOGGED + 1:
            self.log("warning", f"the client printed {MAX_LOGGED} lines: no more are logged")


def reason_of(said: str) -> str:
    """Return the last line of a traceback, which is the reason; nothing for other words.

    Borg prints what system it runs on behind it, from ``Platform:`` on.
    """
    if not said.startswith(TRACE):
        return ""
    trace = said.partition("\nPlatform:")[0]
    lines = [line for line in trace.splitlines() if line.strip() and not line.startswith(" ")]
    return lines[-1] if len(lines) > 1 else ""


def archive_progress(message: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of borg's progress message; nothing for any other message."""
    if message.get("type") != "archive_progress":
        return {}
    figures: dict[str, Any] = {}
    for name, key in (("files", "nfiles"), ("bytes_read", "original_size")):
        value = message.get(key)
        if type(value) is int and 0 <= value < 1 << 63:
            figures[name] = value
    path = message.get("path")
    if isinstance(path, str) and path:
        figures["path"] = words(path, limit=4096)
    return figures
