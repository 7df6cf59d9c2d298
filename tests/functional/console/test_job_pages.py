"""A job's page: phases with their times, the whole log searched and downloaded, run again;
and a job whose client prints what no terminal and no browser should obey."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from borgcube.testing.consolerig import ConsoleRig

HOSTILE_BORG = r"""
import json, os, sys
if "--version" in sys.argv:
    print("borg 1.4.0")
    sys.exit(0)
nasty = "<script>alert(1)</script> \x1b[2J\x1b]0;owned\x07 \u202ereversed"
out = sys.stderr
out.write(json.dumps({"type": "log_message", "levelname": "WARNING", "message": nasty}) + "\n")
out.write(nasty + "\n")
out.flush()
for _ in range(100):
    os.write(2, b"A" * (1 << 20))
os.write(2, b"\nlast words\n")
sys.exit(2)
"""


def test_a_job_whose_client_prints_a_hundred_megabytes_and_code_shows_harmlessly(
    tmp_path: Path,
) -> None:
    borg = tmp_path / "hostile-borg"
    borg.write_text(f"#!{sys.executable}\n{HOSTILE_BORG}")
    borg.chmod(0o755)
    place = tmp_path / "server"
    place.mkdir()
    with ConsoleRig(place) as rig:
        rig.user("ada")
        rig.call("repository.create", name="main", path=str(place / "repo"), encryption="repokey",
                 passphrase="right")  # fmt: skip
        rig.call("client.add", name="evil", transport="local", borg=str(borg))
        rig.call("plan.add", name="evil-all", client="evil", repository="main", paths=["/etc"])
        job = rig.ended(rig.call("backup.start", plan="evil-all")["job_id"], timeout_s=100)
        assert (job["state"], job["cause"]["kind"]) == ("failed", "borg-failed"), job
        visitor = rig.visitor("ada")
        path = f"/jobs/{job['id']}"
        answers = [
            visitor.get(f"{path}{more}") for more in ("", "?find=alert", "?find=%1b", "/log")
        ]
        for answer in answers:
            assert answer.status == 200 and len(answer.body) < 300_000
            assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e]", answer.text)
        page, found, _, log = answers
        assert "<script>alert" not in page.text and "&lt;script&gt;alert(1)" in page.text
        assert re.search(r"[2-9] lines of the whole log have this", found.text)
        assert "last words" in log.text and "A" * 400 in log.text
        assert (rig.home / "jobs" / job["id"] / "log.txt").stat().st_size < 200_000
        assert "<script>alert" not in visitor.get("/jobs").text + visitor.get("/").text


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
    path = console.visitor("owen").post(f"/jobs/{first['id']}/again").location
    second = console.ended(path.rsplit("/", 1)[-1])
    same = ("type", "client", "repository")
    assert [second[name] for name in same] == [first[name] for name in same]
    for name in ("archive", "paths", "target", "as_root"):
        assert second["parameters"][name] == first["parameters"][name], name
    gone = console.ended(console.call("archive.delete", names=[archive["name"]])["job_id"])
    answer = console.visitor("ada").post(f"/jobs/{gone['id']}/again")
    assert answer.status == 400 and "can be run again" in answer.text
