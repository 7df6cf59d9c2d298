"""The right people get the right messages, once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from borgcube.core import events, events_keeping, events_notices, planning, silence
from borgcube.core.events_scheduling import PauseEnded, PauseSet
from borgcube.core.model import Pause
from borgcube.core.silence import Deadlines, Expectations
from borgcube.daemon import digest, outbox
from tests.unit.daemon.alarmrig import FULL, LOGIN, Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    made.channel("hook")
    made.fleet("web", "mail")
    yield made
    made.store.close()


def test_a_failed_plan_is_told_once_and_so_is_its_end(rig: Rig) -> None:
    rig.rule()
    for _ in range(3):
        rig.run("web", "failed")
    assert rig.said() == [[("opened", "plan-failed:web")]]
    assert [one["count"] for one in rig.incidents()] == [3]
    # It went out, so its end is told of.
    with rig.store.transact() as root:
        root.deliveries.change(root.deliveries.newest(1)[0], state="sent")
    rig.run("web")
    rig.run("web")
    assert rig.said() == [[("opened", "plan-failed:web")], [("over", "plan-failed:web")]]
    assert rig.incidents(state="open") == []


def test_what_is_over_before_it_was_told_is_not_told(rig: Rig) -> None:
    rig.rule(group_s=600)
    rig.run("web", "failed")
    rig.run("web")
    (only,) = rig.deliveries()
    assert only["state"] == "withdrawn" and only["items"] == []


def test_nothing_is_told_while_a_further_attempt_waits(rig: Rig) -> None:
    rig.rule()
    rig.run("web", "failed", retry=True)
    assert rig.incidents() == []


def test_many_plans_on_one_broken_repository_are_one_problem(rig: Rig) -> None:
    rig.rule()
    rig.run("web", "failed", cause=FULL)
    rig.run("mail", "failed", cause=FULL)
    (only,) = rig.incidents()
    assert only["key"] == "repository-trouble:main" and only["count"] == 2


def test_problems_of_one_time_share_a_message(rig: Rig) -> None:
    rig.rule(group_s=60)
    rig.run("web", "failed")
    rig.later(seconds=20)
    rig.run("mail", "failed")
    (only,) = rig.deliveries()
    assert len(only["items"]) == 2
    assert only["due_at"] == "2026-03-02T12:01:00.000+00:00", "the first one sets the time"
    assert only["subject"] == "[vault] 2 new problems: Plan web: the backup failed"


def test_a_rule_hears_only_of_its_own(rig: Rig) -> None:
    rig.rule("webs", clients=("we*",))
    rig.rule("mails", plans=("mail",))
    rig.rule("elsewhere", repositories=("other",))
    rig.rule("silence", kinds=("plan-silent",))
    rig.rule("off", disabled=True)
    rig.run("web", "failed")
    assert [one["rule"] for one in rig.deliveries()] == ["webs"]


def test_a_minor_problem_that_grows_is_told_when_it_is_bad_enough(rig: Rig) -> None:
    rig.rule(severity="error")
    for kind, told in (("client-clock", 0), ("wrong-id", 1), ("wrong-id", 1)):
        rig.record(events.ClientViolation(client="web", job="1", repository="main", plan="web",
                                          kind=kind, details="x"))  # fmt: skip
        assert len(rig.deliveries()) == told


def test_reminders_come_until_somebody_knows(rig: Rig) -> None:
    rig.rule(remind_hours=24, severity="error", kinds=("plan-failed",))
    rig.run("web", "failed")
    for hours, messages in ((1, 1), (22, 1), (1, 2), (23, 2), (1, 3)):
        rig.later(hours=hours)
        with rig.store.transact() as root:
            for one in list(root.deliveries.oldest("state", "queued")):
                root.deliveries.change(one, state="sent")
        rig.look()
        rig.look()
        assert len(rig.deliveries()) == messages, hours
    assert rig.said()[-1] == [("reminder", "plan-failed:web")]
    with rig.store.transact() as root:
        incident = root.incidents.newest(1, kind="plan-failed")[0]
        incident.acknowledged_by = "ada"
    rig.later(days=3)
    rig.look()
    assert len(rig.deliveries()) == 3


def test_a_silent_plan_is_noticed_and_so_is_its_voice(rig: Rig) -> None:
    rig.rule()
    rig.run("web")
    rig.later(days=2, hours=23)
    rig.look()
    assert rig.incidents() == []
    rig.later(hours=2)
    rig.look()
    rig.look()
    assert {one["key"] for one in rig.incidents()} == {"plan-silent:web", "plan-silent:mail"}
    never = next(one for one in rig.incidents() if one["plan"] == "mail")
    assert "none at all" in never["message"]
    rig.run("web")
    assert {one["key"] for one in rig.incidents(state="open")} == {"plan-silent:mail"}


def test_silence_follows_from_the_schedule_and_its_pauses(rig: Rig) -> None:
    rig.schedule("web", "daily at 02:00")
    rig.run("web")  # at noon
    rig.later(hours=14)
    rig.look()
    assert rig.incidents() == [], "it runs now"
    rig.later(hours=2)  # 04:00: its time, an hour of grace and ten minutes to run are over
    rig.look()
    (only,) = rig.incidents()
    assert only["key"] == "plan-silent:web" and "by 2026-03-03 03:10 UTC" in only["message"]
    with rig.store.transact() as root:
        root.pauses.add(Pause(scope="client", target="web", until="", created_at=rig.at))
    rig.look()
    assert rig.incidents(state="open") == []
    rig.later(days=30)
    rig.look()
    assert {one["plan"] for one in rig.incidents(state="open")} == {"mail"}


@pytest.mark.parametrize("pause", [None, "", "2026-03-05T12:00:00+00:00"])
def test_expectations_of_a_fleet_are_those_of_each_plan(rig: Rig, pause: str | None) -> None:
    specs = ("daily at 02:00", "every 6 hours", "0 3 * * sun", "hourly")
    names = [f"plan{number}" for number in range(len(specs))]
    rig.fleet(*names)
    for name, spec in zip(names, specs, strict=True):
        rig.schedule(name, spec, zone="Europe/Berlin", jitter_s=600)
    rig.run("plan1")
    if pause is not None:
        with rig.store.transact() as root:
            root.pauses.add(Pause(scope="everything", until=pause, created_at=rig.at))
    kinds = rig.registry.schedules
    for hours in (0, 5, 40, 200):
        now = rig.now + timedelta(hours=hours)
        with rig.store.reading() as root:
            expected = Expectations(root, kinds, now, days=3)
            for name in names:
                plan = root.plans.find("name", name)
                assert expected.due_by(plan) == planning.expected_by(root, kinds, plan, now), name


@pytest.mark.parametrize("seed", range(12))
def test_remembered_deadlines_are_those_of_a_look_at_everything(
    rig: Rig, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever happens between two looks: its events alone suffice."""
    monkeypatch.setattr(silence, "ANEW_AFTER", timedelta(days=400))
    chance = random.Random(seed)
    names = [f"plan{number}" for number in range(6)]
    rig.fleet(*names)
    remembered, kinds = Deadlines(), rig.registry.schedules
    anew, nothing_due = 0, 0
    for step in range(60):
        name = chance.choice(names)
        match chance.randrange(7):
            case 0 | 1:
                rig.run(name, chance.choice(("done", "done", "failed")))
            case 2 if step % 3 == 0:
                with rig.store.transact() as root:
                    scope, target = chance.choice([("everything", ""), ("plan", name)])
                    until = (rig.now + timedelta(hours=chance.randrange(1, 90))).isoformat()
                    root.pauses.add(Pause(scope=scope, target=target, until=until))
                    root.record(PauseSet(scope=scope, target=target, until=until, reason=""))
            case 3:
                with rig.store.transact() as root:
                    for pause in root.pauses.newest(1):
                        root.pauses.remove(pause)
                        root.record(PauseEnded(scope=pause.scope, target=pause.target))
            case 4:
                with rig.store.reading() as root:
                    has_one = root.plans.find("name", name).schedule
                if not has_one:
                    rig.schedule(name, chance.choice(("daily at 02:00", "hourly", "every 6 hours")))
                    rig.record(events.PlanChanged(plan=name, fields=["schedule"]))
            case 5 if step > 40:
                with rig.store.transact() as root:
                    plan = root.plans.find("name", name)
                    if plan is not None and len(names) > 2:
                        names.remove(name)
                        root.plans.remove(plan)
                        root.record(events.PlanRemoved(plan=name))
        rig.later(minutes=chance.choice((1, 1, 1, 10, 50, 400)))
        with rig.store.reading() as root:
            expected = Expectations(root, kinds, rig.now, days=3)
            everything = {plan.name: expected.due_by(plan) for plan in root.plans.newest(100)}
            anew += remembered._touched(root, rig.now) is None
            late = remembered.late(root, expected, rig.now)
        wanted = {name: due for name, due in everything.items() if due and due < rig.now}
        assert late == wanted, step
        nothing_due += not wanted
    assert 0 < anew < 50 and nothing_due < 50, "both ways were taken"


def test_a_day_of_trouble_reaches_the_right_people_once(rig: Rig) -> None:
    """The server is off for six hours, two clients are away, one fails, one is silently empty."""
    names = ("shop", "away1", "away2", "sick", "empty")
    rig.fleet(*names)
    for name in names:
        rig.schedule(name, "every 6 hours")
        rig.run(name)
    rig.rule("boss", severity="error", group_s=300, remind_hours=24)
    rig.rule("laptops", clients=("away*",), group_s=300, remind_hours=0)
    rig.rule("guards", kinds=("archive-suspicious",), severity="info", group_s=0)

    def send() -> None:
        rig.later(minutes=10)
        with rig.store.transact() as root:
            for one in list(root.deliveries.oldest("state", "queued")):
                if one.due_at <= rig.at:
                    root.deliveries.change(one, state="sent")

    with rig.store.transact() as root:
        root.plans.remove(root.plans.find("name", "web"))
        root.plans.remove(root.plans.find("name", "mail"))
    rig.kill()
    rig.later(hours=6, minutes=30)  # off; what was missed is caught up afterwards
    rig.open()
    for name in ("shop", "empty"):
        rig.run(name)
    rig.run("sick", "failed", cause=LOGIN)
    for name in ("away1", "away2"):
        rig.run(name, "failed", retry=True)
    rig.record(events_keeping.ArchiveSuspicious(
        archive="empty-2", id="x", repository="main", client="empty", plan="empty", job="9",
        kinds=["empty"], reasons=["It holds no file."],
    ))  # fmt: skip
    for _ in range(6):
        rig.look()
        send()
    told = [(one["rule"], sorted((i["what"], i["plan"]) for i in one["items"]))
            for one in rig.deliveries()]  # fmt: skip
    # The away ones are retried, so they are heard of when they are overdue. The sick one has
    # failed, and then has no archive in time either.
    assert sorted(told) == [
        ("boss", [("opened", "away1"), ("opened", "away2"), ("opened", "sick")]),
        ("boss", [("opened", "sick")]),
        ("guards", [("opened", "empty")]),
        ("laptops", [("opened", "away1"), ("opened", "away2")]),
    ]
    # The laptops come back, the sick one is mended, somebody looks at the empty one.
    for name in ("away1", "away2", "sick", "shop"):
        rig.run(name)
    rig.record(events_keeping.PlanReleased(plan="empty", accepted=["empty-2"]))
    for _ in range(4):
        send()
        rig.look()
    over = [(one["rule"], sorted((i["what"], i["plan"]) for i in one["items"]))
            for one in rig.deliveries()[len(told):]]  # fmt: skip
    assert sorted(over) == [
        ("boss", [("over", "away1"), ("over", "away2"), ("over", "sick"), ("over", "sick")]),
        ("guards", [("over", "empty")]),
        ("laptops", [("over", "away1"), ("over", "away2")]),
    ]
    assert rig.incidents(state="open") == []


def test_a_removed_plan_is_nobodys_problem(rig: Rig) -> None:
    rig.run("web", "failed")
    rig.record(events.PlanRemoved(plan="web"))
    assert rig.incidents(state="open") == []


def test_quiet_hours_hold_what_can_wait_and_let_through_what_cannot(rig: Rig) -> None:
    rig.rule("calm", quiet_from="11:00", quiet_until="14:00", quiet_lets="never")
    rig.rule("urgent", quiet_from="11:00", quiet_until="14:00", quiet_lets="error")
    rig.run("web", "failed")  # at noon
    due = {one["rule"]: one["due_at"][11:16] for one in rig.deliveries()}
    assert due == {"calm": "14:00", "urgent": "12:00"}


def test_events_are_told_when_asked_for_and_never_those_about_telling(rig: Rig) -> None:
    rig.rule(kinds=(), events=("*",))
    rig.record(events.RepositoryPassphraseRevealed(repository="main"))
    rig.record(events_notices.NotificationConfigured(what="rule", name="x", change="added"))
    assert rig.said() == [[("event", "repository.passphrase_revealed")]]


def test_a_channel_does_not_tell_of_its_own_failing(rig: Rig) -> None:
    rig.channel("other")
    rig.rule("first", "hook", kinds=("channel-failing",))
    rig.rule("second", "other", kinds=("channel-failing",))
    for _ in range(3):
        rig.alarms.courier._record("hook", "", False, "no")
    assert [one["rule"] for one in rig.deliveries()] == ["second"]


def test_a_condition_of_the_server_opens_and_closes_and_figures_do_not_matter(rig: Rig) -> None:
    for free in ("900", "800"):
        rig.findings = [{"level": "error", "message": f"Only {free} MiB. Bad.", "next_step": "Go"}]
        rig.look()
    (only,) = rig.incidents()
    assert only["kind"] == "server-condition" and only["count"] == 1
    rig.findings = [{"level": "error", "message": "x", "next_step": "y", "about": "space"}]
    rig.look()
    assert rig.incidents(state="open") == []


def test_a_disk_that_fills_is_told_worse_when_it_is_worse(rig: Rig, monkeypatch: Any) -> None:
    disk = SimpleNamespace(total=1000 << 30, free=0)
    monkeypatch.setattr("borgcube.daemon.storage.shutil.disk_usage", lambda path: disk)
    with rig.store.transact() as root:
        root.repositories.find("name", "main").free_floor_bytes = 20 << 30
    seen = []
    for free in (500, 49, 48, 19, 55, 61):
        disk.free = free << 30
        rig.look()
        seen.append([one["severity"] for one in rig.incidents(state="open")])
    assert seen == [[], ["warning"], ["warning"], ["error"], ["error"], []]


def test_a_prune_that_does_nothing_is_noticed(rig: Rig) -> None:
    held = {"plan": "web", "client": "web", "repository": "main", "policy": "p", "job": "1",
            "reason": "Not good.", "next_step": "Look."}  # fmt: skip
    rig.record(events_keeping.PruneHeld(**held, kind="plan-held"))
    assert rig.incidents() == [], "what holds it is told of already"
    rig.record(events_keeping.PruneHeld(**held, kind="newest-not-good"))
    for values in ({"what": "prune"}, {"what": "prune", "plan": "web"},
                   {"what": "mapping", "pattern": "x*"}):  # fmt: skip
        rig.record(events_keeping.RetentionMatchedNothing(**{"repository": "main", **values}))
    assert [one["kind"] for one in rig.incidents()] == ["nothing-matched"] * 3 + ["prune-held"]


def test_what_nobody_hears_of_again_is_over_after_a_week(rig: Rig) -> None:
    rig.record(events.ArchiveDeleted(archive="a", id="1", repository="main"))
    rig.later(days=6)
    rig.look()
    assert rig.incidents(state="open", kind="archive-gone") != []
    rig.later(days=2)
    rig.look()
    assert rig.incidents(state="open", kind="archive-gone") == []


def test_an_event_counts_once_however_often_the_daemon_dies(rig: Rig, monkeypatch: Any) -> None:
    rig.rule()
    monkeypatch.setattr(rig, "read", lambda: None)
    rig.run("web", "failed")
    rig.kill()
    for _ in range(3):
        rig.open()
        rig.alarms.read_journal()
        rig.alarms._seq = 0  # forgets what it read, and must not care
        rig.kill()
    rig.open()
    rig.alarms.read_journal()
    assert len(rig.deliveries()) == 1 and rig.incidents()[0]["count"] == 1
    with rig.store.reading() as root:
        assert root.counters["jobs", "backup", "failed"] == 1


def test_a_letter_is_written_once_for_its_day_and_late_after_a_night_off(rig: Rig) -> None:
    rig.rule(
        "letter", digest="daily", digest_at="07:00", next_digest_at="2026-03-03T07:00:00.000+00:00"
    )
    rig.run("web")
    rig.look()
    assert rig.deliveries() == []
    rig.later(days=2)  # noon of the 4th: one letter, not two
    rig.look()
    rig.look()
    (only,) = rig.deliveries()
    assert only["kind"] == "digest"
    with rig.store.reading() as root:
        assert root.rules.find("name", "letter").next_digest_at.startswith("2026-03-05T07:00")


def test_a_letter_names_exclusions_that_match_nothing(rig: Rig) -> None:
    rig.rule(digest="daily")
    rig.run("web")
    with rig.store.transact() as root:
        plan = root.plans.find("name", "web")
        plan.excludes, plan.patterns = ("*.o", "*/cahce"), ("- /srv",)
        archive = root.archives.newest(1, plan="web")[0]
        # One of them is no longer the plan's.
        unused = ["*/cahce", "*/old", "- /srv"]
        archive.stats = {**archive.stats, "exclusions": {"digest": "x", "unused": unused}}
    with rig.store.reading() as root:
        rule, expected = root.rules.newest(1)[0], rig.alarms.watch.expected(root, rig.now)
        letter, _ = digest.write(root, rule, expected, rig.now, server="vault", url="")
    text = str(letter)
    assert "Exclusions that match nothing" in text and "*/cahce, - /srv" in text
    assert "*.o" not in text and "*/old" not in text


def test_damage_is_one_problem_until_a_check_finds_none(rig: Rig) -> None:
    rig.rule()
    found = events_keeping.CheckDamageFound(
        repository="main", job="9", check="data", chunks=1, archives=["web-1"],
        files=["web-1: etc/passwd"], words="1 stored object is damaged: 1 file in 1 archive.",
    )  # fmt: skip
    failed = events.JobFinished(
        job="9", job_type="check", state="failed", repository="main",
        cause={"kind": "damage-found", "problem": "repository", "message": "", "next_step": ""},
    )  # fmt: skip
    rig.record(found)
    rig.record(failed)
    rig.record(failed)
    (only,) = rig.incidents()
    assert (only["key"], only["severity"]) == ("repository-damaged:main", "error")
    assert "web-1: etc/passwd" in only["message"]
    rig.record(events_keeping.CheckDamageGone(repository="main", job="11", check="data"))
    assert rig.incidents(state="open") == []


def test_an_archive_that_stands_out_is_told_until_its_plan_is_released(rig: Rig) -> None:
    rig.rule()
    odd = events_keeping.ArchiveSuspicious(
        archive="web-9", id="ab", repository="main", client="web", plan="web", job="7",
        kinds=["empty"], reasons=["It holds no file at all, usually 40."],
    )  # fmt: skip
    rig.record(odd)
    (only,) = rig.incidents()
    assert only["kind"] == "archive-suspicious" and "usually 40" in only["message"]
    assert only["next_step"].endswith("borgcube plan release web")
    rig.record(events_keeping.PlanReleased(plan="web", accepted=["web-9"]))
    assert rig.incidents(state="open") == []


def test_a_failed_drill_does_not_say_that_the_repository_is_unusable(rig: Rig) -> None:
    rig.rule()
    rig.record(events.JobFinished(
        job="9", job_type="drill", state="failed", repository="main",
        cause={"kind": "drill-failed", "problem": "repository", "message": "No.", "next_step": ""},
    ))  # fmt: skip
    assert [one["key"] for one in rig.incidents()] == ["job-failed:drill:main"]


def test_old_problems_and_messages_go_and_one_that_stays_open_does_not_keep_them(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "KEPT", 5)
    rig.rule()
    rig.run("mail", "failed")
    for _ in range(8):
        rig.run("web", "failed")
        rig.run("web")
    with rig.store.transact() as root:
        for delivery in root.deliveries.newest(100):
            root.deliveries.change(delivery, state="sent")
        outbox.forget_old(root)
    with rig.store.reading() as root:
        kept = root.incidents.newest(100)
        assert len(kept) == 5 and root.deliveries.count() <= 5
        assert [one.key for one in kept if one.state == "open"] == ["plan-failed:mail"]
