"""The report of a gate that its client has taken over is read with the same care."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from borgcube.core.jobs import JobOrder
from borgcube.plugins.borg.gateprocess import GateReport
from borgcube.plugins.borg.hearing import Outcome
from borgcube.testing.rig import RecordingContext

KEYS = ("bytes_in", "bytes_out", "committed", "ended", "refused", "kind", "failed",
        "client_version", "committing", "confined")  # fmt: skip
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.just("\x1b[2J" * 500),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["landlock", "call_filter", "x"]), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
lines = st.binary(max_size=60).map(lambda data: data.replace(b"\n", b"")) | st.dictionaries(
    st.sampled_from(KEYS), values, max_size=4
).map(lambda message: json.dumps(message).encode())


def read(report: list[bytes]) -> tuple[Outcome, RecordingContext]:
    outcome, context = Outcome(), RecordingContext(JobOrder("1", "backup"), Path("/nowhere"))
    reader = GateReport(outcome, context, mode="backup")
    out, into = os.pipe()
    thread = threading.Thread(target=reader.read, args=(out,))
    thread.start()
    for line in report:
        os.write(into, line + b"\n")
    os.close(into)
    thread.join(30)
    assert not thread.is_alive() and reader.ended.is_set(), "the reader died"
    return outcome, context


@settings(max_examples=300, deadline=None)
@given(st.lists(lines, max_size=5))
def test_whatever_is_reported_the_reader_goes_on(report: list[bytes]) -> None:
    outcome, context = read(report)
    shown: list[Any] = [outcome.refused, outcome.refused_kind, outcome.gate_failed]
    assert all(text.isprintable() and len(text) <= 500 for text in shown)
    assert 0 <= outcome.bytes_in < 1 << 63
    assert all(line.isprintable() for line in context.lines)


def test_an_endless_line_is_read_in_pieces() -> None:
    outcome, _ = read([b"x" * 60_000, b'{"ended": true}'])
    assert outcome.gate_ended
