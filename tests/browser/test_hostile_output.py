"""A job whose client prints code, escapes for terminals and a line of 100 MB, watched live."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from borgcube.testing.consolerig import ConsoleRig

# It says something nasty in each way that a client has, waits to be looked at, then floods.
HOSTILE_BORG = r"""
import json, os, pathlib, sys, time
if "--version" in sys.argv:
    print("borg 1.4.0")
    sys.exit(0)
nasty = "<script>window.pwned=1</script><img src=x onerror='window.pwned=1'> " \
    "\x1b[2J\x1b]0;owned\x07 \u202ereversed"
def say(**message):
    os.write(2, json.dumps(message).encode() + b"\n")
go = pathlib.Path(__file__).with_name("go")
say(type="log_message", levelname="WARNING", message=nasty)
os.write(2, nasty.encode() + b"\n")
while not go.exists():
    say(type="archive_progress", path=nasty, nfiles=3, original_size=1 << 20, finished=False)
    time.sleep(0.2)
for _ in range(100):
    os.write(2, b"A" * (1 << 20))
os.write(2, b"\nlast words\n")
sys.exit(2)
"""


@pytest.mark.timeout(240)
def test_a_running_job_that_prints_code_is_shown_as_text(watch: Any, tmp_path: Path) -> None:
    expect.set_options(timeout=100_000)
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
        seen = watch(rig)
        seen.log_in("ada")
        job = rig.call("backup.start", plan="evil-all")["job_id"]
        page = seen.open(f"/jobs/{job}")
        page.evaluate("window.notReloaded = true")
        # Live: the log line, and the path straight from the bus.
        expect(page.locator("#log")).to_contain_text("<script>window.pwned=1</script><img src=x")
        path = page.locator(f'[data-job="{job}"] [data-figure="path"]')
        expect(path).to_contain_text("<script>window.pwned=1</script>")
        expect(path).to_contain_text("\\x1b[2J")
        assert seen.faults() == []
        seen.shot("hostile-running")
        # The dashboard shows it too while it runs.
        other = watch(rig)
        other.log_in("ada")
        expect(other.page.locator('#card-running [data-figure="path"]')).to_contain_text("<img")
        borg.with_name("go").touch()
        expect(page.locator("#top .badge")).to_have_text("Failed")
        expect(page.locator("#log")).to_contain_text("last words")
        expect(page.locator("#log")).to_contain_text("A" * 400)
        expect(other.page.locator("#card-running")).to_be_empty()
        seen.shot("hostile-failed")
        for one in (seen, other):
            words = one.page.evaluate("document.body.innerText")
            assert not set(words) & {"\x1b", "\x07", "\u202e"}
            assert one.page.evaluate("window.pwned") is None
            assert one.page.locator("main script, main img, main iframe").count() == 0
            assert one.errors == []
        assert page.evaluate("window.notReloaded") is True
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        visitor = rig.visitor("ada")
        answers = [
            visitor.get(f"/jobs/{job}{more}") for more in ("", "?find=window", "?find=%1b", "/log")
        ]
        for answer in answers:
            assert answer.status == 200 and len(answer.body) < 300_000
            assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e]", answer.text)
        assert "<script>window" not in "".join(one.text for one in answers[:3])
        assert re.search(r"[2-9] lines of the whole log have this", answers[1].text)
        assert "last words" in answers[3].text and "A" * 400 in answers[3].text
        assert (rig.home / "jobs" / job / "log.txt").stat().st_size < 200_000
        ended = rig.call("job.show", id=job)
        assert (ended["state"], ended["cause"]["kind"]) == ("failed", "borg-failed"), ended
