"""The job types that change what a repository holds: ``backup`` and ``archive-delete``."""

from __future__ import annotations

from borgcube.core.errors import JobCancelled
from borgcube.core.hookspecs import hookimpl
from borgcube.core.jobs import JobContext, JobResult, JobType
from borgcube.plugins.backup.commands import Commands


class BackupJob:
    """Pull one backup of a plan."""

    name = "backup"
    needs_vault = True
    needs_client = True

    def run(self, context: JobContext) -> JobResult:
        """Let the repository's engine do it, between the plan's commands on the client."""
        commands = Commands(context)
        state = "failed"
        try:
            commands.before()
            result: JobResult = context.engine().backup(context)
            state = result.state
        except JobCancelled:
            state = "cancelled"
            raise
        finally:
            commands.after(state)
        return commands.judge(result)


class ArchiveDeleteJob:
    """Delete archives by name."""

    name = "archive-delete"
    needs_vault = True
    needs_client = False

    def run(self, context: JobContext) -> JobResult:
        """Let the repository's engine do it."""
        result: JobResult = context.engine().delete_archives(context)
        return result


@hookimpl
def register_job_types() -> list[JobType]:
    """Register ``backup`` and ``archive-delete``."""
    return [BackupJob(), ArchiveDeleteJob()]
