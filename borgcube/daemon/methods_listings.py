"""Control methods for lists of files: what a dry run would save, what an archive holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from borgcube.core import home as places
from borgcube.core import lifecycle, listings, quarantine
from borgcube.core.errors import InvalidInput, NotFound
from borgcube.core.model import Archive, Job, Repository
from borgcube.core.store import Root
from borgcube.daemon import joblog, statedirs
from borgcube.daemon.control import Awaited, Later, method
from borgcube.daemon.methods_plans import PlanMethods
from borgcube.daemon.orders import PLAN_OPTIONS
from borgcube.daemon.orders import find as find_record

if TYPE_CHECKING:
    from borgcube.daemon.main import Daemon

MAX_FIND = 500
MAX_KEY = 64 << 10  # a path of 16 KiB, percent-encoded


class ListingMethods:
    """plan.dry_run, job.listing, job.search, archive.browse, .read and .download"""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    @method(
        "plan.dry_run",
        subject=lambda asked: (
            asked.get("plan") or f"not saved, of {(asked.get('options') or {}).get('client')}"
        ),
    )
    def dry_run(self, *, plan: str = "", options: dict[str, Any] | None = None) -> dict[str, str]:
        """Queue a dry run: a list of what a backup would take. Stores nothing.

        Of the plan of that name, or of one that is not saved: ``options`` are the parameters
        of ``plan.add``, of which the name may be missing."""
        if bool(plan) == (options is not None):
            raise InvalidInput("Say which plan, or the options of one that is not saved.")
        with self._daemon.store.transact() as root:
            if options is None:
                found, parameters = find_record(root.plans, plan, what="plan"), {}
            else:
                found = PlanMethods(self._daemon).unsaved(root, options)
                data = found.as_data()
                parameters = {name: data[name] for name in PLAN_OPTIONS} | {"unsaved": True}
            root.after_commit(self._daemon.dispatcher.wake)
            return {"job_id": lifecycle.queue(root, Job(
                type="dry-run", plan=plan, client=found.client, repository=found.repository,
                parameters=parameters,
            )).id}  # fmt: skip

    @method("job.listing", audited=False)
    def listing(
        self, *, id: str, find: str = "", kind: str = "", start: int = 0, limit: int = 100
    ) -> Later:
        """Return one page of the list of files that a job left; see ``core.listings``."""
        if kind and kind not in (*listings.KINDS, "included"):
            raise InvalidInput(
                f"There is no kind {kind[:60]!r}.", field="kind",
                next_step=f"One of: included, {', '.join(listings.KINDS)}.",
            )  # fmt: skip
        with self._daemon.store.transact() as root:
            job: Job | None = root.jobs.find("id", id)
            if job is None:
                raise NotFound(f"There is no job {id!r}.", next_step="See: borgcube job list")
            directory = places.job_dir(self._daemon.home, job.id)
        first, most = max(0, start), max(1, min(limit, listings.MAX_PAGE))

        def work() -> dict[str, Any]:
            return listings.page(directory, find=find[:MAX_FIND], kind=kind, start=first,
                                 limit=most)  # fmt: skip

        return Later(work)

    @method("job.search", audited=False)
    def search(self, *, id: str, find: str, limit: int = 500) -> Later:
        """Return the last lines of a job's log that contain ``find``, and ``matches`` in all."""
        with self._daemon.store.transact() as root:
            job: Job | None = root.jobs.find("id", id)
            if job is None:
                raise NotFound(f"There is no job {id!r}.", next_step="See: borgcube job list")
            directory = places.job_dir(self._daemon.home, job.id)
        most = max(1, min(limit, listings.MAX_PAGE))

        def work() -> dict[str, Any]:
            lines, matches = joblog.search(directory, find[:MAX_FIND], most)
            return {"lines": lines, "matches": matches}

        return Later(work)

    def _archive(self, root: Root, repository: str, archive_id: str) -> tuple[Archive, Repository]:
        found: Repository = find_record(root.repositories, repository, what="repository")
        for archive in root.archives.oldest("id", archive_id):
            if archive.repository == repository:
                return archive, found
        raise NotFound(f"There is no archive {archive_id[:16]!r} in {repository}.",
                       next_step="See: borgcube archive list")  # fmt: skip

    @method("archive.browse", audited=False)
    def browse(
        self, *, repository: str, id: str, key: str = "", find: str = "", start: int = 0,
        limit: int = 200,
    ) -> Later:  # fmt: skip
        """Return one page of an archive's files: of the directory ``key``, or of all whose
        name contains ``find``. ``known`` is false when its list was not read yet
        (``archive.read`` does); see ``core.engines.Engine.browse`` for the rest."""
        with self._daemon.store.transact() as root:
            archive, found = self._archive(root, repository, id)
            archive_id, engine_name = archive.id, found.engine
            identity, repository_id = found.id, found.repository_id
        engine = self._daemon.registry.engines.get(engine_name)
        if engine is None:
            raise NotFound(
                f"There is no engine {engine_name!r}.", next_step="See: borgcube plugins"
            )
        state = statedirs.of(self._daemon.home, engine_name, identity)
        first, most = max(0, start), max(1, min(limit, listings.MAX_PAGE))

        def work() -> dict[str, Any]:
            page = engine.browse(
                state_dir=state, repository_id=repository_id, archive_id=archive_id,
                key=key[:MAX_KEY], find=find[:MAX_FIND], start=first, limit=most,
            )  # fmt: skip
            return {"known": False} if page is None else {"known": True, **page}

        return Later(work)

    @method(
        "archive.download",
        subject=lambda asked: f"{asked['repository']}::{asked['id'][:16]} {asked['key']}",
    )
    def download(self, *, repository: str, id: str, key: str) -> Awaited:
        """Hold the vault for who reads the file ``key`` (a path, percent-encoded) of an archive:
        returns ``engine``, ``socket`` and the file ``lock``, which the reader locks within a
        minute and for as long as it reads. See ``control.files``, which does all of it."""
        with self._daemon.store.reading() as root:
            archive, found = self._archive(root, repository, id)
            quarantine.require_sound(archive)
            engine = found.engine
            self._daemon.reads.check(root, repository)
        future = self._daemon.reads.open(repository)
        return Awaited(future, lambda held: {"engine": engine, **held})

    @method("archive.read")
    def read(self, *, repository: str, id: str) -> dict[str, str]:
        """Queue a job that reads the list of files of an archive from its repository."""
        with self._daemon.store.transact() as root:
            archive, found = self._archive(root, repository, id)
            quarantine.require_sound(archive)
            root.after_commit(self._daemon.dispatcher.wake)
            return {"job_id": lifecycle.queue(root, Job(
                type="catalog", repository=found.name,
                parameters={"archive_id": archive.id, "archive": archive.name},
            )).id}  # fmt: skip
