"""Pages about time: made, previewed, paused, by those who may, with words beside the field."""

from __future__ import annotations

import re
from html import unescape

from borgcube.testing.consolerig import ConsoleRig

TYPED = {"name": "nights", "spec": "daily at 02:00", "zone": "Europe/Berlin", "windows": "",
         "blackouts": "", "catch_up": "once", "jitter_s": "600", "grace_s": "3600",
         "kind": "calendar"}  # fmt: skip


def test_a_schedule_is_previewed_made_used_paused_and_removed(console: ConsoleRig) -> None:
    visitor = console.visitor("olga")
    form = "/schedules/+add"
    shown = visitor.post(form, {**TYPED, "preview": "yes"}, form=form)
    assert shown.status == 200 and len(re.findall(r"<li><time", shown.text)) == 10
    assert console.call("schedule.list") == []
    assert visitor.post(form, TYPED, form=form).status == 303
    assert "daily at 02:00" in visitor.get("/schedules").text

    console.call("plan.set", name="web-etc", schedule="nights")
    page = visitor.get("/plans/web-etc").text
    assert "Next runs" in page and "Archive expected by" in page
    assert "1" in visitor.get("/schedules/named/nights").text

    pause = "/plans/web-etc/pause"
    assert visitor.post(pause, {"hours": "24", "reason": "<b>moved</b>"}, form=pause).status == 303
    page = visitor.get("/plans/web-etc").text
    assert "Paused until" in page and "&lt;b&gt;moved" in page and "<b>moved" not in page
    assert "paused" in visitor.get("/plans").text
    listed = visitor.get("/schedules").text
    assert "web-etc" in listed and "End the pause" in listed
    assert visitor.post("/plans/web-etc/resume").status == 303
    assert console.call("pause.list") == []

    edit = "/schedules/named/nights/edit"
    assert visitor.post(edit, {**TYPED, "spec": "hourly"}, form=edit).status == 303
    assert console.call("schedule.show", name="nights")["spec"] == "hourly"
    assert visitor.post("/schedules/named/nights/remove").status == 400, "a plan uses it"
    console.call("plan.set", name="web-etc", schedule="")
    assert visitor.post("/schedules/named/nights/remove").status == 303
    assert console.call("schedule.list") == []


def test_what_is_wrong_with_a_schedule_is_said_beside_its_field(console: ConsoleRig) -> None:
    visitor = console.visitor("ada")
    form = "/schedules/+add"
    for wrong, field, words in (
        ({"spec": "0 0 30 2 *"}, "spec", "is not possible"),
        ({"zone": "Mars/Olympus"}, "zone", "There is no time zone"),
        ({"windows": "08:00-18:00"}, "windows", "No run of"),
        ({"blackouts": "later"}, "blackouts", "is not a span of time"),
    ):
        for more in ({}, {"preview": "yes"}):
            answer = visitor.post(form, {**TYPED, **wrong, **more}, form=form)
            assert answer.status == 400
            text = unescape(answer.text)
            assert re.search(rf'id="f-{field}-error">[^\n]*{words}', text), (field, more)
            assert 'value="nights"' in text, "what was typed is kept"


def test_a_month_shows_what_ended_and_what_is_planned(console: ConsoleRig) -> None:
    console.call("schedule.add", name="months", spec="daily at 12:00")
    console.call("plan.set", name="mail-etc", schedule="months")
    visitor = console.visitor("vera")
    page = visitor.get("/schedules/+month")
    assert page.status == 200 and re.search(r"<span>\d+ good</span>", page.text)
    assert "1 planned" in visitor.get("/schedules/+month?month=2030-02").text
    for odd in ("0000-00", "x", "9999-99", "2026-13"):
        assert visitor.get(f"/schedules/+month?month={odd}").status == 200
    console.call("plan.set", name="mail-etc", schedule="")
    console.call("schedule.remove", name="months")


def test_owners_pause_their_own_plans_and_nothing_else(console: ConsoleRig) -> None:
    visitor = console.visitor("owen")
    pause = "/plans/web-etc/pause"
    assert visitor.post(pause, {"hours": "1", "reason": ""}, form=pause).status == 303
    assert visitor.post("/plans/web-etc/resume").status == 303
    assert visitor.post("/plans/mail-etc/pause", {"hours": "1", "reason": ""}).status == 404
    for path in ("/schedules", "/schedules/+pause", "/schedules/+month", "/schedules/+add"):
        assert visitor.get(path).status == 403, path
    assert console.visitor("vera").post("/schedules/+resume", {"scope": "everything"}).status == 403


def test_slots_are_shown_limited_and_freed(console: ConsoleRig) -> None:
    visitor, page, form = console.visitor("olga"), "/schedules/+slots", "/schedules/+limit"
    assert "0 of 4" in visitor.get(page).text and "No repository and no network" in (
        visitor.get(page).text
    )  # fmt: skip
    for of, network, name in (("repository:main", "", "main"), ("network:", "branch", "branch")):
        typed = {"of": of, "network": network, "slots": "3"}
        assert visitor.post(form, typed, form=form).location == page
        shown = visitor.get(page).text
        assert name in shown and "0 of 3" in shown
    assert [(row["name"], row["slots"]) for row in console.call("slots.list")] == [
        ("", 4), ("branch", 3), ("main", 3),
    ]  # fmt: skip
    # The form of a limit that is there has it, and its network can be chosen.
    again = visitor.get(f"{form}?of=network:branch").text
    assert re.search(r'value="network:branch" selected', again)
    assert re.search(r'name="slots" type="number" value="3"', again)
    for typed, field, words in (
        ({"of": "network:", "network": "", "slots": "1"}, "network", "This is needed"),
        ({"of": "network:", "network": "a/b", "slots": "1"}, "network", "not a valid name"),
        ({"of": "repository:no", "slots": "1"}, "of", "Choose from the list"),
        ({"of": "repository:main", "slots": "-1"}, "slots", "At least 0"),
        ({"of": "repository:main", "slots": ""}, "slots", "This is needed"),
    ):
        answer = visitor.post(form, typed, form=form)
        assert answer.status == 400
        assert re.search(rf'id="f-{field}-error">[^\n]*{words}', unescape(answer.text)), typed
    looker = console.visitor("vera").get(page).text
    assert "0 of 3" in looker and "+limit" not in looker
    for of in ("repository:main", "network:branch"):
        assert visitor.post(form, {"of": of, "slots": "0"}, form=page).status == 303
    assert len(console.call("slots.list")) == 1
    audit = console.visitor("ada").get("/audit").text
    assert "slots.set" in audit and "branch" in audit
