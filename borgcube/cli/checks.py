"""Commands about proof: checks of repositories, restore drills, plans that are on hold."""

from __future__ import annotations

import argparse
from typing import Any

from rich.text import Text

from borgcube.cli import output
from borgcube.cli.control import Control
from borgcube.cli.jobs import started
from borgcube.core import drills
from borgcube.core.errors import InvalidInput

LEVEL_STYLE = {"good": "green", "warning": "yellow", "bad": "red"}
RESULT_STYLE = {"passed": "green", "remarks": "yellow", "failed": "red"}
KIND_WORDS = {"data": "data", "archives": "archives", "borg": "borg check"}
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> int:
    """Return a duration such as ``90``, ``30m`` or ``2h`` in seconds; raises ValueError."""
    unit = UNITS.get(text[-1:].lower())
    number = text[:-1] if unit else text
    if not number.isascii() or not number.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; write it as 90, 30m or 2h")
    return int(number) * (unit or 1)


def result_words(result: str) -> str:
    """Return a drill's result as people say it."""
    return drills.IN_WORDS.get(result, "failed")


def check_run(control: Control, options: argparse.Namespace) -> int:
    """Check a repository now."""
    answer = control.call(
        "check.start", repository=options.name, kind=options.kind, budget_s=options.budget,
        max_mib_s=options.max_mib_s, full=not options.due and not options.budget,
    )  # fmt: skip
    return started(control, options, answer["job_id"])


def check_show(control: Control, options: argparse.Namespace) -> int:
    """Show what of a repository was verified when, and what is damaged."""
    data = control.call("check.show", repository=options.name)
    if options.json:
        output.as_json(data)
        return 0
    output.table(
        ["CHECK", "STATE", "LAST", "JOB"],
        [
            (
                KIND_WORDS.get(one["kind"], one["kind"]),
                Text(output.harmless(one["words"]), style=LEVEL_STYLE.get(one["level"], "")),
                output.local_time(one["at"]), one["job"] or "-",
            )
            for one in data["states"]
        ],
        empty="",
    )  # fmt: skip
    output.say(f"Every byte is to be verified within {data['verify_days']} days.")
    shown_damage(data["damage"])
    return 0


def shown_damage(damage: dict[str, Any]) -> None:
    """Print which archives and files are damaged."""
    for name, facts in dict(damage.get("archives") or {}).items():
        output.say(f"{name}:")
        if facts["unreadable"]:
            output.say("  its list of files cannot be read")
        for path in facts["files"]:
            output.say(f"  {path}")
        more = facts["count"] - len(facts["files"])
        if more > 0:
            output.say(f"  and {more:,} more files")
    more = int(damage.get("archives_count") or 0) - len(damage.get("archives") or {})
    if more > 0:
        output.say(f"and {more:,} more archives")


def check_set(control: Control, options: argparse.Namespace) -> int:
    """Say in how many days every byte of a repository is to be verified."""
    data = control.call("check.set", repository=options.name, verify_days=options.days)
    if options.json:
        output.as_json(data)
    else:
        output.say(f"Every byte of {data['name']} is to be verified within "
                   f"{data['verify_days']} days.")  # fmt: skip
    return 0


def drill_run(control: Control, options: argparse.Namespace) -> int:
    """Restore files to scratch space on this server and compare them."""
    params: dict[str, Any] = {"files": options.files}
    asked = [key for key in ("plan", "repository", "archive") if getattr(options, key)]
    if len(asked) != 1:
        raise InvalidInput("Say what to restore.",
                           next_step="Give one of --plan, --repository and --archive.")  # fmt: skip
    params[asked[0]] = getattr(options, asked[0])
    if options.whole:
        params["whole"] = True
    return started(control, options, control.call("drill.start", **params)["job_id"])


def drill_list(control: Control, options: argparse.Namespace) -> int:
    """List restore drills, newest first."""
    asked = {"plan": options.plan, "repository": options.repository}
    found = control.call("drill.list", limit=options.limit, **{k: v for k, v in asked.items() if v})
    if options.json:
        output.as_json(found)
        return 0
    output.table(
        ["DRILL", "WHEN", "PLAN", "ARCHIVE", "RESULT", "FILES", "SIZE", "TOOK"],
        [
            (
                one["id"], output.local_time(one["created_at"]), one["plan"] or "-",
                one["archive"] + (" (whole)" if one["whole"] else ""),
                Text(result_words(one["result"]), style=RESULT_STYLE.get(one["result"], "")),
                output.count(one["files"]), output.size(one["size"]), f"{one['seconds']:.1f} s",
            )
            for one in found
        ],
        empty="No drill yet. Run one: borgcube drill run --plan PLAN --wait",
        right=("FILES", "SIZE", "TOOK"),
    )  # fmt: skip
    return 0


def drill_show(control: Control, options: argparse.Namespace) -> int:
    """Show one restore drill and where its report is."""
    data = control.call("drill.show", id=options.id)
    if options.json:
        output.as_json(data)
        return 0
    report = data["report"]
    output.fields({
        "drill": data["id"], "when": output.local_time(data["created_at"]),
        "result": Text(result_words(data["result"]),
                       style=RESULT_STYLE.get(data["result"], "")),
        "plan": data["plan"], "client": data["client"], "repository": data["repository"],
        "archive": data["archive"],
        "restored": f"{'the whole archive' if data['whole'] else 'files drawn by lot'}: "
                    f"{data['files']:,} files, {output.size(data['size'])}",
        "time to restore": f"{data['seconds']:.1f} s",
        "borg": report["versions"]["borg"] if report else "",
        "job": data["job"], "sha256": data["sha256"],
        "report": f"{data['directory']}/report.html" if report else "it is gone",
        "genuine": "yes, it is the one in the journal" if data["genuine"] else
                   Text("no: the file was changed", style="red") if report else "",
    })  # fmt: skip
    for text in data["problems"]:
        output.say(f"  {text}")
    return 0


def drill_set(control: Control, options: argparse.Namespace) -> int:
    """Name the file that every drill of a plan restores and compares."""
    data = control.call("drill.set", plan=options.name, canary=options.canary)
    if options.json:
        output.as_json(data)
    elif data["canary"]:
        output.say(f"Every drill of {data['name']} restores {data['canary']}.")
    else:
        output.say(f"Plan {data['name']} has no canary.")
    return 0


def plan_release(control: Control, options: argparse.Namespace) -> int:
    """Let a plan be pruned again after you looked at what stood out."""
    data = control.call("plan.release", plan=options.name, usual=not options.unusual)
    if options.json:
        output.as_json(data)
        return 0
    output.say(f"Plan {data['plan']} may be pruned again.")
    if data["accepted"]:
        output.say(f"These count as usual from now on: {', '.join(data['accepted'])}")
    return 0


def add_commands(parser: Any) -> None:
    """Add ``check`` and ``drill``."""
    nouns = parser.noun("check", "is what a repository holds still what was stored?")
    run = parser.leaf("run", check_run, parent=nouns)
    run.add_argument("name", help="the repository")
    run.add_argument("--kind", choices=sorted(KIND_WORDS), default="data",
                     help="data reads every byte, archives walks the lists of files, "
                          "borg is Borg's own check")  # fmt: skip
    run.add_argument("--due", action="store_true", help="only what is due, as a schedule does")
    run.add_argument("--budget", type=seconds, default=0, metavar="TIME",
                     help="end after that long, such as 30m; what is left is next")  # fmt: skip
    run.add_argument("--max-mib-s", type=int, default=0, metavar="MIB",
                     help="read no faster than that")  # fmt: skip
    run.add_argument("--wait", action="store_true", help="follow the job to its end")
    parser.leaf("show", check_show, parent=nouns).add_argument("name", help="the repository")
    change = parser.leaf("set", check_set, parent=nouns)
    change.add_argument("name", help="the repository")
    change.add_argument("--days", type=int, required=True,
                        help="every byte is to be verified within so many")  # fmt: skip
    nouns = parser.noun("drill", "can it be restored? A sample is, and compared")
    run = parser.leaf("run", drill_run, parent=nouns)
    run.add_argument("--plan", help="its newest archive")
    run.add_argument("--archive", help="this one")
    run.add_argument("--repository", help="of the plan whose last drill is the longest ago")
    run.add_argument("--files", type=int, default=50, help="how many files (50)")
    run.add_argument("--whole", action="store_true", help="restore the whole archive")
    run.add_argument("--wait", action="store_true", help="follow the job to its end")
    listing = parser.leaf("list", drill_list, parent=nouns)
    listing.add_argument("--plan")
    listing.add_argument("--repository")
    listing.add_argument("--limit", type=int, default=100)
    parser.leaf("show", drill_show, parent=nouns).add_argument("id")
    change = parser.leaf("set", drill_set, parent=nouns)
    change.add_argument("name", help="the plan")
    change.add_argument("--canary", required=True, metavar="PATH",
                        help="a file that never changes; an empty word for none")  # fmt: skip


def add_release(parser: Any, plans: Any) -> None:
    """Add ``plan release``."""
    made = parser.leaf("release", plan_release, parent=plans)
    made.add_argument("name")
    made.add_argument("--unusual", action="store_true",
                      help="what stood out does not count as usual for later archives")  # fmt: skip
