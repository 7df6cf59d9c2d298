"""The job types ``check`` and ``borg-check``: is what a repository holds still what was stored?

The first reads through the vault while backups go on. The second is the second opinion of the
format's own program, which needs the repository alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from borgcube.core import checks
from borgcube.core.errors import InvalidInput
from borgcube.core.forms import Field
from borgcube.core.hookspecs import hookimpl
from borgcube.core.jobs import JobContext, JobResult, JobType
from borgcube.core.texts import _

BUDGET = Field("budget_s", _("A run may take (s)"), "number", default=0, least=0,
               most=checks.MAX_BUDGET_S, help=_("0 means no limit."))  # fmt: skip


class CheckJob:
    """Verify a slice of a repository, or all of it, while backups go on."""

    name = "check"
    needs_vault = True
    needs_client = False

    def parameter_fields(self) -> Sequence[Field]:
        """Return what a task may set."""
        return (
            Field("kind", _("What is checked"), "choice", default="data", choices=(
                ("data", _("the stored bytes, in slices")),
                ("archives", _("the lists of files of archives")),
            )),
            BUDGET,
            Field("days", _("Verify every byte within (days)"), "number", default=0, least=0,
                  most=checks.MAX_DAYS, help=_("0 means what the repository promises.")),
            Field("max_mib_s", _("Read at most (MiB/s)"), "number", default=0, least=0,
                  most=checks.MAX_MIB_S, help=_("0 means as fast as it can.")),
            Field("full", _("Everything in every run"), "checkbox", default=False,
                  help=_("Not only the slice whose turn it is.")),
        )  # fmt: skip

    def prepare(self, root: Any, job: Any) -> dict[str, Any]:
        """Check the parameters; the days are the repository's unless they are given."""
        parameters = checks.check_parameters(job.parameters)
        if parameters["kind"] == "borg":
            raise InvalidInput("Borg's own check is a job type of its own.",
                               next_step="Use the job type borg-check.")  # fmt: skip
        repository = root.repositories.find("name", job.repository)
        if not parameters["days"] and repository is not None:
            parameters["days"] = repository.verify_days
        return parameters

    def run(self, context: JobContext) -> JobResult:
        """Let the repository's engine do it."""
        result: JobResult = context.engine().check(context)
        return result


class BorgCheckJob:
    """Have Borg check a repository by itself; backups into it wait."""

    name = "borg-check"
    needs_vault = False
    needs_client = False
    needs_repository_alone = True

    def prepare(self, root: Any, job: Any) -> dict[str, Any]:
        """Check the parameters."""
        if not job.repository:
            raise InvalidInput("A check needs a repository.", field="repository")
        return checks.check_parameters({**job.parameters, "kind": "borg"})

    def run(self, context: JobContext) -> JobResult:
        """Let the repository's engine do it."""
        result: JobResult = context.engine().check_alone(context)
        return result


@hookimpl
def register_job_types() -> list[JobType]:
    """Register both."""
    return [CheckJob(), BorgCheckJob()]
