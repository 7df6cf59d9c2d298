"""Policies in a running daemon: what goes is out of sight first, and what must stay stays."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from borgcube.core.home import runtime_dir

from .conftest import Refused


def events_of(daemon: Any, kind: str) -> list[dict[str, Any]]:
    return [e["data"] for e in daemon.call("events.since") if e["type"] == kind]


@pytest.fixture
def history(daemon, tmp_path):
    """Return a function that gives plans daily archives, the newest an hour old."""
    daemon.call("repository.create", name="main", path=str(tmp_path / "repo"), passphrase="right")
    daemon.call("client.add", name="web", transport="local")
    told = runtime_dir(daemon.home) / "archives.json"

    def make(plans: dict[str, int], *, files: int = 3) -> None:
        now = datetime.now(UTC)
        listed = []
        for plan, count in plans.items():
            daemon.call("plan.add", name=plan, client="web", repository="main", paths=["/etc"])
            listed += [
                {
                    "id": f"{plan}{number:04d}", "name": f"{plan}-{number:03d}", "plan": plan,
                    "client": "web", "files": files if number == 0 else 3,
                    "start": (now - timedelta(days=number, hours=1)).isoformat(),
                }
                for number in range(count)
            ]  # fmt: skip
        listed.append({"id": "stray", "name": "stray", "start": "2020-01-01T00:00:00"})
        told.write_text(json.dumps(listed))
        # A vault that starts tells of them.
        job = daemon.ended(daemon.call("prune.start", repository="main")["job_id"])
        assert job["state"] == "warning", job
        assert len(daemon.call("archive.list")) == len(listed)

    return make


def prune(daemon: Any, **what: Any) -> dict[str, Any]:
    return daemon.ended(daemon.call("prune.start", **what)["job_id"])


def names(daemon: Any, **what: Any) -> set[str]:
    return {archive["name"] for archive in daemon.call("archive.list", **what)}


def test_a_prune_hides_what_goes_and_touches_no_other_plan(daemon, history):
    history({"etc": 9, "home": 9})
    daemon.call("retention.add", name="week", daily=5)
    said = daemon.call("retention.attach", plan="etc", policy="week")
    assert (said["kept"], said["going"], said["held"]) == (5, 4, "")
    seen = daemon.call("retention.preview", plan="etc")
    assert [row["rule"] for row in seen["archives"][:5]] == ["daily"] * 5
    assert prune(daemon, repository="main")["state"] == "done"
    going = {row["archive"] for row in seen["archives"] if not row["keep"]}
    assert names(daemon, deleted=True) == going == {f"etc-{n:03d}" for n in range(5, 9)}
    assert names(daemon) == {f"etc-{n:03d}" for n in range(5)} | {
        f"home-{n:03d}" for n in range(9)
    } | {"stray"}
    pruned = events_of(daemon, "archive.pruned")
    assert {one["archive"] for one in pruned} == going and pruned[0]["policy"] == "week"
    assert events_of(daemon, "archive.deleted") == [], "they are still in the repository"
    for one in pruned:
        left = datetime.fromisoformat(one["delete_after"]) - datetime.now(UTC)
        assert timedelta(days=6, hours=23) < left < timedelta(days=7, hours=1)


def test_what_was_pruned_can_be_brought_back_and_else_goes_when_its_time_is_over(daemon, history):
    history({"etc": 9})
    daemon.call("retention.add", name="week", daily=5)
    daemon.call("retention.attach", plan="etc", policy="week")
    prune(daemon, plan="etc")
    daemon.call("archive.undelete", name="etc-006")
    assert "etc-006" in names(daemon) and len(names(daemon, deleted=True)) == 3
    assert events_of(daemon, "archive.undeleted")[0]["archive"] == "etc-006"
    with pytest.raises(Refused, match="not deleted"):
        daemon.call("archive.undelete", name="etc-006")
    # A window of no time: the next prune, which nobody has to start, deletes it for good.
    daemon.call("archive.hide", names=["etc-006"], hours=0)
    wait_for(daemon, lambda: events_of(daemon, "archive.deleted"))
    assert [e["archive"] for e in events_of(daemon, "archive.deleted")] == ["etc-006"]
    assert len(names(daemon, deleted=True)) == 3, "the others still have their time"
    assert events_of(daemon, "repository.compacted")[-1]["freed_bytes"] == 7


def wait_for(daemon: Any, condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, daemon.call("job.list")
        time.sleep(0.1)


def test_a_policy_without_undo_deletes_in_the_same_prune(daemon, history):
    history({"etc": 4})
    daemon.call("retention.add", name="two", last=2, undo_hours=0)
    daemon.call("retention.attach", plan="etc", policy="two")
    assert prune(daemon, plan="etc")["state"] == "done"
    assert names(daemon) == {"etc-000", "etc-001", "stray"} and not names(daemon, deleted=True)


def test_a_dry_run_changes_nothing(daemon, history):
    history({"etc": 4})
    daemon.call("retention.add", name="two", last=2, undo_hours=0)
    daemon.call("retention.attach", plan="etc", policy="two")
    job = prune(daemon, plan="etc", dry_run=True)
    assert job["result"] == {"would_free_bytes": 5} and len(names(daemon)) == 5
    assert sorted(job["parameters"]["archives"]) == ["etc-002", "etc-003"]
    assert events_of(daemon, "archive.pruned") == []


def test_a_pinned_archive_is_never_pruned_nor_deleted(daemon, history):
    history({"etc": 6})
    daemon.call("archive.pin", name="etc-005", comment="before the move")
    daemon.call("retention.add", name="one", last=1, undo_hours=0)
    daemon.call("retention.attach", plan="etc", policy="one")
    prune(daemon, plan="etc")
    assert names(daemon) == {"etc-000", "etc-005", "stray"}
    for method, what in (("archive.hide", {"names": ["etc-005"]}),
                         ("archive.delete", {"names": ["etc-005"]})):  # fmt: skip
        with pytest.raises(Refused, match="pinned: before the move"):
            daemon.call(method, **what)
    with pytest.raises(Refused, match="comment"):
        daemon.call("archive.pin", name="etc-000", comment=" ")
    daemon.call("archive.unpin", name="etc-005")
    prune(daemon, plan="etc")
    assert names(daemon) == {"etc-000", "stray"}
    assert events_of(daemon, "archive.pinned")[0]["comment"] == "before the move"
    assert len(events_of(daemon, "archive.unpinned")) == 1


def test_nothing_goes_while_the_newest_archive_is_empty(daemon, history):
    history({"etc": 9}, files=0)
    daemon.call("retention.add", name="one", last=1)
    daemon.call("retention.attach", plan="etc", policy="one")
    job = prune(daemon, plan="etc")
    assert job["state"] == "warning" and "it is empty" in job["warnings"][0]
    assert len(names(daemon)) == 10
    (held,) = events_of(daemon, "prune.held")
    assert (held["plan"], held["kind"], held["job"]) == ("etc", "newest-not-good", job["id"])


def test_a_policy_that_would_keep_nothing_is_held_until_it_is_confirmed(daemon, history):
    history({"etc": 9})
    daemon.call("retention.add", name="hour", within="1H", undo_hours=0)
    assert "No rule of hour" in daemon.call("retention.attach", plan="etc", policy="hour")["held"]
    assert prune(daemon, plan="etc")["state"] == "warning" and len(names(daemon)) == 10
    assert events_of(daemon, "prune.held")[0]["kind"] == "keeps-nothing"
    prune(daemon, plan="etc", confirm=["another"])
    assert len(names(daemon)) == 10
    prune(daemon, plan="etc", confirm=["etc"])
    assert names(daemon) == {"etc-000", "stray"}, "the newest stays whatever is confirmed"


def test_a_policy_without_a_rule_must_be_confirmed_by_its_name(daemon):
    for confirm in ("", "yes", "other"):
        with pytest.raises(Refused, match="no rule"):
            daemon.call("retention.add", name="none", confirm=confirm)
    daemon.call("retention.add", name="none", confirm="none")
    daemon.call("retention.add", name="some", daily=3)
    with pytest.raises(Refused, match="no rule"):
        daemon.call("retention.set", name="some", daily=0)
    changed = daemon.call("retention.set", name="some", daily=4, zone="Europe/Berlin")
    assert changed["rules"] == "daily 4"
    assert events_of(daemon, "retention.changed")[0]["fields"] == ["daily", "zone"]


@pytest.mark.parametrize(("values", "words"), [
    ({"daily": -2}, "-1"), ({"within": "soon"}, "span of time"), ({"zone": "Mars"}, "time zone"),
    ({"daily": 1, "undo_hours": -1}, "undo_hours"), ({"daily": 1, "comment": "x" * 600}, "short"),
    ({"daily": 1, "name": "../x"}, "valid name"), ({"daily": "7"}, "must be"),
])  # fmt: skip
def test_a_bad_policy_is_refused(daemon, values, words):
    with pytest.raises(Refused, match=words):
        daemon.call("retention.add", **{"name": "p", **values})
    assert daemon.call("retention.list") == []


def test_a_prune_that_finds_nothing_says_so_at_once(daemon, history):
    history({"etc": 2})
    (found,) = events_of(daemon, "retention.matched_nothing")
    assert (found["what"], found["repository"], found["plan"]) == ("prune", "main", "")
    daemon.call("plan.add", name="new", client="web", repository="main", paths=["/srv"])
    daemon.call("retention.add", name="two", last=2)
    daemon.call("retention.attach", plan="new", policy="two")
    job = prune(daemon, repository="main")
    assert job["state"] == "warning" and "new has no archive" in job["warnings"][0]
    assert events_of(daemon, "retention.matched_nothing")[-1]["plan"] == "new"
    with pytest.raises(Refused, match="no retention policy"):
        daemon.call("prune.start", plan="etc")
    with pytest.raises(Refused, match="either plan or repository"):
        daemon.call("prune.start")


def test_a_policy_that_plans_have_is_not_removed(daemon, history):
    history({"etc": 2})
    daemon.call("retention.add", name="two", last=2)
    daemon.call("retention.attach", plan="etc", policy="two")
    with pytest.raises(Refused, match="Plans have the policy two: etc"):
        daemon.call("retention.remove", name="two")
    daemon.call("retention.attach", plan="etc", policy="")
    daemon.call("retention.remove", name="two")
    assert daemon.call("retention.list") == []
    assert [e["policy"] for e in events_of(daemon, "retention.attached")] == ["two", ""]


def test_an_archive_that_is_being_deleted_is_not_brought_back(daemon, history):
    history({"etc": 3})
    waits = runtime_dir(daemon.home) / "prune-waits"
    waits.touch()
    daemon.call("archive.hide", names=["etc-002"], hours=0)
    wait_for(daemon, lambda: [j for j in daemon.call("job.list") if j["state"] == "running"])
    with pytest.raises(Refused, match="is deleting the archive"):
        daemon.call("archive.undelete", name="etc-002")
    waits.unlink()
    wait_for(daemon, lambda: "etc-002" not in names(daemon, deleted=True))


def test_archives_are_adopted_by_their_names(daemon, history):
    history({"etc": 2})
    told = runtime_dir(daemon.home) / "archives.json"
    listed = json.loads(told.read_text())
    odd = ["web.example.org-2026-01-02T03:04:05.123456", "db1-2026-01-02T03:04:05.123456", "junk"]
    listed += [{"id": f"o{n}", "name": name, "start": f"2026-01-0{n + 1}T00:00:00"}
               for n, name in enumerate(odd)]  # fmt: skip
    daemon.stop()
    daemon.start()
    told.write_text(json.dumps(listed))
    prune(daemon, repository="main")
    pattern = "{hostname}-{now:%Y-%m-%dT%H:%M:%S.%f}"
    asked = {"repository": "main", "pattern": pattern, "plan": "etc"}
    seen = daemon.call("archive.map", **asked)
    assert [(one["archive"], one["client"], one["plan"]) for one in seen["assignments"]] == [
        (odd[0], "web", "etc")
    ]
    assert seen["unknown"] == [[odd[1], "there is no client db1"]]
    assert sorted(seen["unmatched"]) == ["junk", "stray"] and seen["taken"] == 2
    assert daemon.call("archive.show", name=odd[0])["plan"] == "", "it was only shown"
    daemon.call("archive.map", **asked, apply=True)
    assert daemon.call("archive.show", name=odd[0])["plan"] == "etc"
    assert events_of(daemon, "archive.assigned")[0]["archive"] == odd[0]
    assert odd[0] in names(daemon, plan="etc")
    daemon.call("archive.map", repository="main", pattern="none-{now}", plan="etc", apply=True)
    last = events_of(daemon, "retention.matched_nothing")[-1]
    assert (last["what"], last["pattern"]) == ("mapping", "none-{now}")
