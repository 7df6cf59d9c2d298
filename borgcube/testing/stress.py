"""Many clients at once against one vault, with the daemon, real workers, gates and borgs.

``python -m borgcube.testing.stress first --rounds 20`` backs up 24 clients with fresh data for
the first time, all at once, into a fresh repository each round; every job must be done.
``python -m borgcube.testing.stress kills --seconds 600`` keeps 8 sessions going in one
repository, and sends SIGKILL to a client's borg, a gate or a worker every few seconds, to the
vault now and then; prunes and compactions run beside them. Whatever is killed, the vault ends
only when it is the one. Plain borg judges at the end: all data and every archive, and after each
round of ``first`` that what was stored anew is what ``borg info`` has.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from borgcube.core.errors import BorgCubeError
from borgcube.testing.soakrig import ENDED, PASSPHRASE, Broken, SoakRig

CLIENTS, SESSIONS = 24, 8
WAIT_S = 600.0
VICTIMS = ("client", "gate", "worker", "client", "gate", "worker", "vault")
KEPT = 2  # archives of each plan that a prune leaves
_GAVE_UP = re.compile(r"vault (\S+): (gives up|died with code)")


class StressRig(SoakRig):
    """A server with many clients on this machine; ``count`` backups may run at once."""

    def __init__(self, place: Path, rng: random.Random, *, count: int) -> None:
        super().__init__(place, rng)
        self.count = count
        self.names = [f"c{number:02d}" for number in range(count)]
        self.plans: dict[str, Path] = {}

    def set_up(self) -> None:
        """Make home and clients."""
        self.client_tmp.mkdir(parents=True)
        init = [sys.executable, "-m", "borgcube", "init"]
        subprocess.run(init, env=self.env, check=True, capture_output=True, timeout=60)
        (self.home / "borgcube.toml").write_text(
            f"[daemon]\ngrace_seconds = 5\n[jobs]\nmax_running = {self.count + 1}\n"
        )
        self.start()
        borg = str(Path(sys.executable).with_name("borg"))
        for name in self.names:
            self.call("client.add", name=name, transport="local", borg=borg)

    def repository_for(self, name: str) -> Path:
        """Make a repository with a plan of every client, each with a fresh tree."""
        path = self.place / name
        self.call(
            "repository.create", name=name, path=str(path), encryption="repokey",
            passphrase=PASSPHRASE,
        )  # fmt: skip
        self.plans = {f"{name}-{client}": self.place / f"{name}-{client}" for client in self.names}
        for client, (plan, tree) in zip(self.names, self.plans.items(), strict=True):
            tree.mkdir()
            self.refresh(tree, files=30)
            self.call("plan.add", name=plan, client=client, repository=name, paths=[str(tree)])
        return path

    def refresh(self, tree: Path, *, files: int) -> None:
        """Write some files anew; every second one has content that other trees have too."""
        for number in self.rng.sample(range(30), files):
            data = self.rng.randbytes(self.rng.randint(1, 60_000))
            if number % 2:
                data = random.Random(number + 100 * self.rng.randrange(3)).randbytes(40_000)
            (tree / f"f{number:03d}").write_bytes(data)

    def state_of(self, job_id: str) -> dict[str, Any]:
        """Wait for the end of a job and return it."""
        deadline = time.monotonic() + WAIT_S
        while (job := self.job(job_id))["state"] not in ENDED:
            if time.monotonic() > deadline:
                raise Broken(f"a job is stuck: {json.dumps(job)[:2000]}")
            time.sleep(0.05)
        return job

    def check_vaults(self, *, killed: int) -> None:
        """A vault has ended only when it was killed, or had nothing to do."""
        found = Counter(how for _, how in _GAVE_UP.findall((self.place / "serve.log").read_text()))
        if found["gives up"] or found["died with code"] > killed:
            logs = sorted((self.home / "logs").glob("vault-*.log"))
            raise Broken(f"{dict(found)}, {killed} were killed; see {[str(log) for log in logs]}")

    def judge_plainly(self, path: Path, *, stored: int | None = None) -> None:
        """Let plain borg look at a repository, with BorgCube stopped meanwhile.

        ``stored`` is what all its archives are said to have stored anew, in bytes.
        """
        self.stop()
        self.plain_borg("check", "--verify-data", str(path))
        facts = json.loads(self.plain_borg("info", "--json", str(path)))["repository"]
        listing = json.loads(self.plain_borg("list", "--json", str(path)))
        for entry in listing["archives"]:
            self.plain_borg("extract", "--dry-run", f"{path}::{entry['name']}")
        if stored is not None:
            # Borg's cache as the vault keeps it: the sizes that plain borg shows.
            caches = self.home.glob(f"engines/borg/repositories/*/base/.cache/borg/{facts['id']}")
            base = next(caches).parents[2]
            info = json.loads(self.plain_borg("info", "--json", str(path), base=base))
            unique = info["cache"]["stats"]["unique_csize"]
            if stored != unique:
                raise Broken(f"{stored} bytes are said to be stored anew, borg info has {unique}")
        self.start()


def first_backups(rig: StressRig, rounds: int) -> Counter[str]:
    """Run the rounds; return how the jobs ended. Raises Broken."""
    ended: Counter[str] = Counter()
    for number in range(1, rounds + 1):
        begun = time.monotonic()
        path = rig.repository_for(f"r{number:02d}")
        jobs = [str(rig.call("backup.start", plan=plan)["job_id"]) for plan in rig.plans]
        results = [rig.state_of(job) for job in jobs]
        for job in results:
            kind = job["cause"]["kind"] if isinstance(job["cause"], dict) else ""
            ended[f"{job['state']} {kind}".strip()] += 1
        rig.check_vaults(killed=0)
        took = time.monotonic() - begun
        if all(job["state"] == "done" for job in results):
            rig.judge_plainly(path, stored=sum(job["result"]["new_size"] for job in results))
        print(f"round {number}: {dict(ended)}, {took:.1f} s", flush=True)
        for tree in rig.plans.values():
            shutil.rmtree(tree)
    if set(ended) != {"done"}:
        raise Broken(f"jobs ended {dict(ended)}")
    return ended


def kills(rig: StressRig, seconds: float) -> Counter[str]:
    """Keep all plans backed up and kill; return what was killed and how jobs ended."""
    path = rig.repository_for("main")
    rig.call("retention.add", name="short", last=KEPT, undo_hours=0)
    for plan in rig.plans:
        rig.call("retention.attach", plan=plan, policy="short")
    ended: Counter[str] = Counter()
    running: dict[str, str] = {}
    prune = str(rig.call("prune.start", repository="main")["job_id"])
    until = time.monotonic() + seconds
    kill_at = time.monotonic() + 2
    number = vaults = 0
    while time.monotonic() < until or running:
        for plan, tree in rig.plans.items():
            job = rig.job(running[plan]) if plan in running else None
            if job is not None and job["state"] in ENDED:
                kind = job["cause"]["kind"] if isinstance(job["cause"], dict) else ""
                ended[f"backup {job['state']} {kind}".strip()] += 1
                del running[plan]
            if plan not in running and time.monotonic() < until:
                rig.refresh(tree, files=6)
                running[plan] = str(rig.call("backup.start", plan=plan)["job_id"])
        if time.monotonic() > kill_at and time.monotonic() < until:
            kill_at = time.monotonic() + rig.rng.uniform(0.5, 3.0)
            victim = VICTIMS[number % len(VICTIMS)]
            number += 1
            if _kill(rig, victim):
                ended[f"{victim} killed"] += 1
                vaults += victim == "vault"
        if rig.job(prune)["state"] in ENDED:
            ended[f"prune {rig.job(prune)['state']}"] += 1
            prune = str(rig.call("prune.start", repository="main")["job_id"])
        time.sleep(0.1)
    for plan in rig.plans:
        job = rig.state_of(str(rig.call("backup.start", plan=plan)["job_id"]))
        if job["state"] != "done":
            raise Broken(f"the last backup of {plan} ends {json.dumps(job)[:2000]}")
    rig.state_of(prune)
    rig.check_vaults(killed=vaults)
    rig.judge_plainly(path)
    return ended


def _kill(rig: StressRig, victim: str) -> bool:
    found = rig.parts(victim)
    if not found:
        return False
    try:
        rig.rng.choice(found).kill()
    except psutil.NoSuchProcess:
        return False
    return True


def main(arguments: list[str] | None = None) -> int:
    """Run one of the two; 0 when every promise held."""
    parser = argparse.ArgumentParser(prog="python -m borgcube.testing.stress", description=__doc__)
    parser.add_argument("what", choices=("first", "kills"))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--clients", type=int, default=0, help=f"{CLIENTS} or {SESSIONS}")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workdir", type=Path, help="where to work; kept afterwards")
    options = parser.parse_args(arguments)
    place = options.workdir or Path(tempfile.mkdtemp(prefix="bcstress-"))
    place.mkdir(parents=True, exist_ok=True)
    count = options.clients or (CLIENTS if options.what == "first" else SESSIONS)
    rig = StressRig(place, random.Random(options.seed), count=count)
    begun, broken, figures = time.monotonic(), "", Counter[str]()
    try:
        rig.set_up()
        if options.what == "first":
            figures = first_backups(rig, options.rounds)
        else:
            figures = kills(rig, options.seconds)
        rig.stop()
    except (Broken, BorgCubeError) as error:
        broken = str(error) or type(error).__name__
    finally:
        rig.close()
    print(json.dumps(dict(sorted(figures.items())), indent=2))
    if broken:
        print(f"broken after {time.monotonic() - begun:.0f} s: {broken}\nsee {place}")
        return 1
    print(f"{time.monotonic() - begun:.0f} s: every promise held")
    if options.workdir is None:
        shutil.rmtree(place, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
