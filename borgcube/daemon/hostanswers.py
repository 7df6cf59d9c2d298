"""What a child that asked a host hands back: one small record, and how it is read.

The child has read what a stranger's machine says, and may have been taken over by it. So its
answer is parsed as strictly as if it were the host's: known names, known types, printable text,
bounds in number and length. Nothing else gets into the daemon.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from borgcube.core.errors import BorgCubeError, InvalidInput, JobFailed, Problem
from borgcube.core.hostkeys import MAX_KEYS, HostKey, from_texts
from borgcube.core.untrusted import words

MAX_ANSWER = 64 << 10  # bytes
MAX_SAID = 1000  # characters of one text
STEPS = ("resolve", "connect", "host-key", "login", "shell", "borg")
STATES = ("good", "bad", "skipped")
KEYS, TEST, DIAGNOSE, REACH = "keys", "test", "diagnose", "reach"


@dataclass(frozen=True)
class Step:
    """One step of a diagnosis: what came of it, and what to do when that is nothing good."""

    name: str
    state: str
    said: str = ""
    next_step: str = ""

    def as_data(self) -> dict[str, str]:
        """Return plain JSON data."""
        return asdict(self)


@dataclass(frozen=True)
class Answer:
    """What was found out; of the fields, the one that was asked for."""

    keys: tuple[HostKey, ...] = ()
    version: str = ""
    steps: tuple[Step, ...] = ()
    failure: BorgCubeError | None = field(default=None, compare=False)


class Unreadable(Exception):
    """An answer that is none."""


def encode(asked: str, value: Any) -> bytes:
    """Return the line of an answer, in the child: ``value`` is what was asked for, or the
    error that came of it. Texts are cut and escaped here for the first time."""
    data: dict[str, Any]
    if isinstance(value, BorgCubeError):
        data = {"message": _said(value.message), "next_step": _said(value.next_step)}
        if isinstance(value, JobFailed):
            data |= {"kind": value.cause.kind, "problem": value.cause.problem.value}
        elif isinstance(value, InvalidInput):
            data |= {"kind": "invalid", "problem": Problem.CONFIGURATION.value}
        else:
            data |= {"kind": "", "problem": Problem.SERVER.value}
        data = {"failed": data}
    elif asked == KEYS:
        data = {"keys": [key.text for key in value[:MAX_KEYS]]}
    elif asked == TEST:
        data = {"version": _said(value)}
    elif asked == DIAGNOSE:
        data = {"steps": [
            Step(one.name, one.state, _said(one.said), _said(one.next_step)).as_data()
            for one in value
        ]}  # fmt: skip
    else:
        data = {"there": True}
    return json.dumps(data).encode() + b"\n"


def _said(text: str) -> str:
    return words(words(text, limit=MAX_SAID // 2), limit=MAX_SAID)


def parse(asked: str, line: bytes) -> Answer:
    """Return the answer to what was ``asked``; raises Unreadable."""
    if len(line) > MAX_ANSWER or not line.endswith(b"\n"):
        raise Unreadable("no whole line")
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Unreadable("no JSON") from error
    if isinstance(data, dict) and set(data) == {"failed"}:
        return Answer(failure=_failure(data["failed"]))
    if asked == KEYS:
        texts = _only(data, "keys")
        if not isinstance(texts, list) or len(texts) > MAX_KEYS:
            raise Unreadable("keys")
        try:
            return Answer(keys=tuple(from_texts(_text(one, 2 * MAX_ANSWER) for one in texts)))
        except InvalidInput as error:
            raise Unreadable("keys") from error
    if asked == TEST:
        return Answer(version=_text(_only(data, "version")))
    if asked == DIAGNOSE:
        return Answer(steps=_steps(_only(data, "steps")))
    if _only(data, "there") is not True:
        raise Unreadable("there")
    return Answer()


def _only(data: Any, key: str) -> Any:
    if not isinstance(data, dict) or set(data) != {key}:
        raise Unreadable(f"not only {key}")
    return data[key]


def _text(value: Any, limit: int = MAX_SAID) -> str:
    if not isinstance(value, str) or len(value) > limit or not value.isprintable():
        raise Unreadable("text")
    return value


def _steps(value: Any) -> tuple[Step, ...]:
    if not isinstance(value, list) or len(value) != len(STEPS):
        raise Unreadable("steps")
    found = []
    for name, one in zip(STEPS, value, strict=True):
        if not isinstance(one, dict) or set(one) != {"name", "state", "said", "next_step"}:
            raise Unreadable("steps")
        if one["name"] != name or one["state"] not in STATES:
            raise Unreadable("steps")
        found.append(Step(name, one["state"], _text(one["said"]), _text(one["next_step"])))
    return tuple(found)


def _failure(value: Any) -> BorgCubeError:
    if not isinstance(value, dict) or set(value) != {"message", "next_step", "kind", "problem"}:
        raise Unreadable("failed")
    kind, message, next_step = (_text(value[key]) for key in ("kind", "message", "next_step"))
    try:
        problem = Problem(_text(value["problem"]))
    except ValueError as error:
        raise Unreadable("problem") from error
    if not kind:
        return BorgCubeError(message, next_step=next_step)
    if kind == "invalid":
        return InvalidInput(message, next_step=next_step)
    if len(kind) > 40 or not kind.replace("-", "").isalnum():
        raise Unreadable("kind")
    return JobFailed(kind, problem, message, next_step=next_step)
