"""The reader process: confined, thrown away, and never waited for without end."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from borgcube.core.errors import JobFailed, Problem
from borgcube.plugins.borg.metadata import readers as module
from borgcube.plugins.borg.metadata.form import read_block
from borgcube.plugins.borg.metadata.readers import Reader, Readers
from borgcube.plugins.borg.metadata.rules import ArchiveRefused
from borgcube.plugins.borg.wire import JSON, RECORDS, STATE, STREAM, Wire
from tests.unit.plugins.borg.metadata.honest import packed, plain_item
from tests.unit.plugins.borg.metadata.test_decode import ARCHIVE, ID, MANIFEST, pack

ITEM = packed(plain_item())


@pytest.fixture
def readers() -> Iterator[Readers]:
    found = Readers()
    yield found
    found.close()


def read_all(reader: Reader, *chunks: bytes) -> list[bytes]:
    return [r.path for chunk in chunks for block in reader.read(chunk) for r in read_block(block)]


def children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(one) for one in text.split()]


def parent(readers: Readers) -> int:
    assert readers._process is not None
    return readers._process.pid


def test_a_conversation_from_the_manifest_to_the_last_item(readers: Readers) -> None:
    reader = readers.open()
    assert reader.manifest(pack(MANIFEST), expected="a") == ID
    facts = reader.archive(pack(ARCHIVE), expected="a")
    assert facts.items == (ID, bytes([2]) * 32) and facts.chunker_params[0] == "buzhash"
    half = len(ITEM) // 2
    assert read_all(reader, ITEM + ITEM[:half]) == [b"a/file"]
    assert reader.rest == ITEM[:half]
    assert read_all(reader, ITEM[half:]) == [b"a/file"] and reader.rest == b""
    reader.begin(ITEM[:half])
    assert read_all(reader, ITEM[half:] * 1) == [b"a/file"]
    reader.finish()
    reader.close()
    reader.close()


def test_a_child_is_confined(readers: Readers) -> None:
    reader = readers.open()
    assert reader.confined["landlock"] and reader.confined["call_filter"]
    (child,) = children_of(parent(readers))
    status = Path(f"/proc/{child}/status").read_text()
    assert "\nNoNewPrivs:\t1\n" in status and "\nSeccomp:\t2\n" in status
    limits = Path(f"/proc/{child}/limits").read_text()
    assert "unlimited" not in next(one for one in limits.splitlines() if "address space" in one)
    opened = {os.readlink(one) for one in Path(f"/proc/{child}/fd").iterdir()}
    assert sum(one.startswith("socket:") for one in opened) == 1, "only its own conversation"
    reader.close()


@pytest.mark.parametrize("what", ["manifest", "archive", "stream", "end"])
def test_what_is_refused_is_told_in_the_words_of_the_rule(readers: Readers, what: str) -> None:
    reader = readers.open()
    if what == "end":
        assert read_all(reader, ITEM[:-1]) == []
    asked: dict[str, Callable[[], Any]] = {
        "manifest": lambda: reader.manifest(b"\x80", expected="a"),
        "archive": lambda: reader.archive(pack(ARCHIVE), expected="b"),
        "stream": lambda: read_all(reader, b"\xc0"),
        "end": reader.finish,
    }
    with pytest.raises(ArchiveRefused, match=r"\w+ \w+"):
        asked[what]()


def failed(call: Callable[[], Any]) -> JobFailed:
    with pytest.raises(JobFailed) as caught:
        call()
    assert caught.value.cause.kind == "reader-failed"
    assert caught.value.cause.problem is Problem.SERVER
    return caught.value


def test_a_child_that_is_killed_is_our_failure_and_the_next_works(readers: Readers) -> None:
    reader = readers.open()
    (child,) = children_of(parent(readers))
    os.kill(child, signal.SIGKILL)
    failed(lambda: read_all(reader, ITEM))
    assert read_all(readers.open(), ITEM) == [b"a/file"]


def test_a_parent_that_is_killed_is_started_again(readers: Readers) -> None:
    readers.open().close()
    before = parent(readers)
    os.kill(before, signal.SIGKILL)
    assert read_all(readers.open(), ITEM) == [b"a/file"]
    assert parent(readers) != before


def test_a_parent_that_stands_still_is_replaced(
    readers: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers.open().close()
    assert readers._control is not None
    readers._control.settimeout(0.3)
    before = parent(readers)
    os.kill(before, signal.SIGSTOP)
    assert read_all(readers.open(), ITEM) == [b"a/file"]
    assert parent(readers) != before and not Path(f"/proc/{before}").exists()


def test_a_silent_child_is_ended_by_its_deadline(
    readers: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = readers.open()
    reader._wire.sock.settimeout(0.5)
    (child,) = children_of(parent(readers))
    os.kill(child, signal.SIGSTOP)
    began = time.monotonic()
    failed(lambda: read_all(reader, ITEM))
    assert time.monotonic() - began < 20
    deadline = time.monotonic() + 20
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists(), "a stopped child is killed, not left"


def test_the_deadline_is_set_where_a_conversation_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_WAIT_S", 0.2)
    mine, theirs = socket.socketpair()
    with theirs:
        failed(lambda: Reader(mine, None))


# What a child may say ----------------------------------------------------------------------


def taken_over(*answers: tuple[int, bytes]) -> Reader:
    """Return the conversation with a child that says what it is told to say."""
    mine, theirs = socket.socketpair()

    def speak() -> None:
        wire = Wire(theirs)
        wire.send(JSON, b'{"confined": {}}')
        for kind, payload in answers:
            wire.send(kind, payload)
        theirs.shutdown(socket.SHUT_WR)
        while theirs.recv(1 << 16):
            pass
        wire.close()

    threading.Thread(target=speak, daemon=True).start()
    return Reader(mine, None)


FACTS: dict[str, Any] = {
    "time": "2026-01-01T00:00:00+00:00", "time_end": "2026-01-01T00:00:00+00:00",
    "cmdline": [], "hostname": "", "username": "", "chunker_params": ["buzhash", 19, 23, 21, 4095],
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"chunker_params": ["buzhash", 1 << 70]}, {"chunker_params": ["\ud800"]},
        {"chunker_params": ["zip"]}, {"chunker_params": []}, {"chunker_params": [1]},
        {"chunker_params": ["buzhash", True]}, {"chunker_params": ["buzhash", 1, 2, 3, 4, 5]},
        {"chunker_params": 7}, {"time": "2026-01-01T00:00:00"}, {"time": 1}, {"time": None},
        {"cmdline": ["zz"]}, {"cmdline": 1}, {"cmdline": ["00" * (2 << 20)]},
        {"cmdline": [""] * 20_000}, {"hostname": None}, {"hostname": "61" * (65 * 1024)},
        {"username": ["a"]},
    ],
    ids=lambda change: str(change)[:40],
)  # fmt: skip
def test_facts_that_cannot_be_are_not_believed(change: dict[str, Any]) -> None:
    """Else they are stored, or break the commit in which everybody's archives are."""
    reader = taken_over((JSON, json.dumps({**FACTS, **change}).encode()), (STREAM, b""))
    with pytest.raises((JobFailed, ArchiveRefused)):
        reader.archive(b"", expected="a")
    good = taken_over((JSON, json.dumps(FACTS).encode()), (STREAM, bytes(64)))
    assert len(good.archive(b"", expected="a").items) == 2


ODD: dict[str, tuple[Callable[[Reader], Any], list[tuple[int, bytes]]]] = {
    "no JSON": (lambda r: r.manifest(b"", expected="a"), [(JSON, b"{")]),
    "a list": (lambda r: r.manifest(b"", expected="a"), [(JSON, b"[]")]),
    "deep JSON": (lambda r: r.manifest(b"", expected="a"), [(JSON, b"[" * 100_000)]),
    "no ID": (lambda r: r.manifest(b"", expected="a"), [(JSON, b"{}")]),
    "a short ID": (lambda r: r.manifest(b"", expected="a"), [(JSON, b'{"id": "00"}')]),
    "a number as ID": (lambda r: r.manifest(b"", expected="a"), [(JSON, b'{"id": 1}')]),
    "a part of an ID": (
        lambda r: r.archive(b"", expected="a"),
        [(JSON, json.dumps(FACTS).encode()), (STREAM, bytes(33))],
    ),
    "another frame": (lambda r: read_all(r, b""), [(STREAM, b"")]),
    "an answer to nothing": (lambda r: read_all(r, b""), [(JSON, b"{}")]),
    "records for an end": (lambda r: r.finish(), [(RECORDS, bytes(4))]),
    "the end": (lambda r: read_all(r, b""), []),
}


@pytest.mark.parametrize("said", ODD)
def test_a_child_that_says_odd_things_is_our_failure(said: str) -> None:
    ask, answers = ODD[said]
    failed(lambda: ask(taken_over(*answers)))


def test_a_refusal_is_words_of_a_bounded_length_and_of_our_kinds() -> None:
    for kind, ours in (("client-clock", False), ("archive-too-large", True), (7, False)):
        text = "\x1b[2J\nforged line" + "x" * 5000
        said = json.dumps({"refused": text, "kind": kind, "keep": True}).encode()
        with pytest.raises(ArchiveRefused) as caught:
            read_all(taken_over((JSON, said)), b"")
        assert str(caught.value).isprintable() and len(str(caught.value)) <= 300
        assert caught.value.kind == ("archive-too-large" if ours else "archive-refused")
        assert caught.value.keep is ours


def test_an_endless_rest_is_no_reason_to_compare() -> None:
    reader = taken_over((STATE, b"\0"), (STATE, b""))
    assert read_all(reader, b"") == [] and reader.rest is None


def test_nothing_is_left_of_fifty_conversations(readers: Readers) -> None:
    def state() -> tuple[int, list[int], int]:
        mine = len(list(Path("/proc/self/fd").iterdir()))
        theirs = len(list(Path(f"/proc/{parent(readers)}/fd").iterdir()))
        return mine, children_of(parent(readers)), theirs

    readers.open().close()
    deadline = time.monotonic() + 20
    while children_of(parent(readers)) and time.monotonic() < deadline:
        time.sleep(0.02)
    before = state()
    for number in range(50):
        reader = readers.open()
        if number % 3 == 0:
            read_all(reader, ITEM)
        if number % 3 == 1:
            with pytest.raises(ArchiveRefused):
                read_all(reader, b"\xc0")
        reader.close()
    deadline = time.monotonic() + 20
    while state() != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert state() == before
