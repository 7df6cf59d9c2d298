"""The list that a whole drill compares with: read as it was written, a line at a time."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from borgcube.core import budget, expected
from borgcube.core.errors import JobFailed

FACTS = {"size": 7, "mode": 0o100644, "mtime_ns": -1}
files = st.lists(st.tuples(st.text(max_size=5), st.integers(0, 7), st.integers(0, 8)), max_size=6)


@settings(max_examples=60, deadline=None)
@given(files)
def test_each_file_comes_with_its_own_pieces_however_many_of_them_are_read(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[str, int, int]]
) -> None:
    path = tmp_path_factory.mktemp("list") / "expected"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(expected, "PIECES_A_LINE", 3)
        writer = expected.ExpectedWriter(path)
        for name, count, _ in files:
            writer.add({**FACTS, "path": name + "\udcff"}, ((f"{n:064x}", n) for n in range(count)))
        writer.close()
    found = []
    for (_, _, read), one in zip(files, expected.read_expected(path), strict=True):
        pieces = [piece for piece, _ in zip(one.pop("pieces"), range(read), strict=False)]
        found.append((one, pieces))
    assert found == [
        ({**FACTS, "path": name + "\udcff"}, [[f"{n:064x}", n] for n in range(min(count, read))])
        for name, count, read in files
    ]


def test_a_file_of_terabytes_takes_a_line_at_a_time(tmp_path: Path) -> None:
    """As one line it took half a gigabyte in the worker."""
    path, count = tmp_path / "expected", 50_000
    tracemalloc.start()
    try:
        writer = expected.ExpectedWriter(path)
        writer.add({**FACTS, "path": "huge"}, ((f"{n:064x}", n) for n in range(count)))
        writer.close()
        (one,) = (sum(1 for _ in found["pieces"]) for found in expected.read_expected(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert one == count and peak < 2 << 20, f"{peak / 1e6:.0f} MB"


@pytest.mark.parametrize("what", ["most", "free"])
def test_a_list_that_does_not_fit_ends_the_drill_with_a_next_step(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if what == "most":
        monkeypatch.setattr(expected, "MAX_BYTES", 100_000)
    else:
        monkeypatch.setattr(budget, "SPARE_BYTES", 1 << 60)
        monkeypatch.setattr(budget, "SPARE_PERCENT", 200)
    writer = expected.ExpectedWriter(tmp_path / "expected")
    pieces: Any = [("0" * 64, 1)] * 10_000
    with pytest.raises(JobFailed) as failure:
        writer.add({**FACTS, "path": "x"}, pieces)
    assert failure.value.cause.kind == "no-room-for-drill" and failure.value.cause.next_step
    assert failure.value.cause.problem == "server"
    writer.close()
    assert (tmp_path / "expected").stat().st_size < 200_000
