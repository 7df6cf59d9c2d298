"""A simulated year of a fleet, `python -m borgcube.testing.simulate`.

The daemon's own scheduler and queue policy run with a virtual clock over a store in memory;
runs only take time, and things happen on whole minutes. The fleet is mixed: nightly plans in
several zones, plans in windows, others every few hours, laptops that come and go. Now and
then the server is off for some hours, clients fail, and somebody pauses something. At the end
it says whether everything was started that had to be, whether a slot was ever exceeded, and
how late runs were: "after its time" counts from when a run is due, with what jitter,
staggering and windows add on purpose. Exit code 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from borgcube.core import lifecycle
from borgcube.core.model import Job, Pause, Schedule
from borgcube.core.planning import rule_named
from borgcube.core.schedules import ON_TIME_S
from borgcube.daemon.queue import SLOTS
from borgcube.testing.virtualtime import UNREACHABLE, Fleet, Run, VirtualClock

START = datetime(2026, 1, 5, tzinfo=UTC)
KEPT = timedelta(days=3)
TICK_S = 60
DAY = timedelta(days=1)
MIX = (
    # name, spec, zone, share of the fleet, more of the schedule
    ("berlin", "daily at 02:00", "Europe/Berlin", 30, {"stagger": True}),
    ("newyork", "daily at 01:30", "America/New_York", 20, {"jitter_s": 3600}),
    ("window", "daily at 23:00", "Europe/London", 15,
     {"windows": ("22:00-06:00",), "jitter_s": 7200}),
    ("offices", "weekdays 19:00", "Asia/Tokyo", 15,
     {"blackouts": ("2026-04-29..2026-05-06",), "catch_up": "skip"}),
    ("quick", "every 6 hours", "UTC", 10, {"jitter_s": 1800}),
    ("laptops", "daily at 10:00", "Europe/Berlin", 10, {"catch_up": "when-reachable"}),
)  # fmt: skip
NETWORKS = ("", "branch-a", "branch-b")


@dataclass
class Watch:
    """What is counted while the year goes by."""

    lateness: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    started: Counter[str] = field(default_factory=Counter)
    covered: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    caught: Counter[str] = field(default_factory=Counter)
    exceeded: list[str] = field(default_factory=list)
    most: Counter[str] = field(default_factory=Counter)


class Year:
    """A fleet, its troubles, and what is watched."""

    def __init__(self, clients: int, *, seed: int, slots: int) -> None:
        self.random = random.Random(seed)
        self.clock = VirtualClock(START)
        self.watch = Watch()
        self.slots = {"repository:r0": max(2, slots // 2), "network:branch-a": 3,
                      "network:branch-b": 2}  # fmt: skip
        self.max_running = slots
        self.running: dict[str, tuple[str, str, str]] = {}
        self.away = {f"laptops-{n}" for n in range(clients)}
        self.fleet = Fleet(
            self.clock, max_running=slots, runs=self._run, reachable=self._there,
            keep_events=False, tick_s=TICK_S,
        )  # fmt: skip
        self.schedules: dict[str, str] = {}
        for name, spec, zone, share, more in MIX:
            schedule = Schedule(name=name, spec=spec, zone=zone, **more)
            names = [f"{name}-{n}" for n in range(clients * share // 100)]
            self.schedules.update(dict.fromkeys(names, name))
            for place, some in enumerate(_parts(names, 3)):
                self.fleet.add(schedule, some, repository=f"r{place}", network=NETWORKS[place],
                               retries=2, retry_delay_s=300)  # fmt: skip
        with self.fleet.store.transact() as root:
            root.settings[SLOTS] = self.slots
        self._listen()

    def _listen(self) -> None:
        heard = self.fleet._hear

        def hear(told: object) -> None:
            envelope: dict[str, object] = getattr(told, "as_data", dict)()
            data = envelope.get("data")
            if isinstance(data, dict):
                self._count(str(envelope.get("type")), data)
            heard(told)  # type: ignore[arg-type]

        self.fleet.store.on_committed = hear

    def _count(self, kind: str, data: dict[str, object]) -> None:
        name = str(data.get("name", ""))
        if kind == "schedule.missed":
            self.watch.missed[name] += int(str(data["runs"]))
        elif kind == "schedule.caught_up":
            self.watch.caught[name] += 1
            self.watch.covered[name] += int(str(data["runs"])) - 1
        elif kind in ("job.finished", "job.lost"):
            self.running.pop(str(data["job"]), None)
        elif kind == "job.started":
            self._note_start(str(data["job"]), str(data["client"]), str(data["repository"]))

    def _note_start(self, job: str, client: str, repository: str) -> None:
        place = int(repository[1:])
        self.running[job] = (client, repository, NETWORKS[place])
        used: Counter[str] = Counter()
        for _, where, network in self.running.values():
            used[f"repository:{where}"] += 1
            if network:
                used[f"network:{network}"] += 1
        used["all"] = len(self.running)
        for what, count in used.items():
            self.watch.most[what] = max(self.watch.most[what], count)
            most = self.max_running if what == "all" else self.slots.get(what, 0)
            if most and count > most:
                self.watch.exceeded.append(f"{self.clock.now()}: {what} {count} > {most}")
        clients = Counter(name for name, _, _ in self.running.values())
        if clients[client] > 1:
            self.watch.exceeded.append(f"{self.clock.now()}: two runs of {client}")

    def _there(self, client: str, now: datetime) -> bool:
        if client not in self.away:
            return True
        # A laptop is there on some hours of most days, the same whenever it is asked.
        dice = random.Random(f"{client}{now:%Y%m%d}").random()
        return dice > 0.2 and 8 + 8 * dice < now.hour < 22

    def _run(self, job: Job, now: datetime) -> Run:
        if job.attempt == 1 and job.due:
            due = datetime.fromisoformat(job.due)
            self.watch.started[job.plan] += 1
            self.watch.lateness.append((now - due).total_seconds())
            queued = datetime.fromisoformat(job.created_at)
            self.watch.waited.append((now - queued).total_seconds())
        seconds = self.random.lognormvariate(4.6, 0.8)
        dice = self.random.random()
        if dice < 0.01:
            return Run(20, lifecycle.FAILED, UNREACHABLE)
        return Run(seconds, lifecycle.FAILED if dice < 0.015 else lifecycle.DONE, archive=False)

    def live(self, days: int) -> None:
        """Let days pass, with their troubles."""
        for day in range(days):
            morning = START + day * DAY
            if self.random.random() < 0.03:
                begin = morning + timedelta(hours=self.random.uniform(0, 17))
                self.fleet.live(begin)
                self.fleet.stop()
                self.running.clear()
                self.fleet.live(begin + timedelta(hours=6))
                self.fleet.start()
            if self.random.random() < 0.05:
                client = self.random.choice(sorted(self.schedules))
                until = (morning + timedelta(days=2)).isoformat(timespec="seconds")
                with self.fleet.store.transact() as root:
                    root.pauses.add(Pause(scope="client", target=client, until=until))
            self.fleet.live(morning + DAY)
            self._forget(morning - KEPT)
            if day % 10 == 9:
                print(f"  day {day + 1}: {sum(self.watch.started.values())} runs", flush=True)
        # What is due at the very end still gets its turn.
        self.end = START + days * DAY
        self.fleet.live(self.end + timedelta(hours=8))

    def _forget(self, before: datetime) -> None:
        """Drop old jobs and events: this is about policy, not about a large store."""
        bound = before.isoformat(timespec="milliseconds")
        with self.fleet.store.transact() as root:
            for number in list(root.jobs.rows.keys()):
                job = root.jobs.rows[number]
                if job.created_at >= bound or job.state not in lifecycle.ENDED:
                    break
                root.jobs.remove(job)
            for seq in list(root.journal.entries.keys(max=root.journal.last - 1000)):
                del root.journal.entries[seq]
        self.fleet.store.pack()
        self.fleet.started.clear()

    def owed(self) -> list[str]:
        """Return plans for which runs plus those that were folded or left out are fewer than
        their schedule had."""
        found = []
        with self.fleet.store.reading() as root:
            due: dict[str, int] = {}
            for name in {*self.schedules.values()}:
                rule = rule_named(root, self.fleet.registry.schedules, name)
                assert rule is not None
                due[name] = len(list(rule.due_between(START, self.end, most=10_000)))
            for plan, name in self.schedules.items():
                entry = root.timetable.get("plan", plan)
                waits = bool(entry and entry.held)
                got = self.watch.started[plan] + self.watch.covered[plan] + self.watch.missed[plan]
                if got < due[name] and not waits:
                    found.append(f"{plan}: {got} of {due[name]}")
        return found


def _parts(names: list[str], count: int) -> Iterable[list[str]]:
    return (names[start::count] for start in range(count))


def _percentile(values: list[float], part: float) -> float:
    return values[min(len(values) - 1, int(len(values) * part))] if values else 0.0


def main(arguments: list[str] | None = None) -> int:
    """Run the year and print what came of it."""
    parser = argparse.ArgumentParser(
        prog="python -m borgcube.testing.simulate", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--slots", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    begin = time.monotonic()
    year = Year(options.clients, seed=options.seed, slots=options.slots)
    year.live(options.days)
    owed, watch = year.owed(), year.watch
    late = sorted(watch.lateness)
    print(f"{options.clients} clients, {options.days} days in {time.monotonic() - begin:.0f} s")
    print(f"  runs started       {sum(watch.started.values())}")
    print(f"  runs caught up     {sum(watch.caught.values())}, standing for "
          f"{sum(watch.covered.values())} more")  # fmt: skip
    print(f"  left out           {sum(watch.missed.values())}, as their schedule says")
    for what, values in (("after its time", late), ("in the queue", sorted(watch.waited))):
        on_time = sum(1 for value in values if value <= ON_TIME_S)
        said = [f"{100 * on_time / max(1, len(values)):.1f} % within {ON_TIME_S} s"]
        for part in (0.5, 0.9, 0.99, 0.999, 1.0):
            span = timedelta(seconds=int(_percentile(values, part)))
            said.append(f"{100 * part:g} % {span}")
        print(f"  {what:<18} {', '.join(said)}")
    print(f"  most at once       {dict(sorted(watch.most.items()))}")
    print(f"  slots exceeded     {len(watch.exceeded)}")
    print(f"  never started      {len(owed)}")
    for line in [*watch.exceeded[:10], *owed[:10]]:
        print(f"    {line}")
    return 1 if owed or watch.exceeded else 0


if __name__ == "__main__":
    sys.exit(main())
