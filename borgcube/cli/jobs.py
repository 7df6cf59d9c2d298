"""Commands about what runs and what came of it: backup, restore, archives, jobs."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from rich.text import Text

from borgcube.cli import output
from borgcube.cli.control import Control
from borgcube.cli.follow import follow
from borgcube.cli.paging import every
from borgcube.cli.settings import absolute
from borgcube.core.errors import QUARANTINE_NEXT_STEP, InvalidInput


def started(control: Control, options: argparse.Namespace, *job_ids: str) -> int:
    """Follow jobs that were just queued, or say how to."""
    as_json = getattr(options, "json", False)
    if not options.wait:
        if as_json:
            output.as_json([{"job_id": job_id} for job_id in job_ids])
            return 0
        for job_id in job_ids:
            output.say(f"Job {job_id} is queued. Follow it: borgcube job wait {job_id}")
        return 0
    try:
        code = follow(control, job_ids, quiet=as_json)
    except KeyboardInterrupt:
        if len(job_ids) == 1:
            output.complain(
                f"The job goes on. Follow it: borgcube job wait {job_ids[0]};",
                f"stop it: borgcube job cancel {job_ids[0]}",
            )
        else:
            output.complain(f"The jobs {', '.join(job_ids)} go on.", "See: borgcube job list")
        return 130
    if as_json:
        output.as_json([control.call("job.show", id=job_id) for job_id in job_ids])
    return code


def backup(control: Control, options: argparse.Namespace) -> int:
    """Back up plans now."""
    for plan in options.plan:  # all or none
        control.call("plan.show", name=plan)
    queued = [
        control.call("backup.start", plan=plan, reread=options.reread)["job_id"]
        for plan in options.plan
    ]
    return started(control, options, *queued)


def restore(control: Control, options: argparse.Namespace) -> int:
    """Restore an archive or some of its paths."""
    params: dict[str, Any] = {
        "archive": options.archive,
        "paths": options.path,
        "as_root": options.as_root,
        "unfenced": options.unfenced,
        "shared_target": options.shared_target,
    }
    if options.to_client:
        client, _, directory = options.to_client.partition(":")
        if not client or not directory:
            raise InvalidInput("--to-client wants CLIENT:DIRECTORY.")
        params["to_client"] = {"client": client, "directory": directory}
    else:
        params["to_dir"] = absolute(options.to_dir)
    return started(control, options, control.call("restore.start", **params)["job_id"])


def taken(archive: dict[str, Any]) -> str:
    """Return when an archive was taken, as ``core.model.Archive.at``."""
    return str(archive["begun_at"] or archive["start"] or archive["created_at"])


def archive_list(control: Control, options: argparse.Namespace) -> int:
    """List archives, newest first."""
    asked = {"client": options.client, "repository": options.repository, "plan": options.plan}
    equal = {k: v for k, v in asked.items() if v}
    if options.deleted:
        found = control.call("archive.list", deleted=True, **equal)
    else:
        found = every(control, "archive.list", limit=options.limit, key="id", **equal)
    if options.json:
        output.as_json(found)
        return 0
    if options.deleted:
        output.table(
            ["ARCHIVE", "REPOSITORY", "BEGUN", "SIZE", "GOES", "WHY"],
            [
                (
                    a["name"], a["repository"], output.local_time(taken(a)),
                    output.size(a["stats"].get("size")), output.local_time(a["delete_after"]),
                    a["deleted_because"],
                )
                for a in found
            ],
            empty="Nothing waits for its deletion.",
            right=("SIZE",),
        )  # fmt: skip
        return 0
    output.table(
        ["ARCHIVE", "CLIENT", "REPOSITORY", "BEGUN", "FILES", "SIZE", "NEW", ""],
        [
            (
                a["name"], a["client"] or "-", a["repository"], output.local_time(taken(a)),
                output.count(a["stats"].get("files")), output.size(a["stats"].get("size")),
                output.size(a["stats"].get("new_size")),
                _note(a),
            )
            for a in found
        ],
        empty="No archive yet. Back up a plan: borgcube backup PLAN --wait",
        right=("FILES", "SIZE", "NEW"),
    )  # fmt: skip
    return 0


def _note(archive: dict[str, Any]) -> str:
    """Return what stands beside an archive in a list."""
    notes = []
    if archive["quarantine"]:
        notes.append(f"in quarantine: {archive['quarantine']}")
    if archive["pinned"]:
        notes.append(f"pinned: {archive['pinned']}")
    return "; ".join(notes)


def archive_show(control: Control, options: argparse.Namespace) -> int:
    """Show one archive."""
    data = control.call("archive.show", name=options.name)
    if options.json:
        output.as_json(data)
        return 0
    if data["quarantine"]:
        data["what to do"] = QUARANTINE_NEXT_STEP.format(name=data["name"])
    stats = data.pop("stats")
    roots = stats.pop("roots", {})
    if roots:
        data["files below"] = ", ".join(f"{path} {files:,}" for path, files in roots.items())
    unused = (stats.pop("exclusions", None) or {}).get("unused") or []
    if unused:
        data["matched nothing"] = ", ".join(unused)
    data["stands out"] = " ".join(one["words"] for one in data.pop("suspicions", ()))
    data["begun"] = output.local_time(taken(data))
    data["borg's time"] = output.local_time(data.pop("start"))
    if not data.pop("begun_at"):
        data["borg's time"] += " (all that is known: no job of this server made it)"
    for key in ("end", "created_at"):
        data[key] = output.local_time(data[key])
    for key, value in stats.items():
        data[key] = output.size(value) if key.endswith("size") else value
    output.fields({key.replace("_", " "): value for key, value in data.items()})
    return 0


def _any_in_quarantine(control: Control, names: list[str]) -> bool:
    return any(control.call("archive.show", name=name)["quarantine"] for name in names)


def archive_mend(control: Control, options: argparse.Namespace) -> int:
    """Rewrite an archive in quarantine from what is sound of it, under its name."""
    answer = control.call("archive.mend", name=options.name)
    return started(control, options, answer["job_id"])


def archive_delete(control: Control, options: argparse.Namespace) -> int:
    """Delete archives; they can be brought back for a while, unless --now is given."""
    if not options.now:
        from borgcube.cli.retention import archive_hide

        return archive_hide(control, options)
    if not options.yes:
        if not sys.stdin.isatty():
            raise InvalidInput("Nothing was deleted.", next_step="Add --yes to delete.")
        what = ", ".join(options.name)
        if _any_in_quarantine(control, options.name):
            output.say("To delete what is in quarantine, the references of all other archives are "
                       "counted anew. That may take long; backups go on.")  # fmt: skip
        if input(f"Delete {output.harmless(what)} for good? [y/N] ").lower() not in ("y", "yes"):
            raise InvalidInput("Nothing was deleted.")
    answer = control.call("archive.delete", names=options.name)
    return started(control, options, answer["job_id"])


def job_list(control: Control, options: argparse.Namespace) -> int:
    """List jobs, newest first."""
    asked = {name: getattr(options, name)
             for name in ("state", "client", "plan", "type", "repository")}  # fmt: skip
    found = every(control, "job.list", limit=options.limit, key="id",
                  **{k: v for k, v in asked.items() if v})  # fmt: skip
    if options.json:
        output.as_json(found)
        return 0
    output.table(
        ["JOB", "TYPE", "PLAN", "CLIENT", "STATE", "QUEUED", "TOOK"],
        [
            (
                j["id"], j["type"], j["plan"] or "-", j["client"] or "-",
                output.state_text(j["state"]), output.local_time(j["created_at"]),
                output.duration(j["started_at"], j["finished_at"]),
            )
            for j in found
        ],
        empty="No job.",
    )  # fmt: skip
    return 0


def job_show(control: Control, options: argparse.Namespace) -> int:
    """Show one job."""
    data = control.call("job.show", id=options.id)
    if options.json:
        output.as_json(data)
        return 0
    cause, warnings = data.pop("cause"), data.pop("warnings")
    if data.pop("parameters").get("reread"):
        data["reads"] = "all files, whatever is known of them"
    shown: dict[str, object] = {**data, "state": output.state_text(data["state"])}
    for key in ("created_at", "started_at", "finished_at"):
        shown[key] = output.local_time(data[key]) if data[key] else ""
    for name in ("progress", "result"):
        shown[name] = Text(output.harmless(", ".join(
            f"{key} {output.size(value) if 'size' in key or 'bytes' in key else value}"
            for key, value in data[name].items()
        )), style="not bold") if data[name] else ""  # fmt: skip
    if cause:
        shown["cause"] = f"{cause['message']} {cause['next_step']}"
        shown["whose problem"] = cause["problem"]
    output.fields({key.replace("_", " "): value for key, value in shown.items()})
    for warning in warnings:
        output.say(f"  warning: {warning}")
    return 0


def job_log(control: Control, options: argparse.Namespace) -> int:
    """Print the end of a job's log."""
    answer = control.call("job.log", id=options.id, limit=options.lines)
    if options.json:
        output.as_json(answer["lines"])
        return 0
    for line in answer["lines"]:
        output.say(line)
    return 0


def job_cancel(control: Control, options: argparse.Namespace) -> int:
    """Ask a job to stop."""
    data = control.call("job.cancel", id=options.id)
    if options.json:
        output.as_json(data)
    else:
        output.say(f"Job {data['id']} is {data['state']}.")
    return 0


def job_wait(control: Control, options: argparse.Namespace) -> int:
    """Follow a job to its end."""
    options.wait = True
    return started(control, options, options.id)


def job_start(control: Control, options: argparse.Namespace) -> int:
    """Start a job of a plugin's type."""
    params: dict[str, Any] = {"type": options.type, "parameters": dict(options.set or ())}
    for key in ("client", "repository"):
        if getattr(options, key):
            params[key] = getattr(options, key)
    return started(control, options, control.call("job.start", **params)["job_id"])
