"""The command ``borgcube``: its arguments, and what becomes of errors."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from borgcube import __version__
from borgcube.cli import (
    access,
    checks,
    console,
    files,
    helping,
    inventory,
    jobs,
    listings,
    notify,
    output,
    pauses,
    retention,
    schedules,
    settings,
    store,
    system,
    tokens,
)
from borgcube.cli.control import Control
from borgcube.core import config
from borgcube.core import home as places
from borgcube.core.access import Permission
from borgcube.core.errors import BorgCubeError
from borgcube.core.registry import Registry

EPILOG = """\
borgcube COMMAND --help says more. Exit codes: 0 done, 1 done with warnings,
2 failed or refused, 3 no daemon answers.
"""


class Parser:
    """Builds the tree of commands; every leaf gets its function and ``--json``."""

    def __init__(self) -> None:
        self.top = helping.TopProgram(
            prog="borgcube", description="The backup server that pulls, on BorgBackup.",
            epilog=EPILOG,
        )  # fmt: skip
        self.top.add_argument("--version", action="version", version=f"borgcube {__version__}")
        self.top.add_argument(
            "--home", metavar="DIR",
            help=f"the home directory (default: BORGCUBE_HOME, else {places.DEFAULT_HOME})",
        )  # fmt: skip
        self.commands = self.top.add_subparsers(
            metavar="COMMAND", required=True, parser_class=helping.Program
        )
        self.nouns: dict[str, Any] = {}

    def leaf(
        self, name: str, function: Callable[..., int], *, parent: Any = None, online: bool = True,
        json: bool = True, text: str = "",
    ) -> argparse.ArgumentParser:  # fmt: skip
        """Add a command; its help is ``text``, or else the function's docstring."""
        text = text or (function.__doc__ or "").strip()
        made: argparse.ArgumentParser = (parent or self.commands).add_parser(
            name, help=text[0].lower() + text[1:].rstrip("."), description=text
        )
        if json:
            made.add_argument("--json", action="store_true", help="print JSON")
        made.set_defaults(function=function, online=online)
        return made

    def noun(self, name: str, help_text: str) -> Any:
        """Add a command that has commands of its own."""
        made = self.commands.add_parser(
            name, help=help_text, description=f"{help_text[0].upper()}{help_text[1:]}."
        )
        made.set_defaults(noun=name)
        self.nouns[name] = made.add_subparsers(metavar="COMMAND", required=True)
        return self.nouns[name]


def _plugin_commands(parser: Parser, home: str | None) -> None:
    disabled: tuple[str, ...] = ()
    with contextlib.suppress(BorgCubeError):
        disabled = config.load(places.resolve_home(home)).plugins.disabled
    registry = Registry.load(disabled=disabled, hooks=("register_cli_commands",))
    for command in registry.registered["register_cli_commands"].values():
        made = parser.commands.add_parser(command.name, help=command.help, description=command.help)
        command.configure(made)
        made.set_defaults(function=command.run, online=False)


def _command_named(arguments: Sequence[str]) -> tuple[str, str | None]:
    """Return the first word that is no option, and what ``--home`` names."""
    home, words = None, iter(arguments)
    for word in words:
        if word == "--home":
            home = next(words, None)
        elif word.startswith("--home="):
            home = word.partition("=")[2]
        elif not word.startswith("-"):
            return word, home
    return "", home


def build(arguments: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Return the parser; plugins are loaded for a command that is not built in, and for help."""
    parser = Parser()
    _system(parser)
    _repositories(parser)
    _clients(parser)
    _plans(parser)
    _work(parser)
    _access(parser)
    notify.add_commands(parser)
    schedules.configure(parser)
    pauses.configure(parser)
    retention.add_commands(parser)
    checks.add_commands(parser)
    name, home = _command_named(arguments)
    if name not in parser.commands.choices:
        _plugin_commands(parser, home)
    helping.explain(parser.top)
    return parser.top


def _system(parser: Parser) -> None:
    init = parser.leaf("init", system.init, online=False)
    init.add_argument(
        "--console", nargs="?", const="127.0.0.1:8420", metavar="ADDRESS:PORT",
        help="enable the web console, and print a link that makes its first user",
    )  # fmt: skip
    parser.leaf("serve", system.serve, online=False, json=False)
    parser.leaf("doctor", system.doctor, online=False)
    parser.leaf("plugins", system.plugins, online=False)
    nouns = parser.noun("store", "the object store of this server")
    parser.leaf("show", store.show, parent=nouns)
    parser.leaf("pack", store.pack, parent=nouns)
    events = parser.leaf("events", system.events, json=False)
    events.add_argument("--follow", action="store_true", help="go on with what is published")
    events.add_argument("--since", type=int, metavar="SEQ", help="begin after this number")
    events.add_argument("--json", action="store_true", help="(events are always JSON)")


def _repositories(parser: Parser) -> None:
    nouns = parser.noun("repository", "Borg repositories on this server")
    for name, function in (
        ("create", inventory.repository_create), ("import", inventory.repository_import)
    ):  # fmt: skip
        made = parser.leaf(name, function, parent=nouns)
        made.add_argument("name")
        made.add_argument("--path", required=True, metavar="DIR", help="its directory")
        made.add_argument(
            "--passphrase-file", metavar="FILE", help="its first line is the passphrase; - is stdin"
        )
        if name == "create":
            made.add_argument(
                "--encryption", default="auto", metavar="MODE",
                help="auto measures which of repokey and repokey-blake2 is faster here",
            )  # fmt: skip
            settings.repository_options(made, new=True)
    change = parser.leaf("set", settings.repository_set, parent=nouns)
    change.add_argument("name")
    settings.repository_options(change, new=False)
    gone = parser.leaf("remove", settings.repository_remove, parent=nouns)
    gone.add_argument("name")
    gone.add_argument("--with-plans", action="store_true", help="remove its plans as well")
    gone.add_argument("--yes", action="store_true", help="forget it without asking")
    parser.leaf("list", inventory.repository_list, parent=nouns)
    parser.leaf("show", inventory.repository_show, parent=nouns).add_argument("name")
    secret = parser.leaf("passphrase", inventory.repository_passphrase, parent=nouns)
    secret.add_argument("name")


def _clients(parser: Parser) -> None:
    nouns = parser.noun("client", "machines that are backed up")
    add = parser.leaf("add", inventory.client_add, parent=nouns)
    add.add_argument("name")
    settings.client_options(add, new=True)
    add.add_argument(
        "--accept-host-key",
        action="store_true",
        help="trust the host keys that are offered now, without comparing",
    )
    change = parser.leaf("set", settings.client_set, parent=nouns)
    change.add_argument("name")
    settings.client_options(change, new=False)
    gone = parser.leaf("remove", settings.remove, parent=nouns,
                       text="Remove a client; its archives stay.")  # fmt: skip
    gone.add_argument("name")
    gone.add_argument("--with-plans", action="store_true", help="remove its plans as well")
    parser.leaf("list", inventory.client_list, parent=nouns)
    parser.leaf("show", inventory.show, parent=nouns, text="Show one client.").add_argument("name")
    test = parser.leaf("test", inventory.client_test, parent=nouns)
    test.add_argument("name")
    test.add_argument("--steps", action="store_true", help="try each step of the way by itself")
    trust = parser.leaf("trust", inventory.client_trust, parent=nouns, json=False)
    trust.add_argument("name")
    trust.add_argument("--fingerprint", action="append", metavar="SHA256:...",
                       help="accept only a key with this fingerprint")  # fmt: skip
    trust.add_argument("--yes", action="store_true", help="accept without asking")


def _plans(parser: Parser) -> None:
    nouns = parser.noun("plan", "what of a client goes into which repository")
    for name, function in (("add", inventory.plan_add), ("set", settings.plan_set)):
        made = parser.leaf(name, function, parent=nouns)
        made.add_argument("name")
        settings.plan_options(made, new=name == "add")
        if name == "add":
            made.add_argument("--dry-run", action="store_true",
                              help="list what it would save, and add nothing")  # fmt: skip
    parser.leaf("remove", settings.remove, parent=nouns,
                text="Remove a plan; its archives stay.").add_argument("name")  # fmt: skip
    dry = parser.leaf("dry-run", listings.plan_dry_run, parent=nouns)
    dry.add_argument("name")
    dry.add_argument("--all", action="store_true", help="list what is left out as well")
    checks.add_release(parser, nouns)
    parser.leaf("list", inventory.plan_list, parent=nouns)
    parser.leaf("show", inventory.show, parent=nouns, text="Show one plan.").add_argument("name")


def _work(parser: Parser) -> None:
    backup = parser.leaf("backup", jobs.backup)
    backup.add_argument("plan", nargs="+")
    backup.add_argument("--reread", action="store_true",
                        help="read all files again, this once; for a client that was tampered with,"
                        " restored from an image, or whose clock was set")  # fmt: skip
    restore = parser.leaf("restore", jobs.restore)
    restore.add_argument("archive")
    restore.add_argument("path", nargs="*", help="only these paths of the archive")
    target = restore.add_mutually_exclusive_group(required=True)
    target.add_argument("--to-client", metavar="CLIENT:DIR")
    target.add_argument("--to-dir", metavar="DIR", help="a directory of this server")
    restore.add_argument(
        "--as-root",
        action="store_true",
        help="on this server: keep owners, set-user-ID bits and devices",
    )
    restore.add_argument(
        "--unfenced",
        action="store_true",
        help="on this server: extract without the fence; what a client wrote could then change"
        " other files",
    )
    restore.add_argument(
        "--shared-target",
        action="store_true",
        help="on a client: the directory may be one that others there can write to",
    )

    archives = parser.noun("archive", "what was backed up")
    listing = parser.leaf("list", jobs.archive_list, parent=archives)
    for name in ("client", "repository", "plan"):
        listing.add_argument(f"--{name}", metavar="NAME")
    listing.add_argument("--deleted", action="store_true",
                         help="those that were deleted and can be brought back")  # fmt: skip
    listing.add_argument("--limit", type=int, default=1000)
    parser.leaf("show", jobs.archive_show, parent=archives).add_argument("name")
    one = parser.leaf("cat", files.archive_cat, parent=archives, json=False)
    one.add_argument("name")
    one.add_argument("path", help="a regular file in it; it goes to standard output")
    mend = parser.leaf("mend", jobs.archive_mend, parent=archives)
    mend.add_argument("name", help="an archive that is in quarantine; docs/quarantine.md")
    delete = parser.leaf("delete", jobs.archive_delete, parent=archives)
    delete.add_argument("name", nargs="+")
    delete.add_argument("--now", action="store_true", help="for good: it cannot be brought back")
    delete.add_argument("--undo", type=retention.undo_span, metavar="SPAN",
                        help="how long it can be brought back (7d unless given)")  # fmt: skip
    delete.add_argument("--yes", action="store_true", help="with --now: without asking")

    nouns = parser.noun("job", "runs of backups, restores and the rest")
    listing = parser.leaf("list", jobs.job_list, parent=nouns)
    listing.add_argument("--state")
    listing.add_argument("--type", help="such as backup or restore")
    for name in ("client", "plan", "repository"):
        listing.add_argument(f"--{name}", metavar="NAME")
    listing.add_argument("--limit", type=int, default=50)
    parser.leaf("show", jobs.job_show, parent=nouns).add_argument("id")
    log = parser.leaf("log", jobs.job_log, parent=nouns)
    log.add_argument("id")
    log.add_argument("--lines", type=int, default=1000)
    parser.leaf("cancel", jobs.job_cancel, parent=nouns).add_argument("id")
    parser.leaf("wait", jobs.job_wait, parent=nouns).add_argument("id")
    start = parser.leaf("start", jobs.job_start, parent=nouns)
    start.add_argument("type", help="a type that a plugin brought")
    start.add_argument("--client")
    start.add_argument("--repository")
    start.add_argument("--set", action="append", type=settings.pair, metavar="NAME=VALUE",
                       help="a parameter of the job")  # fmt: skip
    for command in (backup, restore, mend, delete, start):
        command.add_argument("--wait", action="store_true", help="follow the job to its end")


def _access(parser: Parser) -> None:
    nouns = parser.noun("user", "who may use the console")
    add = parser.leaf("add", access.user_add, parent=nouns)
    add.add_argument("name")
    add.add_argument("--role", default="viewer", help="administrator, operator, viewer or owner")
    add.add_argument("--client", action="append", help="a client that an owner owns")
    add.add_argument("--password-file", metavar="FILE",
                     help="its first line; - is stdin; without it a link is printed")  # fmt: skip
    parser.leaf("list", access.user_list, parent=nouns)
    secret = parser.leaf("passwd", access.user_password, parent=nouns)
    secret.add_argument("name")
    secret.add_argument("--password-file", metavar="FILE", help="its first line; - is stdin")
    for name, function in (
        ("disable", access.user_disable), ("enable", access.user_enable),
        ("remove", access.user_remove),
    ):  # fmt: skip
        parser.leaf(name, function, parent=nouns).add_argument("name")
    _tokens(parser)
    nouns = parser.noun("console", "the web console")
    link = parser.leaf("link", access.console_link, parent=nouns)
    link.add_argument("--user", help="whom it logs in (default: an administrator)")
    link.add_argument("--without-code", action="store_true",
                      help="it stands for their second factor as well")  # fmt: skip
    parser.leaf("serve", console.serve, parent=nouns, online=False, json=False)


def _tokens(parser: Parser) -> None:
    nouns = parser.noun("token", "what programs use the API with")
    add = parser.leaf("add", tokens.token_add, parent=nouns)
    add.add_argument("name")
    add.add_argument("--user", required=True, help="whose it is; it may never do more than they")
    add.add_argument("--scope", action="append", choices=[*Permission, "all"],
                     metavar="PERMISSION", help="what it may, any number of times:"
                     f" {', '.join(Permission)}; or all that its user may: all")  # fmt: skip
    add.add_argument("--client", action="append", help="only this client, any number of times")
    add.add_argument("--days", type=int, default=365, help="how long it is good for")
    parser.leaf("list", tokens.token_list, parent=nouns).add_argument("--user", help="only theirs")
    remove = parser.leaf("remove", tokens.token_remove, parent=nouns)
    remove.add_argument("name")
    remove.add_argument("--user", help="whose it is")


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = build(words)
    if not words:
        parser.print_help(sys.stderr)
        return 2
    options = parser.parse_args(words)
    try:
        home = places.resolve_home(options.home)
        if not options.online:
            code: int = options.function(home, options)
            return code
        with Control(home) as control:
            code = options.function(control, options)
            return code
    except BorgCubeError as error:
        output.complain(error.message, error.next_step)
        return error.exit_code
    except KeyboardInterrupt:
        output.complain("Interrupted.")
        return 130
    except BrokenPipeError:
        system.quiet_exit()
        return 0
    except OSError as error:
        output.complain(f"{error.strerror or error}: {error.filename or ''}".rstrip(": ") + ".")
        return 2


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run())
