"""Control methods for checks, restore drills, and plans that are on hold."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from borgcube.core import checks as facts
from borgcube.core import drillchoice, drills, events, lifecycle
from borgcube.core.errors import InvalidInput, NotFound
from borgcube.core.model import Job
from borgcube.core.store import Root
from borgcube.daemon import guard
from borgcube.daemon.checks import MAX_LISTED, change, record_change
from borgcube.daemon.control import method
from borgcube.daemon.methods_jobs import find_archive
from borgcube.daemon.orders import find

if TYPE_CHECKING:
    from borgcube.daemon.main import Daemon


class CheckMethods:
    """check.*, drill.* and plan.release"""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def _queue(self, root: Root, job: Job) -> dict[str, str]:
        root.after_commit(self._daemon.dispatcher.wake)
        return {"job_id": lifecycle.queue(root, job).id}

    # Checks -------------------------------------------------------------------------

    @method("check.start")
    def start(
        self, *, repository: str, kind: str = "data", budget_s: int = 0, days: int = 0,
        max_mib_s: int = 0, full: bool = False,
    ) -> dict[str, str]:  # fmt: skip
        """Queue a check of a repository."""
        parameters = facts.check_parameters({
            "kind": kind, "budget_s": budget_s, "days": days, "max_mib_s": max_mib_s, "full": full,
        })  # fmt: skip
        with self._daemon.store.transact() as root:
            find(root.repositories, repository, what="repository")
            return self._queue(root, Job(
                type="borg-check" if kind == "borg" else "check", repository=repository,
                parameters=parameters,
            ))  # fmt: skip

    @method("check.show")
    def show(self, *, repository: str) -> dict[str, Any]:
        """Return what is known of a repository's checks, in figures and in words."""
        with self._daemon.store.transact() as root:
            found = find(root.repositories, repository, what="repository")
            proof = facts.proof_of(root, found)
            states = facts.states(
                proof.checked, damage=proof.damage, days=found.verify_days, now=datetime.now(UTC)
            )
            return {
                "repository": found.name, "verify_days": found.verify_days,
                "states": [vars(one) for one in states], "checked": proof.checked,
                "damage": proof.damage,
            }  # fmt: skip

    @method("check.set")
    def set(self, *, repository: str, verify_days: int) -> dict[str, Any]:
        """Say in how many days every byte of a repository is to be verified."""
        if not 1 <= verify_days <= facts.MAX_DAYS:
            raise InvalidInput(f"The days must be 1 to {facts.MAX_DAYS}.", field="verify_days")
        with self._daemon.store.transact() as root:
            found = find(root.repositories, repository, what="repository")
            changed = change(root.repositories, found, {"verify_days": verify_days})
            record_change(root, events.RepositoryChanged, repository, changed, what="repository")
            data: dict[str, Any] = found.as_data()
            return data

    # Drills -------------------------------------------------------------------------

    @method("drill.start")
    def drill(
        self, *, plan: str | None = None, repository: str | None = None,
        archive: str | None = None, files: int = drills.DEFAULT_FILES, whole: bool | None = None,
    ) -> dict[str, str]:  # fmt: skip
        """Queue a restore drill: of an archive, a plan, or the plan of a repository whose last
        drill is the longest ago."""
        if len([one for one in (plan, repository, archive) if one]) != 1:
            raise InvalidInput("Say what to restore: one of plan, repository and archive.")
        parameters: dict[str, Any] = {"files": files}
        if whole is not None:
            parameters["whole"] = whole
        with self._daemon.store.transact() as root:
            if archive:
                found = find_archive(root, archive)
                parameters["archive"] = found.name
                repository = found.repository
            elif plan:
                parameters["plan"] = plan
                repository = find(root.plans, plan, what="plan").repository
            else:
                repository = find(root.repositories, str(repository), what="repository").name
            job = Job(type="drill", repository=str(repository), parameters=parameters)
            chosen = drillchoice.parameters_of(root, job)  # says now what would fail later
            job.plan, job.client = chosen["plan"], chosen["of_client"]
            parameters.setdefault("archive", chosen["archive"])
            parameters["skipped"] = chosen["skipped"]
            return self._queue(root, job)

    @method("drill.list")
    def drill_list(
        self, *, plan: str | None = None, repository: str | None = None, limit: int = 100
    ) -> list[dict[str, Any]]:
        """Return drills, newest first."""
        asked = {"plan": plan, "repository": repository}
        equal: dict[str, Any] = {key: value for key, value in asked.items() if value is not None}
        with self._daemon.store.transact() as root:
            return [one.as_data() for one in root.drills.newest(min(limit, MAX_LISTED), **equal)]

    @method("drill.show")
    def drill_show(self, *, id: str) -> dict[str, Any]:
        """Return one drill, its report, and whether that is the one that was filed."""
        with self._daemon.store.transact() as root:
            drill = root.drills.find("id", id)
            if drill is None:
                raise NotFound(f"There is no drill {id!r}.", next_step="See: borgcube drill list")
            data: dict[str, Any] = drill.as_data()
        return {**data, **drills.read_report(self._daemon.home, data["job"], data["sha256"])}

    @method("drill.report", audited=False)
    def drill_report(self, *, id: str, form: str = "html") -> dict[str, str]:
        """Return the text of a drill's report, ``html`` or ``json``."""
        if form not in drills.FORMS:
            raise InvalidInput(f"A report is {' or '.join(drills.FORMS)}.", field="form")
        with self._daemon.store.transact() as root:
            drill = root.drills.find("id", id)
            if drill is None:
                raise NotFound(f"There is no drill {id!r}.", next_step="See: borgcube drill list")
            job = str(drill.job)
        try:
            path = drills.report_dir(self._daemon.home, job) / drills.FORMS[form]
            return {"text": path.read_text(encoding="utf-8")}
        except OSError as error:
            raise NotFound("The report is gone.", next_step="Look for its file in a backup of "
                           "the home.") from error  # fmt: skip

    @method("drill.set")
    def drill_set(self, *, plan: str, canary: str) -> dict[str, Any]:
        """Name the file that every drill of a plan restores; empty for none."""
        if canary and (not canary.startswith("/") or not canary.isprintable()):
            raise InvalidInput(f"{canary[:80]!r} is not an absolute path.", field="canary")
        with self._daemon.store.transact() as root:
            found = find(root.plans, plan, what="plan")
            changed = change(root.plans, found, {"canary": canary})
            record_change(root, events.PlanChanged, plan, changed, what="plan")
            data: dict[str, Any] = found.as_data()
            return data

    # Plans on hold ------------------------------------------------------------------

    @method("plan.release")
    def release(self, *, plan: str, usual: bool = True) -> dict[str, Any]:
        """Let a plan be pruned again after a person has looked at what stood out."""
        with self._daemon.store.transact() as root:
            found = find(root.plans, plan, what="plan")
            accepted = guard.release(root, found, usual=usual)
        return {"plan": plan, "accepted": accepted}
