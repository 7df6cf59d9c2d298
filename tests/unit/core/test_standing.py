"""The status of the fleet: whatever happens, it says what jobs and archives say."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from borgcube.core import deduplication, events, lifecycle, standing
from borgcube.core.errors import FailureCause, Problem
from borgcube.core.model import Archive, Job, Plan
from borgcube.core.model.fleet import of_client, of_repository
from borgcube.core.store import Store

STORES = Path(__file__).parents[2] / "data" / "stores"
CAUSE = FailureCause("host-unreachable", Problem.NETWORK, "No answer.")
NOW = datetime.now(UTC)


@pytest.fixture
def root():
    store = Store.open("memory://")
    with store.transact() as root:
        yield root
    store.close()


def add_plan(root, name: str = "web-etc", client: str = "web", repository: str = "main"):
    plan = Plan(name=name, client=client, repository=repository)
    root.plans.add(plan)
    root.record(events.PlanAdded(plan=name, client=client, repository=repository))
    return plan


def run(root, plan, state: str = "done", *, archive: bool = True, age_days: float = 0) -> Job:
    job = Job(type="backup", plan=plan.name, client=plan.client, repository=plan.repository)
    lifecycle.queue(root, job)
    end(root, job, state, archive=archive, age_days=age_days)
    return job


def end(root, job, state: str, *, archive: bool = True, age_days: float = 0) -> None:
    lifecycle.take(root, job)
    lifecycle.start(root, job)
    if state in ("done", "warning") and archive:
        start = (datetime.now(UTC) - timedelta(days=age_days)).isoformat()
        number = int(datetime.fromisoformat(start).timestamp() * 1_000_000)
        found = Archive(id=f"id-{job.id}", name=f"{job.plan}-{job.id}", client=job.client,
                        plan=job.plan, repository=job.repository, job=job.id, start=start,
                        stats={"size": 1000, "new_size": 10})  # fmt: skip
        lifecycle.add_archive(root, found, number=number)
    if state == "lost":
        lifecycle.lose(root, job)
    else:
        lifecycle.finish(root, job, state, cause=CAUSE if state == "failed" else None)


@pytest.mark.parametrize(
    ("runs", "level", "reason"),
    [
        ([], "warn", "never"),
        ([("failed", 0)], "bad", "never-failed"),
        ([("lost", 0)], "bad", "never-failed"),
        ([("cancelled", 0)], "warn", "never"),
        ([("done", 0)], "good", "fine"),
        ([("warning", 0)], "warn", "warnings"),
        ([("done", 3)], "warn", "stale"),
        ([("done", 0), ("failed", 0)], "warn", "failed"),
        ([("done", 3), ("failed", 0)], "bad", "failed"),
        ([("failed", 0), ("done", 0)], "good", "fine"),
        ([("done", 0), ("cancelled", 0)], "good", "fine"),
    ],
)
def test_the_level_of_a_plan_follows_its_runs(root, runs, level, reason):
    plan = add_plan(root)
    for state, age_days in runs:
        run(root, plan, state, age_days=age_days)
    status = root.fleet.status("web-etc")
    assert (status.level, status.reason) == (level, reason)
    assert root.fleet.group().counts[level] == 1 and root.fleet.group().worst == level
    assert standing.differences(root) == []


def test_a_plan_becomes_stale_with_time_and_this_is_told_once(root):
    run(root, add_plan(root))
    later = NOW + timedelta(days=2, hours=1)
    assert standing.age(root, now=NOW) == 0
    assert standing.age(root, now=later) == 1 and standing.age(root, now=later) == 0
    status = root.fleet.status("web-etc")
    assert (status.level, status.reason) == ("warn", "stale")
    told = [one.data for one in root.recorded if one.type == "plan.stale"]
    assert [(one["plan"], one["client"]) for one in told] == [("web-etc", "web")]
    assert standing.differences(root, now=later) == []


def test_a_status_counts_failures_and_keeps_what_runs(root):
    plan = add_plan(root)
    for state in ("done", "failed", "lost", "cancelled"):
        run(root, plan, state)
    job = Job(type="backup", plan=plan.name, client="web", repository="main")
    lifecycle.queue(root, job)
    status = root.fleet.status("web-etc")
    assert (status.failures, status.running, status.cause) == (2, job.id, None)
    assert status.days == ((job.created_at[:10], "bad", 1, 2),)
    end(root, job, "done")
    assert (status.failures, status.running) == (0, "")


def test_jobs_that_are_no_backups_say_nothing_of_a_plan(root):
    plan = add_plan(root)
    run(root, plan)
    job = lifecycle.queue(root, Job(type="check", plan=plan.name, repository="main"))
    end(root, job, "failed")
    assert root.fleet.status("web-etc").level == "good"
    assert standing.differences(root) == []


def test_groups_are_ordered_by_urgency_and_count_their_plans(root):
    for name, client, state in (
        ("a", "web", "done"),
        ("b", "web", "failed"),
        ("c", "mail", "done"),
    ):
        run(root, add_plan(root, name, client), state)
    assert [plan for _, plan in root.fleet.group().plans()] == ["b", "a", "c"]
    web = root.fleet.group(of_client("web"))
    assert (web.total, web.worst, web.protected) == (2, "bad", 1000)
    assert root.fleet.group(of_repository("main")).total == 3
    assert list(root.fleet.clients) == [(0, "web"), (2, "mail")]
    assert root.fleet.group(of_client("nobody")).total == 0


def test_a_plan_that_is_made_again_finds_its_history(root):
    plan = add_plan(root)
    run(root, plan)
    root.plans.remove(plan)
    root.record(events.PlanRemoved(plan=plan.name))
    assert root.fleet.status("web-etc") is None and root.fleet.group().total == 0
    add_plan(root)
    assert root.fleet.status("web-etc").level == "good"


def test_a_plan_that_moves_leaves_its_old_groups(root):
    plan = add_plan(root)
    run(root, plan)
    root.plans.change(plan, client="mail", repository="other")
    root.record(events.PlanChanged(plan=plan.name, fields=["client", "repository"]))
    assert root.fleet.group(of_client("web")).total == 0
    assert root.fleet.group(of_repository("other")).protected == 1000
    assert standing.differences(root) == []


def test_a_repository_keeps_a_point_a_day_of_what_came_and_what_is_free(root):
    plan = add_plan(root)
    run(root, plan)
    run(root, plan, age_days=1)
    day = datetime.now(UTC).date().isoformat()
    standing.note_space(root, "main", free=500, disk=1000, day=day, stored=40)
    status = root.fleet.repository("main")
    days = status.days
    told = deduplication.describe(status, now=NOW)
    assert (told["held_bytes"], told["stored_bytes"], told["ratio"]) == (2000, 40, 50.0)
    assert [one["ratio"] for one in told["days"]] == [None, 50.0]
    assert len(days) == 2 and days[day]["new"] == 10 and days[day]["free"] == 500
    for number in range(standing.STORAGE_DAYS + 5):
        past = (NOW + timedelta(days=number)).date().isoformat()
        standing.note_space(root, "main", free=1, disk=2, day=past)
    assert len(days) == standing.STORAGE_DAYS


def test_an_archive_of_unknown_size_is_counted_apart_until_it_goes(root):
    """Archives of old borgs do not say how large they are."""
    run(root, add_plan(root))
    old = Archive(id="old", name="old", repository="main", start=NOW.isoformat(), stats={})
    lifecycle.add_archive(root, old)
    assert not lifecycle.add_archive(root, Archive(id="old", name="old", repository="main"))
    status = root.fleet.repository("main")
    assert (status.held, status.unsized) == (1000, 1)
    assert standing.differences(root) == []
    lifecycle.remove_archive(root, old)
    lifecycle.remove_archive(root, root.archives.newest(1)[0])
    assert (status.held, status.unsized) == (0, 0)
    assert deduplication.describe(status, now=NOW)["ratio"] is None


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["done", "warning", "failed", "lost", "cancelled", "queue", "end",
                         "delete", "move", "remove", "add", "age", "other"]),
        st.integers(0, 3), st.integers(0, 4),
    ),
    max_size=25,
)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(STEPS)
def test_whatever_happens_the_status_says_what_jobs_and_archives_say(steps):
    store = Store.open("memory://")
    waiting: list[Job] = []
    with store.transact() as root:
        for name in "abc":
            add_plan(root, name, "web" if name < "c" else "mail")
        for what, which, days in steps:
            name = "abcd"[which]
            plan = root.plans.find("name", name)
            match what:
                case "add" if plan is None:
                    add_plan(root, name)
                case "end" if waiting:
                    end(root, waiting.pop(days % len(waiting)), "failed" if which else "done")
                case "age":
                    standing.age(root)
                case _ if plan is None:
                    pass
                case "queue":
                    job = Job(type="backup", plan=name, client=plan.client,
                              repository=plan.repository)  # fmt: skip
                    waiting.append(lifecycle.queue(root, job))
                case "other":
                    end(root, lifecycle.queue(root, Job(type="check", plan=name)), "failed")
                case "delete":
                    for archive in list(root.archives.oldest("plan", name))[days % 2 :]:
                        lifecycle.remove_archive(root, archive)
                case "move":
                    root.plans.change(plan, client=f"client-{days}")
                    root.record(events.PlanChanged(plan=name, fields=["client"]))
                case "remove":
                    root.plans.remove(plan)
                    root.record(events.PlanRemoved(plan=name))
                case state if state in standing.ENDED:
                    run(root, plan, state, age_days=days)
        assert standing.differences(root) == []
    store.close()


def test_what_drifted_is_noticed(root):
    run(root, add_plan(root))
    assert standing.differences(root) == []
    root.fleet.status("web-etc").size = 7
    root.fleet.group().counts = {"good": 2}
    root.fleet.repository("main").held = 7
    found = standing.differences(root)
    assert any("size is 7" in one for one in found)
    assert any("of all plans" in one for one in found)
    assert any("size of its archives" in one for one in found)
    root.fleet.repository("main").held = 1000
    standing.refresh(root, "web-etc")
    assert not [one for one in standing.differences(root) if "size" in one]


def test_a_store_of_the_first_schema_gains_the_status_of_its_plans(tmp_path: Path) -> None:
    path = tmp_path / "borgcube.fs"
    shutil.copy(STORES / "core-0001.fs", path)
    store = Store.open(f"file://{path}")
    with store.reading() as root:
        assert standing.differences(root) == []
        (name,) = root.plans.values("name")
        status = root.fleet.status(name)
        assert status.last_state == "failed" and status.size == 1000
        held = [root.fleet.repository(one).held for one in root.repositories.values("name")]
        assert held == [1000]
        assert root.jobs.count(state="done") == 1 and root.jobs.count() == 2
        assert root.jobs.find("id", "1").id == "1"
        assert root.clients.named(5, find="EXAMPLE") == ["web"]
        assert [entry["seq"] for entry in root.journal.since(0)] == list(range(1, 8))
    store.close()
