"""A worker's side of prune, compact and mend: asks the vault, reports, and says what came of it."""

from __future__ import annotations

from typing import Any

from borgcube.core.errors import (
    QUARANTINE_NEXT_STEP,
    FailureCause,
    JobCancelled,
    JobFailed,
    Problem,
)
from borgcube.core.jobs import JOB_DONE, JOB_WARNING, JobContext, JobResult
from borgcube.plugins.borg.vaultclient import follow

THRESHOLD = 0.1  # of a segment, as borg compact has it
# A compaction after a prune must give back at least this share of the repository.
PAYS_FROM = 0.05
LOOKING, COUNTING = "looking through archives", "counting references"


def _threshold(context: JobContext) -> float:
    percent = context.order.parameters.get("threshold_percent", THRESHOLD * 100)
    return min(0.99, max(0.0, float(percent) / 100))


class _Phases:
    """Says, in phases and in the log, when a vault looks through archives before its work."""

    def __init__(self, context: JobContext, own: str) -> None:
        self._context, self._own, self._now = context, own, own
        context.phase(own)

    def hear(self, figures: dict[str, Any]) -> None:
        """Follow the vault's figures."""
        looking = int(figures.get("archives_to_look_at") or 0)
        counting = int(figures.get("archives_to_count") or 0)
        phase = LOOKING if looking else COUNTING if counting else self._own
        if phase == self._now:
            return
        self._now = phase
        self._context.phase(phase)
        if looking:
            which = "1 archive was" if looking == 1 else f"{looking:,} archives were"
            self._context.log(
                "info", f"{which} not written by this version of BorgCube, or changed since: each "
                "is looked through once before anything is deleted, which may take long; backups "
                "go on, and a job that is stopped goes on where it was",
            )  # fmt: skip
        elif counting:
            self._context.log("info", f"all references of {counting:,} archives are counted anew")


def _note(result: JobResult, done: dict[str, Any]) -> None:
    """Keep what the vault says of archives in quarantine."""
    result.quarantined = {str(key): str(why) for key, why in done["quarantined"].items()}
    result.looked_through = bool(done["looked_through"])


def _compact(context: JobContext, result: JobResult, *, least_share: float) -> dict[str, Any]:
    phases = _Phases(context, "compacting")

    def on_progress(figures: dict[str, Any]) -> None:
        # For whoever draws a bar: how much of what is unused was worked off.
        if "bytes_handled" in figures:
            figures |= {"bytes_read": figures["bytes_handled"],
                        "bytes_total": figures["bytes_freeable"]}  # fmt: skip
        phases.hear(figures)
        context.progress(**figures)
        context.check_cancelled()

    request = {"op": "compact", "threshold": _threshold(context), "least_share": least_share}
    answer = follow(
        context.order.vault_socket, request, on_progress=on_progress,
        check=context.check_cancelled,
    )  # fmt: skip
    done = dict(answer["done"])
    _note(result, done)
    del done["quarantined"], done["looked_through"]
    return done


def compact(context: JobContext) -> JobResult:
    """Compact whatever is worth it, however little that is."""
    result = JobResult()
    result.data = _compact(context, result, least_share=0.0)
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
    done = _delete(context, archives, result, also_quarantined=True)
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
        by_person = set(parameters.get("by_person") or ())
        asked = {name: key for name, key in archives.items() if name in by_person}
        by_policy = {name: key for name, key in archives.items() if name not in by_person}
        done = _delete(context, by_policy, result, dry_run=dry_run)
        if asked:
            done = _sum(done, _delete(context, asked, result, also_quarantined=True))
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
    context: JobContext, archives: dict[str, str], result: JobResult, *, dry_run: bool = False,
    also_quarantined: bool = False,
) -> dict[str, Any]:  # fmt: skip
    if not archives:
        return {"deleted": [], "absent": [], "failed": {}, "waiting": [], "freed_bytes": 0}
    phases = _Phases(context, "measuring" if dry_run else "deleting")

    def on_progress(figures: dict[str, Any]) -> None:
        for name in figures.pop("deleted_names", ()):
            result.archives_deleted.append(archives[name])
            context.log("info", f"deleted {name}")
        phases.hear(figures)
        context.progress(**figures)
        context.check_cancelled()

    request = {"op": "measure" if dry_run else "prune", "archives": archives,
               "also_quarantined": also_quarantined}  # fmt: skip
    answer = follow(
        context.order.vault_socket, request, on_progress=on_progress,
        check=context.check_cancelled,
    )  # fmt: skip
    done = dict(answer["done"])
    _note(result, done)
    for name in done["failed"]:
        reason = result.quarantined.get(archives[name])
        if reason:
            done["failed"][name] = (
                f"it is in quarantine: {reason}. {QUARANTINE_NEXT_STEP.format(name=name)}"
            )
    return done


def _sum(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {
        "deleted": [*one["deleted"], *other["deleted"]],
        "absent": [*one["absent"], *other["absent"]],
        "failed": {**one["failed"], **other["failed"]},
        "waiting": [*one["waiting"], *other["waiting"]],
        "freed_bytes": one["freed_bytes"] + other["freed_bytes"],
    }


def mend(context: JobContext) -> JobResult:
    """Rewrite the archive of the order from what is sound of it."""
    name = str(context.order.parameters["archive"])
    phases = _Phases(context, "mending")

    def on_progress(figures: dict[str, Any]) -> None:
        phases.hear(figures)
        context.progress(**figures)
        context.check_cancelled()

    request = {"op": "mend", "archive": name}
    answer = follow(
        context.order.vault_socket, request, on_progress=on_progress,
        check=context.check_cancelled,
    )  # fmt: skip
    done = dict(answer["done"])
    items, left_out = int(done["items"]), int(done["left_out"])
    result = JobResult(
        data={"archive": name, "items": items, "left_out": left_out, "names": done["names"]},
        archives_mended=[
            {**done["facts"], "id": done["id"], "name": done["name"], "was": done["was"]}
        ],
    )
    _note(result, done)
    context.log("info", f"{name} was written anew with {items:,} items, {left_out:,} left out")
    result.warnings += [f"left out: {one}" for one in done["names"]]
    if left_out > len(done["names"]):
        result.warnings.append(f"{left_out - len(done['names']):,} more were left out")
    if left_out:
        result.state = JOB_WARNING
    return result


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
        result.data |= _compact(context, result, least_share=PAYS_FROM if mode == "auto" else 0.0)
        _warn_of_damage(result)
        if not result.data["compacted_bytes"] and result.data["freeable_bytes"]:
            context.log("info", "not compacted: too little would come back yet")
