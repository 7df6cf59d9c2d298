"""Fills a home with a fleet that has been at work for weeks: clients, plans, jobs in all
states, archives, growth of repositories, events, an audit trail.

``python -m borgcube.testing.seed HOME --clients 10000 --plans 20000 --jobs 1000000`` is how
a large installation is measured (see docs/performance.md). The records are made by the
store's own code in large transactions; only what the daemon would have done around them, such
as starting workers, is left out. The same ``--seed`` gives the same fleet. A home that has
a client already is refused: nothing is ever mixed with a real store. The repositories'
directories are made, but they hold nothing.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from borgcube.core import config as configuration
from borgcube.core import events, secrets, standing
from borgcube.core.errors import BorgCubeError, InvalidInput
from borgcube.core.home import init_home
from borgcube.core.model import Archive, AuditEntry, Client, Job, Plan, PlanStatus, Repository
from borgcube.core.store import Root, Store
from borgcube.daemon.dispatcher import passphrase_context
from borgcube.daemon.orders import PLAN_OPTIONS

BATCH = 50_000
CACHED_OBJECTS = 400_000
SITES = ("berlin", "paris", "oslo", "porto", "lab")
KINDS = ("web", "mail", "db", "files", "desk", "build", "edge")
WHAT = {"etc": ("/etc",), "home": ("/home",), "srv": ("/srv", "/var/www"),
        "db": ("/var/lib/postgresql",), "all": ("/",)}  # fmt: skip
CAUSES = (
    ("host-unreachable", "network", "The host does not answer.", "Is it switched on?"),
    ("login-refused", "client", "The login was refused.", "Put the server's key there again."),
    ("host-key-changed", "client", "The host's key is not the one that was accepted.",
     "Find out why before you accept the new one."),
    ("borg-missing", "client", "There is no borg on the client.", "Install it, or use deploy."),
    ("repository-full", "repository", "The repository's disk is full.", "Make room."),
    ("worker-died", "server", "The worker was killed by signal 9 without a result.", ""),
)  # fmt: skip
# How many hours lie between the runs of a plan, and how many plans do so.
RHYTHMS = ((24, 80), (168, 15), (6, 5))
# The part of runs that fail, and how many plans are like that.
TEMPERS = ((0.003, 94), (0.25, 5), (1.0, 1))


def _progress(what: str, done: int, total: int) -> None:
    print(f"  {what:<10} {done:>9,} of {total:,}", file=sys.stderr, flush=True)


class Seeder:
    """Makes one fleet."""

    def __init__(self, store: Store, options: argparse.Namespace, keys: secrets.MasterKey) -> None:
        self._store, self._options, self._keys = store, options, keys
        self._random = random.Random(options.seed)
        self._now = datetime.now(UTC)
        self._plans: list[tuple[Plan, float, int]] = []  # with failing part and hours
        self._sizes: dict[str, int] = {}

    def run(self) -> None:
        """Make everything; raises InvalidInput for a store that is in use."""
        with self._store.reading() as root:
            if root.clients.count() or root.jobs.count() or root.users.count():
                raise InvalidInput(
                    "This home has records already.", next_step="Choose an empty one."
                )
        self._repositories()
        self._clients()
        self._add_plans()
        self._jobs()
        self._sizes_by_day()
        self._trail()
        while True:
            with self._store.transact() as root:
                if not standing.age(root):
                    return

    def _id(self, bits: int = 256) -> str:
        return f"{self._random.getrandbits(bits):0{bits // 4}x}"

    def _repositories(self) -> None:
        days = standing.STORAGE_DAYS
        with self._store.transact() as root:
            for number in range(self._options.repositories):
                name = f"pool-{number + 1}"
                path = self._options.home / "seeded" / name
                path.mkdir(parents=True, exist_ok=True)
                root.repositories.add(Repository(
                    name=name, path=str(path), encryption="repokey-blake2",
                    repository_id=self._id(),
                    passphrase=self._keys.seal("seeded", context=passphrase_context(name)),
                    created_at=self._ago(days=days), free_floor_bytes=1 << 20,
                ))  # fmt: skip
                root.record(events.RepositoryCreated(
                    repository=name, engine="borg", encryption="repokey-blake2"
                ))  # fmt: skip
                # The daemon goes on with this disk's real figures.
                usage = shutil.disk_usage(path)
                pace = self._random.uniform(0.0005, 0.003) * usage.total
                for back in range(days - 1, -1, -1):
                    free = int(usage.free + pace * (back + self._random.uniform(-1, 1)))
                    standing.note_space(
                        root, name, free=min(max(free, 0), usage.total), disk=usage.total,
                        day=self._ago(days=back)[:10],
                    )  # fmt: skip

    def _ago(self, **span: float) -> str:
        return (self._now - timedelta(**span)).isoformat(timespec="milliseconds")

    def _clients(self) -> None:
        total = self._options.clients
        with self._store.transact() as root:
            for number in range(total):
                site, kind = self._random.choice(SITES), self._random.choice(KINDS)
                name = f"{kind}{number:05}.{site}"
                root.clients.add(Client(
                    name=name, transport="openssh", host=f"{name}.example.org", user="root",
                    domain=site if self._random.random() < 0.2 else "",
                    created_at=self._ago(days=300 - 200 * number / max(1, total)),
                ))  # fmt: skip
        _progress("clients", total, total)

    def _add_plans(self) -> None:
        total, chance = self._options.plans, self._random
        with self._store.transact() as root:
            clients = list(root.clients.values("name"))
            repositories = list(root.repositories.values("name"))
            for number in range(total):
                client = clients[number % len(clients)]
                kinds = list(WHAT)
                what = kinds[(number // len(clients)) % len(kinds)]
                again = number // (len(clients) * len(kinds))
                plan = Plan(
                    name=f"{client}-{what}{again or ''}", client=client, paths=WHAT[what],
                    repository=repositories[hash_of(client) % len(repositories)],
                    excludes=("*/.cache",), compression="zstd,3", retries=1,
                    created_at=self._ago(days=250),
                )  # fmt: skip
                root.plans.add(plan)
                root.fleet.put(PlanStatus(plan=plan.name, client=client, repository=plan.repository,
                                          since=plan.created_at))  # fmt: skip
                temper = chance.choices([t for t, _ in TEMPERS], [w for _, w in TEMPERS])[0]
                rhythm = chance.choices([h for h, _ in RHYTHMS], [w for _, w in RHYTHMS])[0]
                self._plans.append((plan, temper, rhythm))
                self._sizes[plan.name] = int(chance.lognormvariate(22, 1.5))
        _progress("plans", total, total)

    def _moments(self) -> Iterator[tuple[datetime, int]]:
        """Yield when which plan runs, in the order of time, as many as there are to be."""
        wanted = self._options.jobs
        if not self._plans or not wanted:
            return
        days, total = 0, 0
        while total < wanted:
            days += 1
            total += sum(runs for _, runs in self._of_day(days))
        # What is too much is left out at the beginning: the newest days are whole.
        skipped = total - wanted
        offsets = [self._random.random() for _ in self._plans]
        for back in range(days, 0, -1):
            begin = self._now - timedelta(days=back)
            moments = []
            for number, runs in self._of_day(back):
                if runs == 1:
                    moments.append((begin + timedelta(hours=6 * offsets[number] ** 2), number))
                else:
                    moments += [
                        (begin + timedelta(hours=24 / runs * (each + offsets[number])), number)
                        for each in range(runs)
                    ]
            moments.sort(key=lambda moment: moment[0])
            yield from moments[skipped:]
            skipped = 0

    def _of_day(self, back: int) -> Iterator[tuple[int, int]]:
        """Yield which plans run how often on a day so long ago."""
        for number, (_, _, rhythm) in enumerate(self._plans):
            if rhythm < 24:
                yield number, 24 // rhythm
            elif (back + number) % (rhythm // 24) == 0:
                yield number, 1

    def _jobs(self) -> None:
        total, begun = self._options.jobs, time.monotonic()
        moments = self._moments()
        done = 0
        most = max(1.0, self._options.archives / max(1, len(self._plans)))
        while True:
            with self._store.transact() as root:
                before = done
                for moment, number in moments:
                    plan, temper, rhythm = self._plans[number]
                    told = total - done <= self._options.events // 5
                    kept = self._now - moment < timedelta(hours=rhythm * most)
                    self._job(root, moment, plan, temper, told=told, kept=kept)
                    done += 1
                    if done - before >= BATCH:
                        break
                root.recorded.clear()
            if done == before:
                break
            _progress("jobs", done, total)
        print(f"  {done:,} jobs in {time.monotonic() - begun:.0f} s", file=sys.stderr)

    def _job(
        self, root: Root, moment: datetime, plan: Plan, temper: float, *, told: bool, kept: bool
    ) -> None:
        chance = self._random
        queued = moment + timedelta(seconds=chance.random() * 2)
        size = self._sizes[plan.name] = int(self._sizes[plan.name] * chance.uniform(0.999, 1.004))
        took = timedelta(seconds=3 + size / 2e9 * chance.uniform(0.5, 3))
        ended = queued + took
        state = chance.choices(("done", "warning"), (96, 4))[0]
        cause = None
        if chance.random() < temper:
            state = chance.choices(("failed", "lost", "cancelled"), (90, 8, 2))[0]
        if state == "failed":
            kind, problem, message, next_step = chance.choices(CAUSES, (50, 20, 3, 12, 5, 10))[0]
            cause = {"kind": kind, "problem": problem, "message": message, "next_step": next_step}
        files = max(3, size // 90_000)
        new = int(size * chance.random() ** 6 * 0.02)
        name = f"{plan.name}-{queued:%Y-%m-%dT%H:%M:%S}"
        figures = {"files": files, "size": size, "csize": size // 2, "new_size": new}
        well = state in standing.WELL
        job = Job(
            type="backup", state=state, client=plan.client, repository=plan.repository,
            plan=plan.name, created_at=queued.isoformat(timespec="milliseconds"),
            started_at=(queued + took * 0.05).isoformat(timespec="milliseconds"),
            finished_at=ended.isoformat(timespec="milliseconds"),
            phase="finishing" if well else "connecting", cause=cause,
            parameters={**{key: getattr(plan, key) for key in PLAN_OPTIONS}, "archive": name},
            progress={"files": files, "bytes_read": size, "bytes_new": new} if well else {},
            result={"archive": name, **figures} if well else {},
            warnings=("/var/spool/x: Permission denied",) if state == "warning" else (),
        )  # fmt: skip
        root.jobs.add(job)
        status = root.fleet.statuses[plan.name]
        standing.note_run(root, status, job)
        archive = None
        if well and kept:
            archive = self._archive(root, job, name, queued, ended, figures)
        if told:
            self._tell(root, job, archive)

    def _archive(
        self, root: Root, job: Job, name: str, begin: datetime, end: datetime, figures: Any
    ) -> Archive:
        archive = Archive(
            id=self._id(), name=name, client=job.client, plan=job.plan, repository=job.repository,
            job=job.id, start=begin.isoformat(), end=end.isoformat(), stats=dict(figures),
            begun_at=begin.isoformat(), created_at=job.finished_at,
        )  # fmt: skip
        root.archives.add(archive, number=int(begin.timestamp() * 1_000_000))
        standing.archive_added(root, archive)
        return archive

    def _tell(self, root: Root, job: Job, archive: Archive | None) -> None:
        who: dict[str, Any] = {"job": job.id, "job_type": job.type, "client": job.client,
               "repository": job.repository, "plan": job.plan}  # fmt: skip
        told: list[tuple[events.Event, str]] = [
            (events.JobQueued(**who), job.created_at),
            (events.JobStarted(**who), job.started_at),
            (events.JobPhase(job=job.id, phase="connecting"), job.started_at),
        ]
        if archive is not None:
            told.append((events.ArchiveAdded(
                archive=archive.name, id=archive.id, repository=archive.repository,
                client=archive.client, plan=archive.plan, job=job.id, stats=archive.stats,
            ), job.finished_at))  # fmt: skip
        if job.state == "lost":
            told.append((events.JobLost(**who), job.finished_at))
        else:
            told.append((events.JobFinished(
                **who, state=job.state, cause=job.cause, result=job.result
            ), job.finished_at))  # fmt: skip
        for event, at in told:
            root.journal.append(event, at=at)

    def _sizes_by_day(self) -> None:
        """Let each repository have grown to what its archives hold, with a file as large as
        what was stored (it is one hole), for the daemon to measure."""
        days = standing.STORAGE_DAYS
        with self._store.transact() as root:
            for name, storage in root.fleet.repositories.items():
                stored = int(storage.held * self._random.uniform(0.03, 0.09))
                place = self._options.home / "seeded" / name / "data"
                with place.open("wb") as file:
                    file.truncate(min(stored, 1 << 42))
                for day, entry in list(storage.days.items()):
                    back = (self._now.date() - datetime.fromisoformat(day).date()).days
                    grown = 1 - back / (1.2 * days)
                    storage.days[day] = {**entry, "held": int(storage.held * grown),
                                         "stored": int(stored * grown**0.7)}  # fmt: skip

    def _trail(self) -> None:
        total = self._options.audit
        actions = ("backup.start", "job.cancel", "plan.set", "client.add", "login.password")
        with self._store.transact() as root:
            plans = [plan.name for plan, _, _ in self._plans] or ["none"]
            for number in range(total):
                root.audit.add(AuditEntry(
                    created_at=self._ago(days=300 * (total - number) / max(1, total)),
                    user=self._random.choice(("ada", "olga", "vera", "owen")), via="console",
                    address="192.0.2.7", action=self._random.choice(actions),
                    subject=self._random.choice(plans), outcome="done",
                ))  # fmt: skip
        _progress("audit", total, total)


def hash_of(text: str) -> int:
    """Return a number that is the same in every run, unlike ``hash``."""
    return sum(ord(char) * (place + 7) for place, char in enumerate(text))


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m borgcube.testing.seed", description="Fill an empty home with a fleet."
    )
    parser.add_argument("home", type=Path)
    for name, default in (("clients", 100), ("plans", 200), ("jobs", 10_000),
                          ("archives", 6_000), ("events", 10_000), ("audit", 1_000),
                          ("repositories", 4), ("seed", 1)):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args(argv)
    options.home = options.home.absolute()
    if min(options.clients, options.repositories) < 1 or min(
        options.plans, options.jobs, options.archives, options.events, options.audit
    ) < 0:  # fmt: skip
        parser.error("at least one client and one repository, and nothing below 0")
    return options


def main(argv: list[str] | None = None) -> int:
    """Seed a home; return 0, or 2 when it is refused."""
    options = _parse(argv)
    try:
        home = init_home(options.home)
        uri = configuration.load(home).store_uri(home)
        store = Store.open(uri, cached_objects=CACHED_OBJECTS, cached_bytes=0)
        try:
            Seeder(store, options, secrets.load_master_key(home)).run()
            store.pack()
        finally:
            store.close()
    except BorgCubeError as error:
        print(f"seed: {error.message} {error.next_step}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
