"""Commands about who is told what: channels, rules, problems, messages, letters."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.text import Text

from borgcube.cli import output
from borgcube.cli.control import Control
from borgcube.cli.settings import pair
from borgcube.core.errors import InvalidInput

MAX_SECRET = 4096
TEST_PATIENCE_S = 120.0
TRUE, FALSE = ("yes", "true", "on", "1"), ("no", "false", "off", "0")
LEVELS = {"error": "red", "warning": "yellow", "info": ""}
STATES = {"sent": "green", "failed": "red", "queued": "cyan", "sending": "cyan"}
RULE_LISTS = {"kind": "kinds", "event": "events", "client": "clients", "plan": "plans",
              "repository": "repositories"}  # fmt: skip
RULE_VALUES = ("channel", "severity", "quiet_lets", "zone", "digest", "digest_at", "digest_day",
               "comment", "remind_hours", "all_clear", "disabled")  # fmt: skip


def _schema(control: Control, notifier: str) -> dict[str, Any]:
    for one in control.call("notifier.list"):
        if one["name"] == notifier:
            return {option["name"]: option for option in one["options"]}
    return {}


def _typed(option: Mapping[str, Any], text: str) -> Any:
    if option["kind"] == "number" and text.lstrip("-").isdigit():
        return int(text)
    if option["kind"] == "checkbox":
        if text.lower() in TRUE:
            return True
        if text.lower() in FALSE:
            return False
    return text


def _secret(source: str) -> str:
    if source == "-":
        text = sys.stdin.readline(MAX_SECRET)
    else:
        with Path(source).open(encoding="utf-8") as file:
            text = file.readline(MAX_SECRET)
    found = text.rstrip("\r\n")
    if not found:
        raise InvalidInput(f"{source} holds no secret in its first line.")
    return found


def _options(control: Control, notifier: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the options given on the command line, in the types of the notifier's schema."""
    schema = _schema(control, notifier)
    found: dict[str, Any] = {}
    for name, text in options.set or ():
        option = schema.get(name, {"kind": "text"})
        if option["kind"] == "password":
            raise InvalidInput(
                f"{name} is a secret, and others can see the words of a command.",
                next_step=f"Put it into a file and give --secret {name}=FILE (- is stdin).",
            )
        if option["kind"] == "lines":
            found.setdefault(name, []).append(text)
        else:
            found[name] = _typed(option, text)
    for name, source in options.secret or ():
        found[name] = _secret(source)
    return found


def _done(options: argparse.Namespace, data: Any, words: str) -> int:
    if options.json:
        output.as_json(data)
    else:
        output.say(words)
    return 0


# Channels


def notifiers(control: Control, options: argparse.Namespace) -> int:
    """List the ways to tell somebody, with their options."""
    found = control.call("notifier.list")
    if options.json:
        output.as_json(found)
        return 0
    for one in found:
        output.say(f"{one['name']}: {one['title']}")
        for option in one["options"]:
            marks = [word for word, holds in (
                ("needed", option["required"]), ("secret", option["kind"] == "password"),
                ("may be given several times", option["kind"] == "lines"),
            ) if holds]  # fmt: skip
            said = f" ({', '.join(marks)})" if marks else ""
            choices = ", ".join(key for key, _ in option["choices"])
            output.say(f"  {option['name']}{said}: {choices or option['help'] or option['label']}")
    return 0


def channel_add(control: Control, options: argparse.Namespace) -> int:
    """Add a channel, such as a mail server with its recipients."""
    given = _options(control, options.notifier, options)
    data = control.call("channel.add", name=options.name, notifier=options.notifier,
                        options=given, comment=options.comment or "")  # fmt: skip
    return _done(options, data, f"Channel {options.name} added. Try it: borgcube notify test "
                 f"{options.name}")  # fmt: skip


def channel_set(control: Control, options: argparse.Namespace) -> int:
    """Change what is given of a channel; secrets that are not given stay."""
    known = control.call("channel.show", name=options.name)
    params: dict[str, Any] = {}
    given = _options(control, known["notifier"], options)
    if given:
        params["options"] = given
    for name in ("comment", "disabled"):
        if getattr(options, name) is not None:
            params[name] = getattr(options, name)
    data = control.call("channel.set", name=options.name, **params)
    return _done(options, data, f"Channel {options.name} changed.")


def channel_list(control: Control, options: argparse.Namespace) -> int:
    """List channels and how they do."""
    found = control.call("channel.list")
    if options.json:
        output.as_json(found)
        return 0
    output.table(
        ["CHANNEL", "NOTIFIER", "LAST WENT WELL", "STATE"],
        [(one["name"], one["notifier"], output.local_time(one["last_ok_at"]), _health(one))
         for one in found],
        empty="No channel yet. See: borgcube notify channel add --help",
    )  # fmt: skip
    return 0


def _health(channel: Mapping[str, Any]) -> Text:
    if channel["disabled"]:
        return Text("disabled", style="magenta")
    if channel["failures"]:
        said = f"{channel['failures']} failures: {channel['last_error']}"
        return Text(output.harmless(said), style="red")
    if channel["last_ok_at"]:
        return Text("works", style="green")
    return Text("not tried yet")


def show(control: Control, options: argparse.Namespace) -> int:
    """Show everything about one."""
    data = control.call(f"{options.what}.show", **{options.by: getattr(options, options.by)})
    if options.json:
        output.as_json(data)
    else:
        data.pop("items", None)
        output.fields(data)
    return 0


def remove(control: Control, options: argparse.Namespace) -> int:
    """Remove it."""
    data = control.call(f"{options.what}.remove", name=options.name)
    return _done(options, data, f"{options.what.capitalize()} {options.name} removed.")


def test(control: Control, options: argparse.Namespace) -> int:
    """Send a test over a channel and say what came of it."""
    made = control.call("channel.test", name=options.name)
    deadline = time.monotonic() + TEST_PATIENCE_S
    while True:
        data = control.call("delivery.show", id=made["delivery"])
        if data["state"] not in ("queued", "sending") or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    if options.json:
        output.as_json(data)
    elif data["state"] == "sent":
        output.say(f"Delivered: {data['receipt']}.")
    elif data["state"] == "failed":
        output.complain(f"Not delivered: {data['error']}")
    else:
        output.complain("It is still on its way.", "See: borgcube notify log")
    return 0 if data["state"] == "sent" else 2


# Rules


def _rule_params(options: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, parameter in RULE_LISTS.items():
        given = getattr(options, name)
        if given is not None:
            found[parameter] = [] if given in ([""], ["none"]) else given
    for name in RULE_VALUES:
        value = getattr(options, name, None)
        if value is not None:
            found[name] = value
    if options.group is not None:
        found["group_s"] = options.group
    if options.digest == "none":
        found["digest"] = ""
    if options.quiet is not None:
        begin, _, end = options.quiet.partition("-")
        found["quiet_from"], found["quiet_until"] = begin.strip(), end.strip()
    return found


def rule_add(control: Control, options: argparse.Namespace) -> int:
    """Add a rule: who is told of what."""
    data = control.call("rule.add", name=options.name, **_rule_params(options))
    _warn_of(data)
    return _done(options, data, f"Rule {options.name} added; it {_about(data)}.")


def rule_set(control: Control, options: argparse.Namespace) -> int:
    """Change what is given of a rule."""
    data = control.call("rule.set", name=options.name, **_rule_params(options))
    _warn_of(data)
    return _done(options, data, f"Rule {options.name} changed; it {_about(data)}.")


def _warn_of(rule: Mapping[str, Any]) -> None:
    for remark in rule.get("remarks") or ():
        output.complain(f"note: {remark} yet.")


def _about(rule: Mapping[str, Any]) -> str:
    """Return what a rule does, in words."""
    subjects = [f"{name} {', '.join(rule[many])}" for many, name in
                (("clients", "client"), ("plans", "plan"), ("repositories", "repository"))
                if rule[many]]  # fmt: skip
    of = f" of {' and '.join(subjects)}" if subjects else ""
    if rule["digest"]:
        day = f" on {rule['digest_day']}" if rule["digest"] == "weekly" else ""
        return f"sends a {rule['digest']} letter{of}{day} at {rule['digest_at']} {rule['zone']}"
    parts = []
    if rule["kinds"]:
        kinds = "" if rule["kinds"] == ["*"] else f" ({', '.join(rule['kinds'])})"
        parts.append(f"problems{kinds} from {rule['severity']} on")
    if rule["events"]:
        parts.append(f"events {', '.join(rule['events'])}")
    quiet = f", quiet {rule['quiet_from']} to {rule['quiet_until']} {rule['zone']}" \
        if rule["quiet_from"] else ""  # fmt: skip
    return f"tells of {' and '.join(parts)}{of}{quiet}"


def rule_list(control: Control, options: argparse.Namespace) -> int:
    """List rules."""
    found = control.call("rule.list")
    if options.json:
        output.as_json(found)
        return 0
    output.table(
        ["RULE", "OVER", "WHAT IT DOES"],
        [(one["name"], one["channel"], ("disabled; " if one["disabled"] else "") + _about(one))
         for one in found],
        empty="No rule yet, so nobody is told. See: borgcube notify rule add --help",
    )  # fmt: skip
    return 0


# Problems and messages


def incident_list(control: Control, options: argparse.Namespace) -> int:
    """List open problems, newest first."""
    state = "" if options.all else "open"
    found = control.call("incident.list", state=state, limit=options.limit)
    if options.json:
        output.as_json(found)
        return 0
    output.table(
        ["ID", "SINCE", "LEVEL", "PROBLEM", "STATE"],
        [(one["id"], output.local_time(one["created_at"]),
          Text(one["severity"], style=LEVELS.get(one["severity"], "")), one["title"],
          f"over {output.local_time(one['closed_at'])}" if one["closed_at"]
          else f"known to {one['acknowledged_by']}" if one["acknowledged_by"] else "open")
         for one in found],
        empty="No problem is open.",
    )  # fmt: skip
    return 0


def incident_acknowledge(control: Control, options: argparse.Namespace) -> int:
    """Say that somebody knows; reminders of it end."""
    data = control.call("incident.acknowledge", id=options.id, user=_me())
    return _done(options, data, f"Noted. There are no more reminders of: {data['title']}")


def incident_close(control: Control, options: argparse.Namespace) -> int:
    """Call a problem over; it opens anew when it is seen again."""
    data = control.call("incident.close", id=options.id, user=_me())
    return _done(options, data, f"Closed: {data['title']}")


def _me() -> str:
    import getpass

    return getpass.getuser()


def log(control: Control, options: argparse.Namespace) -> int:
    """List messages and what became of them, newest first."""
    found = control.call("delivery.list", channel=options.channel or "",
                         state=options.state or "", limit=options.limit)  # fmt: skip
    if options.json:
        output.as_json(found)
        return 0
    output.table(
        ["ID", "WHEN", "CHANNEL", "STATE", "TRIES", "MESSAGE", "SAID"],
        [(one["id"], output.local_time(one["ended_at"] or one["created_at"]), one["channel"],
          Text(one["state"], style=STATES.get(one["state"], "")), one["attempts"],
          one["subject"], one["error"] or one["receipt"]) for one in found],
        empty="No message yet.", right=("TRIES",),
    )  # fmt: skip
    return 0


def retry(control: Control, options: argparse.Namespace) -> int:
    """Try at once to deliver a message that waits or was given up."""
    data = control.call("delivery.retry", id=options.id)
    return _done(options, data, f"Message {options.id} is tried again.")


def digest(control: Control, options: argparse.Namespace) -> int:
    """Show the daily or weekly letter as it would be written now."""
    data = control.call("digest.show", rule=options.rule or "", period=options.period)
    if options.json:
        output.as_json(data)
    elif options.html:
        sys.stdout.write(data["html"] + "\n")
    else:
        output.say(f"Subject: {data['subject']}")
        sys.stdout.write("\n" + output.harmless_lines(data["text"]))
    return 0


# Metrics


def metrics_token(control: Control, options: argparse.Namespace) -> int:
    """Make the token that Prometheus reads /metrics with, or end it."""
    if options.revoke:
        data = control.call("metrics.revoke")
        return _done(options, data, "The token is ended." if data["revoked"]
                     else "There was no token.")  # fmt: skip
    data = control.call("metrics.token")
    if not options.json:
        output.complain("It is shown only now; an older one is ended.")
    return _done(options, data, data["token"])


# Arguments


def _channel_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("--set", action="append", type=pair, metavar="NAME=VALUE",
                      help="an option of the notifier; again for lists")  # fmt: skip
    made.add_argument("--secret", action="append", type=pair, metavar="NAME=FILE",
                      help="a secret, from the first line of a file; - is stdin")  # fmt: skip
    made.add_argument("--comment")


def _rule_options(made: argparse.ArgumentParser, *, new: bool) -> None:
    add = made.add_argument
    add("--channel", required=new, help="over which it tells")
    add("--kind", action="append", metavar="PATTERN", help="kinds of problems (default: all)")
    add("--event", action="append", metavar="PATTERN", help="journalled events as well")
    add("--severity", choices=("info", "warning", "error"), help="at least (warning)")
    for name in ("client", "plan", "repository"):
        add(f"--{name}", action="append", metavar="PATTERN", help=f"only of this {name}")
    add("--group", type=int, metavar="SECONDS", help="wait so long for more (60)")
    add("--remind-hours", type=int, help="again after so many hours (24); 0 for never")
    add("--all-clear", action=argparse.BooleanOptionalAction, default=None,
        help="tell when a problem is over")  # fmt: skip
    add("--quiet", metavar="HH:MM-HH:MM", help="hold messages in these hours; '' for none")
    add("--quiet-lets", choices=("info", "warning", "error", "never"),
        help="the severity that is told in quiet hours too (error)")  # fmt: skip
    add("--zone", help="time zone of hours and letters, such as Europe/Berlin (UTC)")
    add("--digest", choices=("daily", "weekly", "none"), help="send a letter instead")
    add("--digest-at", metavar="HH:MM", help="when (07:00)")
    add("--digest-day", metavar="DAY", help="of a weekly letter (monday)")
    add("--comment")
    if not new:
        add("--disabled", action=argparse.BooleanOptionalAction, default=None)


def add_commands(parser: Any) -> None:
    """Add ``borgcube notify`` to a ``cli.main.Parser``."""
    metrics = parser.noun("metrics", "figures for Prometheus")
    made = parser.leaf("token", metrics_token, parent=metrics)
    made.add_argument("--revoke", action="store_true", help="end the token")
    notify = parser.noun("notify", "alarms: who is told what, and what became of it")

    def noun(name: str, text: str) -> Any:
        return notify.add_parser(name, help=text, description=text).add_subparsers(
            metavar="COMMAND", required=True
        )

    def named(nouns: Any, what: str, *names: tuple[str, Any]) -> None:
        for name, function in names:
            made = parser.leaf(name, function, parent=nouns)
            made.add_argument("name")
            made.set_defaults(what=what, by="name")

    parser.leaf("notifiers", notifiers, parent=notify)
    channels = noun("channel", "ways to reach somebody")
    made = parser.leaf("add", channel_add, parent=channels)
    made.add_argument("name")
    made.add_argument("--notifier", required=True, help="see: borgcube notify notifiers")
    _channel_options(made)
    made = parser.leaf("set", channel_set, parent=channels)
    made.add_argument("name")
    _channel_options(made)
    made.add_argument("--disabled", action=argparse.BooleanOptionalAction, default=None)
    parser.leaf("list", channel_list, parent=channels)
    named(channels, "channel", ("show", show), ("remove", remove))
    rules = noun("rule", "who is told of what")
    for name, function in (("add", rule_add), ("set", rule_set)):
        made = parser.leaf(name, function, parent=rules)
        made.add_argument("name")
        _rule_options(made, new=name == "add")
    parser.leaf("list", rule_list, parent=rules)
    named(rules, "rule", ("show", show), ("remove", remove))
    incidents = noun("incident", "problems, open and over")
    made = parser.leaf("list", incident_list, parent=incidents)
    made.add_argument("--all", action="store_true", help="those that are over as well")
    made.add_argument("--limit", type=int, default=100)
    for name, function in (
        ("show", show), ("acknowledge", incident_acknowledge), ("close", incident_close)
    ):  # fmt: skip
        made = parser.leaf(name, function, parent=incidents)
        made.add_argument("id")
        made.set_defaults(what="incident", by="id")
    parser.leaf("test", test, parent=notify).add_argument("name", help="the channel")
    made = parser.leaf("log", log, parent=notify)
    made.add_argument("--channel")
    made.add_argument("--state", help="queued, sending, sent, failed or withdrawn")
    made.add_argument("--limit", type=int, default=50)
    parser.leaf("retry", retry, parent=notify).add_argument("id", help="of a message")
    made = parser.leaf("digest", digest, parent=notify)
    made.add_argument("--rule", help="as this rule would send it")
    made.add_argument("--period", choices=("daily", "weekly"), default="daily")
    made.add_argument("--html", action="store_true", help="as HTML")
