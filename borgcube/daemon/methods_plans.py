"""Control methods for plans."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from borgcube.core import events
from borgcube.core.model import Plan
from borgcube.core.model.scheduling import PLAN
from borgcube.core.store import Root
from borgcube.daemon import checks, removing, timetabling
from borgcube.daemon.control import check_params, method
from borgcube.daemon.orders import find

if TYPE_CHECKING:
    from borgcube.daemon.main import Daemon


LISTS = ("paths", "excludes", "patterns", "exclude_if_present")


class PlanMethods:
    """plan.*"""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def _enrol(self, root: Root, plan: Plan) -> None:
        timetabling.enrol(
            root, self._daemon.registry.schedules, subject=PLAN, name=plan.name,
            schedule=plan.schedule, now=datetime.now(UTC),
        )  # fmt: skip
        root.after_commit(self._daemon.scheduler.wake)

    @method("plan.add")
    def add(
        self, *, name: str, client: str, repository: str, paths: list[str],
        excludes: list[str] | None = None, patterns: list[str] | None = None,
        exclude_caches: bool = False, exclude_if_present: list[str] | None = None,
        one_file_system: bool = False, compression: str = "lz4",
        upload_ratelimit_kib: int = 0, numeric_ids: bool = False, atime: bool = False,
        sparse: bool = False, comment: str = "", files_cache: str = "ctime,size",
        retries: int = 0, retry_delay_s: int = 60, idle_timeout_s: int = 900,
        max_duration_s: int = 14 * 86400, before_command: str = "",
        before_failure: str = "fail", after_command: str = "", command_timeout_s: int = 3600,
        schedule: str = "",
    ) -> dict[str, Any]:  # fmt: skip
        """Add a plan; without a schedule it runs when somebody starts it."""
        plan = Plan(
            name=name, client=client, repository=repository, paths=tuple(paths),
            excludes=tuple(excludes or ()), patterns=tuple(patterns or ()),
            exclude_caches=exclude_caches,
            exclude_if_present=tuple(exclude_if_present or ()),
            one_file_system=one_file_system, compression=compression,
            upload_ratelimit_kib=upload_ratelimit_kib, numeric_ids=numeric_ids,
            atime=atime, sparse=sparse, comment=comment, files_cache=files_cache,
            retries=retries, retry_delay_s=retry_delay_s, idle_timeout_s=idle_timeout_s,
            max_duration_s=max_duration_s, before_command=before_command,
            before_failure=before_failure, after_command=after_command,
            command_timeout_s=command_timeout_s,
            schedule=schedule, created_at=events.now(),
        )  # fmt: skip
        checks.check_plan(plan.as_data())
        with self._daemon.store.transact() as root:
            checks.refuse_duplicate(root.plans, name, what="plan")
            find(root.clients, client, what="client")
            find(root.repositories, repository, what="repository")
            root.plans.add(plan)
            self._enrol(root, plan)
            root.record(events.PlanAdded(plan=name, client=client, repository=repository))
            return plan.as_data()

    def unsaved(self, root: Root, options: dict[str, Any]) -> Plan:
        """Return the plan that ``plan.add`` would make of ``options``, checked as there, without
        adding it; its name may be missing or taken. Raises InvalidInput or NotFound."""
        given = {"name": "unsaved", **options}
        check_params(self.add, given, name="plan.dry_run")
        defaults = {key: one.default for key, one in inspect.signature(self.add).parameters.items()}
        values = {**defaults, **given}
        plan = Plan(**values | {key: tuple(values[key] or ()) for key in LISTS})
        checks.check_plan(plan.as_data())
        find(root.clients, plan.client, what="client")
        find(root.repositories, plan.repository, what="repository")
        return plan

    @method("plan.set")
    def set(
        self,
        *,
        name: str,
        client: str | None = None,
        repository: str | None = None,
        paths: list[str] | None = None,
        excludes: list[str] | None = None,
        patterns: list[str] | None = None,
        exclude_caches: bool | None = None,
        exclude_if_present: list[str] | None = None,
        one_file_system: bool | None = None,
        compression: str | None = None,
        upload_ratelimit_kib: int | None = None,
        numeric_ids: bool | None = None,
        atime: bool | None = None,
        sparse: bool | None = None,
        comment: str | None = None,
        files_cache: str | None = None,
        retries: int | None = None,
        retry_delay_s: int | None = None,
        idle_timeout_s: int | None = None,
        max_duration_s: int | None = None,
        before_command: str | None = None,
        before_failure: str | None = None,
        after_command: str | None = None,
        command_timeout_s: int | None = None,
        version: str = "",
        schedule: str | None = None,
    ) -> dict[str, Any]:
        """Change what is given; jobs that run already keep what they began with.

        ``version`` is that of the record the caller saw (``core.versions``); a plan that
        was changed since is left alone.
        """
        values = checks.given(
            {
                "client": client,
                "repository": repository,
                "paths": paths,
                "excludes": excludes,
                "patterns": patterns,
                "exclude_caches": exclude_caches,
                "exclude_if_present": exclude_if_present,
                "one_file_system": one_file_system,
                "compression": compression,
                "upload_ratelimit_kib": upload_ratelimit_kib,
                "numeric_ids": numeric_ids,
                "atime": atime,
                "sparse": sparse,
                "comment": comment,
                "files_cache": files_cache,
                "retries": retries,
                "retry_delay_s": retry_delay_s,
                "idle_timeout_s": idle_timeout_s,
                "max_duration_s": max_duration_s,
                "before_command": before_command,
                "before_failure": before_failure,
                "after_command": after_command,
                "command_timeout_s": command_timeout_s,
                "schedule": schedule,
            }
        )
        with self._daemon.store.transact() as root:
            plan = find(root.plans, name, what="plan")
            checks.check_version(plan, version, what="plan")
            checks.check_plan({**plan.as_data(), **values})
            find(root.clients, values.get("client", plan.client), what="client")
            find(root.repositories, values.get("repository", plan.repository), what="repository")
            if {"client", "repository"} & values.keys():
                # A queued job names both already.
                checks.refuse_in_use(root, what="plan", name=name)
            changed = checks.change(root.plans, plan, values)
            if "schedule" in changed:
                self._enrol(root, plan)
            checks.record_change(root, events.PlanChanged, name, changed, what="plan")
            data: dict[str, Any] = plan.as_data()
            return data

    @method("plan.remove")
    def remove(self, *, name: str, version: str = "") -> dict[str, Any]:
        """Forget a plan that no job uses; its archives stay."""
        with self._daemon.store.transact() as root:
            plan = find(root.plans, name, what="plan")
            checks.check_version(plan, version, what="plan")
            removing.forget_plan(root, plan)
        return {"removed": name}

    @method("plan.list")
    def every(self, *, limit: int = checks.MAX_LISTED, after: str = "", find: str = "") -> Any:
        """Return up to 1000 plans by name; ``after``, the last one's name, gives the next."""
        with self._daemon.store.reading() as root:
            return checks.listed(root.plans, limit=limit, after=after, find=find)

    @method("plan.show")
    def show(self, *, name: str) -> dict[str, Any]:
        """Return one plan."""
        with self._daemon.store.reading() as root:
            data: dict[str, Any] = find(root.plans, name, what="plan").as_data()
            return data
