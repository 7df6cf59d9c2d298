"""The daemon as a whole: a real process, real vault and worker processes, a fake engine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from .conftest import CODE, ROOT, Refused


def children(daemon, word):
    found = []
    for process in psutil.Process(daemon.process.pid).children():
        with contextlib.suppress(psutil.Error):  # it may end while we look
            if any(word in part for part in process.cmdline()):
                found.append(process)
    return found


def test_a_backup_runs_from_queue_to_archive_and_every_step_is_an_event(daemon, backup):
    job = daemon.ended(backup())
    assert job["state"] == "done", job
    assert job["parameters"]["domain"] == "client:web"
    assert job["progress"] == {"files": 1}
    (archive,) = daemon.call("archive.list", client="web", repository="main")
    assert archive["name"] == job["parameters"]["archive"]
    assert archive["stats"] == {"files": 1}
    journal = daemon.call("events.since")
    assert [e["seq"] for e in journal] == list(range(1, len(journal) + 1))
    types = [e["type"] for e in journal if e["data"].get("job") == job["id"]]
    assert types == ["job.queued", "job.started", "job.phase", "archive.added", "job.finished"]
    published = daemon.published()
    assert [e["seq"] for _, e in published if e["seq"]] == sorted(
        e["seq"] for _, e in published if e["seq"]
    )
    assert ("job.progress", {"files": 1}) in [
        (topic, e["data"].get("progress")) for topic, e in published
    ]
    assert not any("right" in json.dumps(e) for e in journal)


def test_the_job_log_escapes_what_a_client_may_have_chosen(daemon, backup):
    job = daemon.ended(backup())
    lines = daemon.call("job.log", id=job["id"])["lines"]
    (line,) = [line for line in lines if "name" in line]
    assert line.endswith(r"a\x1b[31mname path=x\ny")


def test_an_unexpected_exception_is_an_internal_error_and_its_trace_is_only_in_the_log(
    daemon, backup
):
    job = daemon.ended(backup("bug"))
    assert job["state"] == "failed"
    assert job["cause"]["kind"] == "internal-error"
    assert "secret" not in json.dumps(job["cause"])
    assert any("RuntimeError" in line for line in daemon.call("job.log", id=job["id"])["lines"])


def test_a_network_failure_is_retried_as_often_as_the_plan_says(daemon, backup):
    first = daemon.ended(backup("cause", retries=1))
    assert first["cause"]["kind"] == "host-unreachable"
    second = daemon.ended(str(int(first["id"]) + 1))
    assert (second["retry_of"], second["attempt"]) == (first["id"], 2)
    assert len(daemon.call("job.list")) == 2


def test_a_worker_that_dies_fails_its_job(daemon, backup):
    job = daemon.ended(backup("die"))
    assert (job["state"], job["cause"]["kind"]) == ("failed", "worker-died")


def test_a_running_job_can_be_cancelled(daemon, backup):
    job_id = backup("long")
    daemon.until(job_id, lambda job: job["phase"] == "reading")
    daemon.call("job.cancel", id=job_id)
    assert daemon.ended(job_id)["state"] == "cancelled"
    with pytest.raises(Refused, match="cancelled already"):
        daemon.call("job.cancel", id=job_id)


def test_a_job_that_does_not_listen_is_killed_after_the_grace(daemon, backup):
    job_id = backup("deaf")
    daemon.until(job_id, lambda job: job["phase"] == "reading")
    daemon.call("job.cancel", id=job_id)
    assert daemon.ended(job_id)["state"] == "cancelled"


def test_one_plan_never_runs_twice_at_once(daemon, backup):
    first = backup("long")
    daemon.until(first, lambda job: job["state"] == "running")
    second = daemon.call("backup.start", plan="plan-long")["job_id"]
    time.sleep(2.5)
    assert daemon.call("job.show", id=second)["state"] == "queued"
    daemon.call("job.cancel", id=first)
    daemon.until(second, lambda job: job["state"] == "running")


def test_a_vault_is_shared_and_ends_when_idle(daemon, backup):
    daemon.ended(backup())
    assert len(children(daemon, "vault")) == 1
    deadline = time.monotonic() + 5
    while children(daemon, "vault") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not children(daemon, "vault")


def test_a_vault_that_cannot_start_fails_the_job_with_its_cause(daemon, tmp_path):
    daemon.call("repository.create", name="r", path=str(tmp_path / "r"), passphrase="wrong")
    daemon.call("client.add", name="c", transport="local")
    daemon.call("plan.add", name="p", client="c", repository="r", paths=["/etc"])
    job = daemon.ended(daemon.call("backup.start", plan="p")["job_id"])
    assert (job["state"], job["cause"]["kind"]) == ("failed", "passphrase-wrong")


def test_archives_are_deleted_by_a_job_and_forgotten(daemon, backup):
    daemon.ended(backup())
    name = daemon.call("archive.list")[0]["name"]
    job = daemon.ended(daemon.call("archive.delete", names=[name])["job_id"])
    assert (job["state"], job["warnings"]) == ("warning", ["careful"])
    assert daemon.call("archive.list") == []
    assert daemon.call("events.since")[-2]["type"] == "archive.deleted"


def test_an_imported_repository_brings_its_archives(daemon, tmp_path):
    daemon.call("repository.import", name="old", path=str(tmp_path), passphrase="right")
    (archive,) = daemon.call("archive.list", repository="old")
    assert (archive["name"], archive["stats"]) == ("old", {"files": 3})


def test_the_passphrase_is_shown_only_when_asked_for_and_that_is_journalled(daemon, backup):
    assert "passphrase" not in daemon.call("repository.show", name="main")
    shown = daemon.call("repository.passphrase", name="main")
    assert shown["passphrase"] == "right"
    assert daemon.call("events.since")[-1]["type"] == "repository.passphrase_revealed"
    assert b"right" not in (daemon.home / "store" / "borgcube.fs").read_bytes()


def test_after_a_kill_jobs_are_lost_retried_and_no_process_is_left(daemon, backup):
    job_id = backup("long", retries=1)
    daemon.until(job_id, lambda job: job["phase"] == "reading")
    left = psutil.Process(daemon.process.pid).children()
    assert len(left) == 2
    daemon.stop(signal.SIGKILL)
    _, alive = psutil.wait_procs(left, timeout=10)
    assert not alive
    daemon.start()
    assert daemon.call("job.show", id=job_id)["state"] == "lost"
    again = daemon.until(str(int(job_id) + 1), lambda job: job["state"] == "running")
    assert again["retry_of"] == job_id


def test_sigterm_cancels_jobs_ends_vaults_and_exits_with_zero(daemon, backup):
    job_id = backup("long")
    daemon.until(job_id, lambda job: job["phase"] == "reading")
    left = psutil.Process(daemon.process.pid).children()
    assert daemon.stop() == 0
    assert not any(process.is_running() for process in left)
    assert list((daemon.home / "run").glob("*")) == [] or not (daemon.home / "run").exists()
    daemon.start()
    assert daemon.call("job.show", id=job_id)["state"] == "cancelled"


def test_a_second_daemon_on_the_same_home_is_refused(daemon):
    second = subprocess.run(
        [sys.executable, "-c", CODE, str(daemon.home)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=20,
    )
    assert second.returncode != 0
    assert f"runs on {daemon.home} already (process {daemon.process.pid})" in second.stderr
    assert daemon.call("ping")["pid"] == daemon.process.pid


def test_a_broken_plugin_is_quarantined_and_shown(daemon):
    (broken,) = daemon.call("plugins.list")["quarantined"]
    assert broken["name"] == "broken"
    assert broken["distribution"] == "borgcube-fake"
    assert any("broken" in finding["message"] for finding in daemon.call("doctor"))


@pytest.mark.parametrize("payload", [
    b"", b"[]", b"{", b'{"v":2,"id":"x","method":"ping"}', b'{"v":1,"id":"x","method":"nothing"}',
    b'{"v":1,"id":"x","method":"ping","params":[]}',
    b'{"v":1,"id":"x","method":"ping","params":{"a":1}}',
    b'{"v":1,"id":"x","method":"job.show"}',
    b'{"v":1,"id":"x","method":"job.list","params":{"limit":true}}',
    b"[" * 200_000, b'"' + b"x" * (1 << 20) + b'"',
])  # fmt: skip
def test_a_bad_request_gets_one_clear_error(daemon, payload):
    with pytest.raises(Refused) as refused:
        daemon.exchange(payload)
    assert refused.value.args[0]["kind"] == "InvalidInput"
    assert daemon.call("ping")


def test_client_test_and_host_keys_answer_from_the_transport(daemon, backup):
    assert daemon.call("client.test", name="web") == {"ok": True, "borg_version": "borg 1.4.5"}
    assert daemon.call("client.host_keys", name="web") == {
        "keys": [], "trusted": [], "known": True,
    }  # fmt: skip
    assert not list(Path(daemon.home / "run").glob("ctl-*"))


def test_names_and_references_are_checked(daemon, backup, tmp_path):
    with pytest.raises(Refused, match="not a valid name"):
        daemon.call("client.add", name="../x", transport="local")
    with pytest.raises(Refused, match="already"):
        daemon.call("client.add", name="web", transport="local")
    with pytest.raises(Refused, match="no client"):
        daemon.call("plan.add", name="p", client="no", repository="main", paths=["/"])
    for odd in ({"paths": ["/a\udcdf"]}, {"paths": ["/"], "excludes": ["*/a\udcdf"]}):
        with pytest.raises(Refused, match="is not UTF-8"):
            daemon.call("plan.add", name="p", client="web", repository="main", **odd)
    with pytest.raises(Refused, match="no engine"):
        daemon.call("repository.create", name="z", path=str(tmp_path / "z"), engine="zip")
    with pytest.raises(Refused, match="exists"):
        daemon.call("repository.create", name="z", path=str(tmp_path))
