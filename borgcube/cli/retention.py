"""Commands about keeping and letting go: policies, prune, compact, pins, the undo window, and
archives that are adopted by their names."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from rich.text import Text

from borgcube.cli import output
from borgcube.cli.control import Control
from borgcube.cli.follow import follow
from borgcube.cli.jobs import started
from borgcube.core.errors import InvalidInput
from borgcube.core.retention import hours_within

# Option -> parameter and what it keeps; those that are counts.
COUNTS = {
    "last": "the newest archives, whatever their age", "minutely": "", "hourly": "", "daily": "",
    "weekly": "", "monthly": "", "13weekly": "quarters of 13 weeks",
    "3monthly": "quarters of 3 months", "yearly": "",
}  # fmt: skip
PARAMETERS = {"13weekly": "quarterly_13weekly", "3monthly": "quarterly_3monthly"}
SHOWN_UNASKED = 100


def undo_span(text: str) -> int:
    """Return hours for ``0``, ``12H``, ``7d`` ..., for argparse."""
    if text == "0":
        return 0
    try:
        return hours_within(text)
    except InvalidInput as error:
        raise argparse.ArgumentTypeError(f"{error.message} {error.next_step}") from error


def policy_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that ``retention add`` and ``retention set`` share."""
    rules = parser.add_argument_group("rules (as in borg prune; -1 is no bound, 0 no such rule)")
    rules.add_argument("--within", metavar="SPAN", help="everything younger, such as 2d or 3m")
    for name, text in COUNTS.items():
        rules.add_argument(
            f"--{name}", type=int, metavar="N", dest=f"count_{name}",
            help=text or f"one archive of each of the last N {name.replace('ly', '')}s"
            .replace("dai", "day"),
        )  # fmt: skip
    parser.add_argument("--zone", metavar="NAME",
                        help="time zone in which days begin (default: the server's)")  # fmt: skip
    parser.add_argument("--undo", type=undo_span, metavar="SPAN",
                        help="how long a pruned archive can come back (7d)")  # fmt: skip
    parser.add_argument("--comment", metavar="TEXT")
    parser.add_argument("--confirm", metavar="NAME", default="",
                        help="the policy's name, if it is meant to have no rule")  # fmt: skip


def add_commands(parser: Any) -> None:
    """Add the commands of this module to the tree."""
    nouns = parser.noun("retention", "which archives are kept")
    for name, function in (("add", policy_add), ("set", policy_set)):
        made = parser.leaf(name, function, parent=nouns)
        made.add_argument("name")
        policy_options(made)
    parser.leaf("list", policy_list, parent=nouns)
    for name, function in (("show", policy_show), ("remove", policy_remove)):
        parser.leaf(name, function, parent=nouns).add_argument("name")
    attach = parser.leaf("attach", policy_attach, parent=nouns)
    attach.add_argument("name", metavar="POLICY")
    attach.add_argument("plan", nargs="+")
    parser.leaf("detach", policy_detach, parent=nouns).add_argument("plan", nargs="+")
    show = parser.leaf("preview", preview, parent=nouns)
    show.add_argument("plan")
    show.add_argument("--policy", metavar="NAME", help="try another policy than the plan's")
    show.add_argument("--no-bytes", action="store_true",
                      help="do not measure what would be freed")  # fmt: skip
    show.add_argument("--all", action="store_true", help="list every archive, however many")

    prune = parser.leaf("prune", prune_start)
    prune.add_argument("plan", nargs="*")
    prune.add_argument("--repository", metavar="NAME", help="all its plans that have a policy")
    prune.add_argument("--dry-run", action="store_true", help="measure only, change nothing")
    prune.add_argument("--confirm", action="append", metavar="PLAN",
                       help="a plan whose rules keep no archive, if that is meant")  # fmt: skip
    prune.add_argument("--compact", choices=("auto", "always", "never"), default="auto",
                       help="give the space back afterwards (auto: when it pays)")  # fmt: skip
    compact = parser.leaf("compact", compact_start)
    compact.add_argument("repository")
    compact.add_argument("--threshold", type=int, default=10, metavar="PERCENT",
                         help="unused share from which a part is rewritten (10)")  # fmt: skip
    for command in (prune, compact):
        command.add_argument("--wait", action="store_true", help="follow the job to its end")

    archives = parser.nouns["archive"]
    pin = parser.leaf("pin", archive_pin, parent=archives)
    pin.add_argument("name")
    pin.add_argument("--comment", required=True, metavar="TEXT", help="why it must stay")
    parser.leaf("unpin", archive_unpin, parent=archives).add_argument("name")
    parser.leaf("undelete", archive_undelete, parent=archives).add_argument("name", nargs="+")

    mapping = parser.leaf("map", repository_map, parent=parser.nouns["repository"])
    mapping.add_argument("name")
    mapping.add_argument("pattern", help="such as '{hostname}-{now}' or '{hostname}-{plan}-{now}'")
    mapping.add_argument("--plan", default="", metavar="NAME",
                         help="the plan they go to; may use fields: '{hostname}-all'")  # fmt: skip
    mapping.add_argument("--client", default="", metavar="NAME",
                         help="their client (default: the field hostname or client)")  # fmt: skip
    mapping.add_argument("--apply", action="store_true", help="do it; otherwise only show")


# Policies -------------------------------------------------------------------------------


def _params(options: argparse.Namespace) -> dict[str, Any]:
    params: dict[str, Any] = {
        PARAMETERS.get(name, name): getattr(options, f"count_{name}") for name in COUNTS
    }
    params |= {"within": options.within, "zone": options.zone, "undo_hours": options.undo,
               "comment": options.comment}  # fmt: skip
    return {name: value for name, value in params.items() if value is not None}


def span(hours: int) -> str:
    """Return hours in words."""
    if hours == 0:
        return "none"
    return f"{hours // 24} days" if hours % 24 == 0 and hours > 24 else f"{hours} hours"


def policy_add(control: Control, options: argparse.Namespace) -> int:
    """Add a retention policy."""
    data = control.call(
        "retention.add", name=options.name, confirm=options.confirm, **_params(options)
    )
    return _said(options, data, f"Policy {options.name} keeps {data['rules']}. "
                 f"Give it to plans: borgcube retention attach {options.name} PLAN")  # fmt: skip


def policy_set(control: Control, options: argparse.Namespace) -> int:
    """Change what is given of a retention policy."""
    data = control.call(
        "retention.set", name=options.name, confirm=options.confirm, **_params(options)
    )
    return _said(options, data, f"Policy {options.name} keeps {data['rules']}.")


def _said(options: argparse.Namespace, data: Any, line: str) -> int:
    if options.json:
        output.as_json(data)
    else:
        output.say(line)
    return 0


def policy_list(control: Control, options: argparse.Namespace) -> int:
    """List retention policies."""
    found = control.call("retention.list")
    if options.json:
        output.as_json(found)
        return 0
    output.table(
        ["POLICY", "KEEPS", "UNDO", "PLANS", "COMMENT"],
        [
            (p["name"], p["rules"], span(p["undo_hours"]), str(len(p["plans"])), p["comment"])
            for p in found
        ],
        empty="No policy yet: nothing is ever pruned. "
        "Add one: borgcube retention add NAME --daily 7 --weekly 4 --monthly 6",
        right=("PLANS",),
    )  # fmt: skip
    return 0


def policy_show(control: Control, options: argparse.Namespace) -> int:
    """Show one retention policy."""
    data = control.call("retention.show", name=options.name)
    if options.json:
        output.as_json(data)
        return 0
    output.fields({
        "name": data["name"], "keeps": data["rules"], "undo window": span(data["undo_hours"]),
        "time zone": data["zone"] or "the server's", "plans": data["plans"],
        "comment": data["comment"], "added": output.local_time(data["created_at"]),
    })  # fmt: skip
    return 0


def policy_remove(control: Control, options: argparse.Namespace) -> int:
    """Remove a retention policy that no plan has."""
    data = control.call("retention.remove", name=options.name)
    return _said(options, data, f"Policy {options.name} removed.")


def policy_attach(control: Control, options: argparse.Namespace) -> int:
    """Give plans a retention policy; nothing is pruned by this."""
    found = [control.call("retention.attach", plan=plan, policy=options.name)
             for plan in options.plan]  # fmt: skip
    if options.json:
        output.as_json(found)
        return 0
    for one in found:
        said = f"Plan {one['plan']} has the policy {one['policy']}"
        if not one["kept"] + one["going"]:
            output.say(f"{said}. It has no archive yet, so that there is nothing to keep.")
        else:
            output.say(f"{said}: it would keep {one['kept']} of "
                       f"{one['kept'] + one['going']} archives. See which: "
                       f"borgcube retention preview {one['plan']}")  # fmt: skip
        if one["held"]:
            output.say(f"  A prune would be held: {one['held']}")
        if not one["scheduled"]:
            output.say("  No task prunes it yet. Add one: borgcube task add NAME prune --plan "
                       f"{one['plan']} --schedule SCHEDULE")  # fmt: skip
    return 0


def policy_detach(control: Control, options: argparse.Namespace) -> int:
    """Take plans' retention policy away: nothing of them is pruned any more."""
    found = [control.call("retention.attach", plan=plan, policy="") for plan in options.plan]
    names = ", ".join(options.plan)
    return _said(options, found, f"Nothing of {names} is pruned any more.")


def preview(control: Control, options: argparse.Namespace) -> int:
    """Show which archives of a plan a prune would keep, why, and what it would free."""
    params = {"policy": options.policy} if options.policy else {}
    data = control.call("retention.preview", plan=options.plan, **params)
    measured: dict[str, Any] = {}
    if not options.no_bytes and not options.policy and data["going"]:
        job = control.call("prune.start", plan=options.plan, dry_run=True)["job_id"]
        code = follow(control, [job], quiet=True)
        shown = control.call("job.show", id=job)
        measured = shown["result"] if code in (0, 1) else {}
    if options.json:
        output.as_json({**data, "would_free_bytes": measured.get("would_free_bytes")})
        return 0
    rows = data["archives"]
    cut = len(rows) > SHOWN_UNASKED and not options.all and sys.stdout.isatty()
    output.table(
        ["ARCHIVE", "BEGUN", "", "WHY"],
        [
            (
                row["archive"], output.local_time(row["start"]),
                Text("keep", style="green") if row["keep"] else Text("goes", style="yellow"),
                row["why"],
            )
            for row in (rows[:SHOWN_UNASKED] if cut else rows)
        ],
        empty=f"Plan {options.plan} has no archive: there is nothing to keep.",
    )  # fmt: skip
    if cut:
        output.say(f"... and {len(rows) - SHOWN_UNASKED} more: --all lists them.")
    said = f"Policy {data['policy']} ({data['rules']}) keeps {data['kept']} of {len(rows)} archives"
    freed = measured.get("would_free_bytes")
    if freed is not None:
        others = "the other one" if data["going"] == 1 else f"the {data['going']} others"
        said += f"; {others} would free {output.size(freed)}"
    output.say(f"{said}.")
    if data["held"]:
        output.say(f"But a prune is held: {data['held']} {data['next_step']}")
    elif data["going"]:
        output.say(
            f"They can be brought back for {span(data['undo_hours'])} after a prune."
            if data["undo_hours"]
            else "They are deleted at once: the policy has no undo window."
        )
    return 0


# Jobs -----------------------------------------------------------------------------------


def prune_start(control: Control, options: argparse.Namespace) -> int:
    """Prune plans by their retention policies."""
    if bool(options.plan) == bool(options.repository):
        raise InvalidInput("Say what to prune: plans, or --repository NAME.")
    params: dict[str, Any] = {"dry_run": options.dry_run, "compact": options.compact,
                              "confirm": options.confirm or []}  # fmt: skip
    asked = [{"repository": options.repository}] if options.repository else [
        {"plan": plan} for plan in options.plan
    ]  # fmt: skip
    queued = [control.call("prune.start", **one, **params)["job_id"] for one in asked]
    return started(control, options, *queued)


def compact_start(control: Control, options: argparse.Namespace) -> int:
    """Give the space of deleted archives back to the storage."""
    job = control.call(
        "compact.start", repository=options.repository, threshold_percent=options.threshold
    )
    return started(control, options, job["job_id"])


# Archives -------------------------------------------------------------------------------


def archive_pin(control: Control, options: argparse.Namespace) -> int:
    """Keep an archive whatever its policy says."""
    data = control.call("archive.pin", name=options.name, comment=options.comment)
    return _said(options, data, f"Archive {data['name']} is pinned and never pruned.")


def archive_unpin(control: Control, options: argparse.Namespace) -> int:
    """Let the policy decide about an archive again."""
    data = control.call("archive.unpin", name=options.name)
    return _said(options, data, f"Archive {data['name']} is no longer pinned.")


def archive_undelete(control: Control, options: argparse.Namespace) -> int:
    """Bring archives back that were pruned or deleted and are not gone yet."""
    found = [control.call("archive.undelete", name=name) for name in options.name]
    names = ", ".join(str(one["name"]) for one in found)
    return _said(options, found, f"Back again: {names}.")


def archive_hide(control: Control, options: argparse.Namespace) -> int:
    """Delete archives so that they can be brought back."""
    params = {} if options.undo is None else {"hours": options.undo}
    found = control.call("archive.hide", names=options.name, **params)
    if options.json:
        output.as_json(found)
        return 0
    for one in found:
        output.say(f"Archive {one['name']} is deleted; until "
                   f"{output.local_time(one['delete_after'])} it can be brought back: "
                   f"borgcube archive undelete {one['name']}")  # fmt: skip
    return 0


def repository_map(control: Control, options: argparse.Namespace) -> int:
    """Give archives that belong to no plan to clients and plans, by their names."""
    data = control.call(
        "archive.map", repository=options.name, pattern=options.pattern, plan=options.plan,
        client=options.client, apply=options.apply,
    )  # fmt: skip
    if options.json:
        output.as_json(data)
        return 0 if data["assignments"] else 1
    rows: list[tuple[Any, ...]] = [
        (one["archive"], one["client"] or "-", one["plan"] or "-", "")
        for one in data["assignments"]
    ]
    rows += [(name, "-", "-", Text(why, style="yellow")) for name, why in data["unknown"]]
    rows += [(name, "-", "-", Text("the name does not fit", style="yellow"))
             for name in data["unmatched"]]  # fmt: skip
    output.table(["ARCHIVE", "CLIENT", "PLAN", "PROBLEM"], rows,
                 empty="Every archive of the repository belongs to a plan already.")  # fmt: skip
    count, rest = len(data["assignments"]), len(data["unknown"]) + len(data["unmatched"])
    done = "were given to them" if options.apply else "would be given to them"
    output.say(f"{count} archives {done}; {rest} stay with nobody; "
               f"{data['taken']} belong to a plan already.")  # fmt: skip
    if not count and rest:
        output.complain("The pattern matches no archive that could be given to somebody.")
        return 1
    if count and not options.apply:
        output.say("To do it, add --apply.")
    return 0
