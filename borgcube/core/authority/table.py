"""The declarations as a page: what each role and token reaches at worst, for docs/guarantees.md.

Written by ``docs/generate.py``. What a permission can be used for at worst is said here, once for
each; who has it, and which commands need it, comes from ``core.access`` and ``.commands``.
"""

from __future__ import annotations

from borgcube.core.access import GRANTS, Identity, Permission, Role
from borgcube.core.authority import besides
from borgcube.core.authority.commands import COMMANDS, Command
from borgcube.core.authority.naming import OF_CLIENTS, OF_USERS, Kind

_P = Permission
WORST = {
    _P.VIEW: "sees names, sizes, times, logs and lists of files of the clients",
    _P.VIEW_SERVER: "sees where repositories are, events, schedules, problems, plugins",
    _P.OPERATE: "keeps disks and networks busy with backups, drills and compactions; cancels jobs"
    " and pauses schedules, so that nothing new is backed up",
    _P.RESTORE: "reads every file in the archives, by a download or a restore to a client;"
    " overwrites files on clients by restoring over them",
    _P.CONFIGURE: "runs any command on the clients as the user that BorgCube logs in as, and so"
    " owns them; leaves files out of plans, removes plans and clients, so that nothing new is"
    " backed up; leads a client's login, with the key it has, to a host whose host key is"
    " accepted; lets clients share a domain; fills repositories",
    _P.DELETE: "deletes archives, at once or by a policy; forgets repositories, whose files stay",
    _P.REVEAL: "reads passphrases: with a repository's files, that is everything in it",
    _P.ADMINISTER: "makes users and tokens, and reads and writes what BorgCube's own user can on"
    " the server, by a client that runs there",
}
OF_THE_SERVER = (_P.VIEW_SERVER, _P.REVEAL, _P.ADMINISTER)
CLIENTS, SERVER, OWN = "of clients", "of the server", "of one's own"


def reach_of(command: Command) -> str:
    """Return what a command is about, which says how far a limit to some clients carries."""
    kinds = {one.kind for one in command.references.values() if not one.seen}
    if any(one.own for one in command.references.values()) and kinds <= OF_USERS:
        return OWN
    if command.whole or not kinds & (OF_CLIENTS | {Kind.PAUSED}):
        return SERVER
    return CLIENTS


def cell(me: Identity, needed: Permission, reach: str) -> str:
    """Return how far somebody who sees the client "own", and perhaps others, gets."""
    if reach == OWN:
        return "all" if me.may(needed) else "own"
    if reach == SERVER:
        return "all" if me.may(needed) else "-"
    if me.may(needed, client="other"):
        return "all"
    return "own clients" if me.may(needed, client="own") else "-"


def _somebody(role: Role, *, restricted: bool = False) -> Identity:
    mine = frozenset({"own"} if restricted or role is Role.OWNER else ())
    return Identity(user="somebody", role=role, clients=mine, restricted=restricted)


COLUMNS: dict[str, Identity] = {
    **{role.value: _somebody(role) for role in Role},
    "operator's token for clients": _somebody(Role.OPERATOR, restricted=True),
}


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def who_may_what() -> str:
    """Return the table of commands by what they need."""
    groups: dict[tuple[Permission, str], list[str]] = {}
    for method, command in COMMANDS.items():
        if command.needs is not None:
            groups.setdefault((command.needs, reach_of(command)), []).append(method)
    lines = [_row(["needs", "on things", *COLUMNS, "commands"]),
             _row(["---"] * (len(COLUMNS) + 3))]  # fmt: skip
    for needed in Permission:
        for reach in (CLIENTS, SERVER, OWN):
            names = groups.get((needed, reach))
            if names:
                cells = [cell(me, needed, reach) for me in COLUMNS.values()]
                lines.append(_row([f"`{needed}`", reach, *cells, " ".join(sorted(names))]))
    return "".join(lines)


def at_worst() -> str:
    """Return what each permission is good for in bad hands, and who has it."""
    lines = [_row(["permission", "at worst", *COLUMNS]), _row(["---"] * (len(COLUMNS) + 2))]
    for needed, words in WORST.items():
        reach = CLIENTS if needed not in OF_THE_SERVER else SERVER
        cells = [cell(me, needed, reach) for me in COLUMNS.values()]
        lines.append(_row([f"`{needed}`", words, *cells]))
    return "".join(lines)


def turned_bad(role: Role) -> str:
    """Return, in a sentence, what a role could do and could not."""
    can = "; ".join(words for needed, words in WORST.items() if needed in GRANTS[role])
    not_ = "; ".join(words for needed, words in WORST.items() if needed not in GRANTS[role])
    return f"An {role.value} who turned bad {can}. Without more rights nobody of that role {not_}."


def page() -> str:
    """Return the whole of it."""
    strangers = " ".join(sorted(m for m, c in COMMANDS.items() if c.needs is None))
    destroy = " ".join(sorted(m for m, c in COMMANDS.items() if c.more in besides.DESTROY))
    return (
        f"{who_may_what()}\n"
        f"For strangers, who bring a secret: {strangers}. Need the right to delete besides, when"
        f" they destroy by policy: {destroy}.\n\n"
        f"{at_worst()}\n{turned_bad(Role.OPERATOR)}\n"
    )
