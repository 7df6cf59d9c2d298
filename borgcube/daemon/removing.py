"""Removing plans, with all that is of no use without them: one place, however a plan goes.

A plan goes by itself, or with its client or repository. Called by control methods in the
transaction of the removal.
"""

from __future__ import annotations

from typing import Any

from borgcube.core import events, rereading
from borgcube.core.errors import InvalidInput
from borgcube.core.events_scheduling import TriggerRemoved
from borgcube.core.model.scheduling import PLAN
from borgcube.daemon import checks, timetabling


def forget_plan(root: Any, plan: Any) -> None:
    """Remove a plan with its place in the timetable and its triggers.

    Raises InvalidInput while a job or a task is of it.
    """
    name = str(plan.name)
    checks.refuse_in_use(root, what="plan", name=name)
    task = root.tasks.find("plan", name)
    if task is not None:
        raise InvalidInput(
            f"The task {task.name} works on {name}.",
            next_step=f"Remove it first: borgcube task remove {task.name}",
        )
    rereading.forget(root, name)
    timetabling.withdraw(root, subject=PLAN, name=name)
    for trigger in root.triggers.oldest("plan", name):
        root.triggers.remove(trigger)
        root.record(TriggerRemoved(trigger=trigger.name, plan=name))
    root.plans.remove(plan)
    root.record(events.PlanRemoved(plan=name))


def remove_plans_of(root: Any, field: str, name: str, *, allowed: bool) -> list[str]:
    """Remove the plans of a client or repository that goes; return their names.

    Raises InvalidInput when there are some and it is not ``allowed``.
    """
    plans = list(root.plans.oldest(field, name))
    if plans and not allowed:
        verb = "backs up" if field == "client" else "backs up into"
        raise InvalidInput(
            f"The plan {plans[0].name} {verb} {name}.",
            next_step=f"Remove it first: borgcube plan remove {plans[0].name}",
        )
    for plan in plans:
        forget_plan(root, plan)
    return [str(plan.name) for plan in plans]
