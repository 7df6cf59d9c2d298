"""What ``--help`` says: the groups of commands, words for common arguments, near misses.

Called by ``cli/main.py`` while it builds its parser. It knows the names of commands and
arguments, and nothing of what they do.
"""

from __future__ import annotations

import argparse
import difflib
from typing import Any

GROUPS = {
    "the server": ("init", "serve", "doctor", "plugins", "store", "events"),
    "backing up and restoring": (
        "repository", "client", "plan", "backup", "archive", "restore", "job",
    ),
    "when it runs": ("schedule", "task", "pause", "resume", "slots", "trigger"),
    "keeping and proving": ("retention", "prune", "compact", "check", "drill"),
    "people and programs": ("user", "token", "console", "notify", "metrics"),
}  # fmt: skip
FROM_PLUGINS = "from plugins"
HELP_COLUMN = 16
# Words for arguments that several commands share; what a command says itself goes first.
# ``{noun}`` is the kind of thing that the command is about.
POSITIONAL = {
    "name": "name of the {noun}", "id": "number or ID of the {noun}", "plan": "name of the plan",
    "archive": "name of the archive", "repository": "name of the repository",
    "what": "what is paused or resumed", "slots": "how many jobs at once; 0 is no limit",
}  # fmt: skip
LISTED = {
    "--client": "only those of this client", "--repository": "only those of this repository",
    "--plan": "only those of this plan", "--channel": "only those over this channel",
    "--state": "only those in this state", "--limit": "how many at most",
    "--lines": "how many lines from the end",
}  # fmt: skip
OPTIONS = {
    "--client": "the client it is for", "--repository": "the repository it is for",
    "--plan": "the plan it is for", "--network": "the network it is for",
    "--schedule": "name of the schedule", "--comment": "a note for people",
    "--reason": "why, for those who see it",
    "--host": "host name or IP address", "--port": "port of its SSH server (22)",
    "--user": "whom to log in as (root)",
    "--path": "what to back up, as it is called there; any number of times",
    "--exclude": "a pattern to leave out, as in borg --exclude; any number of times",
    "--exclude-caches": "leave out directories tagged as caches (CACHEDIR.TAG)",
    "--exclude-if-present": "leave out directories with a file of this name",
    "--one-file-system": "stay on the file system of each path",
    "--compression": "as in borg --compression",
    "--upload-ratelimit": "KiB a second that the client may send; 0 is no limit",
    "--numeric-ids": "store numbers of owners only, no names",
    "--retries": "how often to try again after network trouble",
    "--retry-delay": "seconds before the next try",
    "--idle-timeout": "seconds of silence after which a backup is given up",
    "--max-duration": "seconds that a backup may take",
    "--command-timeout": "seconds that a command on the client may take",
    "--to-client": "a directory of a client",
    "--disabled": "keep it, but do not use it", "--period": "of which letter",
    "--spec": "when it runs, such as '0 3 * * *' or 'daily 03:00'",
    "--stagger": "spread the runs of its plans", "--zone": "its time zone, such as Europe/Berlin",
    "--window": "only between these times", "--blackout": "never between these times",
    "--count": "how many times to show", "--borg-version": "of which version it is",
}  # fmt: skip


# Where the kind of thing is called otherwise than its command.
THINGS = {"incident": "problem", "notify": "message", "pause": "plan, client or repository",
          "resume": "plan, client or repository"}  # fmt: skip


class Formatter(argparse.HelpFormatter):
    """Keeps names and words in two even columns."""

    def __init__(self, prog: str, **more: Any) -> None:
        super().__init__(prog, max_help_position=26, **more)


class Program(argparse.ArgumentParser):
    """A parser whose help is grouped and whose complaints are short."""

    def __init__(self, *args: Any, **more: Any) -> None:
        more.setdefault("formatter_class", Formatter)
        super().__init__(*args, **more)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if not isinstance(action, argparse._SubParsersAction) or value in action.choices:
            super()._check_value(action, value)
            return
        near = difflib.get_close_matches(str(value), action.choices, n=1)
        meant = f" Did you mean: {self.prog} {near[0]}" if near else ""
        self.exit(2, f"borgcube: There is no command {value!r}.{meant or f' {self._see()}'}\n")

    def _see(self) -> str:
        return f"See: {self.prog} --help"

    def error(self, message: str) -> Any:
        """Say in one line what is wrong with the words, and where they are explained."""
        self.exit(2, f"borgcube: {message[:1].upper()}{message[1:]}. {self._see()}\n")


class TopProgram(Program):
    """The whole program: its commands are shown in :data:`GROUPS`."""

    def format_help(self) -> str:
        """Return the help with the commands in their groups."""
        commands = next(a for a in self._actions if isinstance(a, argparse._SubParsersAction))
        words = {one.dest: one.help or "" for one in commands._choices_actions}
        grouped = {name for names in GROUPS.values() for name in names}
        groups = {**GROUPS, FROM_PLUGINS: tuple(sorted(set(words) - grouped))}
        formatter = argparse.RawDescriptionHelpFormatter(self.prog, max_help_position=HELP_COLUMN)
        formatter.add_usage(self.usage, [a for a in self._actions if a.option_strings or
                                         a is commands], [])  # fmt: skip
        formatter.add_text(self.description)
        for title, names in groups.items():
            known = [argparse.Action([], name, nargs=0, help=words[name], metavar=name)
                     for name in names if name in words]  # fmt: skip
            if known:
                formatter.start_section(title)
                formatter.add_arguments(known)
                formatter.end_section()
        formatter.start_section("options")
        formatter.add_arguments([a for a in self._actions if a.option_strings])
        formatter.end_section()
        formatter.add_text(self.epilog)
        return formatter.format_help()


def explain(parser: argparse.ArgumentParser, *, noun: str = "", leaf: str = "") -> None:
    """Give every argument without help of its own the words for its kind, below ``parser``."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            told = {one.dest: one.help for one in action._choices_actions}
            for name, below in action.choices.items():
                words = str(told.get(name) or "")
                below.description = below.description or f"{words[:1].upper()}{words[1:]}."
                explain(below, noun=leaf or noun, leaf=name)
            continue
        if action.help:
            continue
        listing = leaf in ("list", "log")
        if action.option_strings:
            option = action.option_strings[0]
            action.help = (LISTED.get(option) if listing else None) or OPTIONS.get(option)
        else:
            words = POSITIONAL.get(action.dest, "")
            action.help = words.format(noun=THINGS.get(noun or leaf, noun or leaf)) or None
