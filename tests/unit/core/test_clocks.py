"""The server's clock decides: what is newest, what a policy keeps, when a plan is silent; and how
far a client's clock is off."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from borgcube.core import clocks, events, lifecycle, planning, pruning, rereading, standing
from borgcube.core.errors import FailureCause, Problem
from borgcube.core.evolution.clocks import order_archives
from borgcube.core.jobs import JobResult
from borgcube.core.model import Archive, Client, Job, Plan, Repository, RetentionPolicy
from borgcube.core.silence import Expectations
from borgcube.core.store import DONE_STEPS, Store
from borgcube.daemon import conditions, reconcile, results
from borgcube.daemon.orders import build_order

STORES = Path(__file__).parents[2] / "data" / "stores"
NOW = datetime.now(UTC).replace(microsecond=0)
DAY = 86400
seconds = st.integers(0, 3 * DAY)


@pytest.fixture
def root():
    store = Store.open("memory://")
    with store.transact() as root:
        root.clients.add(Client(name="web", transport="local"))
        add_plan(root)
        yield root
    store.close()


def add_plan(root, name: str = "etc", **options) -> Plan:
    plan = Plan(name=name, client="web", repository="main", created_at=NOW.isoformat(), **options)
    root.plans.add(plan)
    root.record(events.PlanAdded(plan=name, client="web", repository="main"))
    return plan


def back_up(root, name: str, hours: float, *, off_s: float = 0, **parameters) -> Archive:
    """Record an archive of a job that began ``hours`` ago, by a client whose clock is off."""
    job = Job(type="backup", plan="etc", client="web", repository="main", parameters=parameters)
    lifecycle.queue(root, job)
    lifecycle.take(root, job)
    lifecycle.start(root, job)
    began = NOW - timedelta(hours=hours)
    job.started_at = began.isoformat(timespec="milliseconds")
    start = began + timedelta(seconds=off_s)
    facts = {"id": name.ljust(64, "0"), "name": name, "start": start.isoformat(), "files": 3,
             "size": 1000, clocks.OFFSET: float(off_s)}  # fmt: skip
    results.record_archives(root, job, JobResult(state="done", archives_added=[facts]))
    lifecycle.finish(root, job, "done")
    found = root.archives.find("name", name)
    found.created_at = (began + timedelta(minutes=5)).isoformat()
    return found


# How far a clock is off ------------------------------------------------------------------


@given(
    off=st.integers(-3 * DAY, 3 * DAY), took=seconds, until_start=st.integers(0, 120),
    after_end=st.integers(0, 120),
)  # fmt: skip
def test_an_offset_is_found_however_long_the_backup_took(off, took, until_start, after_end):
    """Never more than there is, and less only by what connecting and sending took."""
    begin = NOW + timedelta(seconds=until_start)
    end = begin + timedelta(seconds=took)
    found = clocks.offset_s(
        start=begin + timedelta(seconds=off), end=end + timedelta(seconds=off),
        began=NOW, received=end + timedelta(seconds=after_end),
    )  # fmt: skip
    assert min(off, 0) <= found <= max(off, 0)
    assert abs(off - found) <= (after_end if off > 0 else until_start)


def test_when_our_own_clock_was_set_nothing_is_said_of_the_clients(monkeypatch):
    watch = clocks.Watch()
    hour = timedelta(hours=1)
    monkeypatch.setattr(watch, "_received", watch._received - hour)
    now = datetime.now(UTC)
    assert watch.offset_s(now, now) == 0.0
    watch.stop()
    assert watch.offset_s(now + hour, now + hour) == pytest.approx(3600, abs=5)
    assert watch.offset_s(now - hour, now - hour) == pytest.approx(-3600, abs=5)


@pytest.mark.parametrize(
    ("off", "said"),
    [(600, "10 minutes ahead of"), (-600, "10 minutes behind"), (82800, "23 h ahead of"),
     (-7500, "2 h 5 min behind")],
)  # fmt: skip
def test_how_far_a_clock_is_off_is_said_in_words(off, said):
    assert (
        clocks.words("Client web", off) == f"Client web has a clock that is {said} this server's."
    )


def test_a_clock_that_is_off_is_told_of_until_a_backup_finds_it_right(root):
    back_up(root, "a", 5, off_s=-290)
    assert not conditions.clients(root)
    back_up(root, "b", 4, off_s=600)
    (found,) = conditions.clients(root)
    assert "Client web has a clock that is 10 minutes ahead" in found["message"]
    assert "NTP" in found["next_step"] and found["level"] == "warning"
    back_up(root, "c", 3, off_s=-3600)
    (found,) = conditions.clients(root)
    assert "60 minutes behind" in found["message"]
    back_up(root, "d", 2)
    assert not conditions.clients(root)


@pytest.mark.parametrize("odd", [None, "far", float("nan"), float("inf"), 1e300])
def test_an_odd_offset_is_none(odd):
    assert clocks.told({clocks.OFFSET: odd}) == 0.0


# What goes by the server's clock ----------------------------------------------------------


def test_the_newest_archive_is_the_one_whose_job_began_last(root):
    back_up(root, "ahead", 30, off_s=23 * 3600)
    back_up(root, "right", 20)
    back_up(root, "behind", 10, off_s=-23 * 3600)
    assert [one.name for one in root.archives.newest(5)] == ["behind", "right", "ahead"]
    status = root.fleet.status("etc")
    assert status.archive_name == "behind" and standing.differences(root) == []
    assert standing.utc(status.archive_at) == NOW - timedelta(hours=10)
    assert planning.last_success(root, "etc") == NOW - timedelta(hours=10)
    # What the client says is kept as it is.
    assert root.archives.find("name", "ahead").start == (NOW - timedelta(hours=7)).isoformat()


def test_a_policy_goes_by_the_servers_clock_whatever_the_client_says(root):
    """Of a client whose clock jumps about, the same archives stay as of one that is right."""
    offsets = {"a": 0, "b": 23, "c": -23, "d": 23, "e": -23, "f": 0}
    for number, (name, hours) in enumerate(offsets.items()):
        back_up(root, name, 24 * (6 - number), off_s=hours * 3600)
    policy = RetentionPolicy(name="two", last=2, zone="UTC")
    plan = root.plans.find("name", "etc")
    decision = pruning.decide(root, plan, now=NOW, policy=policy)
    assert [one.entry.name for one in decision.verdicts] == ["f", "e", "d", "c", "b", "a"]
    assert [one.entry.name for one in decision.verdicts if one.keep] == ["f", "e"]
    daily = RetentionPolicy(name="daily", daily=3, zone="UTC")
    decision = pruning.decide(root, plan, now=NOW, policy=daily)
    assert [one.entry.name for one in decision.verdicts if one.keep] == ["f", "e", "d"]


def test_a_plan_is_silent_by_the_servers_clock(root):
    expected = Expectations(root, {}, NOW, days=2)
    plan = root.plans.find("name", "etc")
    back_up(root, "ahead", 60, off_s=23 * 3600)
    assert expected.due_by(plan) == NOW - timedelta(hours=12)  # silent, whatever it says
    back_up(root, "behind", 30, off_s=-23 * 3600)
    assert expected.due_by(plan) == NOW + timedelta(hours=18)


def test_what_plain_borg_made_has_only_borgs_time(root):
    back_up(root, "ours", 10)
    entry = {"id": "f" * 64, "name": "theirs", "start": (NOW - timedelta(hours=5)).isoformat()}
    results_number = results.archive_number(entry["start"])
    found = results.archive_from(entry, repository="main")
    lifecycle.add_archive(root, found, number=results_number)
    assert found.begun_at == "" and found.at == entry["start"]
    assert [one.name for one in root.archives.newest(5)] == ["theirs", "ours"]


def test_an_archive_that_is_found_gets_the_time_of_its_job_or_of_what_it_was_made_from(root):
    """After a crash, and after a repair has made it anew under its name."""
    job = Job(type="backup", plan="etc", client="web", repository="main")
    lifecycle.queue(root, job)
    job.started_at = (NOW - timedelta(hours=9)).isoformat()
    entry = {"id": "a" * 64, "name": "found", "start": (NOW + timedelta(hours=9)).isoformat(),
             "client": "web", "plan": "etc", "job": job.id}  # fmt: skip
    reconcile.record_found(root, "main", entry)
    found = root.archives.find("name", "found")
    assert found.begun_at == job.started_at
    assert root.archives.number_of(found) == results.archive_number(job.started_at)
    lifecycle.remove_archive(root, found)
    again = {"id": "b" * 64, "name": "found", "start": entry["start"]}
    reconcile.record_found(root, "main", again, before=found)
    made_anew = root.archives.find("name", "found")
    assert made_anew.begun_at == job.started_at and made_anew.plan == "etc"


# Older stores -----------------------------------------------------------------------------


def test_a_store_of_0_1_0_is_put_in_the_order_of_the_servers_time(tmp_path: Path) -> None:
    """``core-0008.fs``: ab was made by a client 23 hours ahead, 01 by one 10 hours behind (and is
    deleted), ef by plain borg; cd is the newest in sight, and 0.1.0 took ab for it."""
    path = tmp_path / "borgcube.fs"
    shutil.copy(STORES / "core-0008.fs", path)
    store = Store.open(f"file://{path}")
    with store.transact() as root:
        names = [one.name[-2:] for one in root.archives.newest(9)]
        assert names == ["01", "cd", "ab", "23", "ef"]
        assert root.fleet.status("web-etc").archive_name == "web-etc-cd"
        assert standing.differences(root) == []
        begun = {one.name[-2:]: one.begun_at[:13] for one in root.archives.newest(9)}
        assert begun == {"01": "2026-03-01T14", "cd": "2026-03-01T13", "ab": "2026-03-01T01",
                         "23": "2026-02-28T01", "ef": ""}  # fmt: skip
        assert root.archives.find("name", "web-etc-ab").start[:13] == "2026-03-02T00"
        (number,) = root.trash.values()
        assert root.archives.rows[number].name == "web-etc-01"
        before = list(root.archives.rows)
    with store._mapping() as mapping:
        assert mapping[DONE_STEPS][-1] == "core:0009"
        order_archives(mapping)
    with store.reading() as root:
        assert list(root.archives.rows) == before
    store.close()
    assert (tmp_path / "borgcube.fs.before-core-0009").exists()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(-3, 3), st.booleans()), max_size=8))
def test_the_step_orders_any_store_and_again_changes_nothing(made):
    store = Store.open("memory://")
    with store.transact() as root:
        add_plan(root)
        for number, (hour, off, with_job) in enumerate(made):
            job = Job(type="backup", plan="etc", client="web", repository="main")
            lifecycle.queue(root, job)
            job.started_at = (NOW + timedelta(hours=hour)).isoformat()
            start = (NOW + timedelta(hours=hour + off)).isoformat()
            old = Archive(id=f"{number:064x}", name=f"n{number}", plan="etc", client="web",
                          repository="main", start=start,
                          job=job.id if with_job else "")  # fmt: skip
            lifecycle.add_archive(root, old, number=results.archive_number(start))
    for _ in range(2):
        with store._mapping() as mapping:
            order_archives(mapping)
        with store.reading() as root:
            rows = list(root.archives.rows.items())
            times = [standing.utc(one.at) for _, one in rows]
            assert times == sorted(times) and len(rows) == len(made)
            assert [d for d in standing.differences(root) if "active" not in d] == []
            assert all(root.archives.number_of(one) == number for number, one in rows)
    store.close()


# Reading all files again ------------------------------------------------------------------


def violate(root, plan: str = "etc") -> Job:
    job = Job(type="backup", plan=plan, client="web", repository="main")
    lifecycle.queue(root, job)
    result = JobResult(state="failed", violations=[{"kind": "wrong-id", "details": "x"}])
    results.record_violations(root, job, result)
    return job


def test_a_violation_offers_to_read_every_plan_of_the_client_again_until_one_did(root):
    add_plan(root, "home")
    other = Plan(name="mail", client="mail", repository="main")
    root.plans.add(other)
    violate(root)
    assert sorted(root.unread) == ["etc", "home"]
    assert rereading.wanted_of(root, "web", most=5) == ["etc", "home"]
    said = [one["next_step"] for one in conditions.clients(root)]
    assert any("borgcube backup etc --reread" in one for one in said)
    back_up(root, "ordinary", -1)
    back_up(root, "before", 1, reread=True)  # it began before the violation
    assert sorted(root.unread) == ["etc", "home"]
    back_up(root, "after", -1, reread=True)
    assert list(root.unread) == ["home"]
    violate(root)
    assert sorted(root.unread) == ["etc", "home"]


def test_the_cause_of_such_a_job_names_the_command():
    cause = FailureCause("client-refused", Problem.CLIENT, "It was refused.", "Look at it.")
    found = rereading.with_offer(cause, "etc")
    assert found.next_step == (
        "Look at it. Then have all its files read again: borgcube backup etc --reread"
    )
    assert rereading.with_offer(cause, "") is cause and rereading.with_offer(None, "etc") is None


def test_a_reread_survives_its_retries_and_not_the_next_run(root):
    plan = root.plans.find("name", "etc")
    plan.retries, plan.retry_delay_s = 2, 0
    root.repositories.add(Repository(name="main", path="/srv/main", repository_id="aa" * 32))
    job = Job(type="backup", plan="etc", client="web", repository="main",
              parameters=rereading.parameters(reread=True))  # fmt: skip
    lifecycle.queue(root, job)
    for _ in range(2):
        job.parameters = build_order(root, job).parameters
        assert job.parameters["files_cache"] == "disabled" and job.parameters["reread"] is True
        job = lifecycle.requeue(root, job)
    later = Job(type="backup", plan="etc", client="web", repository="main")
    lifecycle.queue(root, later)
    order = build_order(root, later)
    assert order.parameters["files_cache"] == "ctime,size" and "reread" not in order.parameters
