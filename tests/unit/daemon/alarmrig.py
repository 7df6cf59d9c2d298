"""A store, a clock that is set by hand, and real alarms over them; nothing runs by itself."""

from __future__ import annotations

import os
import time
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from borgcube.core import events, lifecycle
from borgcube.core.config import Config, NotifyConfig
from borgcube.core.errors import FailureCause, Problem
from borgcube.core.model import (
    Archive,
    Channel,
    Client,
    Job,
    Plan,
    Repository,
    Rule,
    Schedule,
)
from borgcube.core.registry import Registry
from borgcube.core.secrets import MasterKey
from borgcube.core.store import Store
from borgcube.daemon.alarms import Alarms
from borgcube.daemon.timetabling import enrol
from borgcube.plugins import notify_apprise, notify_mail, notify_webhook, schedule_calendar

BEGIN = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)  # a Monday
NETWORK = FailureCause("host-unreachable", Problem.NETWORK, "No way to it.", "Is it up?")
LOGIN = FailureCause("login-refused", Problem.CLIENT, "It lets nobody in.", "Put the key back.")
FULL = FailureCause("repository-low-space", Problem.REPOSITORY, "It is full.", "Make room.")


class Rig:
    """Alarms over a store of their own. ``now`` is the time."""

    def __init__(self, place: Path, **notify: Any) -> None:
        self.place, self.now = place, BEGIN
        self.findings: list[dict[str, str]] = []
        self.keys = MasterKey(os.urandom(32))
        self.registry = Registry()
        for plugin in (notify_mail, notify_webhook, notify_apprise, schedule_calendar):
            assert self.registry.add(plugin, name=plugin.__name__.rpartition(".")[2])
        settings = {"server_name": "vault", "retry_seconds": 60, "timeout_seconds": 20, **notify}
        self.config = replace(Config(), notify=NotifyConfig(**settings))
        self.open()

    def open(self) -> None:
        """Start, as a daemon does."""
        self.store = Store.open(f"file://{self.place / 'test.fs'}")
        self.alarms = Alarms(
            self.config, self.store, self.registry, self.keys,
            doctor=lambda: self.findings, clock=lambda: self.now,
        )  # fmt: skip
        self.store.on_committed = self.alarms.hear
        self.alarms.courier.take_up()
        with self.store.reading() as root:
            self.alarms._seq = int(root.settings["alarms_seq"])

    def kill(self) -> None:
        """End without a word, as after SIGKILL; attempts on their way are ended too."""
        for attempt in self.alarms.courier._running.values():
            attempt.process.kill()
            attempt.process.wait()
        self.store.close()

    def later(self, **span: float) -> None:
        """Let time pass."""
        self.now += timedelta(**span)

    @property
    def at(self) -> str:
        return self.now.isoformat(timespec="milliseconds")

    def fleet(self, *plans: str) -> None:
        """Add plans, each with a client of its name, in one repository that is there."""
        with self.store.transact() as root:
            if root.repositories.find("name", "main") is None:
                (self.place / "repo").mkdir(exist_ok=True)
                root.repositories.add(Repository(
                    name="main", path=str(self.place / "repo"), free_floor_bytes=0
                ))  # fmt: skip
            for name in plans:
                root.clients.add(Client(name=name, created_at=self.at))
                root.plans.add(Plan(name=name, client=name, repository="main", created_at=self.at))
                root.record(events.PlanAdded(plan=name, client=name, repository="main"))
        self.read()

    def channel(self, name: str, notifier: str = "webhook", **options: Any) -> None:
        with self.store.transact() as root:
            root.channels.add(Channel(name=name, notifier=notifier, options=options))

    def rule(self, name: str = "all", channel: str = "hook", **fields: Any) -> None:
        with self.store.transact() as root:
            root.rules.add(Rule(name=name, channel=channel, **{"group_s": 0, **fields}))

    def schedule(self, plan: str, spec: str, **values: Any) -> None:
        """Give a plan a schedule of its own."""
        with self.store.transact() as root:
            root.schedules.add(Schedule(name=f"of-{plan}", spec=spec, grace_s=3600, **values))
            root.plans.change(root.plans.find("name", plan), schedule=f"of-{plan}")
            enrol(root, self.registry.schedules, subject="plan", name=plan,
                  schedule=f"of-{plan}", now=self.now)  # fmt: skip

    def run(self, plan: str, state: str = "done", *, cause: FailureCause = NETWORK,
            retry: bool = False) -> None:  # fmt: skip
        """Have a backup of a plan end, and read the journal."""
        with self.store.transact() as root:
            record = root.plans.find("name", plan)
            record.retries = 1 if retry else 0
            job = lifecycle.queue(root, Job(type="backup", plan=plan, client=record.client,
                                            repository=record.repository))  # fmt: skip
            lifecycle.take(root, job)
            lifecycle.start(root, job)
            job.started_at = self.at  # the life of a job goes by the real clock
            if state == "done":
                lifecycle.add_archive(root, Archive(
                    id=f"a{job.id}", name=f"{plan}-{job.id}", plan=plan, client=plan,
                    repository="main", job=job.id, start=self.at, begun_at=self.at,
                    created_at=self.at,
                    stats={"files": 3, "size": 5000, "new_size": 700},
                ), number=int(self.now.timestamp() * 1e6))  # fmt: skip
                lifecycle.finish(root, job, "done")
            else:
                lifecycle.finish(root, job, state, cause=cause if state == "failed" else None)
                if retry:
                    lifecycle.requeue(root, job)
        self.read()

    def record(self, event: events.Event) -> None:
        with self.store.transact() as root:
            root.record(event)
        self.read()

    def read(self) -> None:
        self.alarms.read_journal()

    def look(self) -> None:
        """Let the watch look, and take in what it found."""
        self.alarms.watch._doctor_at = None
        self.alarms.watch.look()
        while True:
            before = self.alarms.watch._found.qsize()
            self.alarms.take_findings()
            if not before:
                return

    def settle(self, *, timeout_s: float = 60) -> None:
        """Let the courier work until nothing is on its way."""
        deadline = time.monotonic() + timeout_s
        courier = self.alarms.courier
        while time.monotonic() < deadline:
            courier.wake()
            courier.step()
            if not courier.busy:
                return
            time.sleep(0.01)
        raise AssertionError("an attempt does not end")

    def incidents(self, **equal: str) -> list[Any]:
        with self.store.reading() as root:
            return [one.as_data() for one in root.incidents.newest(1000, **equal)]

    def deliveries(self, **equal: str) -> list[dict[str, Any]]:
        """What was posted, oldest first."""
        with self.store.reading() as root:
            found = [one.as_data() for one in root.deliveries.newest(1000, **equal)]
        return found[::-1]

    def said(self, **equal: str) -> list[list[tuple[str, str]]]:
        """What messages are about: what and key of each item."""
        return [
            [(item["what"], item.get("key", item.get("type"))) for item in one["items"]]
            for one in self.deliveries(**equal)
        ]


@contextmanager
def opened(place: Path, **notify: Any):
    rig = Rig(place, **notify)
    with closing(rig.store):
        yield rig
