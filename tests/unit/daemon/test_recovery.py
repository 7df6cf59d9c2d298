"""After a crash the store agrees with the repository, and no job is stuck or lost twice."""

from __future__ import annotations

import json
import signal
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from borgcube.core import lifecycle
from borgcube.core.home import engine_state_dir, repository_state_dir, runtime_dir
from borgcube.core.jobs import JobResult
from borgcube.daemon.dispatcher import Dispatcher
from borgcube.daemon.vaults import rotate


def types(daemon) -> list[str]:
    return [event["type"] for event in daemon.call("events.since")]


def test_a_retry_waits_for_its_time_also_when_the_daemon_restarts(daemon, backup):
    first = daemon.ended(backup("cause", retries=2, retry_delay_s=3600))
    second = str(int(first["id"]) + 1)
    daemon.stop(signal.SIGKILL)
    daemon.start()
    job = daemon.call("job.show", id=second)
    assert job["state"] == "queued"
    wait = datetime.fromisoformat(job["not_before"]) - datetime.fromisoformat(job["created_at"])
    assert abs(wait.total_seconds() - 3600) < 5
    other = daemon.ended(daemon.call("backup.start", plan="plan-cause")["job_id"])
    assert other["state"] == "failed", "a job that is due does not wait behind it"
    assert daemon.call("job.show", id=second)["state"] == "queued"


def test_the_delay_doubles_and_a_clock_that_is_set_back_ends_the_wait():
    now = datetime.now(UTC)

    def due(created: datetime, not_before: datetime) -> bool:
        return lifecycle.time_has_come(created.isoformat(), not_before.isoformat(), now)

    hour = timedelta(hours=1)
    assert lifecycle.time_has_come(now.isoformat(), "", now)
    assert due(now - hour, now - timedelta(seconds=1))
    assert not due(now - hour, now + hour)
    assert due(now + hour, now + 2 * hour)


def test_an_archive_of_a_worker_that_died_is_recorded_with_its_job(daemon, backup):
    facts = {"id": "left", "name": "left-over", "start": "2026-01-01T00:00:00+00:00", "files": 3}
    (runtime_dir(daemon.home) / "claim-1.json").write_text(json.dumps(facts))
    job = daemon.ended(backup("die", retries=3))
    assert (job["id"], job["state"], job["cause"]["kind"]) == ("1", "warning", "worker-died")
    archive = daemon.call("archive.show", name="left-over")
    assert (archive["job"], archive["client"], archive["stats"]) == ("1", "web", {"files": 3})
    assert len(daemon.call("job.list")) == 1, "what is complete is not done again"


def test_archives_are_added_removed_and_renewed_as_the_repository_has_them(daemon, backup):
    kept = daemon.ended(backup())
    entry = daemon.call("archive.list")[0]
    listing = [
        {"id": "new-id", "name": entry["name"], "start": entry["start"], "files": 1},
        {"id": "x", "name": "by-hand", "start": "2020-01-01T00:00:00+00:00", "client": "nobody"},
    ]
    daemon.stop()
    daemon.start()
    (runtime_dir(daemon.home) / "archives.json").write_text(json.dumps(listing))
    daemon.ended(daemon.call("backup.start", plan=kept["plan"])["job_id"])
    found = {a["id"]: a for a in daemon.call("archive.list")}
    assert entry["id"] not in found
    renewed, by_hand = found["new-id"], found["x"]
    assert (renewed["plan"], renewed["client"]) == (kept["plan"], "web")
    assert (by_hand["client"], by_hand["job"]) == ("", "")
    assert len(found) == 3
    events = types(daemon)
    assert events.count("archive.added") == 4 and events.count("archive.deleted") == 1


def test_a_retry_is_not_needed_when_the_lost_jobs_archive_turns_up(daemon, backup):
    first = backup("long", retries=3)
    daemon.until(first, lambda job: job["state"] == "running")
    daemon.stop(signal.SIGKILL)
    listing = [{"id": "n", "name": "complete", "start": "2026-01-01T00:00:00+00:00",
                "client": "web", "plan": "plan-long", "job": first}]  # fmt: skip
    daemon.start()
    # The retry is what starts the vault, which then lists what the lost job had committed.
    (runtime_dir(daemon.home) / "archives.json").write_text(json.dumps(listing))
    second = daemon.ended(str(int(first) + 1))
    assert daemon.call("job.show", id=first)["state"] == "lost"
    assert (second["state"], second["cause"]["kind"]) == ("cancelled", "not-needed")
    assert [one["name"] for one in daemon.call("archive.list")] == ["complete"]
    assert len(daemon.call("job.list")) == 2


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_vault_that_nobody_asked_for_is_started_when_it_is_due(daemon, backup, hours):
    (made,) = daemon.call("repository.list")
    daemon.stop()
    due = datetime.now(UTC) + timedelta(hours=hours)
    state_dir = repository_state_dir(engine_state_dir(daemon.home, "fake"), made["id"])
    (state_dir / f"due-{made['repository_id']}").write_text(due.isoformat())
    daemon.start()
    log = daemon.home / "logs" / "borgcubed.log"
    deadline = time.monotonic() + (20 if hours < 0 else 2)
    while "vault main: ready" not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert ("vault main: ready" in log.read_text()) == (hours < 0)


@pytest.fixture
def owing():
    """A dispatcher with nothing but its list of changes that the store did not take."""
    from collections import deque

    return SimpleNamespace(_owed=deque(), _owed_at=0.0, _refusing=False)


def test_a_change_the_store_does_not_take_is_made_later_and_blocks_no_other(owing):
    done: list[str] = []
    full = [True]

    def record(name: str) -> None:
        if name == "first" and full[0]:
            raise OSError(28, "No space left on device")
        done.append(name)

    def pay() -> None:
        owing._owed_at = 0.0
        Dispatcher._pay(owing)

    owing._owed += [lambda: record("first"), lambda: record("second")]
    pay()
    pay()
    assert done == ["second"] and len(owing._owed) == 1
    full[0] = False
    pay()
    assert done == ["second", "first"] and not owing._owed


def test_a_change_that_is_refused_is_not_tried_for_ever(owing):
    def refused() -> None:
        raise lifecycle.IllegalTransition("no")

    owing._owed.append(refused)
    Dispatcher._pay(owing)
    assert not owing._owed


@pytest.mark.parametrize("error", [TypeError("odd"), OSError(28, "No space left on device")])
def test_a_result_that_cannot_be_recorded_ends_its_job_and_a_full_disk_only_waits(error):
    ends: list[JobResult] = []

    def record(_job_id: str, outcome: JobResult) -> None:
        if outcome.state == lifecycle.DONE:
            raise error
        ends.append(outcome)

    finish = partial(Dispatcher._finish, SimpleNamespace(_record_end=record))
    if isinstance(error, OSError):
        with pytest.raises(OSError, match="No space"):
            finish("job", JobResult(state=lifecycle.DONE))
        assert not ends
    else:
        finish("job", JobResult(state=lifecycle.DONE))
        (end,) = ends
        assert end.state == lifecycle.FAILED and end.cause.kind == "result-not-recorded"


def test_a_vaults_log_is_rotated_by_size(tmp_path: Path):
    log = tmp_path / "vault.log"
    for number in range(4):
        log.write_text(str(number) * 20)
        rotate(log, max_bytes=10, keep=2)
    assert not log.exists()
    assert (tmp_path / "vault.log.1").read_text()[0] == "3"
    assert (tmp_path / "vault.log.2").read_text()[0] == "2"
    assert not (tmp_path / "vault.log.3").exists()
    log.write_text("small")
    rotate(log, max_bytes=10, keep=2)
    assert log.exists()
