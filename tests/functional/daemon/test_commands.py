"""A plan's commands on the client run around its backup, and their failures have words."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.functional.daemon.conftest import Cube
from tests.functional.daemon.test_faults import failed, files


@pytest.fixture
def alpha(cube: Cube) -> Cube:
    cube.ssh_client("alpha")
    return cube


def log_of(cube: Cube, job: dict) -> str:
    return "\n".join(cube.call("job.log", id=job["id"])["lines"])


def test_a_dump_made_before_the_backup_is_in_it_and_is_removed_after_it(alpha: Cube) -> None:
    tree = files(alpha.place / "it's a tree", count=1)
    dump, told = tree / "dump.sql", alpha.place / "told"
    alpha.plan(
        "db", tree, client="alpha",
        extra=("--before-command",
               f'echo "dump of $BORGCUBE_PLAN" > "{dump}"; printf "\\033[2Jmade"',
               "--after-command", f'rm "{dump}"; echo "$BORGCUBE_STATE $BORGCUBE_JOB" > "{told}"'),
    )  # fmt: skip
    job = alpha.backup("db")
    assert not dump.exists() and told.read_text() == f"done {job['id']}\n"
    assert "before: \\x1b[2Jmade" in log_of(alpha, job), "what it prints is escaped and logged"
    out = alpha.place / "out"
    alpha.ok("restore", job["result"]["archive"], "--to-dir", str(out), "--wait")
    (restored,) = Path(out).rglob("dump.sql")
    assert restored.read_text() == "dump of db\n"


def test_a_failed_command_fails_the_job_or_warns_as_the_plan_says(alpha: Cube) -> None:
    tree, told = files(alpha.place / "tree", count=1), alpha.place / "told"
    after = ("--after-command", f'echo "$BORGCUBE_STATE" >> "{told}"; exit 3')
    alpha.plan(
        "db", tree, client="alpha", extra=("--before-command", "echo no disk; exit 7", *after)
    )
    job = alpha.ended(alpha.begin("db"))
    failed(job, "before-command-failed", "client", "ended with code 7: no disk")
    assert told.read_text() == "failed\n", "what the first began, the second ends"
    alpha.ok("plan", "set", "db", "--before-failure", "warn")
    job = alpha.backup("db", state="warning")
    assert len(job["warnings"]) == 2 and "code 7" in job["warnings"][0]
    assert "code 3" in job["warnings"][1] and job["cause"]["kind"] == "command-failed"
    assert told.read_text() == "failed\nwarning\n" or told.read_text() == "failed\ndone\n"


def test_a_command_that_hangs_is_ended_by_its_time_or_by_the_person_who_cancels(
    alpha: Cube,
) -> None:
    tree, told = files(alpha.place / "tree", count=1), alpha.place / "told"
    alpha.plan(
        "db", tree, client="alpha",
        extra=("--before-command", "echo waiting; sleep 500", "--command-timeout", "2",
               "--after-command", f'echo "$BORGCUBE_STATE" >> "{told}"'),
    )  # fmt: skip
    failed(alpha.ended(alpha.begin("db")), "command-timeout", "client", "within 2 s")
    alpha.ok("plan", "set", "db", "--command-timeout", "600")
    number = alpha.begin("db")
    alpha.until(number, lambda job: "before: waiting" in log_of(alpha, job))
    alpha.call("job.cancel", id=number)
    assert alpha.ended(number)["state"] == "cancelled"
    assert told.read_text() == "failed\ncancelled\n"


def test_a_command_that_cannot_be_one_is_refused(alpha: Cube) -> None:
    tree = files(alpha.place / "tree", count=1)
    alpha.plan("db", tree, client="alpha")
    said = alpha.refused("plan", "set", "db", "--before-command", "x\x1b[2J")
    assert "not a usable command" in said and "\x1b" not in said
    assert "timeout" in alpha.refused("plan", "set", "db", "--command-timeout", "0")
