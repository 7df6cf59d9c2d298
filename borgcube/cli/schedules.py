"""Commands about time: schedules, and tasks that run by them."""

from __future__ import annotations

import argparse
import re
from datetime import datetime, timedelta
from typing import Any

from borgcube.cli import output
from borgcube.cli.control import Control
from borgcube.cli.settings import pair
from borgcube.core.errors import InvalidInput
from borgcube.core.schedules import CATCH_UP

SPANS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
HELD = {
    "pause": "paused", "blackout": "waits for the end of a blackout",
    "busy": "waits for the run before", "away": "waits for its client", "broken": "broken",
}  # fmt: skip


def span(text: str) -> int:
    """Return seconds of ``90``, ``30m``, ``6h``, ``2d`` or ``1w``, for argparse."""
    match = re.fullmatch(r"(\d{1,9})([smhdw]?)", text.strip().lower())
    if match is None:
        raise argparse.ArgumentTypeError("must be a time such as 90, 30m, 6h or 2d")
    unit = SPANS.get(match[2], "seconds")
    return int(timedelta(**{unit: int(match[1])}).total_seconds())


def spoken(seconds: int) -> str:
    """Return a number of seconds in its largest whole unit; empty for none."""
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds and seconds % length == 0:
            return f"{seconds // length}{unit}"
    return f"{seconds}s" if seconds else ""


def configure(parser: Any) -> None:
    """Add the commands; ``parser`` is that of :mod:`borgcube.cli.main`."""
    _schedules(parser)
    _tasks(parser)


def _schedule_options(parser: argparse.ArgumentParser, *, new: bool) -> None:
    def default(value: Any) -> Any:
        return value if new else None

    add = parser.add_argument
    add("--kind", default=default("calendar"), help="the plugin that reads it")
    add("--zone", default=default("UTC"), metavar="ZONE", help="such as Europe/Berlin")
    add("--window", action="append", metavar="SPAN",
        help="run only then: mon-fri 22:00-06:00")  # fmt: skip
    add("--blackout", action="append", metavar="SPAN",
        help="start nothing then: a span, or 2026-12-24..2026-12-26")  # fmt: skip
    add("--jitter", type=span, default=default(0), metavar="TIME",
        help="spread the starts over this time, such as 30m")  # fmt: skip
    if new:
        add("--stagger", action="store_true", help="spread them by how long each will take")
    else:
        add("--stagger", action=argparse.BooleanOptionalAction, default=None)
    add("--catch-up", default=default("once"), choices=tuple(CATCH_UP),
        help="; ".join(f"{name}: {text}" for name, text in CATCH_UP.items()))  # fmt: skip
    add("--grace", type=span, default=default(3600), metavar="TIME",
        help="how late an archive may be before it is missing")  # fmt: skip
    add("--comment", default=default(""))


def _schedule_params(options: argparse.Namespace) -> dict[str, Any]:
    values = {
        "spec": options.spec, "kind": options.kind, "zone": options.zone,
        "windows": options.window, "blackouts": options.blackout, "jitter_s": options.jitter,
        "stagger": options.stagger, "catch_up": options.catch_up, "grace_s": options.grace,
        "comment": options.comment,
    }  # fmt: skip
    given = {name: value for name, value in values.items() if value is not None}
    for name in ("windows", "blackouts"):
        if given.get(name) == [""]:
            given[name] = []
    return given


def _schedules(parser: Any) -> None:
    nouns = parser.noun("schedule", "when plans and tasks run")
    add = parser.leaf("add", schedule_add, parent=nouns)
    add.add_argument("name")
    add.add_argument("spec", help="such as 'daily at 02:00', 'every 6 hours' or '30 2 * * 1-5'")
    _schedule_options(add, new=True)
    change = parser.leaf("set", schedule_set, parent=nouns)
    change.add_argument("name")
    change.add_argument("--spec")
    _schedule_options(change, new=False)
    parser.leaf("list", schedule_list, parent=nouns)
    parser.leaf("show", schedule_show, parent=nouns).add_argument("name")
    parser.leaf("remove", removed, parent=nouns).add_argument("name")
    preview = parser.leaf("preview", schedule_preview, parent=nouns)
    preview.add_argument("name", nargs="?", help="a schedule")
    preview.add_argument("--plan", help="the runs of this plan")
    preview.add_argument("--spec", help="what is not stored yet, such as 'daily at 02:00'")
    preview.add_argument("--zone", default="UTC")
    preview.add_argument("--window", action="append", metavar="SPAN")
    preview.add_argument("--blackout", action="append", metavar="SPAN")
    preview.add_argument("--count", type=int, default=10)


def schedule_add(control: Control, options: argparse.Namespace) -> int:
    """Add a schedule."""
    made = control.call("schedule.add", name=options.name, **_schedule_params(options))
    if options.json:
        output.as_json(made)
        return 0
    output.say(f"Schedule {made['name']} added: {made['words']}, {made['zone']}.")
    output.say(f"Give it to a plan: borgcube plan set PLAN --schedule {made['name']}")
    return 0


def schedule_set(control: Control, options: argparse.Namespace) -> int:
    """Change what is given of a schedule; an empty window or blackout removes them all."""
    changed = control.call("schedule.set", name=options.name, **_schedule_params(options))
    if options.json:
        output.as_json(changed)
    else:
        output.say(f"Schedule {options.name} changed: {changed['words']}, {changed['zone']}.")
    return 0


def schedule_list(control: Control, options: argparse.Namespace) -> int:
    """List schedules."""
    found = control.call("schedule.list")
    if options.json:
        output.as_json(found)
        return 0
    output.table(
        ["NAME", "WHEN", "ZONE", "WINDOWS", "CATCH UP", "PLANS", "TASKS"],
        [
            (
                s["name"], s["words"], s["zone"], "; ".join(s["windows"]) or "-", s["catch_up"],
                len(s["plans"]), len(s["tasks"]),
            )
            for s in found
        ],
        empty="No schedule yet. Add one: borgcube schedule add nightly 'daily at 02:00'",
        right=("PLANS", "TASKS"),
    )  # fmt: skip
    return 0


def schedule_show(control: Control, options: argparse.Namespace) -> int:
    """Show one schedule with its next times."""
    data = control.call("schedule.show", name=options.name)
    if options.json:
        output.as_json(data)
        return 0
    runs = control.call("schedule.preview", name=options.name, count=3)["runs"]
    data.pop("id")
    for key in ("jitter_s", "grace_s"):
        data[key[:-2]] = spoken(data.pop(key))
    if data["words"] == data["spec"]:
        data.pop("words")
    data["created_at"] = output.local_time(data["created_at"])
    data["next"] = ", ".join(output.local_time(at) for at in runs)
    output.fields({key.replace("_", " "): value for key, value in data.items() if value})
    return 0


def schedule_preview(control: Control, options: argparse.Namespace) -> int:
    """Show when the next runs will start, in your time zone and in the schedule's."""
    params: dict[str, Any] = {"count": options.count}
    if options.spec:
        params |= {"spec": options.spec, "zone": options.zone}
        params |= {"windows": options.window or [], "blackouts": options.blackout or []}
    elif options.plan:
        params["plan"] = options.plan
    elif options.name:
        params["name"] = options.name
    else:
        raise InvalidInput("Say what to preview.", next_step="Give a schedule, --plan or --spec.")
    found = control.call("schedule.preview", **params)
    if options.json:
        output.as_json(found)
        return 0
    from borgcube.core.localtime import zone_of

    zone = zone_of(found["zone"])
    output.say(f"{found['words']}, {found['zone']}")
    output.table(
        ["STARTS", found["zone"].upper()],
        [
            (output.local_time(at), f"{datetime.fromisoformat(at).astimezone(zone):%a %d %b %H:%M}")
            for at in found["runs"]
        ],
        empty="It will not run.",
    )
    return 0


def removed(control: Control, options: argparse.Namespace) -> int:
    """Remove it."""
    answer = control.call(f"{options.noun}.remove", name=options.name)
    if options.json:
        output.as_json(answer)
    else:
        output.say(f"{options.noun.capitalize()} {options.name} removed.")
    return 0


def _tasks(parser: Any) -> None:
    nouns = parser.noun("task", "maintenance on a schedule")
    for name, function in (("add", task_add), ("set", task_set)):
        made = parser.leaf(name, function, parent=nouns)
        made.add_argument("name")
        if name == "add":
            made.add_argument("type", help="a job type, such as check or prune")
        made.add_argument("--schedule", required=name == "add")
        made.add_argument("--repository")
        made.add_argument("--client")
        made.add_argument("--plan")
        made.add_argument("--set", action="append", type=pair, metavar="NAME=VALUE",
                          help="a parameter of the job")  # fmt: skip
        made.add_argument("--comment")
    parser.leaf("list", task_list, parent=nouns)
    parser.leaf("show", task_show, parent=nouns).add_argument("name")
    parser.leaf("remove", removed, parent=nouns).add_argument("name")
    run = parser.leaf("run", task_run, parent=nouns)
    run.add_argument("name")
    run.add_argument("--wait", action="store_true", help="follow the job to its end")


def _task_params(options: argparse.Namespace) -> dict[str, Any]:
    names = ("schedule", "repository", "client", "plan", "comment")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.set:
        given["parameters"] = dict(options.set)
    return given


def task_add(control: Control, options: argparse.Namespace) -> int:
    """Add a task."""
    made = control.call("task.add", name=options.name, type=options.type, **_task_params(options))
    if options.json:
        output.as_json(made)
    else:
        output.say(f"Task {made['name']} added; it runs at {output.local_time(made['next_at'])}.")
    return 0


def task_set(control: Control, options: argparse.Namespace) -> int:
    """Change what is given of a task."""
    changed = control.call("task.set", name=options.name, **_task_params(options))
    if options.json:
        output.as_json(changed)
    else:
        output.say(f"Task {options.name} changed.")
    return 0


def task_list(control: Control, options: argparse.Namespace) -> int:
    """List tasks."""
    found = control.call("task.list")
    if options.json:
        output.as_json(found)
        return 0
    output.table(
        ["NAME", "JOB", "ON", "SCHEDULE", "NEXT"],
        [
            (
                t["name"], t["type"], t["plan"] or t["repository"] or t["client"] or "-",
                t["schedule"], HELD.get(t["held"]) or output.local_time(t["next_at"]),
            )
            for t in found
        ],
        empty="No task yet. Add one: borgcube task add NAME TYPE --schedule S --repository R",
    )  # fmt: skip
    return 0


def task_show(control: Control, options: argparse.Namespace) -> int:
    """Show one task."""
    data = control.call("task.show", name=options.name)
    if options.json:
        output.as_json(data)
        return 0
    data.pop("id")
    for key in ("created_at", "next_at"):
        data[key] = output.local_time(data[key])
    output.fields({key.replace("_", " "): value for key, value in data.items()})
    return 0


def task_run(control: Control, options: argparse.Namespace) -> int:
    """Run a task now."""
    from borgcube.cli.jobs import started

    return started(control, options, control.call("task.run", name=options.name)["job_id"])
