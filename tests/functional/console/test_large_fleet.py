"""A console over hundreds of plans: pages follow each other, filters find, owners see their own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest

from borgcube.cli.paging import every
from borgcube.control.client import Control
from borgcube.testing import seed
from borgcube.testing.consolerig import ConsoleRig, Visitor

FAKE = Path(__file__).parents[2] / "unit" / "daemon" / "fakeplugin"
REAL = ("borg", "backup", "restore", "transport_openssh", "transport_paramiko", "transport_local")
CLIENTS, PLANS, JOBS = 220, 260, 3000
OWNED = 3


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsoleRig]:
    rig = ConsoleRig(tmp_path_factory.mktemp("many"), python_path=(str(FAKE),), disabled=REAL)
    made = seed.main([str(rig.home), "--clients", str(CLIENTS), "--plans", str(PLANS),
                      "--jobs", str(JOBS), "--archives", "2600", "--events", "500"])  # fmt: skip
    assert made == 0
    with rig:
        rig.user("ada")
        names = [one["name"] for one in rig.call("client.list", limit=OWNED)]
        rig.user("owen", "owner", *names)
        yield rig


def walked(visitor: Visitor, path: str, kind: str) -> list[str]:
    """Return what a list names, from its first page to its last."""
    found: list[str] = []
    while path:
        page = unescape(visitor.get(path).text)
        listed = page[page.index('id="list"') :]
        found += re.findall(rf'<a (?:class="name" )?href="/{kind}/([^"/?+]+)">', listed)
        more = re.search(r'<p class="note"><a href="([^"]+)">(?:More|Older)', listed)
        path = more.group(1) if more else ""
    return found


def test_a_seeded_home_is_refused_a_second_time(console: ConsoleRig, capsys, tmp_path) -> None:
    home = tmp_path / "home"
    few = [str(home), "--clients", "2", "--plans", "2", "--jobs", "10"]
    assert seed.main(few) == 0 and seed.main(few) == 2
    assert "records already" in capsys.readouterr().err


def test_every_plan_is_on_one_page_the_most_urgent_first(console: ConsoleRig) -> None:
    visitor = console.visitor("ada")
    found = walked(visitor, "/plans", "plans")
    assert len(found) == len(set(found)) == PLANS
    levels = {level: walked(visitor, f"/plans?level={level}", "plans")
              for level in ("bad", "warn", "good")}  # fmt: skip
    assert levels["bad"] and levels["warn"]
    assert found == levels["bad"] + levels["warn"] + levels["good"]
    some = walked(visitor, "/plans?find=OSLO", "plans")
    assert sorted(some) == sorted(name for name in found if "oslo" in name)
    assert "No plan matches" in visitor.get("/plans?find=nothing-like-it").text


def test_every_client_is_on_one_page_by_name(console: ConsoleRig) -> None:
    visitor = console.visitor("ada")
    found = walked(visitor, "/clients", "clients")
    assert len(found) == CLIENTS and found == sorted(set(found))
    some = walked(visitor, "/clients?find=berlin", "clients")
    assert some == [name for name in found if "berlin" in name]
    bad = walked(visitor, "/clients?level=bad", "clients")
    assert bad and set(bad) < set(found)


def test_jobs_are_found_by_a_piece_of_a_name_by_day_and_by_several_filters(
    console: ConsoleRig,
) -> None:
    visitor = console.visitor("ada")
    assert len(set(walked(visitor, "/jobs", "jobs"))) == JOBS
    plan = console.call("plan.list", limit=1)[0]["name"]
    of_plan = {one["id"] for one in console.call("job.list", plan=plan, limit=1000)}
    assert set(walked(visitor, f"/jobs?plan={plan}", "jobs")) == of_plan
    piece = visitor.get("/jobs?client=berlin").text
    assert "Which one?" in piece and 'href="/jobs?client=' in piece
    failed = walked(visitor, f"/jobs?state=failed&plan={plan}", "jobs")
    assert set(failed) <= of_plan
    some = console.call("job.list", limit=1, after=str(JOBS // 2))[0]
    day = some["created_at"][:10]
    of_day = walked(visitor, f"/jobs?day={day}", "jobs")
    every = console.call("job.list", limit=1000, after=str(int(some["id"]) + 500))
    assert some["id"] in of_day
    assert {one["id"] for one in every if one["created_at"][:10] == day} <= set(of_day)
    assert len(of_day) < JOBS / 4
    assert "No job matches" in visitor.get("/jobs?day=1999-01-01").text


def test_an_owner_walks_own_plans_and_jobs_only(console: ConsoleRig) -> None:
    visitor = console.visitor("owen")
    own = {one["name"] for one in console.call("client.list", limit=OWNED)}
    every = console.call("plan.list", limit=1000)
    plans = {one["name"] for one in every if one["client"] in own}
    assert set(walked(visitor, "/plans", "plans")) == plans
    assert set(walked(visitor, "/clients", "clients")) == own
    jobs = {one["id"] for name in own
            for one in console.call("job.list", client=name, limit=1000)}  # fmt: skip
    found = walked(visitor, "/jobs", "jobs")
    assert set(found) == jobs and len(found) == len(jobs)
    assert found == sorted(found, key=int, reverse=True)
    other = next(one["client"] for one in every if one["client"] not in own)
    piece = visitor.get(f"/jobs?client={other[:8]}").text
    assert other not in piece


def test_the_dashboard_counts_what_the_lists_hold(console: ConsoleRig) -> None:
    visitor = console.visitor("ada")
    bad = walked(visitor, "/plans?level=bad", "plans")
    page = visitor.get("/").text
    assert f"{len(bad)} of {PLANS} plans" in page and bad[0] in page
    assert "Full about" in page


def test_the_command_line_lists_more_than_one_page(console: ConsoleRig) -> None:
    with Control(console.home) as control:
        jobs = every(control, "job.list", limit=1200, key="id")
        archives = every(control, "archive.list", limit=1200, key="id")
    assert len({one["id"] for one in jobs}) == len({one["id"] for one in archives}) == 1200
    assert len(console.cli("plan", "list").splitlines()) == PLANS + 1


def test_the_store_is_shown_and_packed(console: ConsoleRig) -> None:
    assert "Packed:" in console.cli("store", "pack")
    shown = console.call("store.show")
    assert shown["counts"]["jobs"] == JOBS and shown["packed_at"]
    assert [one for one in console.call("doctor") if "kept status" in one["message"]] == []
