"""The job type ``drill``: restores files of an archive to scratch space on this server,
compares them with what the archive says, measures how long it took, and files a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from borgcube.core import drills
from borgcube.core.forms import Field
from borgcube.core.hookspecs import hookimpl
from borgcube.core.jobs import JobContext, JobResult, JobType
from borgcube.core.texts import _


class DrillJob:
    """Prove that an archive can be restored."""

    name = "drill"
    needs_vault = True
    needs_client = False

    def parameter_fields(self) -> Sequence[Field]:
        """Return what a task may set."""
        return (
            Field("files", _("Files to restore"), "number", default=drills.DEFAULT_FILES, least=1,
                  most=drills.MAX_FILES, help=_("Chosen anew in every run.")),
            Field("whole", _("Restore the whole archive"), "choice", default="", choices=(
                ("", _("every so often")), ("yes", _("in every run")), ("no", _("never")),
            )),
        )  # fmt: skip

    def prepare(self, root: Any, job: Any) -> dict[str, Any]:
        """Choose the archive: the one that was named, or the newest of the plan."""
        from borgcube.core.drillchoice import parameters_of

        return parameters_of(root, job)

    def run(self, context: JobContext) -> JobResult:
        """Restore, compare and report."""
        from borgcube.plugins.drill.drilling import drill

        return drill(context)


@hookimpl
def register_job_types() -> list[JobType]:
    """Register ``drill``."""
    return [DrillJob()]
