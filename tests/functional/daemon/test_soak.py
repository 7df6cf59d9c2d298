"""Cycles of the crash soak; `python -m borgcube.testing.soak` runs any number."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from borgcube.testing import soak


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("cycles", [3, 20])
def test_nothing_is_lost_stuck_or_left_whatever_is_killed(
    cycles: int, capsys: pytest.CaptureFixture
) -> None:
    with tempfile.TemporaryDirectory(prefix="bcs", ignore_cleanup_errors=True) as place:
        words = ["--cycles", str(cycles), "--seed", "3", "--verify-every", str(cycles // 2)]
        code = soak.main([*words, "--workdir", str(Path(place) / "soak")])
    printed = capsys.readouterr().out
    assert code == 0, printed[-5000:]
    assert '"kills": ' in printed
