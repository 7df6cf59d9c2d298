"""Pages of large tables: whatever the filters, every record that matches is on one page."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from borgcube.core import listing
from borgcube.core.access import Identity, Role
from borgcube.core.model import Client, Job, Table

ROWS = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.sampled_from("pq")),
                max_size=60)  # fmt: skip


def filled(rows) -> tuple[Table, list[Job]]:
    table = Table("id", "state", "client", "type", counted=("state",))
    jobs = [Job(state=state, client=client, type=kind) for state, client, kind in rows]
    for job in jobs:
        table.add(job)
    for job in jobs[::4]:
        table.change(job, state="b")
    for job in jobs[::5]:
        table.remove(job)
    return table, [job for number, job in enumerate(jobs) if number % 5]


def walked(page) -> list[Job]:
    found: list[Job] = []
    before = None
    for _ in range(200):
        one = page(before)
        found += one.records
        before = one.before
        if before is None:
            return found
    raise AssertionError("the pages have no end")


@given(ROWS, st.integers(1, 7), st.integers(1, 5))
def test_filters_that_are_combined_find_everything_however_soon_a_search_stops(rows, limit, leaps):
    table, left = filled(rows)
    expected = [
        job for job in reversed(left) if (job.state, job.client, job.type) == ("b", "x", "p")
    ]
    found = walked(lambda before: table.page(
        limit, before=before, leaps=leaps, state="b", client="x", type="p"
    ))  # fmt: skip
    assert found == expected
    assert table.count(state="b") == sum(job.state == "b" for job in left)
    assert table.count() == len(left)


@given(ROWS, st.integers(1, 7), st.booleans())
def test_who_sees_some_clients_gets_all_of_theirs_in_order(rows, limit, chosen):
    table, left = filled(rows)
    me = Identity("owen", Role.OWNER, frozenset("xy"))
    where = (lambda job: job.type == "p") if chosen else None
    expected = [job for job in reversed(left)
                if job.client in "xy" and job.state == "a"
                and (not chosen or job.type == "p")]  # fmt: skip
    found = walked(lambda before: listing.page(me, table, limit, where, before=before, state="a"))
    assert found == expected
    assert listing.visible(me, table, limit, where, state="a") == expected[:limit]
    assert listing.page(me, table, limit, client="z").records == []


def test_what_matches_nothing_costs_no_more_than_the_smaller_set():
    table = Table("id", "state", "client")
    for number in range(4000):
        table.add(Job(state="done", client="many"))
        if number % 1000 == 0:
            table.add(Job(state="lost", client="few"))
    reads: list[int] = []
    found = table.page(10, lambda job: bool(reads.append(1)), state="done", client="few", leaps=20)
    assert found.records == [] and found.before is None and reads == []


@pytest.mark.parametrize("find", ["WEB", "example", "b1"])
def test_a_piece_of_a_name_or_address_is_found_in_the_order_of_names(find):
    table = Table("id", "name", words=("name", "host"))
    for name in ("web2", "web1", "mail"):
        table.add(Client(name=name, host=f"{name}.Example.org"))
    wanted = [one for one in ("mail", "web1", "web2") if find.lower() in f"{one}.example.org"]
    assert table.named(9, find=find) == wanted
    assert table.named(1, find=find, after=wanted[0]) == wanted[1:2]
    client = table.find("name", "web1")
    table.change(client, host="elsewhere")
    assert table.named(9, find="elsewhere") == ["web1"]
    table.remove(client)
    assert "web1" not in table.named(9)
