"""What stands out is marked, announced, and holds the pruning of its plan until released."""

from __future__ import annotations

import pytest

from borgcube.core.errors import InvalidInput
from borgcube.core.jobs import JobResult
from borgcube.core.model import Job, Plan, Repository
from borgcube.core.store import Store
from borgcube.daemon import guard
from borgcube.daemon.results import record_archives, record_checks, result_of

MIB = 1 << 20


@pytest.fixture
def store():
    store = Store.open("memory://")
    with store.transact() as root:
        root.plans.add(Plan(name="web", client="web", repository="main", paths=("/etc",)))
        root.repositories.add(Repository(name="main"))
    yield store
    store.close()


def backed_up(store: Store, day: int, **figures: object) -> str:
    """Record the archive of a backup and return its name."""
    name = f"web-{day}"
    facts = {
        "id": f"{day:064x}", "name": name, "start": f"2026-03-{day:02}T01:00:00+00:00",
        "files": 5000 + day, "size": 900 * MIB, "new_size": 3 * MIB, "missing_paths": [],
        **figures,
    }  # fmt: skip
    with store.transact() as root:
        job = Job(type="backup", client="web", plan="web", repository="main")
        root.jobs.add(job)
        record_archives(root, job, JobResult(archives_added=[facts]))
    return name


def of(store: Store, name: str):
    with store.reading() as root:
        archive, plan = root.archives.find("name", name), root.plans.find("name", "web")
        kinds = [one["kind"] for one in archive.suspicions]
        return kinds, plan.prune_hold, bool(archive.accepted_at)


def events(store: Store) -> list[tuple[str, dict]]:
    with store.reading() as root:
        return [(entry["type"], entry["data"]) for entry in root.journal.since(0)]


def test_an_archive_that_stands_out_holds_its_plan_and_says_why(store):
    for day in range(1, 9):
        assert of(store, backed_up(store, day)) == ([], "", False)
    name = backed_up(store, 9, files=0, size=0)
    kinds, hold, _ = of(store, name)
    assert kinds == ["empty"] and hold == "web-9: It holds no file at all, usually 5,004."
    kind, data = events(store)[-1]
    assert kind == "archive.suspicious" and data["archive"] == "web-9"
    assert data["reasons"] == ["It holds no file at all, usually 5,004."]


def test_the_first_reason_stays_until_somebody_looked(store):
    for day in range(1, 9):
        backed_up(store, day)
    backed_up(store, 9, files=0)
    backed_up(store, 10, files=10)
    assert of(store, "web-10") == (["nearly-empty"], of(store, "web-9")[1], False)


def test_what_stood_out_is_not_what_the_next_one_is_compared_with(store):
    for day in range(1, 7):
        backed_up(store, day)
    for day in range(7, 20):
        backed_up(store, day, files=10)
        assert of(store, f"web-{day}")[0] == ["nearly-empty"]


def test_a_release_accepts_what_stood_out_and_is_recorded(store):
    for day in range(1, 9):
        backed_up(store, day)
    backed_up(store, 9, files=10, size=MIB)
    with store.transact() as root:
        assert guard.release(root, root.plans.find("name", "web"), usual=True) == ["web-9"]
    assert events(store)[-1] == ("plan.released", {"plan": "web", "accepted": ["web-9"]})
    assert of(store, "web-9")[1:] == ("", True)
    assert of(store, backed_up(store, 10, files=12, size=MIB))[:2] == ([], "")


def test_a_release_as_unusual_lets_the_same_stand_out_again(store):
    for day in range(1, 9):
        backed_up(store, day)
    backed_up(store, 9, files=10)
    with store.transact() as root:
        assert guard.release(root, root.plans.find("name", "web"), usual=False) == []
    assert of(store, backed_up(store, 10, files=10))[0] == ["nearly-empty"]


def test_a_plan_that_is_not_on_hold_cannot_be_released(store):
    with pytest.raises(InvalidInput, match="not on hold"), store.transact() as root:
        guard.release(root, root.plans.find("name", "web"), usual=True)


def checked(store: Store, *, ids: list[str], kind: str = "data") -> None:
    damage = {"chunks": len(ids), "ids": ids, "archives_count": 1,
              "archives": {"web-1": {"files": ["etc/a"], "count": 1}}} if ids else {}  # fmt: skip
    data = {"state": "failed" if ids else "done", "data": {}, "warnings": [], "archives_added": [],
            "archives_deleted": [], "checked": {"kind": kind, "at": "2026-03-01T00:00:00+00:00"},
            "damage": damage}  # fmt: skip
    with store.transact() as root:
        job = Job(type="check", repository="main")
        root.jobs.add(job)
        record_checks(root, job, result_of(data, 0, job.id))


def test_damage_is_announced_once_and_its_end_too(store):
    checked(store, ids=["aa"])
    checked(store, ids=["aa"])
    checked(store, ids=["aa", "bb"])
    checked(store, ids=["bb"])
    checked(store, ids=[], kind="archives")
    found = [kind for kind, _ in events(store)]
    assert found == ["check.damage_found", "check.damage_found", "check.damage_gone"]
    assert events(store)[0][1]["files"] == ["web-1: etc/a"]
    with store.reading() as root:
        proof = root.proofs.find("repository", "main")
        assert proof.damage == {} and set(proof.checked) == {"data", "archives"}


def test_a_running_daemon_holds_a_plan_and_releases_it_on_request(daemon, backup):
    job = daemon.ended(backup("empty"))
    assert job["state"] == "done"
    plan = daemon.call("plan.show", name="plan-empty")
    assert plan["prune_hold"].endswith("It holds no file at all.")
    (archive,) = daemon.call("archive.list")
    assert archive["suspicions"][0]["kind"] == "empty"
    released = daemon.call("plan.release", plan="plan-empty")
    assert released["accepted"] == [archive["name"]]
    assert daemon.call("plan.show", name="plan-empty")["prune_hold"] == ""
    with pytest.raises(Exception, match="is not on hold"):
        daemon.call("plan.release", plan="plan-empty")
