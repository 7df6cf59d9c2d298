"""Control methods for tasks: maintenance that runs on a schedule."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from borgcube.core import events, lifecycle
from borgcube.core import events_scheduling as told
from borgcube.core.errors import InvalidInput, NotFound
from borgcube.core.model import Job, Task
from borgcube.core.model.names import check_name
from borgcube.core.model.scheduling import NOT_FOR_TASKS, TASK
from borgcube.core.options import checked_options
from borgcube.core.store import Root
from borgcube.daemon import checks, timetabling
from borgcube.daemon.control import method
from borgcube.daemon.orders import find

if TYPE_CHECKING:
    from borgcube.daemon.main import Daemon


class TaskMethods:
    """task.*"""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def _check(self, root: Root, task: Task) -> dict[str, Any]:
        """Check a task as a whole; return its parameters in their plain form."""
        check_name(task.name, what="task")
        if task.type in NOT_FOR_TASKS:
            raise InvalidInput(f"A task cannot be a {task.type}.", field="type",
                               next_step=NOT_FOR_TASKS[task.type])  # fmt: skip
        job_type = self._daemon.registry.job_types.get(task.type)
        if job_type is None:
            known = sorted(set(self._daemon.registry.job_types) - set(NOT_FOR_TASKS))
            raise NotFound(f"There is no job type {task.type!r}.", field="type",
                           next_step=f"One of: {', '.join(known) or 'none'}.")  # fmt: skip
        for what in ("repository", "client", "plan"):
            if getattr(task, what):
                table = root.repositories if what == "repository" else getattr(root, f"{what}s")
                find(table, getattr(task, what), what=what)
        if job_type.needs_vault and not task.repository:
            raise InvalidInput(f"A {task.type} needs a repository.", field="repository")
        if job_type.needs_client and not task.client:
            raise InvalidInput(f"A {task.type} needs a client.", field="client")
        return checked_options(job_type, task.parameters)

    def _enrol(self, root: Root, task: Task) -> None:
        timetabling.enrol(
            root, self._daemon.registry.schedules, subject=TASK, name=task.name,
            schedule=task.schedule, now=datetime.now(UTC),
        )  # fmt: skip
        root.after_commit(self._daemon.scheduler.wake)

    @staticmethod
    def _shown(root: Root, task: Task) -> dict[str, Any]:
        entry = root.timetable.get(TASK, task.name)
        return {
            **task.as_data(), "next_at": entry.start if entry else "",
            "held": entry.held if entry else "", "last_job": entry.last_job if entry else "",
        }  # fmt: skip

    @method("task.add")
    def add(
        self, *, name: str, type: str, schedule: str, repository: str = "", client: str = "",
        plan: str = "", parameters: dict[str, Any] | None = None, comment: str = "",
    ) -> dict[str, Any]:  # fmt: skip
        """Add a task."""
        task = Task(
            name=name, type=type, repository=repository, client=client, plan=plan,
            parameters=parameters or {}, schedule=schedule, comment=comment,
            created_at=events.now(),
        )  # fmt: skip
        with self._daemon.store.transact() as root:
            checks.refuse_duplicate(root.tasks, name, what="task")
            if plan and not repository:
                task.repository = find(root.plans, plan, what="plan").repository
            task.parameters = self._check(root, task)
            root.tasks.add(task)
            self._enrol(root, task)
            root.record(told.TaskAdded(task=name, job_type=type, schedule=schedule))
            return self._shown(root, task)

    @method("task.set")
    def set(
        self, *, name: str, schedule: str | None = None, repository: str | None = None,
        client: str | None = None, plan: str | None = None,
        parameters: dict[str, Any] | None = None, comment: str | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Change what is given; an empty schedule stops the task."""
        values = checks.given({
            "schedule": schedule, "repository": repository, "client": client, "plan": plan,
            "parameters": parameters, "comment": comment,
        })  # fmt: skip
        with self._daemon.store.transact() as root:
            task = find(root.tasks, name, what="task")
            plain = self._check(root, Task(**{
                **{field: getattr(task, field) for field in Task.field_names()}, **values
            }))  # fmt: skip
            if "parameters" in values:
                values["parameters"] = plain
            changed = checks.change(root.tasks, task, values)
            if "schedule" in changed:
                self._enrol(root, task)
            checks.record_change(root, told.TaskChanged, name, changed, what="task")
            return self._shown(root, task)

    @method("task.remove")
    def remove(self, *, name: str) -> dict[str, Any]:
        """Remove a task; a job of it that is queued or runs goes on."""
        with self._daemon.store.transact() as root:
            task = find(root.tasks, name, what="task")
            timetabling.withdraw(root, subject=TASK, name=name)
            root.tasks.remove(task)
            root.record(told.TaskRemoved(task=name))
        return {"removed": name}

    @method("task.run")
    def run(self, *, name: str) -> dict[str, str]:
        """Queue a run of a task now; its schedule goes on as it is."""
        with self._daemon.store.transact() as root:
            task = find(root.tasks, name, what="task")
            root.after_commit(self._daemon.dispatcher.wake)
            job = lifecycle.queue(root, Job(
                type=task.type, repository=task.repository, client=task.client, plan=task.plan,
                parameters=dict(task.parameters), task=name,
            ))  # fmt: skip
            return {"job_id": job.id}

    @method("task.list")
    def every(self) -> list[dict[str, Any]]:
        """Return all tasks."""
        with self._daemon.store.reading() as root:
            found = root.tasks.newest(checks.MAX_LISTED)
            return [self._shown(root, one) for one in sorted(found, key=lambda t: str(t.name))]

    @method("task.show")
    def show(self, *, name: str) -> dict[str, Any]:
        """Return one task."""
        with self._daemon.store.reading() as root:
            return self._shown(root, find(root.tasks, name, what="task"))
