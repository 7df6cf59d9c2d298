"""The job type ``check``: is what a repository holds still what was stored?"""

from __future__ import annotations

from typing import Any

from borgcube.core import checks
from borgcube.core.hookspecs import hookimpl
from borgcube.core.jobs import JobContext, JobResult, JobType


class CheckJob:
    """Verify a slice of a repository, or all of it, while backups go on."""

    name = "check"
    needs_vault = True
    needs_client = False

    def prepare(self, root: Any, job: Any) -> dict[str, Any]:
        """Check the parameters; the days are the repository's unless they are given."""
        parameters = checks.check_parameters(job.parameters)
        repository = root.repositories.find("name", job.repository)
        if not parameters["days"] and repository is not None:
            parameters["days"] = repository.verify_days
        return parameters

    def run(self, context: JobContext) -> JobResult:
        """Let the repository's engine do it."""
        result: JobResult = context.engine().check(context)
        return result


@hookimpl
def register_job_types() -> list[JobType]:
    """Register ``check``."""
    return [CheckJob()]
