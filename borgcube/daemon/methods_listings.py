"""Control methods for lists of files: what a dry run would save."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from borgcube.core import home as places
from borgcube.core import lifecycle, listings
from borgcube.core.errors import InvalidInput, NotFound
from borgcube.core.model import Job
from borgcube.daemon.control import Later, method
from borgcube.daemon.orders import find as find_record

if TYPE_CHECKING:
    from borgcube.daemon.main import Daemon

MAX_FIND = 500


class ListingMethods:
    """plan.dry_run and job.listing"""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    @method("plan.dry_run")
    def dry_run(self, *, plan: str) -> dict[str, str]:
        """Queue a dry run of a plan: a list of what a backup would take. Stores nothing."""
        with self._daemon.store.transact() as root:
            found = find_record(root.plans, plan, what="plan")
            root.after_commit(self._daemon.dispatcher.wake)
            return {"job_id": lifecycle.queue(root, Job(
                type="dry-run", plan=plan, client=found.client, repository=found.repository
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
