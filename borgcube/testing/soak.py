"""Kill every process of BorgCube at random moments, and compare what is left with a model.

``python -m borgcube.testing.soak --cycles N --seed S [--workdir D]``. In each cycle two
clients are backed up at once and one process, taken in turn, gets SIGKILL at a moment that
is aimed at: while it starts, sends, commits, writes its index, ends. Then everything must go
on by itself: jobs end, the next backups are done, nothing is left on the clients, the
journal has no gap. Then a judge asks plain borg: the counts are right, check is clean, every new
archive extracts, the others are what they were. Every few cycles every new archive is compared
with its tree byte for byte, and the nonces are compared.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from borgcube.core.errors import BorgCubeError
from borgcube.testing.soakrig import ENDED, PLANS, Broken, SoakRig

VICTIMS = ("daemon", "worker", "gate", "vault", "client")
MOMENTS = ("begin", "transfer", "commit", "index", "finish", "vault-start")
PRUNE_EVERY = 3
AIM_S = 30.0


class Soak:
    """Runs the cycles; raises Broken at the first promise that does not hold."""

    def __init__(self, rig: SoakRig, rng: random.Random, *, verify_every: int) -> None:
        self.rig, self.rng = rig, rng
        self.verify_every = verify_every
        self.kills: Counter[str] = Counter()
        self.states: Counter[str] = Counter()
        self.causes: Counter[str] = Counter()
        self.counted: set[str] = set()

    def run(self, cycles: int) -> None:
        """Run the cycles and verify every few of them, and at the end."""
        for number in range(1, cycles + 1):
            begun = time.monotonic()
            victim = VICTIMS[number % len(VICTIMS)]
            moment = self.rng.choice(MOMENTS)
            self.rig.change()
            jobs = [self.rig.begin(plan) for plan in PLANS]
            hit = self._kill(victim, moment, jobs)
            self.kills[f"{victim} at {moment}" if hit else "missed"] += 1
            self._recover()
            if number % PRUNE_EVERY == 0:
                self._prune()
            self.rig.judged()
            if number % self.verify_every == 0 or number == cycles:
                self.rig.verify()
            states = " ".join(self.rig.job(job)["state"] for job in jobs)
            print(
                f"cycle {number}: {victim} killed at {moment}{'' if hit else ' (missed)'}: "
                f"{states}, {time.monotonic() - begun:.1f} s",
                flush=True,
            )

    def _kill(self, victim: str, moment: str, jobs: list[str]) -> bool:
        """Wait for the moment and send SIGKILL; False when the jobs were over before."""
        if not self._wait(moment, jobs):
            return False
        found = self.rig.parts(victim)
        if not found:
            return False
        return self._shoot(victim, found)

    def _shoot(self, victim: str, found: list[psutil.Process]) -> bool:
        try:
            self.rng.choice(found).kill()
        except psutil.NoSuchProcess:
            return False
        if victim == "daemon" and self.rig.daemon is not None:
            self.rig.daemon.wait(30)
        return True

    def _wait(self, moment: str, jobs: list[str]) -> bool:
        rng, deadline = self.rng, time.monotonic() + AIM_S
        pause = {"begin": 1.5, "transfer": 0.5, "finish": 0.2, "vault-start": 0.8}
        delay = rng.random() * pause.get(moment, 0.05)
        if moment == "begin":
            time.sleep(delay)
            return True
        cache, repository = self.rig.cache, self.rig.repository
        assert cache is not None
        index = set(repository.glob("index.*"))
        phases = {"transfer": "transferring", "finish": "finishing"}
        looked = 0.0
        while time.monotonic() < deadline:
            if moment == "commit" and (cache / "txn.active").exists():
                break
            if moment == "index" and set(repository.glob("index.*")) - index:
                break
            if moment == "vault-start" and self.rig.parts("vault"):
                break
            if time.monotonic() - looked > 0.05:
                looked = time.monotonic()
                states = [self.rig.job(job) for job in jobs]
                if any(state["phase"] == phases.get(moment) for state in states):
                    break
                if all(state["state"] in ENDED for state in states):
                    return False
            time.sleep(0.001)
        time.sleep(delay)
        return True

    def _prune(self) -> None:
        """Delete old archives, and kill somebody meanwhile."""
        if not self.rig.prune():
            return
        victim = self.rng.choice(("daemon", "worker", "vault"))
        time.sleep(self.rng.random() * 1.2)
        if found := self.rig.parts(victim):
            self._shoot(victim, found)
            self.kills[f"{victim} at deletion"] += 1
        self._recover()

    def _recover(self) -> None:
        """See that everything goes on by itself."""
        rig = self.rig
        if rig.daemon is not None and rig.daemon.poll() is not None:
            time.sleep(self.rng.choice((0.0, 0.5, 3.0)))
            rig.start()
        self._count(rig.settle())
        again = {rig.begin(plan): plan for plan in PLANS}
        jobs = rig.settle()
        self._count(jobs)
        for job_id, plan in again.items():
            if jobs[job_id]["state"] != "done":
                raise Broken(f"the next backup of {plan} ends {json.dumps(jobs[job_id])[:2000]}")
        rig.check_client()
        rig.check_records()
        rig.check_events()

    def _count(self, jobs: dict[str, dict[str, object]]) -> None:
        for job_id, job in jobs.items():
            if job_id in self.counted or job["state"] not in ENDED:
                continue
            self.counted.add(job_id)
            self.states[f"{job['type']} {job['state']}"] += 1
            if isinstance(job["cause"], dict):
                self.causes[job["cause"]["kind"]] += 1

    def summary(self) -> str:
        """Return the figures, as JSON."""
        figures = {
            "kills": sum(n for what, n in self.kills.items() if what != "missed"),
            "kills_by_moment": dict(sorted(self.kills.items())),
            "jobs": dict(sorted(self.states.items())),
            "causes": dict(sorted(self.causes.items())),
            "archives_restored_and_compared": len(self.rig.verified),
            "events_without_a_gap": self.rig.seq,
        }
        return json.dumps(figures, indent=2)


def main(arguments: list[str] | None = None) -> int:
    """Run the soak; 0 when every promise held."""
    parser = argparse.ArgumentParser(prog="python -m borgcube.testing.soak", description=__doc__)
    parser.add_argument("--cycles", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--verify-every", type=int, default=5, metavar="CYCLES")
    parser.add_argument("--workdir", type=Path, help="where to work; kept afterwards")
    options = parser.parse_args(arguments)
    place = options.workdir or Path(tempfile.mkdtemp(prefix="bcsoak-"))
    place.mkdir(parents=True, exist_ok=True)
    rng = random.Random(options.seed)
    rig = SoakRig(place, rng)
    soak = Soak(rig, rng, verify_every=options.verify_every)
    begun = time.monotonic()
    broken = ""

    def interrupted(*_: object) -> None:
        raise Broken("interrupted")

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, interrupted)
    try:
        rig.set_up()
        soak.run(options.cycles)
        rig.stop()
    except (Broken, BorgCubeError) as error:
        broken = str(error) or type(error).__name__
    finally:
        rig.close()
    print(soak.summary())
    if broken:
        print(f"broken after {time.monotonic() - begun:.0f} s: {broken}\nsee {place}")
        return 1
    print(f"{options.cycles} cycles in {time.monotonic() - begun:.0f} s: every promise held")
    if options.workdir is None:
        shutil.rmtree(place, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
