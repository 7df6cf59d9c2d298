"""Hello: the smallest useful BorgCube plugin, to copy from.

It logs every new archive, offers a job type ``hello`` that says who it greets, shows in the
console a page, a card of the dashboard, a tab of every client and the field of its job's
parameter, and lists its greetings in the API.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from borgcube.core.access import Permission
from borgcube.core.api import Call, Endpoint
from borgcube.core.forms import Field
from borgcube.core.hookspecs import hookimpl
from borgcube.core.jobs import JobContext, JobResult
from borgcube.core.schemas import given
from borgcube.core.texts import _
from borgcube.core.web import Card, Page, Resource, Tab

LOG = logging.getLogger("borgcube.hello")


class Hello:
    """A job that needs neither a vault nor a client."""

    name = "hello"
    needs_vault = False
    needs_client = False

    def parameter_fields(self) -> Sequence[Field]:
        """Offer the parameter in the form of a task."""
        return (Field("name", _("Whom to greet"), default="world"),)

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


class HelloPage(Resource):
    """``/hello`` in the console."""

    title = "Hello"


def greeted(request: Any) -> list[Any]:
    """Return the newest greetings that the user may see."""
    jobs = request.db.jobs.newest(20, type="hello")
    return [job for job in jobs if request.me.sees(job.client)]


def page(context: HelloPage, request: Any) -> dict[str, Any]:
    """Show who was greeted."""
    return {"jobs": greeted(request)}


def includeme(config: Any) -> None:
    """Add the page's view; called by the console only."""
    config.add_view(
        page, context=HelloPage, permission=Permission.VIEW, request_method="GET",
        renderer="borgcube_hello:templates/page.jinja2",
    )  # fmt: skip


@hookimpl
def register_pages() -> list[Page]:
    """Offer a page of the console."""
    return [Page("hello", _("Hello"), "event", HelloPage, includeme, order=900)]


@hookimpl
def register_cards() -> list[Card]:
    """Offer a card of the dashboard, drawn anew when a job ends."""
    return [Card("hello", _("Hello"), "borgcube_hello:templates/card.jinja2",
                 lambda request: {"count": len(greeted(request))}, order=900,
                 events=("job.finished",))]  # fmt: skip


@hookimpl
def register_tabs() -> list[Tab]:
    """Offer a tab on the page of a client."""
    return [Tab("hello", _("Hello"), "client", "borgcube_hello:templates/tab.jinja2",
                lambda request, client: {"name": client.name})]  # fmt: skip


def greetings(call: Call) -> dict[str, Any]:
    """Answer ``GET /api/v1/greetings``."""
    jobs = greeted(call.request)
    return {"greeted": [str(job.result.get("greeted", "")) for job in jobs]}


@hookimpl
def register_endpoints() -> list[Endpoint]:
    """Offer an endpoint of the API; it is in the API's description at once."""
    names = {"type": "array", "items": {"type": "string"}}
    return [Endpoint(
        name="greetings", method="GET", path="/greetings", handler=greetings, tag="hello",
        summary=_("List who was greeted"), returns=given({"greeted": names}),
    )]  # fmt: skip


@hookimpl
def observe_event(event: dict[str, Any]) -> None:
    """Log new archives."""
    if event["type"] == "archive.added":
        LOG.info("a new archive: %s", event["data"]["archive"])
