"""Options of clients, plans and repositories, and the commands that change or remove them.

``add`` and ``set`` share their options; those of ``set`` have no default, so that only
what is given changes.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from borgcube.cli import output
from borgcube.cli.control import Control
from borgcube.cli.sizes import parse_size
from borgcube.core.errors import InvalidInput

# Option of a plan -> parameter, where they differ.
PLAN_PARAMETERS = {
    "path": "paths", "exclude": "excludes", "pattern": "patterns",
    "upload_ratelimit": "upload_ratelimit_kib", "retry_delay": "retry_delay_s",
    "idle_timeout": "idle_timeout_s", "max_duration": "max_duration_s",
    "command_timeout": "command_timeout_s",
}  # fmt: skip
PLAN_OPTIONS = (
    "client", "repository", "path", "exclude", "pattern", "exclude_caches",
    "exclude_if_present", "one_file_system", "compression", "upload_ratelimit", "numeric_ids",
    "atime", "sparse", "comment", "files_cache", "retries", "retry_delay", "idle_timeout",
    "max_duration", "before_command", "before_failure", "after_command", "command_timeout",
    "schedule",
)  # fmt: skip
FLOOR = {"free_floor": "free_floor_bytes"}
CLIENT_PARAMETERS = {"max_duration": "max_duration_s", "option": "options"}
CLIENT_OPTIONS = (
    "transport", "host", "port", "user", "identity", "borg", "domain", "option",
    "max_job_bytes", "max_total_bytes", "max_files", "max_duration", "max_sessions", "network",
)  # fmt: skip


def absolute(path: str) -> str:
    """Return a path of this machine as an absolute one."""
    return os.path.abspath(os.path.expanduser(path))


def pair(text: str) -> tuple[str, str]:
    """Return NAME=VALUE as a pair, for argparse."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError("must be NAME=VALUE")
    return name, value


def client_options(parser: argparse.ArgumentParser, *, new: bool) -> None:
    """Add the options of ``client add`` (``new``) or ``client set``."""

    def default(value: Any) -> Any:
        return value if new else None

    add = parser.add_argument
    add("--transport", default=default("openssh"), help="openssh, paramiko or local")
    add("--host")
    add("--port", type=int, default=default(22))
    add("--user")
    add("--identity", metavar="FILE", help="the private key on this server")
    add("--borg", default=default("borg"), metavar="PATH",
        help="borg on the client; deploy sends a fitting one along")  # fmt: skip
    add("--network", default=default(""), metavar="NAME",
        help="share the slots of this network with the other clients in it")  # fmt: skip
    add("--domain", help="share chunk IDs with the other clients of this domain")
    add("--option", action="append", type=pair, metavar="NAME=VALUE",
        help="an option of the transport")  # fmt: skip
    limits = parser.add_argument_group("limits (0 is none)")
    add = limits.add_argument
    add("--max-job-bytes", type=parse_size, default=default(0), metavar="SIZE",
        help="what one backup may store, such as 50G")  # fmt: skip
    add("--max-total-bytes", type=parse_size, default=default(0), metavar="SIZE",
        help="what all its archives may store")  # fmt: skip
    add("--max-files", type=int, default=default(0), metavar="COUNT",
        help="files, directories and links in one archive")  # fmt: skip
    add("--max-duration", type=int, default=default(0), metavar="SECONDS",
        help="how long one backup may take")  # fmt: skip
    add("--max-sessions", type=int, default=default(0), metavar="COUNT",
        help="jobs of this client at once; others wait")  # fmt: skip


def plan_options(parser: argparse.ArgumentParser, *, new: bool) -> None:
    """Add the options of ``plan add`` (``new``) or ``plan set``."""

    def default(value: Any) -> Any:
        return value if new else None

    def flag(name: str, text: str = "") -> None:
        if new:
            parser.add_argument(name, action="store_true", help=text or None)
        else:
            parser.add_argument(
                name, action=argparse.BooleanOptionalAction, default=None, help=text or None
            )

    add = parser.add_argument
    add("--client", required=new)
    add("--repository", required=new)
    add("--path", action="append", required=new, metavar="PATH")
    add("--exclude", action="append", metavar="PATTERN")
    add("--pattern", action="append", metavar="PATTERN", help="as in borg patterns")
    flag("--exclude-caches")
    add("--exclude-if-present", action="append", metavar="NAME")
    flag("--one-file-system")
    add("--compression", default=default("lz4"), metavar="SPEC")
    add("--upload-ratelimit", type=int, default=default(0), metavar="KIB_PER_S")
    flag("--numeric-ids")
    flag("--atime", "keep access times")
    flag("--sparse", "look for holes in files")
    add("--comment", default=default(""))
    add("--files-cache", default=default("ctime,size"), metavar="MODE",
        help="ctime,size or mtime,size or disabled")  # fmt: skip
    add("--retries", type=int, default=default(0))
    add("--retry-delay", type=int, default=default(60), metavar="SECONDS")
    add("--idle-timeout", type=int, default=default(900), metavar="SECONDS")
    add("--max-duration", type=int, default=default(14 * 86400), metavar="SECONDS")
    add("--schedule", default=default(""), metavar="NAME",
        help="when it runs; an empty word is: when somebody starts it")  # fmt: skip
    around = parser.add_argument_group("commands on the client around the backup")
    add = around.add_argument
    add("--before-command", default=default(""), metavar="COMMAND",
        help="a shell command line, such as a database dump")  # fmt: skip
    add("--before-failure", default=default("fail"), choices=("fail", "warn"),
        help="when it fails: fail the job, or go on with a warning")  # fmt: skip
    add("--after-command", default=default(""), metavar="COMMAND",
        help="runs whatever became of the backup; $BORGCUBE_STATE says it")  # fmt: skip
    add("--command-timeout", type=int, default=default(3600), metavar="SECONDS")


def repository_options(parser: argparse.ArgumentParser, *, new: bool) -> None:
    """Add the options that ``repository create`` (``new``) and ``repository set`` share."""
    parser.add_argument(
        "--free-floor", type=parse_size, default=1 << 30 if new else None, metavar="SIZE",
        help="free space below which no backup goes on" + (" (1G unless given)" if new else ""),
    )  # fmt: skip


def client_params(options: argparse.Namespace) -> dict[str, Any]:
    """Return the parameters of ``client.add`` and ``client.set`` that were given."""
    params = _given(options, CLIENT_OPTIONS, CLIENT_PARAMETERS)
    if params.get("identity"):
        params["identity"] = absolute(params["identity"])
    if "options" in params:
        params["options"] = dict(params["options"])
    return params


def plan_params(options: argparse.Namespace) -> dict[str, Any]:
    """Return the parameters of ``plan.add`` and ``plan.set``; an empty word empties a list."""
    params = _given(options, PLAN_OPTIONS, PLAN_PARAMETERS)
    for name in ("excludes", "patterns", "exclude_if_present"):
        if params.get(name) == [""]:
            params[name] = []
    return params


def _given(
    options: argparse.Namespace, names: tuple[str, ...], renamed: dict[str, str]
) -> dict[str, Any]:
    values = {name: getattr(options, name) for name in names}
    return {renamed.get(name, name): value for name, value in values.items() if value is not None}


def _set(control: Control, options: argparse.Namespace, params: dict[str, Any]) -> int:
    data = control.call(f"{options.noun}.set", name=options.name, **params)
    if options.json:
        output.as_json(data)
    else:
        output.say(f"{options.noun.capitalize()} {options.name} changed.")
    return 0


def client_set(control: Control, options: argparse.Namespace) -> int:
    """Change what is given of a client."""
    return _set(control, options, client_params(options))


def plan_set(control: Control, options: argparse.Namespace) -> int:
    """Change what is given of a plan."""
    return _set(control, options, plan_params(options))


def repository_set(control: Control, options: argparse.Namespace) -> int:
    """Change what is given of a repository."""
    return _set(control, options, _given(options, ("free_floor",), FLOOR))


def remove(control: Control, options: argparse.Namespace) -> int:
    """Remove a client or plan; archives stay."""
    more: dict[str, Any] = {}
    if getattr(options, "with_plans", False):
        more["with_plans"] = True
    answer = control.call(f"{options.noun}.remove", name=options.name, **more)
    if options.json:
        output.as_json(answer)
    else:
        if answer.get("plans"):
            output.say(f"Removed with it: {', '.join(answer['plans'])}.")
        output.say(f"{options.noun.capitalize()} {options.name} removed. Its archives stay.")
    return 0


def repository_remove(control: Control, options: argparse.Namespace) -> int:
    """Forget a repository; its directory is not touched."""
    if not options.yes:
        if not sys.stdin.isatty():
            raise InvalidInput("Nothing was removed.", next_step="Add --yes to forget it.")
        name = output.harmless(options.name)
        output.say(f"Its passphrase is forgotten too: borgcube repository passphrase {name}")
        if input(f"Forget the repository {name}? [y/N] ").lower() not in ("y", "yes"):
            raise InvalidInput("Nothing was removed.")
    answer = control.call("repository.remove", name=options.name, with_plans=options.with_plans)
    if options.json:
        output.as_json(answer)
        return 0
    if answer["plans"]:
        output.say(f"Removed with it: {', '.join(answer['plans'])}.")
    output.say(f"Repository {options.name} is forgotten. {answer['path']} was not touched.")
    return 0
