"""Control methods for what runs and what came of it: backups, restores, archives, jobs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from borgcube.core import home as places
from borgcube.core import lifecycle, quarantine, rereading, trash
from borgcube.core.authority.naming import archives_named
from borgcube.core.errors import InvalidInput, NotFound
from borgcube.core.model import Archive, Job
from borgcube.core.store import Root
from borgcube.daemon import joblog
from borgcube.daemon.control import method
from borgcube.daemon.orders import find

if TYPE_CHECKING:
    from borgcube.daemon.main import Daemon

MAX_LISTED = 1000
MAX_LINES = 10_000
OWN_METHODS = {
    "backup": "backup.start", "restore": "restore.start", "archive-delete": "archive.delete",
    "dry-run": "plan.dry_run", "catalog": "archive.read",
    "prune": "prune.start", "compact": "compact.start", "archive-mend": "archive.mend",
}  # fmt: skip


def find_archive(root: Root, name: str) -> Archive:
    """Return the archive of that name or ID; ``repository::name`` where it is ambiguous."""
    found = archives_named(root, name)
    if not found:
        raise NotFound(f"There is no archive {name!r}.", next_step="See: borgcube archive list")
    if len(found) > 1:
        names = ", ".join(f"{a.repository}::{a.name}" for a in found)
        raise InvalidInput(f"{name!r} is in several repositories.", next_step=f"Use: {names}")
    return found[0]


def _given(**asked: str | None) -> dict[str, Any]:
    return {name: value for name, value in asked.items() if value is not None}


def _limit(limit: int) -> int:
    return max(0, min(limit, MAX_LISTED))


class JobMethods:
    """backup.*, restore.*, archive.* and job.*"""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def _queue(self, root: Root, job: Job) -> dict[str, str]:
        root.after_commit(self._daemon.dispatcher.wake)
        return {"job_id": lifecycle.queue(root, job).id}

    @method("backup.start")
    def backup(self, *, plan: str, reread: bool = False) -> dict[str, str]:
        """Queue a backup of a plan; with ``reread`` it reads all files, changed or not."""
        with self._daemon.store.transact() as root:
            found = find(root.plans, plan, what="plan")
            return self._queue(root, Job(
                type="backup", plan=plan, client=found.client, repository=found.repository,
                parameters=rereading.parameters(reread=reread),
            ))  # fmt: skip

    @method("job.start")
    def start(
        self, *, type: str, client: str | None = None, repository: str | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> dict[str, str]:  # fmt: skip
        """Queue a job of a plugin's own type; those of the core have methods of their own."""
        if type in OWN_METHODS:
            raise InvalidInput(f"A {type} job is started with {OWN_METHODS[type]}.")
        if type not in self._daemon.registry.job_types:
            raise NotFound(f"There is no job type {type!r}.", next_step="See: borgcube plugins")
        with self._daemon.store.transact() as root:
            if client is not None:
                find(root.clients, client, what="client")
            if repository is not None:
                find(root.repositories, repository, what="repository")
            return self._queue(root, Job(
                type=type, client=client or "", repository=repository or "",
                parameters=parameters or {},
            ))  # fmt: skip

    @method(
        "restore.start",
        subject=lambda asked: (
            f"{asked['archive']} (without a fence)" if asked.get("unfenced") else asked["archive"]
        ),
    )
    def restore(
        self, *, archive: str, paths: list[str] | None = None,
        to_client: dict[str, Any] | None = None, to_dir: str | None = None,
        as_root: bool = False, unfenced: bool = False, shared_target: bool = False,
    ) -> dict[str, str]:  # fmt: skip
        """Queue a restore to a client's directory or to one of the server. What extracts on the
        server can change nothing but that directory, unless it is ``unfenced``. A directory of a
        client that others there can write to needs ``shared_target``."""
        if (to_client is None) == (to_dir is None):
            raise InvalidInput("Say where to restore to: either to_client or to_dir.")
        if to_client is not None and set(to_client) != {"client", "directory"}:
            raise InvalidInput("to_client needs client and directory.")
        target = to_dir if to_client is None else to_client["directory"]
        if not isinstance(target, str) or not os.path.isabs(target) or "\0" in target:
            raise InvalidInput("The directory to restore to must be an absolute path.")
        with self._daemon.store.transact() as root:
            found = find_archive(root, archive)
            quarantine.require_sound(found)
            parameters = {"archive": found.name, "of_client": found.client, "paths": paths or [],
                          "target": target, "as_root": as_root}  # fmt: skip
            client = ""
            if to_client is None:
                parameters |= {"server_side": True, "borg": "borg"}
            else:
                record = find(root.clients, str(to_client["client"]), what="client")
                client = record.name
                transport = self._daemon.registry.transports.get(record.transport)
                if unfenced and not getattr(transport, "runs_here", False):
                    raise InvalidInput(
                        "There is no fence to go without: this client is another machine.",
                        field="unfenced",
                    )
            if unfenced:
                parameters["unfenced"] = True
            if shared_target:
                parameters["shared_target"] = True
            return self._queue(root, Job(
                type="restore", client=client, repository=found.repository,
                parameters=parameters,
            ))  # fmt: skip

    @method("archive.list")
    def archive_list(
        self, *, client: str | None = None, repository: str | None = None,
        plan: str | None = None, deleted: bool = False, after: str | None = None,
        limit: int = MAX_LISTED,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """Return up to 1000 archives, newest first; ``after``, the last one's name or ID,
        gives the next. With ``deleted``, all those that can be brought back."""
        equal = _given(client=client, repository=repository, plan=plan)
        with self._daemon.store.reading() as root:
            if deleted:
                gone = trash.waiting(root, repository=repository)
                return [a.as_data() for a in gone
                        if all(getattr(a, k) == v for k, v in equal.items())]  # fmt: skip
            before = root.archives.number_of(find_archive(root, after)) if after else None
            found = root.archives.newest(_limit(limit), trash.in_sight, before=before, **equal)
            return [archive.as_data() for archive in found]

    @method("archive.show")
    def archive_show(self, *, name: str) -> dict[str, Any]:
        """Return one archive."""
        with self._daemon.store.transact() as root:
            return find_archive(root, name).as_data()

    @method("archive.delete")
    def archive_delete(self, *, names: list[str]) -> dict[str, str]:
        """Queue the deletion of archives of one repository."""
        if not names:
            raise InvalidInput("No archive was named.")
        with self._daemon.store.transact() as root:
            found = [find_archive(root, name) for name in names]
            for archive in found:
                if archive.pinned:
                    raise InvalidInput(
                        f"The archive {archive.name} is pinned: {archive.pinned}.",
                        next_step=f"To let it go: borgcube archive unpin {archive.name}",
                    )
            repositories = {archive.repository for archive in found}
            if len(repositories) > 1:
                raise InvalidInput(
                    "The archives are in different repositories.",
                    next_step="Delete those of one repository at a time.",
                )
            return self._queue(root, Job(
                type="archive-delete", repository=repositories.pop(),
                parameters={"archives": sorted({archive.name for archive in found}),
                            "ids": {archive.name: archive.id for archive in found}},
            ))  # fmt: skip

    @method("archive.mend")
    def archive_mend(self, *, name: str) -> dict[str, str]:
        """Queue the rewriting of an archive in quarantine from what is sound of it."""
        with self._daemon.store.transact() as root:
            archive = find_archive(root, name)
            for state in lifecycle.OPEN:
                for job in root.jobs.oldest("state", state):
                    asked = job.parameters.get("archive_id")
                    if job.type == lifecycle.MEND and asked == archive.id:
                        return {"job_id": job.id}
            return self._queue(root, Job(
                type=lifecycle.MEND, repository=archive.repository,
                parameters={"archive": archive.name, "archive_id": archive.id},
            ))  # fmt: skip

    def _shown(self, job: Job) -> dict[str, Any]:
        data = job.as_data()
        data["progress"] = self._daemon.dispatcher.progress.get(job.id, data["progress"])
        return data

    @method("job.list")
    def job_list(
        self, *, state: str | None = None, client: str | None = None, plan: str | None = None,
        type: str | None = None, repository: str | None = None, after: str | None = None,
        limit: int = 50,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """Return up to 1000 jobs, newest first; ``after``, the last one's ID, gives the next."""
        if state is not None and state not in lifecycle.TRANSITIONS:
            known = ", ".join(name for name in lifecycle.TRANSITIONS if name)
            raise InvalidInput(f"There is no state {state!r}.", next_step=f"One of: {known}.")
        equal = _given(state=state, client=client, plan=plan, type=type, repository=repository)
        with self._daemon.store.reading() as root:
            before = root.jobs.number_of(self._job(root, after)) if after else None
            found = root.jobs.newest(_limit(limit), before=before, **equal)
            return [self._shown(job) for job in found]

    def _job(self, root: Root, job_id: str) -> Job:
        job: Job | None = root.jobs.find("id", job_id)
        if job is None:
            raise NotFound(f"There is no job {job_id!r}.", next_step="See: borgcube job list")
        return job

    @method("job.show")
    def job_show(self, *, id: str) -> dict[str, Any]:
        """Return one job with its latest progress."""
        with self._daemon.store.transact() as root:
            return self._shown(self._job(root, id))

    @method("job.log")
    def job_log(self, *, id: str, limit: int = 1000, offset: int | None = None) -> dict[str, Any]:
        """Return the last lines of a job's log, or those from a byte on; then ``next`` is
        where the following ones begin, so that a log can be followed."""
        with self._daemon.store.transact() as root:
            job_id = self._job(root, id).id
        directory = places.job_dir(self._daemon.home, job_id)
        if offset is not None:
            lines, following = joblog.read_from(
                directory, max(0, offset), max(1, min(limit, MAX_LINES))
            )
            return {"lines": lines, "next": following}
        return {"lines": joblog.tail(directory, max(1, min(limit, MAX_LINES)))}

    @method("job.cancel")
    def job_cancel(self, *, id: str) -> dict[str, Any]:
        """Ask a job to stop."""
        self._daemon.dispatcher.cancel(id)
        shown: dict[str, Any] = self.job_show(id=id)
        return shown
