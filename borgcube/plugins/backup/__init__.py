"""The job types ``backup``, ``dry-run`` (what a backup would take), ``archive-delete`` and
``archive-mend``."""

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


class DryRunJob:
    """List what a backup of a plan would take; nothing is stored."""

    name = "dry-run"
    needs_vault = False
    needs_client = True

    def run(self, context: JobContext) -> JobResult:
        """Let the repository's engine do it."""
        result: JobResult = context.engine().dry_run(context)
        return result


class ArchiveDeleteJob:
    """Delete archives by name."""

    name = "archive-delete"
    needs_vault = True
    needs_client = False

    def run(self, context: JobContext) -> JobResult:
        """Let the repository's engine do it."""
        result: JobResult = context.engine().delete_archives(context)
        return result


class ArchiveMendJob:
    """Rewrite an archive in quarantine from what is sound of it."""

    name = "archive-mend"
    needs_vault = True
    needs_client = False

    def run(self, context: JobContext) -> JobResult:
        """Let the repository's engine do it."""
        result: JobResult = context.engine().mend_archive(context)
        return result


@hookimpl
def register_job_types() -> list[JobType]:
    """Register them."""
    return [BackupJob(), DryRunJob(), ArchiveDeleteJob(), ArchiveMendJob()]
