"""Events about time: schedules, what they missed and caught up, pauses, tasks, triggers.

A room of :mod:`borgcube.core.events`, which lists them among the built-in ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from borgcube.core.envelope import Event


@dataclass(frozen=True)
class ScheduleAdded(Event):
    """A schedule was added."""

    TYPE = "schedule.added"
    schedule: str
    spec: str
    zone: str


@dataclass(frozen=True)
class ScheduleChanged(Event):
    """Settings of a schedule were changed; ``fields`` are their names."""

    TYPE = "schedule.changed"
    schedule: str
    fields: list[str]


@dataclass(frozen=True)
class ScheduleRemoved(Event):
    """A schedule that nothing used was removed."""

    TYPE = "schedule.removed"
    schedule: str


@dataclass(frozen=True)
class ScheduleMissed(Event):
    """Runs of a plan or task could not start at their time and are left out.

    ``due`` is the time of the first of them, ``runs`` how many there are. ``reason`` is
    ``off`` (the server was not running), ``pause``, ``blackout``, ``busy`` (the run before
    had not ended) or ``away`` (the client did not answer).
    """

    TYPE = "schedule.missed"
    subject: str
    name: str
    schedule: str
    due: str
    runs: int
    reason: str
    client: str = ""


@dataclass(frozen=True)
class ScheduleCaughtUp(Event):
    """One run was queued for the ``runs`` that could not start at their time.

    ``late_s`` is how many seconds after the first of them; the rest is as in
    ``schedule.missed``.
    """

    TYPE = "schedule.caught_up"
    subject: str
    name: str
    schedule: str
    due: str
    runs: int
    reason: str
    late_s: int
    job: str
    client: str = ""


@dataclass(frozen=True)
class ScheduleWaiting(Event):
    """A run is due and waits until its client answers. Told once for each time it waits."""

    TYPE = "schedule.waiting"
    subject: str
    name: str
    schedule: str
    due: str
    client: str = ""


@dataclass(frozen=True)
class PauseSet(Event):
    """Schedules of ``scope`` (everything, client, plan, repository, task) and ``target`` start
    nothing before ``until``; empty is until somebody resumes them."""

    TYPE = "pause.set"
    scope: str
    target: str
    until: str
    reason: str


@dataclass(frozen=True)
class PauseEnded(Event):
    """A pause is over, at its time or because somebody ended it."""

    TYPE = "pause.ended"
    scope: str
    target: str


@dataclass(frozen=True)
class TaskAdded(Event):
    """A maintenance task was added."""

    TYPE = "task.added"
    task: str
    job_type: str
    schedule: str


@dataclass(frozen=True)
class TaskChanged(Event):
    """Settings of a task were changed; ``fields`` are their names."""

    TYPE = "task.changed"
    task: str
    fields: list[str]


@dataclass(frozen=True)
class TaskRemoved(Event):
    """A task was removed."""

    TYPE = "task.removed"
    task: str


@dataclass(frozen=True)
class TriggerAdded(Event):
    """A secret address that starts a plan was made."""

    TYPE = "trigger.added"
    trigger: str
    plan: str


@dataclass(frozen=True)
class TriggerRemoved(Event):
    """A trigger was removed; its address starts nothing any more."""

    TYPE = "trigger.removed"
    trigger: str
    plan: str


@dataclass(frozen=True)
class TriggerFired(Event):
    """Somebody used a trigger's address; ``job`` was queued, or was waiting already."""

    TYPE = "trigger.fired"
    trigger: str
    plan: str
    job: str
    address: str


EVENTS: tuple[type[Event], ...] = (
    ScheduleAdded, ScheduleChanged, ScheduleRemoved, ScheduleMissed, ScheduleCaughtUp,
    ScheduleWaiting, PauseSet, PauseEnded, TaskAdded, TaskChanged, TaskRemoved, TriggerAdded,
    TriggerRemoved, TriggerFired,
)  # fmt: skip
