"""Commands about what may start when: pauses, slots, triggers."""

from __future__ import annotations

import argparse
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from borgcube.cli import output
from borgcube.cli.control import Control
from borgcube.cli.schedules import removed, span

SCOPES = ("everything", "client", "plan", "repository", "task")


def until(text: str) -> str:
    """Return the ISO time of ``6h`` from now, a day, or a local time, for argparse."""
    if not text:
        return ""
    if re.fullmatch(r"\d{1,6}[mhdw]", text):
        return (datetime.now(UTC) + timedelta(seconds=span(text))).isoformat(timespec="seconds")
    try:
        return datetime.fromisoformat(text).astimezone().isoformat(timespec="seconds")
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            "must be a span such as 6h or 3d, or a time such as 2026-12-24T18:00"
        ) from error


def configure(parser: Any) -> None:
    """Add the commands; ``parser`` is that of :mod:`borgcube.cli.main`."""
    _pauses(parser)
    nouns = parser.noun("slots", "how many jobs run at once")
    parser.leaf("list", slots_list, parent=nouns)
    change = parser.leaf("set", slots_set, parent=nouns)
    what = change.add_mutually_exclusive_group(required=True)
    what.add_argument("--repository", metavar="NAME")
    what.add_argument("--network", metavar="NAME")
    change.add_argument("slots", type=int, help="0 is no limit")
    nouns = parser.noun("trigger", "secret addresses that start a plan from outside")
    add = parser.leaf("add", trigger_add, parent=nouns)
    add.add_argument("name")
    add.add_argument("--plan", required=True)
    add.add_argument("--days", type=int, default=0, help="how long it is good (0: no end)")
    parser.leaf("list", trigger_list, parent=nouns)
    parser.leaf("remove", removed, parent=nouns).add_argument("name")
    fire = parser.leaf("fire", trigger_fire, parent=nouns)
    fire.add_argument("--token-file", required=True, metavar="FILE",
                      help="its first line is the token; - is stdin")  # fmt: skip


def _pauses(parser: Any) -> None:
    pause = parser.leaf("pause", pause_set)
    pause.add_argument("what", choices=("list", *SCOPES), help="what is paused; list shows all")
    pause.add_argument("name", nargs="?", default="")
    pause.add_argument("--until", type=until, default="", metavar="TIME",
                       help="its end: 6h, 3d, 2026-12-24T18:00")  # fmt: skip
    pause.add_argument("--reason", default="")
    resume = parser.leaf("resume", pause_end)
    resume.add_argument("what", choices=SCOPES)
    resume.add_argument("name", nargs="?", default="")


def pause_set(control: Control, options: argparse.Namespace) -> int:
    """Keep schedules from starting anything for a while."""
    if options.what == "list":
        return _pause_list(control, options)
    made = control.call(
        "pause.set", scope=options.what, target=options.name, until=options.until,
        reason=options.reason,
    )  # fmt: skip
    if options.json:
        output.as_json(made)
        return 0
    end = f"until {output.local_time(made['until'])}" if made["until"] else "until resumed"
    output.say(f"{_named(options.what, options.name)} is paused {end}. What runs goes on.")
    return 0


def _named(what: str, name: str) -> str:
    return "Everything" if what == "everything" else f"{what.capitalize()} {name}"


def _pause_list(control: Control, options: argparse.Namespace) -> int:
    found = control.call("pause.list")
    if options.json:
        output.as_json(found)
        return 0
    output.table(
        ["PAUSED", "UNTIL", "REASON", "SINCE"],
        [
            (
                _named(p["scope"], p["target"]),
                output.local_time(p["until"]) if p["until"] else "resumed",
                p["reason"] or "-", output.local_time(p["created_at"]),
            )
            for p in found
        ],
        empty="Nothing is paused.",
    )  # fmt: skip
    return 0


def pause_end(control: Control, options: argparse.Namespace) -> int:
    """End a pause; what waited for it is caught up as its schedule says."""
    answer = control.call("pause.end", scope=options.what, target=options.name)
    if options.json:
        output.as_json(answer)
    else:
        output.say(f"{_named(options.what, options.name)} is not paused any more.")
    return 0


def slots_list(control: Control, options: argparse.Namespace) -> int:
    """List slots."""
    return _slots(control.call("slots.list"), options)


def slots_set(control: Control, options: argparse.Namespace) -> int:
    """Set how many jobs may run at once for a repository or a network."""
    where = {"repository": options.repository} if options.repository else {
        "network": options.network
    }  # fmt: skip
    return _slots(control.call("slots.set", slots=options.slots, **where), options)


def _slots(found: Any, options: argparse.Namespace) -> int:
    if options.json:
        output.as_json(found)
    else:
        output.table(["OF", "NAME", "IN USE", "SLOTS"],
                     [(s["what"], s["name"] or "-", s["used"], s["slots"]) for s in found],
                     empty="No slots.", right=("IN USE", "SLOTS"))  # fmt: skip
    return 0


def trigger_add(control: Control, options: argparse.Namespace) -> int:
    """Make a secret address that starts a plan."""
    made = control.call("trigger.add", name=options.name, plan=options.plan, days=options.days)
    if options.json:
        output.as_json(made)
        return 0
    output.say(f"Trigger {made['name']} starts {made['plan']}. This is shown once:")
    sys.stdout.write(f"  {made['path']}\n")
    output.say("Send a POST to the console's address with that path, as curl -X POST does.")
    return 0


def trigger_list(control: Control, options: argparse.Namespace) -> int:
    """List triggers."""
    found = control.call("trigger.list")
    if options.json:
        output.as_json(found)
        return 0
    output.table(
        ["NAME", "PLAN", "ENDS WITH", "GOOD UNTIL", "USED", "LAST"],
        [
            (
                t["name"], t["plan"], t["hint"],
                output.local_time(t["expires_at"]) if t["expires_at"] else "removed",
                t["uses"], output.local_time(t["last_used_at"]),
            )
            for t in found
        ],
        empty="No trigger yet. Make one: borgcube trigger add NAME --plan PLAN", right=("USED",),
    )  # fmt: skip
    return 0


def trigger_fire(control: Control, options: argparse.Namespace) -> int:
    """Use a trigger, as a request to its address does."""
    if options.token_file == "-":
        token = sys.stdin.readline(200)
    else:
        with Path(options.token_file).open(encoding="utf-8") as file:
            token = file.readline(200)
    answer = control.call("trigger.fire", token=token.strip(), address="command line")
    if options.json:
        output.as_json(answer)
    else:
        output.say(f"Job {answer['job_id']} is queued.")
    return 0
