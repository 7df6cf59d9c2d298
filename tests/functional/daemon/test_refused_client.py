"""A malicious borg on a client, in real jobs over real SSH, beside an honest client's jobs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from borgcube.testing.attacks import SECRET
from borgcube.testing.hostileborg import install
from tests.functional.daemon.conftest import STOCK_BORG, Cube, bare_cube, set_up

# The deed, the kind of the job's cause, and the kind of the client.violation event.
REFUSED = {
    "lists the repository": ("client-refused", "forbidden-call"),
    "saves a key": ("client-refused", "forbidden-call"),
    "destroys the repository": ("client-refused", "forbidden-call"),
    "calls what has control characters": ("client-refused", "forbidden-call"),
    "opens another path": ("client-refused", "forbidden-call"),
    "reads another client's chunk": ("client-refused", "forbidden-read"),
    "stores a chunk under an ID it chose": ("client-refused", "wrong-id"),
    "sends a decompression bomb": ("client-refused", "too-large"),
    "stays after it was refused": ("client-refused", "forbidden-call"),
    "commits a chunk of another client": ("archive-refused", "archive-refused"),
    "commits two archives": ("archive-refused", "archive-refused"),
    "commits under another name": ("archive-refused", "archive-refused"),
    "commits a path out of its root": ("archive-refused", "archive-refused"),
    "commits an archive from the future": ("client-clock", "client-clock"),
    "sends half a message and is silent": ("client-silent", "client-silent"),
    "says nothing at all": ("client-silent", "client-silent"),
    "holds the connection for ever": ("client-overtime", "client-overtime"),
    "prints without end": ("client-output", "client-output"),
    "says it is done and wrote nothing": ("no-archive", "no-archive"),
    "says it is done and never spoke": ("no-archive", "no-archive"),
}


@pytest.fixture(scope="module")
def evil() -> Iterator[Cube]:
    """A daemon with plan "evil" of client "mallory" and "honest" of client "alice"."""
    with bare_cube() as cube:
        set_up(cube)
        for name, content in (("tree", b"content"), ("secret-tree", SECRET)):
            (cube.place / name).mkdir()
            (cube.place / name / "file").write_bytes(content)
        cube.ssh_client("mallory", borg=str(cube.place / "evil"))
        cube.plan(
            "evil", cube.place / "tree", client="mallory", extra=("--idle-timeout", "6"),
        )  # fmt: skip
        cube.plan(
            "brief", cube.place / "tree", client="mallory", extra=("--max-duration", "6"),
        )  # fmt: skip
        cube.ssh_client("alice")
        cube.plan("honest", cube.place / "secret-tree", client="alice")
        cube.backup("honest")
        yield cube


def violations(cube: Cube, job_id: str) -> list[dict[str, Any]]:
    """Return the journalled violations of a job, and check that they precede its end."""
    envelopes = cube.call("events.since", seq=0, limit=100_000)
    # An alarm about a job comes after its end.
    mine = [e for e in envelopes if e["data"].get("job") == job_id]
    about = [e for e in mine if not e["type"].startswith("incident.")]
    found = [e["data"] for e in about if e["type"] == "client.violation"]
    assert about[-1]["type"] == "job.finished"
    return found


@pytest.mark.parametrize("deed", REFUSED)
def test_no_client_in_a_real_job(deed: str, evil: Cube) -> None:
    """Nothing a malicious borg does works; the job says who did what, and others go on."""
    cause, kind = REFUSED[deed]
    before = evil.call("archive.list")
    install(evil.place / "evil", deed, stock=STOCK_BORG)
    bad = evil.begin("brief" if cause == "client-overtime" else "evil")
    good = evil.begin("honest")
    job = evil.ended(bad, timeout_s=100)
    assert job["state"] == "failed", (job["state"], job["cause"])
    assert job["cause"]["kind"] == cause, job["cause"]
    assert job["cause"]["problem"] == "client"
    assert "mallory" in job["cause"]["message"] and job["cause"]["message"].isprintable()
    assert job["cause"]["next_step"]
    found = violations(evil, bad)
    assert [(one["client"], one["repository"], one["kind"]) for one in found] == [
        ("mallory", "main", kind)
    ]
    assert found[0]["details"].isprintable() and 5 < len(found[0]["details"]) <= 500
    honest = evil.ended(good, timeout_s=100)
    assert honest["state"] == "done", honest["cause"]
    after = evil.call("archive.list")
    new = [archive for archive in after if archive not in before]
    assert [archive["job"] for archive in new] == [good] and len(after) == len(before) + 1
    assert violations(evil, good) == []


# The archive is complete: it stays. What the client says around it is only words.
TALKERS = {
    "prints what terminals, consoles and parsers fear": "warning",
    "prints a line of a hundred megabytes": "done",
    "fails after its archive is complete": "warning",
}


@pytest.mark.parametrize("deed", TALKERS)
def test_words_and_exit_codes_change_no_archive(deed: str, evil: Cube) -> None:
    install(evil.place / "evil", deed, stock=STOCK_BORG)
    job = evil.ended(evil.begin("evil"), timeout_s=100)
    assert job["state"] == TALKERS[deed], (job["cause"], job["warnings"])
    assert job["result"]["files"] == 1
    assert violations(evil, job["id"]) == []
    directory = evil.home / "jobs" / job["id"]
    text = (directory / "log.txt").read_text("utf-8")
    assert all(line.isprintable() for line in text.split("\n"))
    for line in (directory / "log.jsonl").read_text("utf-8").splitlines():
        assert json.loads(line)["message"].replace("\n", "").isprintable()
    assert len(text) < 1 << 20
    shown = evil.cli("job", "show", job["id"]).stdout + evil.cli("job", "log", job["id"]).stdout
    assert all(line.isprintable() for line in shown.split("\n"))
    for warning in job["warnings"]:
        assert warning.isprintable() and len(warning) <= 500
    figures = job["progress"]
    assert all(0 <= value < 1 << 63 for value in figures.values() if isinstance(value, int))
    assert str(figures.get("path", "")).isprintable()


def test_after_all_deeds_the_repository_is_clean_and_the_clients_are_tidy(evil: Cube) -> None:
    """Last in the module."""
    assert evil.session_directories() == []
    listed = [archive["name"] for archive in evil.call("archive.list")]
    evil.check_clean()
    done = evil.plain_borg("list", "--json", str(evil.repository))
    names = {archive["name"] for archive in json.loads(done.stdout)["archives"]}
    assert set(listed) <= names
    assert all(name.endswith(".partial") for name in names - set(listed)), names
