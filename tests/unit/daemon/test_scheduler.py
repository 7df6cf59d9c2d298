"""The scheduler in virtual time: nothing is lost, nothing runs twice, nothing storms."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from borgcube.core import lifecycle
from borgcube.core.model import Job, Pause, Schedule, Task
from borgcube.core.model.scheduling import PLAN, TASK
from borgcube.core.planning import expected_by, next_runs, rule_named
from borgcube.daemon import timetabling
from borgcube.daemon.queue import SLOTS
from borgcube.testing.virtualtime import UNREACHABLE, Fleet, Run, VirtualClock, told_by

START = datetime(2026, 6, 1, 12, tzinfo=UTC)
HOUR, DAY, MINUTE = timedelta(hours=1), timedelta(days=1), timedelta(minutes=1)


def nightly(name: str = "nightly", spec: str = "daily at 02:00", **more) -> Schedule:
    return Schedule(name=name, spec=spec, **more)


@pytest.fixture
def fleet():
    made = Fleet(VirtualClock(START))
    yield made
    made.store.close()


def night(day: int, hour: int = 2, minute: int = 0) -> datetime:
    return datetime(2026, 6, day, hour, minute, tzinfo=UTC)


def pause(fleet: Fleet, scope: str, target: str = "", until: datetime | None = None) -> None:
    with fleet.store.transact() as root:
        root.pauses.add(Pause(scope=scope, target=target,
                              until=until.isoformat() if until else ""))  # fmt: skip


def test_a_plan_runs_at_its_times_and_no_others(fleet: Fleet) -> None:
    fleet.add(nightly(), ["web"])
    fleet.live(START + 5 * DAY)
    assert fleet.starts_of("web") == [night(day) for day in (2, 3, 4, 5, 6)]
    assert not fleet.types("schedule.missed", "schedule.caught_up")


def test_a_real_day_with_the_server_off_for_six_hours(fleet: Fleet) -> None:
    """Two clients away, one failing, one silently empty; the right runs are caught up."""
    away = {"laptop1": night(2, 9), "laptop2": night(2, 17)}

    def run(job: Job, now: datetime) -> Run:
        if job.plan in away and now < away[job.plan]:
            return Run(5, lifecycle.FAILED, UNREACHABLE)
        if job.plan == "broken":
            return Run(30, lifecycle.FAILED)
        return Run(600, archive=job.plan != "empty")

    fleet.runs, fleet.reachable = run, lambda client, now: now >= away.get(client, now)
    fleet.add(nightly(), ["web", "db", "broken", "empty"])
    fleet.add(nightly("laptops", catch_up="when-reachable"), list(away))
    fleet.add(nightly("strict", "daily at 03:00", catch_up="skip"), ["cache"])
    fleet.live(night(2, 0))
    fleet.stop()
    fleet.live(night(2, 6))
    fleet.start()
    fleet.live(night(3, 1))

    assert Counter(name for _, name, _, _ in fleet.started) == {
        "web": 1, "db": 1, "broken": 1, "empty": 1, "laptop1": 1, "laptop2": 1
    }  # fmt: skip
    for plan in ("web", "db", "broken", "empty"):
        (begun,) = fleet.starts_of(plan)
        assert night(2, 6) <= begun <= night(2, 6, 20), plan
    for plan, back in away.items():
        (begun,) = fleet.starts_of(plan)
        assert back <= begun <= back + HOUR + MINUTE, plan
    caught = {one["name"]: one for one in fleet.types("schedule.caught_up")}
    assert set(caught) == {"web", "db", "broken", "empty", "laptop1", "laptop2"}
    assert caught["web"]["reason"] == "off" and caught["web"]["runs"] == 1
    assert caught["laptop2"]["reason"] == "away" and caught["laptop2"]["late_s"] >= 15 * 3600
    assert [one["name"] for one in fleet.types("schedule.waiting")] == ["laptop1", "laptop2"]
    (missed,) = fleet.types("schedule.missed")
    assert (missed["name"], missed["reason"], missed["runs"]) == ("cache", "off", 1)

    # By evening it shows who has no archive although one is expected.
    with fleet.store.reading() as root:
        late = [p.name for p in root.plans.newest(100)
                if (by := expected_by(root, fleet.registry.schedules, p, night(2, 23)))
                and by < night(2, 23)]  # fmt: skip
    assert sorted(late) == ["broken", "cache", "empty"]

    fleet.live(night(3, 12))
    assert all(len(fleet.starts_of(plan)) == 2 for plan in ("web", "db", "laptop1", "laptop2"))
    assert len(fleet.starts_of("cache")) == 1, "the next night it runs again"


def test_what_was_missed_often_is_caught_up_once(fleet: Fleet) -> None:
    fleet.add(nightly(spec="hourly"), ["web"])
    fleet.live(START + HOUR / 2)
    fleet.stop()
    fleet.live(START + 10 * HOUR + HOUR / 2)
    fleet.start()
    fleet.live(START + 12 * HOUR)
    (caught,) = fleet.types("schedule.caught_up")
    assert caught["runs"] == 10
    hours = [10.5, 11, 12]
    assert fleet.starts_of("web") == [START + h * HOUR for h in hours]


def test_a_kill_at_any_moment_neither_repeats_nor_loses_a_run(fleet: Fleet) -> None:
    fleet.add(nightly(spec="hourly"), ["web"])
    for step in range(1, 30):
        fleet.live(START + step * 20 * MINUTE)
        fleet.stop()
        fleet.start()  # a new scheduler, with nothing but the store
    assert fleet.starts_of("web") == [START + n * HOUR for n in range(1, 10)]


def test_two_runs_of_one_plan_never_overlap_and_the_next_comes_right_after(fleet: Fleet) -> None:
    fleet.runs = lambda job, now: Run(5400)
    fleet.add(nightly(spec="hourly"), ["slow"])
    fleet.add(nightly("strict", spec="hourly", catch_up="skip"), ["skipping"])
    fleet.live(START + 8 * HOUR)
    slow, skipping = fleet.starts_of("slow"), fleet.starts_of("skipping")
    assert all(later - earlier >= 1.5 * HOUR for earlier, later in zip(slow, slow[1:]))  # noqa: B905, RUF007
    assert slow[:3] == [START + HOUR, START + 2.5 * HOUR, START + 4 * HOUR]
    assert skipping == [START + n * HOUR for n in (1, 3, 5, 7)]
    assert {one["reason"] for one in fleet.types("schedule.missed")} == {"busy"}


def test_a_pause_holds_what_is_due_and_its_end_lets_it_go(fleet: Fleet) -> None:
    fleet.add(nightly(), ["web", "db"])
    pause(fleet, "client", "web", until=night(4, 10))
    fleet.live(night(5, 12))
    assert fleet.starts_of("db") == [night(2), night(3), night(4), night(5)]
    assert fleet.starts_of("web") == [night(4, 10), night(5)]
    (ended,) = fleet.types("pause.ended")
    assert (ended["scope"], ended["target"]) == ("client", "web")
    (caught,) = fleet.types("schedule.caught_up")
    assert (caught["reason"], caught["runs"]) == ("pause", 3)


def test_nothing_is_expected_while_paused_and_again_after_it(fleet: Fleet) -> None:
    fleet.add(nightly(), ["web"])

    def expected(now: datetime) -> datetime | None:
        with fleet.store.reading() as root:
            plan = root.plans.find("name", "web")
            return expected_by(root, fleet.registry.schedules, plan, now)

    fleet.live(START + HOUR)
    assert expected(START + HOUR) == night(2, 3, 10), "time, an unknown duration, the grace"
    pause(fleet, "everything")
    assert expected(START + HOUR) is None
    fleet.live(night(4))
    with fleet.store.transact() as root:
        root.pauses.remove(root.pauses.newest(1)[0])
        for entry in root.timetable.entries.values():
            entry.excused = night(4).isoformat()
            root.timetable.move(entry, int(night(4).timestamp()))
    assert expected(night(4)) == night(4, 3, 10)
    fleet.live(night(4, 4))
    assert expected(night(4, 4)) == night(5, 3, 1), "it took a minute; the next one is due"


def test_a_run_waits_for_the_end_of_a_blackout_or_is_left_out(fleet: Fleet) -> None:
    out = ("2026-06-02..2026-06-03 09:00",)
    fleet.add(nightly(blackouts=out), ["web"])
    fleet.add(nightly("strict", blackouts=out, catch_up="skip"), ["cache"])
    fleet.live(night(4, 12))
    assert fleet.starts_of("web") == [night(3, 9), night(4)]
    assert fleet.starts_of("cache") == [night(4)]
    assert [one["reason"] for one in fleet.types("schedule.missed")] == ["blackout"]


def test_a_late_run_does_not_start_outside_its_window(fleet: Fleet) -> None:
    fleet.max_running = 1
    fleet.runs = lambda job, now: Run(3 * 3600)
    fleet.add(nightly(windows=("01:00-06:00",)), ["a", "b", "c"])
    fleet.live(night(2, 23))
    assert sorted(at.hour for at, *_ in fleet.started) == [2, 5]
    fleet.live(night(3, 1, 30))
    assert fleet.started[2][0] == night(3, 1), "the third goes first when the window opens"


def test_hourly_in_a_window_runs_only_there(fleet: Fleet) -> None:
    fleet.add(nightly(spec="hourly", windows=("mon-fri 22:00-02:00",)), ["web"])
    fleet.live(night(3, 12))
    assert [at.hour for at in fleet.starts_of("web")] == [22, 23, 0, 1] * 2


def test_jitter_spreads_a_fleet_and_is_always_the_same_for_one_plan(fleet: Fleet) -> None:
    fleet.max_running = 100
    names = [f"c{n}" for n in range(40)]
    fleet.add(nightly(jitter_s=3600), names)
    fleet.live(night(3, 12))
    seconds = {name: [(at - night(2)).total_seconds() % 86_400 for at in fleet.starts_of(name)]
               for name in names}  # fmt: skip
    assert all(len(set(times)) == 1 and times[0] <= 3601 for times in seconds.values())
    minutes = Counter(int(times[0] // 600) for times in seconds.values())
    assert len(minutes) == 6 and max(minutes.values()) < 20


def test_staggering_starts_the_longest_first_and_keeps_to_the_lanes(fleet: Fleet) -> None:
    lengths = {"big": 3600, "middle": 1800, "small": 600, "tiny": 60}
    fleet.max_running = 2
    fleet.runs = lambda job, now: Run(lengths[job.plan])
    fleet.add(nightly(stagger=True), list(lengths))
    fleet.live(night(3, 12))
    begun = {name: (fleet.starts_of(name)[-1] - night(3)).total_seconds() for name in lengths}
    assert begun == {"big": 0, "middle": 0, "small": 1800, "tiny": 2400}


def test_slots_of_a_repository_and_a_network_are_never_exceeded(fleet: Fleet) -> None:
    fleet.max_running = 10
    fleet.runs = lambda job, now: Run(600)
    fleet.add(nightly(), [f"a{n}" for n in range(8)], repository="one")
    fleet.add(nightly(), [f"b{n}" for n in range(8)], repository="two", network="branch")
    with fleet.store.transact() as root:
        root.settings[SLOTS] = {"repository:one": 3, "network:branch": 2}
    fleet.live(night(2, 6))
    assert len(fleet.started) == 16
    for letter, most in (("a", 3), ("b", 2)):
        begun = [at for at, name, *_ in fleet.started if name.startswith(letter)]
        assert max(Counter(begun).values()) == most
        assert len(set(begun)) == -(-8 // most)


def test_a_retry_that_waits_is_taken_up_by_the_next_run(fleet: Fleet) -> None:
    failing = {"first": True}

    def run(job: Job, now: datetime) -> Run:
        return Run(5, lifecycle.FAILED, UNREACHABLE) if failing.pop("first", False) else Run(60)

    fleet.runs = run
    fleet.add(nightly(spec="hourly"), ["web"], retries=3, retry_delay_s=7200)
    fleet.live(START + 4 * HOUR + HOUR / 2)
    assert fleet.starts_of("web") == [START + n * HOUR for n in (1, 2, 3, 4)]
    with fleet.store.reading() as root:
        assert root.jobs.count(state="queued") == 0


@pytest.mark.parametrize("jump", [-3 * HOUR, -30 * DAY, 3 * HOUR, 400 * DAY])
def test_a_clock_that_jumps_starts_no_storm_and_loses_no_run(fleet: Fleet, jump: timedelta) -> None:
    names = [f"c{n}" for n in range(5)]
    fleet.max_running = 5
    fleet.add(nightly(), names)
    fleet.live(night(10, 3))
    before = len(fleet.started)
    wrong = fleet.clock.now() + jump
    fleet.clock.set_to(wrong)
    fleet.live(wrong + 10 * MINUTE)
    # At most one run each: what the clock now says was missed.
    assert len(fleet.started) - before <= len(names)
    fleet.clock.set_to(night(10, 3, 10))
    fleet.live(night(10, 12))
    count = len(fleet.started)
    assert count - before <= 2 * len(names)
    fleet.live(night(13, 12))
    for name in names:
        assert fleet.starts_of(name)[-3:] == [night(11), night(12), night(13)]
    assert len(fleet.started) - count == 3 * len(names)


def test_a_clock_set_back_over_a_run_does_not_repeat_it(fleet: Fleet) -> None:
    fleet.add(nightly(), ["web"])
    fleet.live(night(2, 2, 30))
    fleet.clock.set_to(night(2, 1, 30))
    fleet.live(night(3, 12))
    assert fleet.starts_of("web") == [night(2), night(3)]


def test_nothing_starts_while_the_clock_has_lost_its_battery(fleet: Fleet) -> None:
    fleet.add(nightly(), ["web"])
    fleet.clock.set_to(datetime(1970, 1, 1, tzinfo=UTC))
    fleet.start()
    fleet.live(datetime(1970, 1, 3, tzinfo=UTC))
    assert fleet.started == [] and fleet.scheduler.findings()
    fleet.clock.set_to(night(2, 1))
    fleet.live(night(2, 3))
    assert fleet.starts_of("web") == [night(2)]


def test_a_task_runs_by_schedule_with_its_parameters(fleet: Fleet) -> None:
    fleet.add(nightly(), [])
    with fleet.store.transact() as root:
        root.tasks.add(Task(name="verify", type="check", repository="main", schedule="nightly",
                            parameters={"part": 7}))  # fmt: skip
        timetabling.enrol(root, fleet.registry.schedules, subject=TASK, name="verify",
                          schedule="nightly", now=fleet.clock.now())  # fmt: skip
    fleet.live(night(3, 12))
    assert fleet.starts_of("verify") == [night(2), night(3)]
    with fleet.store.reading() as root:
        job = root.jobs.newest(1)[0]
        assert (job.type, job.repository, job.parameters) == ("check", "main", {"part": 7})


def test_a_plan_without_its_schedule_leaves_the_timetable(fleet: Fleet) -> None:
    fleet.add(nightly(), ["web", "gone"])
    with fleet.store.transact() as root:
        plan = root.plans.find("name", "web")
        root.plans.change(plan, schedule="")
        timetabling.enrol(root, fleet.registry.schedules, subject=PLAN, name="web", schedule="",
                          now=fleet.clock.now())  # fmt: skip
        root.plans.remove(root.plans.find("name", "gone"))
    fleet.live(night(3))
    assert fleet.started == []
    with fleet.store.reading() as root:
        assert len(root.timetable.entries) == 0 and root.timetable.first_at() == 0


def test_a_plan_that_was_added_around_the_timetable_is_found_at_the_start(fleet: Fleet) -> None:
    fleet.add(nightly(), ["web"])
    with fleet.store.transact() as root:
        root.timetable.remove(PLAN, "web")
    fleet.start()
    fleet.live(night(2, 3))
    assert fleet.starts_of("web") == [night(2)]


def test_a_broken_schedule_is_said_and_stops_no_other(fleet: Fleet) -> None:
    fleet.add(nightly(), ["web"])
    fleet.add(nightly("odd"), ["mail"])
    with fleet.store.transact() as root:
        root.schedules.find("name", "odd").kind = "moon"
    fleet.live(night(2, 3))
    assert fleet.starts_of("web") == [night(2)] and fleet.starts_of("mail") == []
    assert "moon" in fleet.scheduler.findings()[0]["message"]
    with fleet.store.transact() as root:
        root.schedules.find("name", "odd").kind = "calendar"
    fleet.live(night(2, 5))
    assert len(fleet.starts_of("mail")) == 1 and fleet.scheduler.findings() == []


def test_what_is_previewed_is_what_happens(fleet: Fleet) -> None:
    fleet.add(nightly(spec="every 5 hours", jitter_s=1000, windows=("20:00-08:00",),
                      blackouts=("2026-06-03..2026-06-03",)), ["web"])  # fmt: skip
    fleet.live(START + HOUR)
    with fleet.store.reading() as root:
        rule = rule_named(root, fleet.registry.schedules, "nightly")
        entry = root.timetable.get(PLAN, "web")
        assert rule is not None
        shown = next_runs(rule, entry, fleet.clock.now(), 8)
    fleet.live(shown[-1] + MINUTE)
    begun = fleet.starts_of("web")
    assert all(abs(a - b) <= timedelta(seconds=1) for a, b in zip(begun, shown, strict=True))


def test_what_somebody_started_goes_before_what_a_schedule_did(fleet: Fleet) -> None:
    fleet.max_running = 1
    fleet.runs = lambda job, now: Run(1800)
    fleet.add(nightly(), ["a", "b", "c"])
    fleet.live(night(2, 2, 10))
    with told_by(fleet.clock), fleet.store.transact() as root:
        lifecycle.queue(root, Job(type="restore", client="a", repository="main"))
    fleet.live(night(2, 4))
    kinds = [root_type(fleet, job_id) for *_, job_id in fleet.started]
    assert kinds == ["backup", "restore", "backup", "backup"]


def root_type(fleet: Fleet, job_id: str) -> str:
    with fleet.store.reading() as root:
        return str(root.jobs.find("id", job_id).type)
