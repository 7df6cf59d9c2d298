"""The corpus of the fuzzer is replayed, and the harness itself can find something."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from borgcube.plugins.borg.gate import session
from borgcube.testing import agreement, fuzz, fuzztargets
from borgcube.testing.agreement import Disagreement
from borgcube.testing.fuzztargets import TARGETS, Finding

FILES = sorted(fuzz.CORPUS.glob("*/*"))


def test_every_target_has_a_small_corpus() -> None:
    assert set(fuzz.NAMES) == set(TARGETS) == {path.parent.name for path in FILES}
    for name in TARGETS:
        sizes = [path.stat().st_size for path in FILES if path.parent.name == name]
        assert 3 <= len(sizes) <= 60 and max(sizes) <= 1 << 14


@pytest.mark.parametrize("file", FILES, ids=lambda path: f"{path.parent.name}-{path.name[:16]}")
def test_no_input_does_more_than_be_refused(file: Path) -> None:
    TARGETS[file.parent.name](file.read_bytes())


BREAKS = [
    ("items", fuzztargets, "_lookup", lambda _chunk_id: (4, 4)),
    ("compressed", fuzztargets, "decompress", lambda _data, **_limit: bytes(2 << 20)),
    ("agree", agreement, "counted_by_borg", lambda _pieces: {}),
    ("session", session, "hmac", SimpleNamespace(compare_digest=lambda _one, _two: True)),
]


@pytest.mark.parametrize(("target", "module", "name", "instead"), BREAKS, ids=lambda v: str(v)[:9])
def test_the_harness_notices_a_defence_that_is_gone(
    target: str, module: ModuleType, name: str, instead: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, instead)

    def replay() -> None:
        for file in FILES:
            if file.parent.name == target:
                TARGETS[target](file.read_bytes())

    with pytest.raises((Finding, Disagreement)):
        replay()


def test_our_reader_and_borgs_agree_about_generated_archives() -> None:
    """`python -m borgcube.testing.fuzz agree --generate N` reads any number of them."""
    found = agreement.generate(2000, first=1)
    assert not found.get("findings"), found
    assert min(found["accepted"], found["refused"]) > 100


def test_archives_of_two_borgs_are_accepted_as_they_are() -> None:
    for file in FILES:
        if file.parent.name == "agree" and file.name.startswith("honest-"):
            data = file.read_bytes()
            assert agreement.compare([data[:99], data[99:]])
            stored = b"".join(agreement.read_by_us([data]).stored)
            assert agreement.items_of_borg([stored]) != [] and len(stored) <= len(data) + 99
