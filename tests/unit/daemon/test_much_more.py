"""A prune that would let much more go than is usual is held until a person has looked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from borgcube.core.model import Archive, Job, Plan, Repository, RetentionPolicy
from borgcube.core.pruning import ALWAYS_FEW, decide
from borgcube.core.store import Store
from borgcube.daemon import guard
from borgcube.daemon.pruning import prepare

START = datetime(2026, 3, 1, 2, tzinfo=UTC)


class Rig:
    """A plan of daily archives in a store, pruned at times of ours."""

    def __init__(self) -> None:
        self.store = Store.open("memory://")
        self.now, self.made = START, 0
        with self.store.transact() as root:
            root.repositories.add(Repository(name="main"))
            root.policies.add(RetentionPolicy(name="month", daily=30, undo_hours=0))
            root.plans.add(Plan(name="web", client="web", repository="main", paths=("/etc",),
                                retention="month"))  # fmt: skip

    def days(self, count: int) -> None:
        """Let days pass, each with a backup."""
        with self.store.transact() as root:
            for _ in range(count):
                self.now += timedelta(days=1)
                self.made += 1
                root.archives.add(Archive(
                    id=f"{self.made:064x}", name=f"web-{self.made}", client="web", plan="web",
                    repository="main", begun_at=self.now.isoformat(),
                    stats={"files": 5, "size": 9},
                ))  # fmt: skip

    def prune(self, **parameters: object) -> dict:
        with self.store.transact() as root:
            job = Job(type="prune", plan="web", repository="main", parameters=parameters)
            root.jobs.add(job)
            (summary,) = prepare(root, job, now=self.now)["plans"]
        return {key: summary[key] for key in ("hold", "going")}

    def policy(self, **values: int) -> None:
        with self.store.transact() as root:
            root.policies.change(root.policies.find("name", "month"), **values)

    def release(self) -> None:
        with self.store.transact() as root:
            guard.release(root, root.plans.find("name", "web"), usual=True)

    def held(self) -> str:
        with self.store.reading() as root:
            return str(root.plans.find("name", "web").prune_hold)


@pytest.fixture
def rig():
    made = Rig()
    yield made
    made.store.close()


def test_a_prune_that_lets_much_more_go_holds_its_plan_until_somebody_looked(rig):
    rig.days(32)
    assert rig.prune() == {"hold": "", "going": 2}
    rig.days(1)
    rig.policy(daily=7)
    assert rig.prune(dry_run=True)["hold"] == "much-more" and rig.held() == ""
    assert rig.prune() == {"hold": "much-more", "going": 0}
    assert rig.held() == "24 archives would go, and 2 went when it was pruned last."
    assert rig.prune() == {"hold": "plan-held", "going": 0}
    rig.release()
    rig.days(2)
    assert rig.prune() == {"hold": "", "going": 26}
    rig.days(1)
    assert rig.prune() == {"hold": "", "going": 1}


def test_what_was_looked_at_once_is_not_let_go_for_good(rig):
    rig.days(60)
    assert rig.prune()["going"] == 30
    rig.days(1)
    rig.policy(daily=17)
    assert rig.prune() == {"hold": "", "going": 14}, "less than three times the last one"
    rig.days(50)
    assert rig.prune() == {"hold": "", "going": 50}, "as many as came meanwhile"
    rig.days(1)
    assert rig.prune()["going"] == 1
    rig.policy(daily=5)
    assert rig.prune() == {"hold": "much-more", "going": 0}
    rig.release()
    rig.policy(daily=1, last=1)
    assert rig.prune()["hold"] == "", "a few more than were looked at"


def test_a_few_always_go_and_the_first_prune_has_nothing_to_compare_with(rig):
    rig.days(100)
    assert rig.prune() == {"hold": "", "going": 70}
    rig.policy(daily=30 - ALWAYS_FEW)
    assert rig.prune() == {"hold": "", "going": ALWAYS_FEW}
    assert rig.prune() == {"hold": "", "going": 0}
    rig.policy(daily=30 - 2 * ALWAYS_FEW - 1)
    assert rig.prune() == {"hold": "much-more", "going": 0}


def test_a_prune_that_was_confirmed_by_the_plans_name_was_looked_at(rig):
    rig.days(31)
    rig.prune()
    rig.policy(daily=2)
    assert rig.prune(confirm=["web"]) == {"hold": "", "going": 28}


def test_a_preview_says_it_and_the_next_step(rig):
    rig.days(31)
    rig.prune()
    rig.policy(daily=2)
    with rig.store.reading() as root:
        seen = decide(root, root.plans.find("name", "web"), now=rig.now)
    assert seen.hold == "much-more" and "borgcube plan release web" in seen.next_step
