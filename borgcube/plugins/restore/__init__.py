"""The job types ``restore`` (an archive, or some of its paths, back to a machine) and
``catalog`` (reading the list of an archive's files, to choose from)."""

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


class CatalogJob:
    """Read the list of an archive's files from its repository."""

    name = "catalog"
    needs_vault = True
    needs_client = False

    def run(self, context: JobContext) -> JobResult:
        """Let the repository's engine do it."""
        result: JobResult = context.engine().read_catalog(context)
        return result


@hookimpl
def register_job_types() -> list[JobType]:
    """Register them."""
    return [RestoreJob(), CatalogJob()]
