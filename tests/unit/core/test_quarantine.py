"""Archives in quarantine: no backup, no policy's business, and marked until somebody mends them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from borgcube.core import drillchoice, quarantine, standing, trash
from borgcube.core.errors import InvalidInput
from borgcube.core.model import Client, Job, RetentionPolicy
from borgcube.core.pruning import decide
from borgcube.core.store import Store
from borgcube.daemon import conditions
from borgcube.daemon.results import record_mended, record_quarantine, result_of
from tests.unit.core.test_standing import add_plan, run


@pytest.fixture
def root():
    store = Store.open("memory://")
    with store.transact() as root:
        yield root
    store.close()


def newest(root):
    return root.archives.newest(1)[0]


def told(root, kind: str) -> list[dict]:
    return [e["data"] for e in root.journal.entries.values() if e["type"] == kind]


def true(root) -> None:
    assert standing.differences(root) == []


def test_a_plan_is_not_safe_by_an_archive_that_cannot_be_restored(root):
    plan = add_plan(root)
    run(root, plan)
    assert root.fleet.status("web-etc").level == "good"
    quarantine.begin(root, newest(root), "it has a path that climbs")
    status = root.fleet.status("web-etc")
    assert (status.level, status.archive) == ("warn", "")
    true(root)
    quarantine.end(root, newest(root), quarantine.SOUND)
    assert root.fleet.status("web-etc").level == "good"
    true(root)


def test_the_one_before_counts_instead_however_old_it_is(root):
    plan = add_plan(root)
    run(root, plan, age_days=5)
    run(root, plan)
    quarantine.begin(root, newest(root), "no")
    status = root.fleet.status("web-etc")
    assert (status.level, status.reason, status.archive) == ("warn", "stale", "id-1")
    true(root)


def test_no_policy_counts_or_deletes_one(root):
    plan = add_plan(root)
    for age in (3, 2, 1, 0):
        run(root, plan, age_days=age)
    quarantine.begin(root, newest(root), "no")
    decision = decide(root, plan, now=datetime.now(UTC), policy=RetentionPolicy(name="p", last=1))
    kept = {verdict.entry.key: verdict.keep for verdict in decision.verdicts}
    assert kept == {"id-3": True, "id-2": False, "id-1": False}


def test_what_a_policy_hid_comes_back_and_what_a_person_deleted_does_not(root):
    plan = add_plan(root)
    run(root, plan, age_days=1)
    run(root, plan)
    one, other = root.archives.newest(2)
    now = datetime.now(UTC)
    trash.hide(root, one, hours=1, because="the policy", policy="p", now=now)
    trash.hide(root, other, hours=1, because=trash.BY_A_PERSON, now=now)
    quarantine.begin(root, one, "no")
    quarantine.begin(root, other, "no")
    assert not one.deleted_at and other.deleted_at
    trash.bring_back(root, other)
    assert root.fleet.status("web-etc").archive == ""
    true(root)


def test_marks_stay_until_everything_was_looked_through(root):
    plan = add_plan(root)
    run(root, plan)
    quarantine.settle(root, "main", {"id-1": "no", "other": "unknown here"}, complete=False)
    quarantine.settle(root, "main", {}, complete=False)
    assert newest(root).quarantine == "no"
    quarantine.settle(root, "main", {}, complete=True)
    assert not newest(root).quarantine
    assert [e["reason"] for e in told(root, "archive.quarantine_ended")] == ["sound"]
    assert len(told(root, "archive.quarantined")) == 1


def test_a_drill_takes_the_one_before_and_says_so(root):
    plan = add_plan(root)
    run(root, plan, age_days=1)
    run(root, plan)
    quarantine.begin(root, newest(root), "no")
    found = drillchoice.parameters_of(root, Job(type="drill", repository="main", plan="web-etc"))
    assert found["archive_id"] == "id-1"
    assert len(found["skipped"]) == 1 and "in quarantine: no" in found["skipped"][0]
    with pytest.raises(InvalidInput, match="in quarantine"):
        drillchoice.parameters_of(root, Job(type="drill", repository="main",
                                       parameters={"archive": newest(root).name}))  # fmt: skip


def test_the_doctor_names_them_by_repository(root):
    plan = add_plan(root)
    for age in range(7):
        run(root, plan, age_days=age)
    assert conditions.quarantined(root) == []
    for archive in root.archives.newest(7):
        quarantine.begin(root, archive, "no")
    (found,) = conditions.quarantined(root)
    assert "main: 7 archives are in quarantine" in found["message"]
    assert found["message"].count("(no)") == 5 and "and 2 more" in found["message"]
    assert "borgcube archive mend" in found["next_step"]


def test_a_mended_archive_keeps_what_people_set(root):
    plan = add_plan(root)
    run(root, plan)
    root.clients.add(Client(name="web", transport="local"))
    quarantine.begin(root, newest(root), "no")
    trash.pin(root, newest(root), "evidence")
    was = newest(root)
    data = {
        "state": "warning", "data": {}, "warnings": [], "archives_added": [],
        "archives_deleted": [], "cause": None,
        "archives_mended": [{"id": "new", "name": was.name, "was": was.id, "size": 900,
                             "start": was.start}],
        "quarantined": {}, "looked_through": True,
    }  # fmt: skip
    result = result_of(data, 0, "9")
    job = Job(id="9", type="archive-mend", repository="main")
    record_mended(root, job, result)
    record_quarantine(root, job, result)
    made = newest(root)
    assert (made.id, made.name, made.client, made.plan, made.pinned, made.quarantine) == (
        "new", was.name, "web", "web-etc", "evidence", ""
    )  # fmt: skip
    assert made.stats == {"size": 900, "new_size": 10}
    (ended,) = told(root, "archive.quarantine_ended")
    assert (ended["reason"], ended["became"], ended["job"]) == ("mended", "new", "9")
    assert root.fleet.status("web-etc").archive == "new"
    true(root)
