"""The job type ``restore``: an archive, or some of its paths, back to a machine."""

from __future__ import annotations

from borgcube.core.hookspecs import hookimpl
from borgcube.core.jobs import JobContext, JobResult, JobType


class RestoreJob:
    """Restore to a client, or to a directory of the server."""

    name = "restore"
    needs_vault = True
    needs_client = True

    def run(self, context: JobContext) -> JobResult:
        """Let the repository's engine do it."""
        result: JobResult = context.engine().restore(context)
        return result


@hookimpl
def register_job_types() -> list[JobType]:
    """Register ``restore``."""
    return [RestoreJob()]
