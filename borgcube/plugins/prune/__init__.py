"""The job types that give space back: ``prune`` and ``compact``.

What a prune deletes was decided by the daemon when it made the order
(``borgcube/daemon/pruning.py``); how it is done is the engine's.
"""

from __future__ import annotations

from borgcube.core.hookspecs import hookimpl
from borgcube.core.jobs import JobContext, JobResult, JobType


class PruneJob:
    """Delete the archives whose time is over, or measure what that would free."""

    name = "prune"
    needs_vault = True
    needs_client = False

    def run(self, context: JobContext) -> JobResult:
        """Let the repository's engine do it."""
        result: JobResult = context.engine().prune_archives(context)
        return result


class CompactJob:
    """Give the space of deleted archives back to the storage."""

    name = "compact"
    needs_vault = True
    needs_client = False

    def run(self, context: JobContext) -> JobResult:
        """Let the repository's engine do it."""
        result: JobResult = context.engine().compact(context)
        return result


@hookimpl
def register_job_types() -> list[JobType]:
    """Register ``prune`` and ``compact``."""
    return [PruneJob(), CompactJob()]
