"""The wire form of every event is what subscribers were promised.

A change here is a change for everybody who listens. When it is meant, write the files anew
with ``python tests/meta/test_event_wire.py`` and say so in the changelog.
"""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from borgcube.core import events

DIRECTORY = Path(__file__).parents[1] / "data" / "events"
SAMPLES: dict[str, Any] = {
    "str": "text",
    "int": 7,
    "bool": True,
    "list[str]": ["one", "two"],
    "dict[str, Any]": {"key": "value"},
    "dict[str, Any] | None": {"key": "value"},
}


def wire(kind: type[events.Event]) -> bytes:
    """Return the wire form of one event with every field set, and a fixed id and time."""
    values = {field.name: SAMPLES[str(field.type)] for field in fields(kind)}
    envelope = events.Envelope.of(kind(**values), seq=42 if kind.JOURNALLED else None)
    return replace(envelope, id="0" * 32, at="2026-01-02T03:04:05.678+00:00").to_json() + b"\n"


@pytest.mark.parametrize("kind", events.BUILT_IN, ids=lambda kind: kind.TYPE)
def test_wire_form_is_the_golden_one(kind: type[events.Event]) -> None:
    assert wire(kind) == (DIRECTORY / f"{kind.TYPE}.json").read_bytes()


@pytest.mark.parametrize("file", sorted(DIRECTORY.glob("*.json")), ids=lambda file: file.stem)
def test_a_golden_envelope_can_be_read_back(file: Path) -> None:
    data = json.loads(file.read_bytes())
    assert events.Envelope.from_data(data).to_json() + b"\n" == file.read_bytes()


def test_there_is_one_file_for_each_event_and_every_event_is_listed() -> None:
    types = {kind.TYPE for kind in events.BUILT_IN}
    assert {file.stem for file in DIRECTORY.glob("*.json")} == types
    assert set(events.BUILT_IN) == set(events.Event.__subclasses__())


if __name__ == "__main__":
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for stale in DIRECTORY.glob("*.json"):
        stale.unlink()
    for event in events.BUILT_IN:
        (DIRECTORY / f"{event.TYPE}.json").write_bytes(wire(event))
