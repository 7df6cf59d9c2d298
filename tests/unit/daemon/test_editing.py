"""Settings are changed one by one, checked like new ones, and journalled; limits hold."""

from __future__ import annotations

from typing import Any

import pytest

from borgcube.core.model import Client, Plan, Repository
from borgcube.core.versions import version_of

from .conftest import Refused


def journalled(daemon: Any, kind: str) -> list[dict[str, Any]]:
    return [e["data"] for e in daemon.call("events.since") if e["type"] == kind]


def test_only_what_is_given_of_a_client_changes(daemon, backup):
    before = daemon.call("client.show", name="web")
    after = daemon.call("client.set", name="web", borg="/opt/borg", max_job_bytes=5, max_files=0)
    assert after == {**before, "borg": "/opt/borg", "max_job_bytes": 5}
    assert daemon.call("client.show", name="web") == after
    assert journalled(daemon, "client.changed") == [
        {"client": "web", "fields": ["borg", "max_job_bytes"]}
    ]


def test_a_change_that_changes_nothing_is_no_event(daemon, backup):
    daemon.call("client.set", name="web", borg="borg")
    assert journalled(daemon, "client.changed") == []


@pytest.mark.parametrize(("values", "words"), [
    ({"borg": "-x"}, "not usable"), ({"borg": ""}, "empty"), ({"port": 0}, "between"),
    ({"max_job_bytes": -1}, "no limit"), ({"max_total_bytes": 1 << 70}, "no limit"),
    ({"domain": "../x"}, "valid name"), ({"transport": "pigeon"}, "no transport"),
    ({"identity": "/no/such/file"}, "identity file"), ({}, "Nothing to change"),
    ({"max_files": "7"}, "must be"), ({"max_sessions": True}, "must be"),
])  # fmt: skip
def test_a_bad_change_of_a_client_is_refused_whole(daemon, backup, values, words):
    before = daemon.call("client.show", name="web")
    with pytest.raises(Refused, match=words):
        daemon.call("client.set", name="web", **values)
    assert daemon.call("client.show", name="web") == before


def record(daemon, kind, name):
    """Return what is kept of a thing, without what its page says of it besides."""
    shown = daemon.call(f"{kind}.show", name=name)
    return {"client": Client, "plan": Plan, "repository": Repository}[kind].settings_of(shown)


def test_only_what_is_given_of_a_plan_changes(daemon, backup):
    daemon.ended(backup())
    before = record(daemon, "plan", "plan-plain")
    after = daemon.call("plan.set", name="plan-plain", paths=["/srv", "/home"], sparse=True)
    assert after == {**before, "paths": ["/srv", "/home"], "sparse": True}
    assert journalled(daemon, "plan.changed") == [
        {"plan": "plan-plain", "fields": ["paths", "sparse"]}
    ]
    for values, words in (
        ({"paths": []}, "at least one path"), ({"client": "no"}, "no client"),
        ({"repository": "no"}, "no repository"), ({"files_cache": "x"}, "files_cache"),
        ({"retries": 1000}, "retries"), ({"excludes": [""]}, "pattern"),
    ):  # fmt: skip
        with pytest.raises(Refused, match=words):
            daemon.call("plan.set", name="plan-plain", **values)
    assert record(daemon, "plan", "plan-plain") == after


def test_a_plan_that_moves_to_another_client_is_found_there(daemon, backup):
    daemon.ended(backup())
    daemon.call("client.add", name="other", transport="local")
    daemon.call("plan.set", name="plan-plain", client="other")
    job = daemon.ended(daemon.call("backup.start", plan="plan-plain")["job_id"])
    assert (job["state"], job["client"]) == ("done", "other")
    daemon.call("client.remove", name="web")
    with pytest.raises(Refused, match="backs up other"):
        daemon.call("client.remove", name="other")


def test_the_floor_of_a_repository_changes_and_its_vault_is_started_again(daemon, backup):
    daemon.ended(backup())
    assert daemon.call("repository.show", name="main")["free_floor_bytes"] == 1 << 30
    daemon.call("repository.set", name="main", free_floor_bytes=1 << 60)
    assert journalled(daemon, "repository.changed") == [
        {"repository": "main", "fields": ["free_floor_bytes"]}
    ]
    findings = [f["message"] for f in daemon.call("doctor") if f["level"] == "error"]
    assert any("Repository main" in text and "floor" in text for text in findings), findings
    with pytest.raises(Refused, match="free_floor_bytes"):
        daemon.call("repository.set", name="main", free_floor_bytes=-1)
    job = daemon.ended(daemon.call("backup.start", plan="plan-plain")["job_id"])
    assert job["state"] == "done"
    vaults = (daemon.home / "logs" / "borgcubed.log").read_text().count("vault main: started")
    assert vaults == 2


def test_what_a_job_uses_is_not_removed_and_archives_stay(daemon, backup):
    job_id = backup("long")
    daemon.until(job_id, lambda job: job["phase"] == "reading")
    with pytest.raises(Refused, match="backs up web"):
        daemon.call("client.remove", name="web")
    with pytest.raises(Refused, match=f"Job {job_id} of plan plan-long is running"):
        daemon.call("plan.remove", name="plan-long")
    daemon.call("job.cancel", id=job_id)
    daemon.ended(job_id)
    daemon.ended(backup())
    for name in ("plan-long", "plan-plain"):
        daemon.call("plan.remove", name=name)
    daemon.call("client.remove", name="web")
    assert daemon.call("client.list") == daemon.call("plan.list") == []
    (archive,) = daemon.call("archive.list", client="web")
    assert archive["plan"] == "plan-plain"
    assert [e["client"] for e in journalled(daemon, "client.removed")] == ["web"]
    assert len(journalled(daemon, "plan.removed")) == 2
    with pytest.raises(Refused, match="no client"):
        daemon.call("client.set", name="web", port=23)


def test_a_client_runs_no_more_jobs_at_once_than_it_may(daemon, backup):
    daemon.call("client.set", name="web", max_sessions=1)
    first = backup("long")
    daemon.until(first, lambda job: job["state"] == "running")
    waiting = backup()
    daemon.call("client.add", name="other", transport="local")
    daemon.call("plan.add", name="p", client="other", repository="main", paths=["/etc"])
    # The other client's job is queued later and ends before: the first one's is passed over.
    assert daemon.ended(daemon.call("backup.start", plan="p")["job_id"])["state"] == "done"
    assert daemon.call("job.show", id=waiting)["state"] == "queued"
    daemon.call("job.cancel", id=first)
    assert daemon.ended(waiting)["state"] == "done"


def test_a_raised_limit_of_sessions_counts_at_once(daemon, backup):
    daemon.call("client.set", name="web", max_sessions=1)
    first = backup("long")
    daemon.until(first, lambda job: job["state"] == "running")
    waiting = backup()
    daemon.call("client.set", name="web", max_sessions=2)
    assert daemon.ended(waiting)["state"] == "done"
    assert daemon.call("job.show", id=first)["state"] == "running"


def test_an_order_says_what_its_client_may_still_store(daemon, backup):
    assert daemon.ended(backup())["parameters"]["limits"]["total_left"] is None
    daemon.call(
        "client.set", name="web", max_job_bytes=10, max_total_bytes=1000, max_files=3,
        max_duration_s=60,
    )  # fmt: skip
    job = daemon.ended(daemon.call("backup.start", plan="plan-plain")["job_id"])
    assert job["parameters"]["limits"] == {
        "job_bytes": 10, "total_bytes": 1000, "total_left": 1000, "files": 3, "duration_s": 60
    }  # fmt: skip


def test_a_change_of_what_somebody_else_changed_is_refused(daemon, backup):
    daemon.ended(backup())
    for kind, name, first, second in (
        ("client", "web", {"port": 23}, {"port": 24}),
        ("plan", "plan-plain", {"retries": 1}, {"retries": 2}),
        ("repository", "main", {"free_floor_bytes": 5}, {"free_floor_bytes": 6}),
    ):
        seen = version_of(record(daemon, kind, name))
        after = daemon.call(f"{kind}.set", name=name, version=seen, **first)
        with pytest.raises(Refused, match="changed since") as refused:
            daemon.call(f"{kind}.set", name=name, version=seen, **second)
        assert refused.value.args[0]["kind"] == "Conflict"
        assert record(daemon, kind, name) == after
        daemon.call(f"{kind}.set", name=name, version=version_of(after), **second)


def test_a_client_goes_with_its_plans_only_when_that_is_asked_for(daemon, backup):
    daemon.ended(backup())
    with pytest.raises(Refused, match="backs up web"):
        daemon.call("client.remove", name="web")
    assert daemon.call("client.remove", name="web", with_plans=True)["plans"] == ["plan-plain"]
    assert daemon.call("client.list") == daemon.call("plan.list") == []
    assert [e["plan"] for e in journalled(daemon, "plan.removed")] == ["plan-plain"]
    assert len(daemon.call("archive.list", client="web")) == 1


def test_the_key_made_for_a_client_goes_with_it_and_no_other(daemon, tmp_path):
    own = tmp_path / "own"
    own.write_text("a person's own key")
    daemon.call("client.enrol", name="made", host="made.example", transport="local")
    daemon.call("client.add", name="other", transport="local", identity=str(own))
    made = daemon.home / "keys" / "made"
    assert (made / "id_ed25519").is_file()
    for name in ("made", "other"):
        daemon.call("client.remove", name=name)
    assert not made.exists() and own.is_file()


def test_a_forgotten_repository_keeps_its_data_and_leaves_no_record(daemon, backup, tmp_path):
    job_id = backup("long")
    daemon.until(job_id, lambda job: job["phase"] == "reading")
    with pytest.raises(Refused, match=f"Job {job_id} of repository main is running"):
        daemon.call("repository.remove", name="main", with_plans=True)
    daemon.call("job.cancel", id=job_id)
    daemon.ended(job_id)
    daemon.ended(backup())
    kept = tmp_path / "repo" / "data"
    kept.write_text("stored")
    with pytest.raises(Refused, match="backs up into main"):
        daemon.call("repository.remove", name="main")
    gone = daemon.call("repository.remove", name="main", with_plans=True)
    assert gone == {"removed": "main", "path": str(tmp_path / "repo"), "archives": 1,
                    "plans": ["plan-long", "plan-plain"]}  # fmt: skip
    assert kept.read_text() == "stored"
    assert daemon.call("repository.list") == daemon.call("archive.list") == []
    assert journalled(daemon, "archive.deleted") == []
    assert not [f for f in daemon.call("doctor") if "main" in f["message"]]
    daemon.call("repository.import", name="main", path=str(tmp_path / "repo"), passphrase="right")
    assert [a["name"] for a in daemon.call("archive.list", repository="main")] == ["old"]
    assert journalled(daemon, "repository.removed")[0]["archives"] == 1


@pytest.mark.parametrize("way", ["plan", "client", "repository"])
def test_with_a_plan_go_its_triggers_and_its_place_in_the_timetable(daemon, backup, way):
    daemon.ended(backup())
    daemon.call("schedule.add", name="nightly", spec="daily at 02:00")
    daemon.call("plan.set", name="plan-plain", schedule="nightly")
    token = daemon.call("trigger.add", name="ci", plan="plan-plain")["token"]
    remove = {"plan": ("plan.remove", {"name": "plan-plain"}),
              "client": ("client.remove", {"name": "web", "with_plans": True}),
              "repository": ("repository.remove", {"name": "main", "with_plans": True}),
              }  # fmt: skip
    daemon.call("task.add", name="drills", type="prune", plan="plan-plain", schedule="nightly")
    method, params = remove[way]
    with pytest.raises(Refused, match="task drills works on"):
        daemon.call(method, **params)
    daemon.call("task.remove", name="drills")
    daemon.call(method, **params)
    assert daemon.call("trigger.list") == []
    assert journalled(daemon, "trigger.removed") == [{"trigger": "ci", "plan": "plan-plain"}]
    with pytest.raises(Refused, match="no such trigger"):
        daemon.call("trigger.fire", token=token)
    daemon.call("schedule.remove", name="nightly")  # which nothing uses any more


def test_slots_say_what_is_in_use_and_go_with_their_repository(daemon, backup):
    daemon.call("client.set", name="web", network="branch")
    daemon.call("slots.set", repository="main", slots=2)
    first = backup("long")
    daemon.until(first, lambda job: job["state"] == "running")
    daemon.call("slots.set", network="branch", slots=1)
    waiting = backup()
    assert daemon.call("slots.list") == [
        {"what": "all", "name": "", "slots": 4, "used": 1},
        {"what": "network", "name": "branch", "slots": 1, "used": 1},
        {"what": "repository", "name": "main", "slots": 2, "used": 1},
    ]
    assert daemon.call("job.show", id=waiting)["state"] == "queued"
    daemon.call("slots.set", network="branch", slots=0)
    assert daemon.ended(waiting)["state"] == "done"
    daemon.call("job.cancel", id=first)
    daemon.ended(first)
    for values, words in (
        ({"repository": "no", "slots": 1}, "no repository"), ({"network": "a b", "slots": 1},
        "valid name"), ({"repository": "main", "slots": -1}, "0"), ({"slots": 1}, "Name a"),
        ({"repository": "main", "network": "x", "slots": 1}, "Name a"),
    ):  # fmt: skip
        with pytest.raises(Refused, match=words):
            daemon.call("slots.set", **values)
    daemon.call("repository.remove", name="main", with_plans=True)
    assert [row["what"] for row in daemon.call("slots.list")] == ["all"]
