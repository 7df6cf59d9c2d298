"""Hello: the smallest useful BorgCube plugin, to copy from.

It logs every new archive and offers a job type ``hello`` that says who it greets.
"""

from __future__ import annotations

import logging
from typing import Any

from borgcube.core.hookspecs import hookimpl
from borgcube.core.jobs import JobContext, JobResult

LOG = logging.getLogger("borgcube.hello")


class Hello:
    """A job that needs neither a vault nor a client."""

    name = "hello"
    needs_vault = False
    needs_client = False

    def run(self, context: JobContext) -> JobResult:
        """Greet; the parameter ``name`` says whom."""
        name = str(context.order.parameters.get("name", "world"))
        context.phase("greeting")
        context.log("info", f"Hello, {name}.")
        return JobResult(data={"greeted": name})


@hookimpl
def register_job_types() -> list[Any]:
    """Offer the job type."""
    return [Hello()]


@hookimpl
def observe_event(event: dict[str, Any]) -> None:
    """Log new archives."""
    if event["type"] == "archive.added":
        LOG.info("a new archive: %s", event["data"]["archive"])
