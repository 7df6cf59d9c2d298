"""A job's page: phases with their times, the whole log searched and downloaded, run again."""

from __future__ import annotations

import re

from borgcube.testing.consolerig import ConsoleRig


def test_phases_are_shown_with_their_times_and_the_log_is_searched_whole(
    console: ConsoleRig,
) -> None:
    console.call("plan.add", name="phases", client="web", repository="main", paths=["/etc"])
    job = console.ended(console.call("backup.start", plan="phases")["job_id"])
    assert [entry.split()[1] for entry in job["phases"]] == ["reading"]
    with (console.home / "jobs" / job["id"] / "log.txt").open("a", encoding="utf-8") as out:
        for number in range(3000):
            out.write(f"2026-01-01T00:00:00.000+00:00 info line {number}\n")
    visitor = console.visitor("vera")
    page = visitor.get(f"/jobs/{job['id']}").text
    assert re.search(r'class="past">.*?reading <span class="faint">0:0\d', page, re.DOTALL)
    assert "line 7<" not in page and "line 2999" in page
    found = visitor.get(f"/jobs/{job['id']}?find=LINE%20299").text
    assert found.count("</time> line ") >= 11
    assert "11 lines of the whole log have this" in found and "line 2998" in found
    whole = visitor.get(f"/jobs/{job['id']}/log").text
    assert whole.count("\n") > 3000 and "line 0\n" in whole and "line 2999\n" in whole


def test_a_restore_is_run_again_by_those_who_may_restore(console: ConsoleRig) -> None:
    archive = console.call("archive.list", client="web")[0]
    asked = {"archive": f"main::{archive['name']}", "paths": ["etc/hosts"],
             "to_client": {"client": "web", "directory": "/tmp/there"}}  # fmt: skip
    first = console.ended(console.call("restore.start", **asked)["job_id"])
    assert console.visitor("vera").post(f"/jobs/{first['id']}/again").status == 403
    again, owen = f"/jobs/{first['id']}/again", console.visitor("owen")
    before = console.call("job.list", limit=1)
    asked_first = owen.post(again)
    assert asked_first.status == 200 and "/tmp/there" in asked_first.text
    assert "etc/hosts" in asked_first.text and console.call("job.list", limit=1) == before
    path = owen.post(again, {"sure": "yes"}).location
    second = console.ended(path.rsplit("/", 1)[-1])
    same = ("type", "client", "repository")
    assert [second[name] for name in same] == [first[name] for name in same]
    for name in ("archive", "paths", "target", "as_root"):
        assert second["parameters"][name] == first["parameters"][name], name
    gone = console.ended(console.call("archive.delete", names=[archive["name"]])["job_id"])
    answer = console.visitor("ada").post(f"/jobs/{gone['id']}/again")
    assert answer.status == 400 and "can be run again" in answer.text
