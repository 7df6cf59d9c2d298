"""The job types that give space back: ``prune`` and ``compact``.

What a prune deletes was decided by the daemon when it made the order
(``borgcube/daemon/pruning.py``); how it is done is the engine's.
"""

from __future__ import annotations

from collections.abc import Sequence

from borgcube.core.forms import Field
from borgcube.core.hookspecs import hookimpl
from borgcube.core.jobs import JobContext, JobResult, JobType
from borgcube.core.texts import _

THRESHOLD = Field(
    "threshold_percent", _("Rewrite files of which this much is unused (%%)"), "number",
    default=10, least=1, most=99,
    help=_("Less gives more space back, and reads and writes more for it."),
)  # fmt: skip


class PruneJob:
    """Delete the archives whose time is over, or measure what that would free."""

    name = "prune"
    needs_vault = True
    needs_client = False

    def parameter_fields(self) -> Sequence[Field]:
        """Return what a task may set; the policies say what goes."""
        return (
            Field("dry_run", _("Only measure what would be freed"), "checkbox", default=False,
                  help=_("Nothing is deleted.")),
            Field("compact", _("Give the space back afterwards"), "choice", default="auto",
                  choices=(("auto", _("when enough would come back")), ("always", _("always")),
                           ("never", _("never: a task of its own compacts")))),
            THRESHOLD,
        )  # fmt: skip

    def run(self, context: JobContext) -> JobResult:
        """Let the repository's engine do it."""
        result: JobResult = context.engine().prune_archives(context)
        return result


class CompactJob:
    """Give the space of deleted archives back to the storage."""

    name = "compact"
    needs_vault = True
    needs_client = False

    def parameter_fields(self) -> Sequence[Field]:
        """Return what a task may set."""
        return (THRESHOLD,)

    def run(self, context: JobContext) -> JobResult:
        """Let the repository's engine do it."""
        result: JobResult = context.engine().compact(context)
        return result


@hookimpl
def register_job_types() -> list[JobType]:
    """Register ``prune`` and ``compact``."""
    return [PruneJob(), CompactJob()]
