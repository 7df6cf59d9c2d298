"""What is drawn for a drill: by lot, within bytes in memory and on the wire."""

from __future__ import annotations

import json
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from borgcube.core.errors import JobFailed
from borgcube.core.expected import read_expected
from borgcube.plugins.borg.vault import sample
from borgcube.plugins.borg.wire import MAX_FRAME

MIB = 1 << 20


def item(path: bytes, pieces: int) -> dict[bytes, Any]:
    chunks = tuple((b"%032d" % n, 10, 5) for n in range(pieces))
    return {b"path": path, b"mode": 0o100644, b"mtime": 1, b"chunks": chunks}


def ledger_of(items: Iterator[Any]) -> Any:
    return SimpleNamespace(
        lock=threading.RLock(), items=lambda _metadata: items, archive_metadata=lambda _id: {},
        manifest=SimpleNamespace(archives={"a": SimpleNamespace(id=b"i")}),
        key=SimpleNamespace(id_key=b"k"), opened=SimpleNamespace(blake2=False),
        repository=SimpleNamespace(id_str="r"),
    )  # fmt: skip


def drawn(items: Iterator[Any], **more: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"files": 50, "most_bytes": 1 << 40, "canary": "", "whole": None}
    return sample.draw(ledger_of(items), "a", **{**given, **more}, step=lambda: None)


def test_a_large_sample_of_files_with_many_pieces_stays_small(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """10,000 files of 20,000 pieces each were 40 GB."""
    monkeypatch.setattr(sample, "ANSWER_BYTES", 6 * MIB)
    tracemalloc.start()
    try:
        found = drawn((item(b"f%d" % n, 1000) for n in range(240)), files=200)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 50 * MIB, f"{peak / 1e6:.0f} MB"
    assert 50 < len(found["items"]) < 200 and found["files"] == 240
    assert len(json.dumps(found)) < sample.ANSWER_BYTES + MIB < MAX_FRAME
    assert all(len(one["pieces"]) == 1000 for one in found["items"])


def test_the_answer_is_bounded_by_its_paths_too() -> None:
    """A byte of a path can take six of JSON: the frame was too long for its reader."""
    found = drawn((item(b"\xff" * 15_000 + b"%d" % n, 1) for n in range(2000)), files=2000)
    assert len(json.dumps(found)) < sample.ANSWER_BYTES + MIB < MAX_FRAME
    assert found["items"] and found["files"] == 2000


def test_of_many_files_each_has_its_share_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "SAMPLE_BYTES", 100_000)
    found = drawn(iter([item(b"small", 10), item(b"large", 2000)]), files=20)
    assert [one["path"] for one in found["items"]] == ["small"]


def test_a_canary_that_is_too_large_is_a_matter_of_configuration() -> None:
    with pytest.raises(JobFailed) as failure:
        drawn(iter([item(b"c", sample.MAX_PIECES + 1)]), canary="/c")
    assert failure.value.cause.kind == "canary-too-large"
    assert failure.value.cause.problem == "configuration" and failure.value.cause.next_step
    found = drawn(iter([item(b"c", sample.MAX_PIECES)]), canary="/c")
    assert found["canary_found"] and found["items"][0]["path"] == "c"


def test_the_whole_list_is_what_the_drill_reads(tmp_path: Path) -> None:
    listed = [item(b"odd\xff", 3), item(b"empty", 0), item(b"long", 2500)]
    found = drawn(iter(listed), whole=tmp_path / "expected")
    assert found["files"] == 3 and found["items"] == []
    files = [{**one, "pieces": list(one["pieces"])} for one in
             read_expected(tmp_path / "expected")]  # fmt: skip
    assert [one["path"] for one in files] == ["odd\udcff", "empty", "long"]
    assert [len(one["pieces"]) for one in files] == [3, 0, 2500]
    assert files[0]["pieces"][1] == [(b"%032d" % 1).hex(), 10] and files[2]["size"] == 25_000
