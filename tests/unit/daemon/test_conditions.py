"""``doctor`` finds what would break a promise."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from borgcube.core import events
from borgcube.core import home as places
from borgcube.core.model import Client, Plan, RetentionPolicy, Rule, Task
from borgcube.core.store import Store
from borgcube.daemon import conditions


def opened(tmp_path: Path) -> tuple[Path, Store]:
    home = places.init_home(tmp_path / "home")
    return home, Store.open(f"file://{home / 'store' / 'borgcube.fs'}")


def violation(client: str, kind: str) -> events.ClientViolation:
    return events.ClientViolation(
        client=client, job="1", repository="main", plan="p", kind=kind, details="d"
    )


def test_clients_that_broke_a_rule_lately_are_named(tmp_path: Path) -> None:
    _, store = opened(tmp_path)
    with store.transact() as root:
        assert conditions.journal(root) == []
        for kind in ("wrong-id", "forbidden-call", "wrong-id"):
            root.record(violation("eve", kind))
        root.record(events.DaemonStopping(pid=1))
        (found,) = conditions.journal(root)
        assert "eve" in found["message"] and "3 times" in found["message"]
        assert "forbidden-call, wrong-id" in found["message"]
        later = datetime.now(UTC) + timedelta(days=8)
        assert conditions.journal(root, now=later) == []
    store.close()


def test_a_gap_in_the_journal_is_an_error(tmp_path: Path) -> None:
    _, store = opened(tmp_path)
    with store.transact() as root:
        for _ in range(3):
            root.record(events.DaemonStopping(pid=1))
        del root.journal.entries[2]
        (found,) = conditions.journal(root)
        assert found["level"] == "error" and "before event 3" in found["message"]
    store.close()


def test_places_that_others_may_enter_are_errors(tmp_path: Path) -> None:
    home, store = opened(tmp_path)
    assert conditions.private_files(home) == []
    (home / "store").chmod(0o755)
    (home / "master.key").chmod(0o640)
    found = [one["message"] for one in conditions.private_files(home)]
    assert len(found) == 2 and "0755" in found[0] and "0640" in found[1]
    open_to_all = tmp_path / "repository"
    open_to_all.mkdir(mode=0o755)
    open_to_all.chmod(0o755)
    records = [(kind, str(open_to_all), kind) for kind in ("repokey", "authenticated-blake2")]
    (found_repository,) = conditions.repositories([*records, ("gone", "/no/such", "repokey")])
    assert "authenticated-blake2 is not encrypted" in found_repository["message"]
    store.close()


def test_a_rule_about_things_that_there_are_not_is_named(tmp_path: Path) -> None:
    _, store = opened(tmp_path)
    with store.transact() as root:
        for name in ("db1", "web1", "web2"):
            root.clients.add(Client(name=name))
        root.rules.add(Rule(name="right", clients=("web*", "db1"), channel="x"))
        root.rules.add(Rule(name="wrong", clients=("wbe*",), plans=("etc",), channel="x"))
        root.rules.add(Rule(name="off", clients=("wbe*",), channel="x", disabled=True))
    with store.reading() as root:
        found = [one["message"] for one in conditions.rules(root)]
    assert found == ["Rule wrong: no client is called wbe*.", "Rule wrong: no plan is called etc."]
    store.close()


def test_a_policy_that_no_task_applies_is_named(tmp_path: Path) -> None:
    _, store = opened(tmp_path)

    def named() -> list[str]:
        with store.reading() as root:
            return [one["message"].split(":")[0] for one in conditions.unpruned(root)]

    with store.transact() as root:
        root.policies.add(RetentionPolicy(name="usual"))
        for name, repository in (("web", "main"), ("mail", "main"), ("db", "other")):
            root.plans.add(Plan(name=name, repository=repository, retention="usual"))
        root.plans.add(Plan(name="free", repository="third"))
    assert named() == ["Repository main", "Repository other"]
    with store.transact() as root:
        root.tasks.add(Task(name="a", type="prune", repository="main", plan="web", schedule="s"))
        root.tasks.add(Task(name="b", type="check", repository="main", schedule="s"))
        root.tasks.add(Task(name="c", type="prune", plan="db", schedule="s"))
    assert named() == ["Repository main"], "one plan of it is left alone"
    with store.transact() as root:
        root.tasks.add(Task(name="d", type="prune", repository="main", schedule="s"))
    assert named() == []
    store.close()
