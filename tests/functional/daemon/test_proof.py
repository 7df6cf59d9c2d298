"""Checks and restore drills in a whole BorgCube, by the command line."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from .conftest import Cube

MIB = 1 << 20


def test_a_server_proves_what_it_holds(cube: Cube) -> None:
    source = cube.place / "source"
    (source / "deep").mkdir(parents=True)
    for number in range(30):
        (source / "deep" / f"file-{number}").write_bytes(os.urandom(40_000))
    (source / "large").write_bytes(os.urandom(9 * MIB))
    (source / "closed").write_bytes(b"nobody reads this")
    (source / "closed").chmod(0o000)
    os.symlink("/etc", source / "deep" / "away")
    (source / "canary").write_text("sings\n")
    cube.local_client("here")
    cube.plan("web", source, client="here")
    cube.call("drill.set", plan="web", canary=str(source / "canary"))
    cube.backup("web")

    # A check from a schedule's parameters, and one from the command line.
    job = cube.call("job.start", type="check", repository="main", parameters={"kind": "archives"})
    assert cube.ended(job["job_id"])["state"] == "done"
    said = cube.ok("check", "run", "main", "--wait")
    assert "are verified by now" in said
    # Borg's own check gets the repository from the vault, and the passphrase on a descriptor.
    job = cube.ended(cube.call("check.start", repository="main", kind="borg")["job_id"])
    assert job["state"] == "done" and job["result"]["sound"], job["cause"]
    secret = cube.call("repository.passphrase", name="main")["passphrase"]
    for file in (cube.home / "jobs" / job["id"]).iterdir():
        assert secret not in file.read_text()
    shown = cube.call("check.show", repository="main")
    assert [one["level"] for one in shown["states"]] == ["good", "good", "good"]

    # A sample, then all of it; both leave nothing behind but a report.
    cube.ended(cube.call("drill.start", repository="main")["job_id"])
    said = cube.ok("drill", "run", "--plan", "web", "--whole", "--wait")
    assert re.search(r"33 files, 10\.\d MiB restored in [0-9.]+ s and compared: passed", said)
    assert not any((cube.home / "scratch").iterdir())
    listed = cube.call("drill.list")
    assert [one["whole"] for one in listed] == [True, False]
    report = cube.call("drill.show", id=listed[1]["id"])
    assert report["genuine"] and report["report"]["restored"]["files"] == 33
    assert report["canary_sha256"] == hashlib.sha256(b"sings\n").hexdigest()
    files = {one["path"]: one["sha256"] for one in report["report"]["files"]}
    for path in ("large", "deep/file-7"):
        name = str(source / path).lstrip("/")
        assert files[name] == hashlib.sha256((source / path).read_bytes()).hexdigest()
    page = Path(report["directory"], "report.html").read_text()
    assert listed[1]["sha256"] in page and "<script" not in page

    # Somebody edits the report, and it shows.
    path = Path(report["directory"], "report.json")
    path.write_text(path.read_text().replace('"passed"', '"perfect"'))
    assert not cube.call("drill.show", id=listed[1]["id"])["genuine"]

    # The canary changes, which only whatever ravages the client does.
    (source / "canary").write_text("croaks\n")
    cube.backup("web")
    job = cube.ended(cube.call("drill.start", plan="web")["job_id"])
    assert job["state"] == "failed" and "canary" in job["cause"]["message"]

    # A byte flips on the disk: the next check fails, names the file, and tells everybody.
    segment = max((cube.repository / "data").glob("*/*"), key=lambda path: path.stat().st_size)
    with segment.open("r+b") as file:
        file.seek(segment.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))
    job = cube.ended(cube.call("check.start", repository="main", kind="borg")["job_id"])
    assert job["cause"]["kind"] == "borg-check-failed", job
    done = cube.cli("check", "run", "main", "--wait")
    assert done.returncode == 2 and "1 stored object is damaged" in done.stderr
    said = cube.ok("check", "show", "main")
    assert f"  {str(source).lstrip('/')}/" in said
    events = cube.call("events.since", seq=0)
    (found,) = [one["data"] for one in events if one["type"] == "check.damage_found"]
    assert found["files"][0].rpartition(": ")[2] in said and len(found["archives"]) == 2
    cube.ended(cube.call("drill.start", plan="web", whole=True)["job_id"])
    assert cube.call("drill.list")[0]["result"] == "failed"
    assert not any((cube.home / "scratch").iterdir())
