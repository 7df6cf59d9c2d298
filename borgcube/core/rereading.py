"""Plans whose files should all be read again, because their client broke a rule.

Whoever tampered with a client may have changed a file and set back its times; the files cache
then takes it for unchanged. After a violation each plan of the client is offered a backup that
reads everything (``borgcube backup PLAN --reread``), until one that began later has an archive.
``root.unread`` has plan -> when its client broke the rule; only this module writes there.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

from borgcube.core import events
from borgcube.core.errors import FailureCause
from borgcube.core.model import Job
from borgcube.core.store import Root

REREAD = "reread"  # its name among a job's parameters


def command(plan: str) -> str:
    """Return the command that does it."""
    return f"borgcube backup {plan} --reread"


def is_reread(job: Job) -> bool:
    """Tell whether a backup reads all files, whatever is known of them."""
    return job.parameters.get(REREAD) is True


def parameters(*, reread: bool) -> dict[str, bool]:
    """Return the parameters with which such a backup is queued; none for an ordinary one."""
    return {REREAD: True} if reread else {}


def offer(root: Root, client: str) -> None:
    """Note that all plans of a client should be read again, from now on."""
    for plan in root.plans.oldest("client", client):
        root.unread[plan.name] = events.now()


def note_archive(root: Root, job: Job) -> None:
    """Note that a backup has an archive; if it read all files, and its client broke no rule
    since it began, the offer to its plan is over."""
    since = root.unread.get(job.plan, "")
    if since and is_reread(job) and job.started_at > since:
        del root.unread[job.plan]


def forget(root: Root, plan: str) -> None:
    """Forget what is known of a plan that goes."""
    if plan in root.unread:
        del root.unread[plan]


def wanted(root: Root, plan: str) -> str:
    """Return since when a plan should be read again, empty when it need not."""
    return str(root.unread.get(plan, ""))


def wanted_of(root: Root, client: str, *, most: int) -> list[str]:
    """Return up to ``most`` plans of a client that should be read again."""
    found = (plan.name for plan in root.plans.oldest("client", client) if plan.name in root.unread)
    return list(islice(found, most))


def with_offer(cause: FailureCause | None, plan: str) -> FailureCause | None:
    """Return the cause of a job whose client broke a rule, with what to do about its files."""
    if cause is None or not plan:
        return cause
    said = f"Then have all its files read again: {command(plan)}"
    return replace(cause, next_step=f"{cause.next_step} {said}".strip())
