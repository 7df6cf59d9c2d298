"""What a child hands back of a host is one small record, or nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from borgcube.core.errors import BorgCubeError, InvalidInput, JobFailed, Problem
from borgcube.core.hostkeys import HostKey
from borgcube.daemon.hostanswers import (
    DIAGNOSE,
    KEYS,
    MAX_ANSWER,
    REACH,
    STEPS,
    TEST,
    Step,
    Unreadable,
    encode,
    parse,
)

KEY = HostKey("ssh-ed25519", b"\0\0\0\x0bssh-ed25519" + b"k" * 36)
STEP = {"name": "resolve", "state": "good", "said": "", "next_step": ""}
FAILED = {"kind": "timeout", "problem": "client", "message": "No.", "next_step": ""}


def test_answers_arrive() -> None:
    assert parse(KEYS, encode(KEYS, [KEY])).keys == (KEY,)
    assert parse(TEST, encode(TEST, "borg 1.4\x1b[2J")).version == "borg 1.4\\x1b[2J"
    steps = [Step(name, "good", "s" * 5000, "\n") for name in STEPS]
    found = parse(DIAGNOSE, encode(DIAGNOSE, steps)).steps
    assert [one.name for one in found] == list(STEPS) and found[0].next_step == "\\n"
    assert all(len(one.said) <= 1000 for one in found)
    assert parse(REACH, encode(REACH, True)).failure is None


@pytest.mark.parametrize("error", [
    JobFailed("login-refused", Problem.CLIENT, "No \x07.", next_step="Do."),
    InvalidInput("Not so."), BorgCubeError("It is not there."),
])  # fmt: skip
def test_failures_keep_their_type_and_lose_their_control_characters(error: BorgCubeError) -> None:
    found = parse(TEST, encode(TEST, error)).failure
    assert type(found) is type(error) and found is not None and found.message.isprintable()
    if isinstance(error, JobFailed):
        assert isinstance(found, JobFailed) and found.cause.kind == error.cause.kind


@pytest.mark.parametrize(("asked", "data"), [
    (TEST, []), (TEST, {}), (TEST, {"version": 1}), (TEST, {"version": "a\x1b"}),
    (TEST, {"version": "a\nb"}), (TEST, {"version": "x" * 1001}), (TEST, {"keys": []}),
    (TEST, {"version": "a", "more": 1}), (KEYS, {"keys": [KEY.text] * 21}), (KEYS, {"keys": "a"}),
    (KEYS, {"keys": [f"{KEY.text}\n* {KEY.text}"]}), (KEYS, {"keys": [f"host {KEY.text}"]}),
    (KEYS, {"keys": [None]}), (REACH, {"there": 1}), (REACH, {"there": False}),
    (DIAGNOSE, {"steps": [STEP]}), (DIAGNOSE, {"steps": [STEP] * 6}), (DIAGNOSE, {"steps": {}}),
    (TEST, {"failed": {**FAILED, "problem": "nobody"}}), (TEST, {"failed": {"message": "x"}}),
    (TEST, {"failed": {**FAILED, "kind": "<b>"}}), (TEST, {"failed": {**FAILED, "kind": "k" * 41}}),
    (TEST, {"failed": {**FAILED, "next_step": None}}), (TEST, {"failed": FAILED, "version": "x"}),
    (TEST, {"failed": {**FAILED, "message": "\u202e"}}),
])  # fmt: skip
def test_anything_else_is_unreadable(asked: str, data: Any) -> None:
    with pytest.raises(Unreadable):
        parse(asked, json.dumps(data).encode() + b"\n")


@pytest.mark.parametrize(
    "line", [b"", b"\n", b"{", b"[" * 60_000 + b"\n", b'{"version":"a"}', b"1" * MAX_ANSWER + b"\n",
             b'{"version":"\xff"}\n'],
)  # fmt: skip
def test_lines_that_are_none_are_unreadable(line: bytes) -> None:
    with pytest.raises(Unreadable):
        parse(TEST, line)
