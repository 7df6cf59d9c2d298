"""The store: units of work, tables, the journal, evolution."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ZODB.POSException import ConflictError

from borgcube.core import lifecycle
from borgcube.core.errors import StoreError
from borgcube.core.events import Envelope, JobPhase
from borgcube.core.evolution import EvolutionStep
from borgcube.core.journal import Journal
from borgcube.core.model import Client, Job, Plan, Table
from borgcube.core.store import DONE_STEPS, Store


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"file://{tmp_path / 'data.fs'}"


@pytest.fixture
def store():
    store = Store.open("memory://")
    yield store
    store.close()


def test_what_was_committed_is_there_after_reopening(uri):
    store = Store.open(uri)
    with store.transact() as root:
        root.clients.add(Client(name="web", transport="local"))
        server_id = root.settings["server_id"]
    store.close()
    store = Store.open(uri)
    with store.transact() as root:
        assert root.clients.find("name", "web").as_data()["transport"] == "local"
        assert root.settings["server_id"] == server_id
    store.close()


def test_an_exception_undoes_the_change_its_journal_entry_and_its_callbacks(store):
    called = []
    store.on_committed = called.append
    with pytest.raises(RuntimeError), store.transact() as root:
        lifecycle.queue(root, Job(type="x"))
        root.after_commit(lambda: called.append("callback"))
        raise RuntimeError
    assert called == []
    with store.transact() as root:
        assert root.jobs.newest(5) == [] and root.journal.since(0) == []


def test_listeners_hear_of_events_after_the_commit_in_order(store):
    heard = []
    store.on_committed = lambda envelope: heard.append(envelope.seq)
    with store.transact() as root:
        lifecycle.queue(root, Job(type="x"))
        lifecycle.queue(root, Job(type="x"))
        assert heard == []
    assert heard == [1, 2]


def test_a_conflict_is_tried_again(store):
    attempts = []

    def work(root):
        attempts.append(1)
        if len(attempts) < 3:
            raise ConflictError
        return "done"

    assert store.run(work) == "done"
    with pytest.raises(StoreError):
        store.run(lambda root: (_ for _ in ()).throw(ConflictError()))


def test_a_newer_store_is_refused(uri):
    store = Store.open(uri)
    with store._mapping() as mapping:
        mapping[DONE_STEPS] = (*mapping[DONE_STEPS], "core:9999")
    store.close()
    with pytest.raises(StoreError, match="newer"):
        Store.open(uri)


def test_a_later_step_runs_once_and_a_copy_is_made_first(uri, tmp_path):
    Store.open(uri).close()
    ran = []
    step = EvolutionStep("extra:0001", lambda root: ran.append(1))
    for _ in range(2):
        Store.open(uri, steps=[step]).close()
    assert ran == [1]
    assert (tmp_path / "data.fs.before-extra-0001").stat().st_size > 0


def test_a_store_that_is_in_use_gives_one_clear_error(uri):
    store = Store.open(uri)
    with pytest.raises(StoreError, match="cannot be opened"):
        Store.open(uri)
    store.close()


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy")), max_size=30))
def test_newest_gives_what_a_plain_search_gives(pairs):
    table = Table("id", "state", "client")
    jobs = [Job(state=state, client=client) for state, client in pairs]
    for job in jobs:
        table.add(job)
    for job in jobs[::3]:
        table.change(job, state="b")
    for job in jobs[::5]:
        table.remove(job)
    left = [job for n, job in enumerate(jobs) if n % 5]
    expected = [job for job in reversed(left) if job.state == "b" and job.client == "x"]
    assert table.newest(100, state="b", client="x") == expected
    assert table.newest(2) == left[::-1][:2]
    assert list(table.oldest("client", "y")) == [job for job in left if job.client == "y"]


@given(st.integers(0, 30), st.integers(0, 40), st.integers(1, 40))
def test_the_journal_has_no_gaps(count, seq, limit):
    journal = Journal()
    for number in range(count):
        journal.append(JobPhase(job="1", phase=str(number)))
    found = [entry["seq"] for entry in journal.since(seq, limit)]
    assert found == list(range(seq + 1, count + 1))[:limit]


@given(st.text(), st.none() | st.integers(1))
def test_an_envelope_survives_its_wire_form(text, seq):
    import json

    envelope = Envelope.of(JobPhase(job="1", phase=text), seq=seq)
    data = json.loads(envelope.to_json())
    assert list(data) == ["v", "seq", "id", "type", "at", "data"]
    assert Envelope.from_data(data) == envelope


@pytest.mark.parametrize("state", lifecycle.TRANSITIONS)
def test_only_legal_transitions_are_possible(store, state):
    for wanted in lifecycle.TRANSITIONS:
        if wanted in ("", lifecycle.QUEUED):
            continue
        with store.transact() as root:
            job = Job(type="x", state=state)
            root.jobs.add(job)
            if wanted in lifecycle.TRANSITIONS[state]:
                lifecycle._move(root, job, wanted)
                assert root.jobs.newest(1, state=wanted) == [job]
            else:
                with pytest.raises(lifecycle.IllegalTransition):
                    lifecycle._move(root, job, wanted)


def test_a_job_is_requeued_only_while_its_plan_has_retries(store):
    with store.transact() as root:
        root.plans.add(Plan(name="p", retries=1))
        job = lifecycle.queue(root, Job(type="backup", plan="p"))
        again = lifecycle.requeue(root, job)
        assert (again.attempt, again.retry_of) == (2, job.id)
        assert lifecycle.requeue(root, again) is None
