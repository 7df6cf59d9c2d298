"""The BorgCube that the crash soak torments, and the model it is compared with.

A daemon with one repository and two clients: ``alpha`` behind a private sshd, ``beta`` on
this machine. Every started backup is remembered with a copy of its tree; whatever archive
shows up later must restore to exactly that. Called by :mod:`borgcube.testing.soak`.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from borgcube.cli.control import Control
from borgcube.core.errors import BorgCubeError
from borgcube.testing.judge import Judge, Snapshot
from borgcube.testing.nonces import examine
from borgcube.testing.sshd import PrivateSSHD
from borgcube.testing.trees import compare_trees

PLANS = ("alpha", "beta")
ENDED = ("done", "warning", "failed", "cancelled", "lost")
STUCK_S = 240.0
PASSPHRASE = "correct horse"
KEPT_ARCHIVES = 6  # of each plan; older ones are deleted by jobs, which are killed too
MARK = "borgcube-"


class Broken(Exception):
    """A promise did not hold; the message says which."""


def _tree(path: Path, rng: random.Random) -> None:
    path.mkdir(parents=True)
    for number in range(12):
        (path / f"f{number:03d}").write_bytes(rng.randbytes(rng.randint(1, 300_000)))
    (path / "shared").write_bytes(random.Random(7).randbytes(400_000))  # both have it


def _change(path: Path, rng: random.Random) -> None:
    """Change, add and delete a few files."""
    files = sorted(path.iterdir())
    for file in rng.sample(files, min(3, len(files))):
        if rng.random() < 0.25 and len(files) > 6 and file.name != "shared":
            file.unlink()
        else:
            file.write_bytes(rng.randbytes(rng.randint(1, 600_000)))
    (path / f"n{rng.getrandbits(40):010x}").write_bytes(rng.randbytes(rng.randint(1, 900_000)))
    for file in sorted(path.glob("n*"))[12:]:
        file.unlink()


class SoakRig:
    """The server under test. ``place`` is a directory of its own."""

    def __init__(self, place: Path, rng: random.Random) -> None:
        self.place, self.rng = place, rng
        self.home, self.repository = place / "home", place / "repository"
        self.client_tmp = place / "tmp"
        self.trees = {plan: place / plan for plan in PLANS}
        self.sshd = PrivateSSHD(place / "sshd")
        self.daemon: subprocess.Popen[bytes] | None = None
        self.server_id = ""
        self.snapshots: dict[str, Path] = {}  # job -> what its tree held
        self.verified: set[str] = set()  # archive IDs that were restored and compared
        self.seq = 0
        self.cache: Path | None = None
        self._judge: Judge | None = None
        self.before: Snapshot = {}  # what every archive was when it was seen first

    # The server ---------------------------------------------------------------------

    @property
    def env(self) -> dict[str, str]:
        """The environment of everything that is started."""
        return {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.place), "LANG": "C.UTF-8", "BORGCUBE_HOME": str(self.home),
            "TMPDIR": str(self.client_tmp),
        }  # fmt: skip

    def set_up(self) -> None:
        """Make trees, home, repository, clients and plans."""
        self.client_tmp.mkdir(parents=True)
        for tree in self.trees.values():
            _tree(tree, self.rng)
        self.sshd.__enter__()
        init = [sys.executable, "-m", "borgcube", "init"]
        subprocess.run(init, env=self.env, check=True, capture_output=True, timeout=60)
        (self.home / "borgcube.toml").write_text("[daemon]\ngrace_seconds = 5\n")
        self.start()
        made = self.call(
            "repository.create", name="main", path=str(self.repository), encryption="repokey",
            passphrase=PASSPHRASE,
        )  # fmt: skip
        self.base = self.home / "engines/borg/repositories" / made["id"] / "base"
        self.cache = self.base / ".cache/borg" / made["repository_id"]
        borg = str(Path(sys.executable).with_name("borg"))
        self.call(
            "client.add", name="alpha", transport="openssh", host="127.0.0.1",
            port=self.sshd.port, user=self.sshd.user, identity=str(self.sshd.identity), borg=borg,
        )  # fmt: skip
        lines = [key["line"] for key in self.call("client.host_keys", name="alpha")["keys"]]
        self.call("client.trust", name="alpha", lines=lines)
        self.call("client.add", name="beta", transport="local", borg=borg)
        for plan in PLANS:
            self.call(
                "plan.add", name=plan, client=plan, repository="main",
                paths=[str(self.trees[plan])], upload_ratelimit_kib=4096,
                retries=1 if plan == "beta" else 0, retry_delay_s=1,
            )  # fmt: skip

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        with (self.place / "serve.log").open("ab") as log:
            self.daemon = subprocess.Popen(
                [sys.executable, "-m", "borgcube", "serve"], env=self.env,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while True:
            try:
                self.server_id = str(self.call("ping")["server_id"])
                return
            except BorgCubeError as error:
                if self.daemon.poll() is not None or time.monotonic() > deadline:
                    raise Broken("the daemon does not start again; see serve.log") from error
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop the daemon as a service manager does."""
        if self.daemon is not None:
            self.daemon.terminate()
            try:
                code = self.daemon.wait(120)
            except subprocess.TimeoutExpired as error:
                self.daemon.kill()
                raise Broken("the daemon does not stop") from error
            if code != 0:
                raise Broken(f"the daemon stops with code {code}")
            self.daemon = None

    def close(self) -> None:
        """End everything, however it stands."""
        if self.daemon is not None and self.daemon.poll() is None:
            self.daemon.terminate()
            try:
                self.daemon.wait(60)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
        self.sshd.stop()
        if self._judge is not None:
            self._judge.close()

    def call(self, method: str, **params: Any) -> Any:
        """Call the daemon; raises BorgCubeError."""
        with Control(self.home) as control:
            return control.call(method, timeout_s=60, **params)

    # Jobs ---------------------------------------------------------------------------

    def begin(self, plan: str) -> str:
        """Start a backup and remember what its tree holds."""
        job = str(self.call("backup.start", plan=plan)["job_id"])
        kept = self.place / "snapshots" / job
        shutil.copytree(self.trees[plan], kept)
        self.snapshots[job] = kept
        return job

    def change(self) -> None:
        """Change both trees; no backup may be running."""
        for tree in self.trees.values():
            _change(tree, self.rng)

    def job(self, job_id: str) -> dict[str, Any]:
        """Return a job."""
        found: dict[str, Any] = self.call("job.show", id=job_id)
        return found

    def settle(self) -> dict[str, dict[str, Any]]:
        """Wait until every job, retries included, has ended; return those with a snapshot.

        A retry has the snapshot of the job it repeats. Raises Broken for a stuck job.
        """
        deadline = time.monotonic() + STUCK_S
        while True:
            jobs = {str(job["id"]): job for job in self.call("job.list", limit=200)}
            if all(job["state"] in ENDED for job in jobs.values()):
                break
            if time.monotonic() > deadline:
                stuck = [job for job in jobs.values() if job["state"] not in ENDED]
                raise Broken(f"stuck jobs: {json.dumps(stuck)[:2000]}")
            time.sleep(0.05)
        for job_id in sorted(jobs, key=int):
            origin = str(jobs[job_id]["retry_of"])
            if origin in self.snapshots and job_id not in self.snapshots:
                self.snapshots[job_id] = self.snapshots[origin]
        return jobs

    def prune(self) -> list[str]:
        """Queue the deletion of all but the newest archives of each plan; return its jobs."""
        archives = self.call("archive.list")
        old: list[str] = []
        for plan in PLANS:
            old += [a["name"] for a in archives if a["plan"] == plan][KEPT_ARCHIVES:]
        return [str(self.call("archive.delete", names=old)["job_id"])] if old else []

    # Processes ----------------------------------------------------------------------

    def parts(self, kind: str) -> list[psutil.Process]:
        """Return the processes of a kind: daemon, vault, worker, gate or client."""
        if self.daemon is None or self.daemon.poll() is not None:
            return []
        if kind == "daemon":
            return [psutil.Process(self.daemon.pid)]
        found = []
        below = psutil.Process(self.daemon.pid).children(recursive=True)
        if kind == "client" and self.sshd.pid is not None:
            below += psutil.Process(self.sshd.pid).children(recursive=True)
        modules = {
            "vault": "borgcube.plugins.borg.vault.main", "worker": "borgcube.daemon.worker",
            "gate": "borgcube.plugins.borg.gate.main",
        }  # fmt: skip
        for process in below:
            try:
                words = process.cmdline()
            except psutil.Error:
                continue
            if kind == "client":
                stock = "create" in words and any("ssh://borgcube" in word for word in words)
                if stock or (words and Path(words[0]).name in ("ssh", "sshd:")):
                    found.append(process)
            elif modules[kind] in words and "child.py" not in " ".join(words):
                found.append(process)
        return found

    # Checks -------------------------------------------------------------------------

    def check_events(self) -> None:
        """The journal goes on without a gap."""
        while events := self.call("events.since", seq=self.seq):
            for event in events:
                if event["seq"] != self.seq + 1:
                    raise Broken(f"after event {self.seq} comes {event['seq']}")
                self.seq = event["seq"]

    def check_client(self) -> None:
        """Nothing of a session is left where clients run."""

        def left() -> list[str]:
            mark = f"{MARK}{self.server_id}-"
            directories = [
                str(path)
                for base in (self.client_tmp, Path(tempfile.gettempdir()), Path("/tmp"))
                for path in base.glob(f"{mark}*")
            ]
            words = (" ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"]))
            return directories + [line[:200] for line in words if mark in line]

        _until_empty(left, "left on the client")

    def check_records(self) -> None:
        """Every job that says done has its archive, and every archive a job it belongs to."""
        archives = {a["job"]: a for a in self.call("archive.list")}
        for job_id in archives:
            if job_id not in self.snapshots:
                raise Broken(f"an archive belongs to no backup: {archives[job_id]}")

    def plain_borg(self, *words: str, cwd: Path | None = None, base: Path | None = None) -> str:
        """Run borg without BorgCube; raises Broken when it complains about anything.

        ``base`` is the directory with its caches, its own one by default.
        """
        env = {
            **self.env, "BORG_PASSPHRASE": PASSPHRASE,
            "BORG_BASE_DIR": str(base or self.place / "plain"),
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
        }  # fmt: skip
        done = subprocess.run(
            [str(Path(sys.executable).with_name("borg")), *words], env=env, cwd=cwd,
            capture_output=True, text=True, timeout=3600, check=False,
        )  # fmt: skip
        if done.returncode != 0 or done.stderr.strip():
            raise Broken(f"borg {words[0]} says {done.returncode}: {done.stderr[-2000:]}")
        return done.stdout

    def judged(self) -> None:
        """Have the judge look at what changed; no job may be running. Raises Broken.

        The count of each chunk, check, a listing and an extraction of every new archive; and
        each archive that is still there is what it was when it was seen first.
        """
        if self._judge is None:
            assert self.cache is not None
            work = self.place / "judge"
            self._judge = Judge(self.repository, PASSPHRASE, cache=self.cache, work=work)
        now = self._judge.snapshot()
        same = {name: digest for name, digest in self.before.items() if name in now}
        verdict = self._judge.judge(unchanged=same)
        if not verdict.content:
            raise Broken(f"the judge is not content: {verdict.findings}")
        self.before = now

    def verify(self) -> None:
        """Stop BorgCube; compare the repository with the model by plain borg; start again.

        A successful backup of each plan must have come last.
        """
        records = {a["id"]: a for a in self.call("archive.list")}
        self.stop()
        locks = [str(path) for path in self.repository.glob("lock.exclusive")]
        if locks:
            raise Broken(f"a lock is left: {locks}")
        self.plain_borg("check", "--verify-data", str(self.repository))
        listing = json.loads(self.plain_borg("list", "--json", str(self.repository)))
        names = {entry["id"]: entry["name"] for entry in listing["archives"]}
        if names != {key: record["name"] for key, record in records.items()}:
            raise Broken(f"the repository has {names}, the store {sorted(records)}")
        for key, record in records.items():
            if key not in self.verified:
                self._restore(record)
                self.verified.add(key)
        found = examine([self.repository])
        if not found.clean:
            pairs = [f"{one} / {other}" for one, other in found.overlaps]
            raise Broken(f"nonces used twice: {pairs} {found.unreadable}")
        self._drop_snapshots(records)
        self.start()

    def _restore(self, record: dict[str, Any]) -> None:
        out = self.place / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        self.plain_borg("extract", f"{self.repository}::{record['name']}", cwd=out)
        tree = self.trees[record["plan"]]
        differences = compare_trees(self.snapshots[record["job"]], out / str(tree).lstrip("/"))
        if differences:
            raise Broken(f"{record['name']} differs: {differences[:10]}")

    def _drop_snapshots(self, records: dict[str, dict[str, Any]]) -> None:
        # The records stay, so that an archive that comes back late is still noticed.
        needed = {self.snapshots[r["job"]] for k, r in records.items() if k not in self.verified}
        for path in (self.place / "snapshots").iterdir():
            if path not in needed:
                shutil.rmtree(path)


def _until_empty(look: Callable[[], list[str]], what: str) -> None:
    deadline = time.monotonic() + 60
    while found := look():
        if time.monotonic() > deadline:
            raise Broken(f"{what}: {found}")
        time.sleep(0.1)
