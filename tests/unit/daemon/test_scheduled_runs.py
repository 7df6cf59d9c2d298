"""The running daemon keeps its timetable: what was due while it was off runs when it is back."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from borgcube.core.store import Store
from borgcube.daemon.timetabling import stamp
from tests.unit.daemon.conftest import Refused


def let_time_pass(home: Path, plan: str, by: timedelta) -> None:
    """Make the next run of a plan due in the past, as if the server had been off."""
    store = Store.open(f"file://{home / 'store' / 'borgcube.fs'}")
    with store.transact() as root:
        entry = root.timetable.get("plan", plan)
        past = datetime.now(UTC) - by
        entry.due = entry.start = stamp(past)
        root.timetable.move(entry, int(past.timestamp()))
    store.close()


def next_job(daemon, after: str) -> dict[str, Any]:
    """Wait for the job that the scheduler queues after another, and for its end."""
    deadline = time.monotonic() + 30
    wanted = str(int(after) + 1)
    while wanted not in {job["id"] for job in daemon.call("job.list")}:
        assert time.monotonic() < deadline, "nothing was queued"
        time.sleep(0.05)
    return daemon.ended(wanted)


def test_what_was_missed_while_the_daemon_was_off_runs_once_when_it_is_back(daemon, backup):
    first = daemon.ended(backup())
    daemon.call("schedule.add", name="yearly", spec="0 3 29 2 *")
    daemon.call("plan.set", name="plan-plain", schedule="yearly")
    assert daemon.call("timetable.show", plan="plan-plain")["next_at"].startswith("2028-02-29")
    daemon.stop()
    let_time_pass(daemon.home, "plan-plain", timedelta(hours=6))
    daemon.start()
    job = next_job(daemon, first["id"])
    assert (job["origin"], job["schedule"], job["state"]) == ("schedule", "yearly", "done")
    (caught,) = [e["data"] for e in daemon.call("events.since")
                 if e["type"] == "schedule.caught_up"]  # fmt: skip
    assert (caught["name"], caught["reason"], caught["runs"]) == ("plan-plain", "off", 1)
    assert 6 * 3600 <= caught["late_s"] < 7 * 3600
    times = daemon.call("timetable.show", plan="plan-plain")
    assert times["next_at"].startswith("2028-02-29") and times["held"] == ""
    assert len(daemon.call("job.list")) == 2


def test_a_paused_plan_runs_after_its_pause_and_by_hand_meanwhile(daemon, backup):
    daemon.ended(backup())
    daemon.call("schedule.add", name="yearly", spec="0 3 29 2 *")
    daemon.call("plan.set", name="plan-plain", schedule="yearly")
    daemon.call("pause.set", scope="client", target="web", reason="moved")
    daemon.stop()
    let_time_pass(daemon.home, "plan-plain", timedelta(minutes=1))
    daemon.start()
    by_hand = daemon.ended(daemon.call("backup.start", plan="plan-plain")["job_id"])
    assert by_hand["state"] == "done" and by_hand["origin"] == ""
    assert daemon.call("timetable.show", plan="plan-plain")["held"] == "pause"
    daemon.call("pause.end", scope="client", target="web")
    job = next_job(daemon, by_hand["id"])
    assert job["origin"] == "schedule"


def test_what_uses_a_schedule_keeps_it_and_bad_ones_name_their_field(daemon, backup):
    daemon.ended(backup())
    daemon.call("schedule.add", name="nightly", spec="daily at 02:00", zone="Europe/Berlin")
    daemon.call("plan.set", name="plan-plain", schedule="nightly")
    with pytest.raises(Refused, match="uses the schedule"):
        daemon.call("schedule.remove", name="nightly")
    for field, wrong in (
        ("spec", {"spec": "0 0 30 2 *"}), ("zone", {"zone": "Mars/Olympus"}),
        ("windows", {"windows": ["08:00-18:00"]}), ("blackouts", {"blackouts": ["x"]}),
        ("catch_up", {"catch_up": "perhaps"}), ("kind", {"kind": "moon"}),
    ):  # fmt: skip
        with pytest.raises(Refused) as caught:
            daemon.call("schedule.set", name="nightly", **wrong)
        assert caught.value.args[0]["field"] == field
    with pytest.raises(Refused):
        daemon.call("plan.set", name="plan-plain", schedule="gone")
    daemon.call("plan.remove", name="plan-plain")
    daemon.call("schedule.remove", name="nightly")
    assert daemon.call("schedule.list") == []
