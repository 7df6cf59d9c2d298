"""What a worker may take: memory, its job's log, its standard error."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from borgcube.daemon import worker
from borgcube.daemon.joblog import LINES, TEXT, JobLog


def test_a_worker_without_memory_is_the_servers_fault() -> None:
    """It was told as a mistake of BorgCube's, without a next step that helps."""

    class Job:
        def run(self, _context: Any) -> Any:
            raise MemoryError

    context: Any = SimpleNamespace(
        order=SimpleNamespace(type="job", job_id="j"), log=lambda *_: None,
        reporter=SimpleNamespace(cancelled=SimpleNamespace(is_set=lambda: False)),
    )  # fmt: skip
    registry: Any = SimpleNamespace(job_types={"job": Job()})
    result = worker.run_job(context, registry)
    assert result.state == "failed" and result.cause is not None
    assert (result.cause.kind, result.cause.problem) == ("worker-memory", "server")
    assert result.cause.next_step and result.violations == []


def test_a_workers_standard_error_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that speaks SSH oddly makes paramiko warn for each packet."""
    stream = io.StringIO()
    monkeypatch.setattr(worker.sys, "stderr", stream)
    log = logging.Logger("paramiko.transport")
    log.addHandler(worker.Said())
    for number in range(50_000):
        log.warning("Oops, unhandled type %d of a packet that nobody has asked for", number)
    assert worker.MAX_SAID // 2 < len(stream.getvalue()) <= worker.MAX_SAID + 200


@pytest.mark.parametrize("text", ["plain", "\N{LATIN SMALL LETTER U WITH DIAERESIS}" * 400])
def test_both_files_of_a_jobs_log_are_capped(tmp_path: Path, text: str) -> None:
    """JSON takes six bytes for what is two in the text."""
    log = JobLog(tmp_path, 100_000)
    for _ in range(5000):
        log.write("info", text, {})
    log.close()
    for name in (TEXT, LINES):
        assert (tmp_path / name).stat().st_size < 103_000, name
    assert "size limit" in (tmp_path / TEXT).read_text()
