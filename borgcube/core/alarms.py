"""What an event means for the list of problems: pure.

The daemon reads the journal through :func:`signals_of` and opens, counts and closes incidents
accordingly (``daemon/alarms.py``). What no event tells of, such as silence, the daemon's watch
finds and puts into the same form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from borgcube.core.notifiers import ERROR, INFO, WARNING
from borgcube.core.texts import _

# Kinds of incidents, with the words that explain them; rules choose among them.
KINDS: Mapping[str, str] = {
    "plan-failed": _("a backup failed, and no further try is waiting"),
    "plan-silent": _("a plan should have an archive by now and has none"),
    "plan-incomplete": _("some files could not be read"),
    "job-failed": _("a job other than a backup failed"),
    "repository-trouble": _("a repository could not be used"),
    "repository-damaged": _("a check found damage in a repository"),
    "archive-suspicious": _("a new archive stands out, and the pruning of its plan is on hold"),
    "client-violation": _("a client did what no honest client does"),
    "prune-held": _("nothing of a plan was pruned although its policy would"),
    "nothing-matched": _("a prune or a mapping of archives found nothing to work on"),
    "archive-gone": _("an archive was deleted by something other than BorgCube"),
    "disk-nearly-full": _("the disk of a repository is nearly full"),
    "server-condition": _("what `borgcube doctor` finds on this server"),
    "channel-failing": _("messages cannot be delivered"),
}
# Causes that an event of their own tells of, and those that only look like the repository's.
TOLD_BY_EVENTS = frozenset({"damage-found"})
OF_THE_JOB = frozenset({"drill-failed", "borg-check-failed"})
# These may be faults and no ill will.
SOFT_VIOLATIONS = frozenset({"client-clock", "client-silent", "client-overtime", "no-archive"})
WHOSE = {
    "client": "This is the client's problem.", "network": "This is the network's problem.",
    "server": "This is this server's problem.",
    "repository": "This is the repository's problem.",
    "configuration": "This is a matter of configuration.",
}  # fmt: skip


@dataclass(frozen=True)
class Signal:
    """A problem was seen, or is ``over``.

    ``key`` says which one. ``retried`` is the plan whose next attempt, if one waits, makes
    this no problem yet. A ``momentary`` problem has no end that an event could tell of. A
    ``standing`` one is a state that was looked at, so seeing it again is nothing new.
    """

    key: str
    kind: str
    over: bool = False
    severity: str = ERROR
    client: str = ""
    plan: str = ""
    repository: str = ""
    job: str = ""
    title: str = ""
    message: str = ""
    next_step: str = ""
    retried: str = ""
    momentary: bool = False
    standing: bool = False
    reason: str = ""


def plan_key(kind: str, plan: str) -> str:
    """Return the key of a plan's problem."""
    return f"{kind}:{plan}"


def _over(key: str, reason: str) -> Signal:
    return Signal(key, key.partition(":")[0], over=True, reason=reason)


def _ended_well(data: Mapping[str, Any]) -> list[Signal]:
    plan, repository = data["plan"], data["repository"]
    if data["job_type"] != "backup":
        return [_over(_job_key(data), f"Job {data['job']} went well.")]
    found = [_over(f"repository-trouble:{repository}", f"Job {data['job']} could use it.")]
    if not plan:
        return found
    said = f"Job {data['job']} made an archive."
    found += [_over(plan_key(kind, plan), said) for kind in ("plan-failed", "plan-silent")]
    key = plan_key("plan-incomplete", plan)
    if data["state"] == "done":
        return [*found, _over(key, f"Job {data['job']} read everything.")]
    cause = data["cause"] or {}
    return [*found, Signal(
        key, "plan-incomplete", severity=INFO, client=data["client"], plan=plan,
        repository=repository, job=data["job"], title=f"Plan {plan}: not everything was read",
        message=str(cause.get("message") or "The archive is there, but files are missing in it."),
        next_step="See the job's warnings for which files.",
    )]  # fmt: skip


def _job_key(data: Mapping[str, Any]) -> str:
    subject = data["plan"] or data["repository"] or data["client"]
    return f"job-failed:{data['job_type']}:{subject}"


def _failed(data: Mapping[str, Any], cause: Mapping[str, Any]) -> list[Signal]:
    plan, repository = data["plan"], data["repository"]
    problem = str(cause.get("problem", ""))
    common: dict[str, Any] = {
        "job": data["job"], "repository": repository,
        "message": f"{cause.get('message', '')} {WHOSE.get(problem, '')}".strip(),
        "next_step": str(cause.get("next_step", "")),
    }  # fmt: skip
    if cause.get("kind") in TOLD_BY_EVENTS:
        return []
    if problem == "repository" and repository and cause.get("kind") not in OF_THE_JOB:
        # One problem, however many plans use it; those that stay without archive speak up
        # as silent.
        return [Signal(f"repository-trouble:{repository}", "repository-trouble",
                       title=f"Repository {repository} cannot be used", **common)]  # fmt: skip
    common["client"] = data["client"]
    if data["job_type"] == "backup" and plan:
        return [Signal(plan_key("plan-failed", plan), "plan-failed", plan=plan, retried=plan,
                       title=f"Plan {plan}: the backup failed", **common)]  # fmt: skip
    return [Signal(_job_key(data), "job-failed", plan=plan,
                   title=f"{data['job_type'].capitalize()} of "
                   f"{plan or repository or data['client'] or 'the server'} failed",
                   **common)]  # fmt: skip


def _job_finished(data: Mapping[str, Any]) -> list[Signal]:
    if data["state"] in ("done", "warning"):
        return _ended_well(data)
    if data["state"] == "failed":
        return _failed(data, data["cause"] or {})
    return []


def _job_lost(data: Mapping[str, Any]) -> list[Signal]:
    return _failed(data, {
        "problem": "server", "message": "The server stopped while the job ran.",
        "next_step": "Run it again.",
    })  # fmt: skip


def _violation(data: Mapping[str, Any]) -> list[Signal]:
    client, kind = data["client"], data["kind"]
    return [Signal(
        f"client-violation:{client}:{kind}", "client-violation", momentary=True,
        severity=WARNING if kind in SOFT_VIOLATIONS else ERROR,
        client=client, plan=data["plan"], repository=data["repository"], job=data["job"],
        title=f"Client {client} broke a rule: {kind}",
        message=f"It was refused, and nothing of it was kept: {data['details']}"
        if kind not in SOFT_VIOLATIONS else str(data["details"]),
        next_step="Look at the client before you trust it again; the guarantees page says "
        "what each kind means.",
    )]  # fmt: skip


def _archive_deleted(data: Mapping[str, Any]) -> list[Signal]:
    if data["job"]:
        return []
    repository = data["repository"]
    return [Signal(
        f"archive-gone:{repository}", "archive-gone", severity=WARNING, momentary=True,
        repository=repository, title=f"Archives of {repository} were deleted from outside",
        message=f"{data['archive']} is gone, and no job of BorgCube deleted it.",
        next_step="If nobody used plain borg here, find out who has access to the repository.",
    )]  # fmt: skip


def _prune_held(data: Mapping[str, Any]) -> list[Signal]:
    if data["kind"] == "plan-held":
        return []  # what holds it is a problem of its own
    plan = data["plan"]
    return [Signal(
        plan_key("prune-held", plan), "prune-held", severity=WARNING, momentary=True,
        client=data["client"], plan=plan, repository=data["repository"], job=data["job"],
        title=f"Plan {plan}: nothing was pruned", message=data["reason"],
        next_step=data["next_step"],
    )]  # fmt: skip


def _matched_nothing(data: Mapping[str, Any]) -> list[Signal]:
    plan, repository = data["plan"], data["repository"]
    subject = f"plan {plan}" if plan else f"repository {repository}"
    if data["what"] == "mapping":
        said = f"No archive of {repository} has a name that fits {data['pattern']}."
        step = "Correct the pattern: its preview shows what it would take."
    elif plan:
        said = f"The policy {data['policy']} had no archive of the plan to work on."
        step = "Does the plan run at all? Else take the policy from it."
    else:
        said = "No plan of the repository has a policy, so nothing is ever pruned."
        step = "Give its plans a policy, or end the schedule of the prune."
    return [Signal(
        f"nothing-matched:{data['what']}:{plan or repository}", "nothing-matched",
        severity=WARNING, momentary=True, plan=plan, repository=repository, job=data["job"],
        title=f"{data['what'].capitalize()} of {subject} found nothing", message=said,
        next_step=step,
    )]  # fmt: skip


def _plan_removed(data: Mapping[str, Any]) -> list[Signal]:
    kinds = ("plan-failed", "plan-silent", "plan-incomplete", "archive-suspicious",
             "prune-held")  # fmt: skip
    return [_over(plan_key(kind, data["plan"]), "The plan was removed.") for kind in kinds]


def _damage_found(data: Mapping[str, Any]) -> list[Signal]:
    repository = data["repository"]
    some = "; ".join(data["files"][:5])
    return [Signal(
        f"repository-damaged:{repository}", "repository-damaged", repository=repository,
        job=data["job"], title=f"Repository {repository} is damaged",
        message=f"{data['words']}{f' Some of them: {some}.' if some else ''}",
        next_step=f"Look at the disk first. Then: borgcube check show {repository}",
    )]  # fmt: skip


def _damage_gone(data: Mapping[str, Any]) -> list[Signal]:
    return [_over(f"repository-damaged:{data['repository']}",
                  f"Job {data['job']} found nothing damaged any more.")]  # fmt: skip


def _suspicious(data: Mapping[str, Any]) -> list[Signal]:
    plan = data["plan"]
    return [Signal(
        plan_key("archive-suspicious", plan), "archive-suspicious", severity=WARNING,
        client=data["client"], plan=plan, repository=data["repository"], job=data["job"],
        title=f"Plan {plan}: its new archive stands out",
        message=f"{data['archive']}: {' '.join(data['reasons'])} Nothing of the plan is pruned "
        "until somebody has looked.",
        next_step=f"Look at the client. When it is well: borgcube plan release {plan}",
    )]  # fmt: skip


def _plan_released(data: Mapping[str, Any]) -> list[Signal]:
    return [_over(plan_key("archive-suspicious", data["plan"]), "Somebody looked at it.")]


READERS: Mapping[str, Callable[[Mapping[str, Any]], list[Signal]]] = {
    "job.finished": _job_finished,
    "job.lost": _job_lost,
    "client.violation": _violation,
    "archive.deleted": _archive_deleted,
    "plan.removed": _plan_removed,
    "check.damage_found": _damage_found,
    "check.damage_gone": _damage_gone,
    "archive.suspicious": _suspicious,
    "plan.released": _plan_released,
    "prune.held": _prune_held,
    "retention.matched_nothing": _matched_nothing,
}


def signals_of(envelope: Mapping[str, Any]) -> list[Signal]:
    """Return what a journalled envelope says about problems."""
    reader = READERS.get(envelope["type"])
    return reader(envelope["data"]) if reader else []


def counted(envelope: Mapping[str, Any]) -> list[tuple[tuple[str, ...], int]]:
    """Return what an envelope adds to the lifetime counters: (name, labels...) and how much."""
    kind, data = envelope["type"], envelope["data"]
    if kind in ("job.finished", "job.lost"):
        state = data.get("state", "lost")
        return [(("jobs", data["job_type"], state), 1)]
    if kind == "client.violation":
        return [(("violations", data["kind"]), 1)]
    if kind == "archive.added":
        stats = data["stats"]
        return [
            (("archives_added", data["repository"]), 1),
            (("bytes_read", data["repository"]), _whole(stats.get("size"))),
            (("bytes_stored", data["repository"]), _whole(stats.get("new_size"))),
        ]
    if kind == "archive.deleted":
        return [(("archives_deleted", data["repository"]), 1)]
    if kind == "incident.opened":
        return [(("incidents", data["kind"]), 1)]
    return []


def _whole(value: object) -> int:
    return value if type(value) is int and value > 0 else 0
