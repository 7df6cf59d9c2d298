"""A worker's side of prune and compact: asks the vault, reports, and says what came of it."""

from __future__ import annotations

from typing import Any

from borgcube.core.errors import FailureCause, JobCancelled, JobFailed, Problem
from borgcube.core.jobs import JOB_DONE, JOB_WARNING, JobContext, JobResult
from borgcube.plugins.borg.vaultclient import follow

THRESHOLD = 0.1  # of a segment, as borg compact has it
# A compaction after a prune must give back at least this share of the repository.
PAYS_FROM = 0.05


def _threshold(context: JobContext) -> float:
    percent = context.order.parameters.get("threshold_percent", THRESHOLD * 100)
    return min(0.99, max(0.0, float(percent) / 100))


def _compact(context: JobContext, *, least_share: float) -> dict[str, Any]:
    context.phase("compacting")

    def on_progress(figures: dict[str, Any]) -> None:
        # For whoever draws a bar: how much of what is unused was worked off.
        if "bytes_handled" in figures:
            figures |= {"bytes_read": figures["bytes_handled"],
                        "bytes_total": figures["bytes_freeable"]}  # fmt: skip
        context.progress(**figures)
        context.check_cancelled()

    request = {"op": "compact", "threshold": _threshold(context), "least_share": least_share}
    answer = follow(
        context.order.vault_socket, request, on_progress=on_progress,
        check=context.check_cancelled,
    )  # fmt: skip
    return dict(answer["done"])


def compact(context: JobContext) -> JobResult:
    """Compact whatever is worth it, however little that is."""
    result = JobResult(data=_compact(context, least_share=0.0))
    _warn_of_damage(result)
    if result.warnings:
        result.state = JOB_WARNING
    return result


def _warn_of_damage(result: JobResult) -> None:
    count = int(result.data.get("damaged_segments") or 0)
    if count:
        result.warnings.append(
            f"{count} damaged segments were not compacted: run a check, then see docs/checks.md."
        )


def delete(context: JobContext) -> JobResult:
    """Delete archives that a person named, while backups go on. Raises JobFailed when one stays
    that could not be deleted; what was deleted is gone."""
    archives = {str(name): str(key) for name, key in context.order.parameters["ids"].items()}
    result = JobResult()
    done = _delete(context, archives, result, dry_run=False)
    result.archives_deleted += [archives[name] for name in done["absent"]]
    result.data = {"deleted": sorted(done["deleted"])}
    stay = [*done["failed"].values()]
    if done["waiting"]:
        stay.append(f"A backup or restore needs {', '.join(done['waiting'])}.")
    if stay:
        result.state = "failed"
        result.cause = FailureCause(
            "archive-not-deleted", Problem.REPOSITORY, " ".join(stay),
            "Delete what is left when it is over." if done["waiting"]
            else "Run borg check on the repository.",
        )  # fmt: skip
    return result


def prune(context: JobContext) -> JobResult:
    """Delete or measure what the order lists, then compact when that pays.

    What was deleted is in the result also when the rest failed or was cancelled.
    """
    parameters = context.order.parameters
    archives = {str(name): str(key) for name, key in dict(parameters["archives"]).items()}
    dry_run = bool(parameters.get("dry_run"))
    result = JobResult(warnings=[str(note) for note in parameters.get("notes") or ()])
    for name, why in parameters.get("going") or ():
        context.log("info", f"{'would prune' if dry_run else 'pruned'} {name}: {why}")
    try:
        done = _delete(context, archives, result, dry_run=dry_run)
        if dry_run:
            result.data = {"would_free_bytes": done["freed_bytes"], "going": len(archives)}
            result.warnings += [f"{name}: {why}" for name, why in done["failed"].items()]
        else:
            _conclude(context, done, result)
    except JobCancelled:
        result.state = "cancelled"
    except JobFailed as error:
        context.log("error", str(error))
        result.state, result.cause = "failed", error.cause
    if result.state == JOB_DONE and result.warnings:
        result.state = JOB_WARNING
    result.data.setdefault("plans", parameters.get("plans") or [])
    return result


def _delete(
    context: JobContext, archives: dict[str, str], result: JobResult, *, dry_run: bool
) -> dict[str, Any]:
    if not archives:
        return {"deleted": [], "absent": [], "failed": {}, "waiting": [], "freed_bytes": 0}
    context.phase("measuring" if dry_run else "deleting")

    def on_progress(figures: dict[str, Any]) -> None:
        for name in figures.pop("deleted_names", ()):
            result.archives_deleted.append(archives[name])
            context.log("info", f"deleted {name}")
        context.progress(**figures)
        context.check_cancelled()

    request = {"op": "measure" if dry_run else "prune", "archives": archives}
    answer = follow(
        context.order.vault_socket, request, on_progress=on_progress,
        check=context.check_cancelled,
    )  # fmt: skip
    return dict(answer["done"])


def _conclude(context: JobContext, done: dict[str, Any], result: JobResult) -> None:
    result.archives_deleted += [
        key for name, key in dict(context.order.parameters["archives"]).items()
        if name in done["absent"]
    ]  # fmt: skip
    result.data = {"deleted": len(done["deleted"]), "unused_bytes": done["freed_bytes"],
                   "pruned": len(context.order.parameters.get("going") or ())}  # fmt: skip
    for name, why in done["failed"].items():
        result.warnings.append(f"{name} stays: {why}")
    if done["waiting"]:
        result.warnings.append(
            f"{len(done['waiting'])} archives stay for now, a backup or restore needs them; "
            "the next prune deletes them."
        )
    mode = context.order.parameters.get("compact", "auto")
    if mode == "always" or (mode == "auto" and done["deleted"]):
        result.data |= _compact(context, least_share=PAYS_FROM if mode == "auto" else 0.0)
        _warn_of_damage(result)
        if not result.data["compacted_bytes"] and result.data["freeable_bytes"]:
            context.log("info", "not compacted: too little would come back yet")
