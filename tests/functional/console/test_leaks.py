"""An owner sees own things only, and nothing tells whether others exist or how they fare."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from borgcube.testing.apiclient import Api
from borgcube.testing.consolerig import ConsoleRig, Visitor
from tests.functional.console.test_live import Socket, finished

SOMEBODYS = {
    "/clients/{}": "mail", "/plans/{}": "mail-etc", "/plans/{}/retention": "mail-etc",
    "/repositories/{}": "main", "/users/{}": "olga", "/policies/{}": "strict",
    "/schedules/named/{}": "nights", "/schedules/triggers/{}/remove": "hidden",
    "/archives/main/{}": "ARCHIVE", "/archives/main/{}/files": "ARCHIVE", "/jobs/{}": "JOB",
    "/jobs/{}/log": "JOB", "/clients/{}/edit": "mail", "/plans/{}/pause": "mail-etc",
}  # fmt: skip
ACTIONS = {"/plans/{}/backup": "mail-etc", "/jobs/{}/again": "JOB", "/jobs/{}/cancel": "JOB",
           "/users/{}/remove": "olga", "/repositories/{}/passphrase": "main",
           "/plans/{}/drill": "mail-etc", "/clients/{}/test": "mail"}  # fmt: skip
CALLS = {"/clients/{}": "mail", "/plans/{}": "mail-etc", "/plans/{}/status": "mail-etc",
         "/repositories/{}": "main", "/users/{}": "olga", "/jobs/{}": "JOB", "/jobs/{}/log": "JOB",
         "/archives/main/{}": "ARCHIVE", "/retention/{}": "strict",
         "/schedules/{}": "nights"}  # fmt: skip


@pytest.fixture(scope="module")
def fleet(console: ConsoleRig) -> dict[str, str]:
    console.call("retention.add", name="strict", daily=1)
    console.call("schedule.add", name="nights", spec="0 3 29 2 *")
    console.call("trigger.add", name="hidden", plan="mail-etc")
    console.user("otto", "owner", "web")
    found = {one["client"]: one for one in console.call("archive.list")}
    return {
        "ARCHIVE": found["mail"]["id"], "archive": found["mail"]["name"],
        "JOB": next(one["id"] for one in console.call("job.list") if one["client"] == "mail"),
    }  # fmt: skip


def named(text: str, fleet: dict[str, str]) -> str:
    return fleet.get(text, text)


def told(answer: Any) -> tuple[int, str]:
    """Return what an answer tells, but for what is new in every page."""
    text = re.sub(r'(?:csrf_token" value|data-seq)="[^"]*"', "", answer.text)
    return answer.status, "" if answer.status == 303 else text


@pytest.mark.parametrize("who", ["owen", "olga", ""])
def test_what_somebody_may_not_see_answers_as_what_does_not_exist(
    console: ConsoleRig, fleet: dict[str, str], who: str
) -> None:
    visitor = console.visitor(who)
    wrong = []
    for asked, ways in ((visitor.get, SOMEBODYS), (post_at(visitor), ACTIONS)):
        for path, name in ways.items():
            # An operator sees the fleet, but not who else is there.
            if who == "olga" and not path.startswith("/users"):
                continue
            name, none = named(name, fleet), "9" * 6 if name == "JOB" else "no-such-thing"
            there, nowhere = asked(path.format(name)), asked(path.format(none))
            if told(there) != told(nowhere) or there.status == 200:
                wrong.append((path, there.status, nowhere.status))
    assert wrong == []


def post_at(visitor: Visitor) -> Any:
    """Return what posts as the visitor with its form token, looked up once."""
    token = visitor.token("/" if visitor.cookies else "/login")
    return lambda path: visitor.post(path, {"csrf_token": token, "sure": "yes"})


@pytest.mark.parametrize("who", ["owen", "olga"])
def test_over_the_api_as_well(console: ConsoleRig, fleet: dict[str, str], who: str) -> None:
    token = console.call("token.add", name="leaks", user=who, scope=["all"])["token"]
    api = Api(console.port, token)
    api.document = api.get("/openapi.json")
    for path, name in CALLS.items():
        if who == "olga" and not path.startswith("/users"):
            continue
        name = named(name, fleet)
        there, nowhere = (api.ask("GET", path.format(one)) for one in (name, "no-such-thing"))
        assert told(there) == told(nowhere), path
        for method in ("PATCH", "DELETE"):
            if api.operation(method, f"/api/v1{path.format(name)}"):
                both = [api.ask(method, path.format(one), {} if method == "PATCH" else None)
                        for one in (name, "no-such-thing")]  # fmt: skip
                assert told(both[0]) == told(both[1]), (method, path)


def test_no_cursor_and_no_search_tells_how_somebody_elses_plan_fares(
    console: ConsoleRig, fleet: dict[str, str]
) -> None:
    """The place after a foreign plan, and a name that is a piece of an own one."""
    console.call("plan.add", name="eb", client="mail", repository="main", paths=["/x"],
                 comment="cause")  # fmt: skip
    console.ended(console.call("backup.start", plan="eb")["job_id"])
    token = console.call("token.add", name="cursors", user="owen", scope=["all"])["token"]
    api = Api(console.port, token)
    whole = api.get("/fleet/plans")
    assert [one["plan"] for one in whole["items"]] == ["web-etc"]
    for name in ("mail-etc", "eb", "no-such-plan"):
        assert api.get(f"/fleet/plans?after={name}") == whole, name
    owen = console.visitor("owen")
    foreign, nothing = (owen.get(f"/jobs?plan={name}").text for name in ("eb", "ebx"))
    assert "web-etc" in foreign and foreign != nothing  # a piece of its own, as of no other
    assert api.get("/fleet")["bad"] == 0


def ended(console: ConsoleRig, job: str, feeds: tuple[Socket, ...]) -> dict[str, Any]:
    """Wait for the end of a job; feeds that nobody reads would be given up meanwhile."""
    while not (found := console.call("job.show", id=job))["finished_at"]:
        for feed in feeds:
            feed.read(timeout_s=0.1)
    data: dict[str, Any] = found
    return data


def test_a_restore_of_somebody_elses_archive_onto_a_client_is_not_its_owners(
    console: ConsoleRig, fleet: dict[str, str]
) -> None:
    otto = console.visitor("otto")
    feed, all_of_it = Socket(otto), Socket(console.visitor("ada"))
    for one in (feed, all_of_it):
        one.until(lambda one=one: one.messages)
    asked = {"archive": f"main::{fleet['archive']}", "paths": ["secret/of/mail"],
             "to_client": {"client": "web", "directory": "/tmp/there"}}  # fmt: skip
    job, own = (
        ended(console, console.call(method, **given)["job_id"], (feed, all_of_it))
        for method, given in (("restore.start", asked), ("backup.start", {"plan": "web-etc"}))
    )
    finished(all_of_it, job["id"])
    finished(feed, own["id"])
    heard = json.dumps(feed.messages)
    assert fleet["archive"] not in heard and f'"job": "{job["id"]}"' not in heard
    late = Socket(otto, since="1")
    late.until(lambda: late.events())
    assert {e["data"].get("job") for e in late.events()} & {job["id"]} == set()
    for one in (feed, all_of_it, late):
        one.socket.close()

    for path in ("/", "/jobs", "/clients/web"):
        page = otto.get(path).text
        assert f'/jobs/{own["id"]}"' in page and f'/jobs/{job["id"]}"' not in page, path
    assert otto.get(f"/jobs/{job['id']}").status == otto.get(f"/jobs/{job['id']}/log").status == 404
    token = console.call("token.add", name="leaks", user="otto", scope=["all"])["token"]
    api = Api(console.port, token)
    assert job["id"] not in {one["id"] for one in api.get("/jobs?limit=100")["items"]}
    assert api.ask("GET", f"/jobs/{job['id']}").status == 404
    events = api.get("/events?since=0&limit=500")["items"]
    assert {one["data"].get("job") for one in events} & {job["id"], own["id"]} == {own["id"]}
    # Who owns both sees it.
    console.user("both", "owner", "web", "mail")
    assert console.visitor("both").get(f"/jobs/{job['id']}").status == 200


def test_the_place_of_a_repository_is_the_servers_to_know(console: ConsoleRig) -> None:
    place = str(console.place / "repo")
    job = console.call("job.list", limit=100)
    mine = next(one["id"] for one in job if one["plan"] == "web-etc")
    with (console.home / "jobs" / mine / "log.txt").open("a", encoding="utf-8") as out:
        out.write(f"2026-01-01T00:00:00.000+00:00 info the repository at {place} is full\n")
        out.write(f"2026-01-01T00:00:00.000+00:00 info not the one at {place}-other\n")
    owen, vera = console.visitor("owen"), console.visitor("vera")
    token = console.call("token.add", name="places", user="owen", scope=["all"])["token"]
    api = Api(console.port, token)
    seen = [owen.get(f"/jobs/{mine}").text, owen.get(f"/jobs/{mine}/log").text,
            json.dumps(api.get(f"/jobs/{mine}/log")["lines"])]  # fmt: skip
    for text in seen:
        assert f"{place} is" not in text and "[repository main] is full" in text
        assert f"{place}-other" in text
    assert place in vera.get(f"/jobs/{mine}/log").text
    # Nor can it be found out by looking for it.
    assert "is full" not in owen.get(f"/jobs/{mine}?find={place}%20is").text
    assert api.get(f"/jobs/{mine}/log?find={place}%20is")["lines"] == []
