"""What extracts on the server is fenced, through the whole of BorgCube, or it is said."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

from borgcube.core.store import Store
from tests.functional.daemon.conftest import Cube

FENCED = "borg extracts in a fence"
BARE = "borg extracts without a fence"


def log_of(cube: Cube, job_id: str) -> str:
    return "\n".join(cube.call("job.log", id=job_id)["lines"])


def test_restores_and_drills_here_are_fenced_and_to_go_without_is_audited(cube: Cube) -> None:
    source = cube.place / "source"
    source.mkdir()
    (source / "file").write_bytes(os.urandom(100_000))
    cube.local_client("here")
    cube.ssh_client("far")
    cube.plan("web", source, client="here")
    archive = cube.backup("web")["result"]["archive"]
    inside = str(source).lstrip("/")

    def restored(name: str, **asked: object) -> str:
        target = cube.place / name
        where = {"to_dir": str(target)} if "to_client" not in asked else {}
        job = cube.ended(cube.call("restore.start", archive=archive, **where, **asked)["job_id"])
        assert job["state"] == "done", job["cause"]
        assert (target / inside / "file").read_bytes() == (source / "file").read_bytes()
        return log_of(cube, job["id"])

    assert FENCED in restored("to-dir")
    assert FENCED in restored("as-root", as_root=True)
    to = {"client": "here", "directory": str(cube.place / "to-client")}
    assert FENCED in restored("to-client", to_client=to)
    assert BARE in restored("bare", unfenced=True)
    far = f"far:{cube.place / 'far'}"
    said = cube.refused("restore", archive, "--to-client", far, "--unfenced")
    assert "no fence to go without" in said
    cube.ok("restore", archive, "--to-client", far, "--wait")
    for job in cube.call("job.list", type="restore"):
        if job["client"] == "far":
            assert "fence" not in log_of(cube, job["id"])

    # Where BorgCube's own files are, nothing is restored to.
    job = cube.ended(cube.call("restore.start", archive=archive, to_dir=str(cube.place))["job_id"])
    assert job["cause"]["kind"] == "target-unusable" and "--unfenced" in job["cause"]["next_step"]

    job = cube.ended(cube.call("drill.start", plan="web", whole=True)["job_id"])
    assert job["state"] == "done" and FENCED in log_of(cube, job["id"])
    # Nothing is left: not a directory of a session, not a process, not the drill's files.
    assert not list(Path("/tmp").glob(f"borgcube-{cube.call('ping')['server_id']}-*"))
    assert not any((cube.home / "scratch").iterdir())

    cube.stop()
    with (
        closing(Store.open(f"file://{cube.home}/store/borgcube.fs")) as store,
        store.reading() as root,
    ):
        trail = [entry.subject for entry in root.audit.newest(200, action="restore.start")]
    assert trail.count(f"{archive} (without a fence)") == 2  # one of them was refused
    assert trail.count(archive) == 5


def test_a_cancelled_restore_leaves_no_process_and_no_directory(cube: Cube) -> None:
    source = cube.place / "source"
    source.mkdir()
    for number in range(3000):
        (source / f"file-{number}").write_bytes(os.urandom(3000))
    cube.local_client("here")
    cube.plan("web", source, client="here")
    archive = cube.backup("web")["result"]["archive"]
    target = cube.place / "target"
    job_id = cube.call("restore.start", archive=archive, to_dir=str(target))["job_id"]
    cube.until(job_id, lambda job: any(target.rglob("file-*")) or job["state"] == "done")
    cube.call("job.cancel", id=job_id)
    assert cube.ended(job_id)["state"] in ("cancelled", "done")
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                said = Path("/proc", name, "cmdline").read_bytes()
            except OSError:
                continue
            assert not (b"core.fence" in said and str(target).encode() in said), said
