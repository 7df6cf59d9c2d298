"""What a client prints is bounded and escaped, whatever it is."""

from __future__ import annotations

import json
import os
import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from borgcube.plugins.borg.hearing import (
    MAX_LINE,
    MAX_LOGGED,
    MAX_WARNINGS,
    ClientOutput,
    Outcome,
    archive_progress,
)


def hear(*pieces: bytes) -> tuple[Outcome, list[str], list[dict[str, object]]]:
    outcome, lines, messages = Outcome(), [], []
    output = ClientOutput(outcome, lambda _level, text: lines.append(text))
    output.on_message = messages.append
    read, write = os.pipe()
    listener = threading.Thread(target=output.read, args=(read,))
    listener.start()
    for piece in pieces:
        os.write(write, piece)
    os.close(write)
    listener.join(60)
    assert not listener.is_alive()
    assert output.received == sum(len(piece) for piece in pieces)
    return outcome, lines, messages


def test_a_line_may_come_in_pieces_and_without_its_end() -> None:
    _, lines, _ = hear(b"one ", b"line\ntwo\n", b"three")
    assert lines == ["client: one line", "client: two", "client: three"]


def test_of_a_long_line_only_its_beginning_counts() -> None:
    _, lines, _ = hear(*[b"x" * 60_000] * 20, b"\nshort\n")
    assert [line[:10] for line in lines] == ["client: xx", "client: sh"]
    assert len(lines[0]) < 600 < MAX_LINE


def test_of_a_traceback_the_last_line_is_kept_and_all_of_it_is_logged() -> None:
    trace = (
        "Traceback (most recent call last):\n"
        + '  File "archiver.py", line 1, in main\n    run()\n' * 60
        + "PermissionError: [Errno 13] Permission denied: '/x/rsh'\n\nPlatform: Linux web\n"
        "Borg: 1.4.5\n"
    )
    said = json.dumps({"type": "log_message", "levelname": "ERROR", "message": trace})
    outcome, lines, _ = hear(said.encode() + b"\n")
    assert outcome.errors == ["PermissionError: [Errno 13] Permission denied: '/x/rsh'"]
    assert len(lines) == 124 and lines[-1] == "client: Borg: 1.4.5"


def test_warnings_and_logged_lines_have_a_limit() -> None:
    warning = b'{"type": "log_message", "levelname": "WARNING", "message": "w"}\n'
    outcome, lines, _ = hear(warning * (MAX_WARNINGS + 5), b"line\n" * MAX_LOGGED)
    assert len(outcome.warnings) == MAX_WARNINGS
    assert len(lines) == MAX_LOGGED + 1 and "no more are logged" in lines[-1]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(max_size=200) | st.text(max_size=50).map(
    lambda text: b'{"type": "log_message", "levelname": "ERROR", "message": "'
    + text.encode("utf-8", "surrogatepass") + b'"}\n'
), max_size=10))  # fmt: skip
def test_whatever_is_printed_is_shown_printable(pieces: list[bytes]) -> None:
    outcome, lines, _ = hear(*pieces)
    for text in [*lines, *outcome.warnings, *outcome.errors]:
        assert text.isprintable() and len(text) <= 510


@given(st.dictionaries(
    st.sampled_from(["type", "nfiles", "original_size", "path", "x"]),
    st.none() | st.integers() | st.floats() | st.text() | st.lists(st.integers(), max_size=2)
    | st.just("archive_progress"),
))  # fmt: skip
def test_figures_of_a_client_are_figures(message: dict[str, object]) -> None:
    figures = archive_progress(message)
    assert set(figures) <= {"files", "bytes_read", "path"}
    for name, value in figures.items():
        assert value.isprintable() if name == "path" else 0 <= value < 1 << 63
