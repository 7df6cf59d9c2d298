"""Adopted archives: from the name that plain borg or borgmatic gave one to its client and plan.

A pattern is an archive name with placeholders as in ``borg create``: ``{hostname}-{now}``,
``{hostname}-{plan}-{now:%Y-%m-%d}``. ``*`` stands for anything. It is no regular expression:
names of archives come from strangers, and no name takes long to compare.

Nothing is guessed, because a prune of the wrong owner loses data. Where a name can be read in
several ways, it is taken only if one of them alone names a known client and plan; where ``*`` may
stand for the rest of a longer host name, or where two hosts would become one client by the first
word of their names, the archive is listed with the reason and stays with nobody.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from borgcube.core import events_keeping
from borgcube.core.errors import InvalidInput
from borgcube.core.model import Archive, Client, Plan
from borgcube.core.store import Root
from borgcube.core.trash import in_sight

MAX_PATTERN = 200
MAX_FIELDS = 8
MAX_NAME = 400
MAX_SPLITS = 200
TIMES = ("now", "utcnow")
BORGS_TIME = "%Y-%m-%dT%H:%M:%S"
_PART = re.compile(r"\{([A-Za-z_]+)(?::([^{}]*))?\}|(\*)|([^{}*]+)")
_FIELD = re.compile(r"\{([A-Za-z_]+)\}")
# What strftime writes, with a fixed form; see its manual. Names of days and months are words.
_DIRECTIVES = {
    "Y": r"\d{4}", "m": r"\d\d", "d": r"\d\d", "H": r"\d\d", "M": r"\d\d", "S": r"\d\d",
    "f": r"\d{6}", "j": r"\d{3}", "y": r"\d\d", "G": r"\d{4}", "V": r"\d\d", "W": r"\d\d",
    "U": r"\d\d", "u": r"\d", "w": r"\d", "I": r"\d\d", "p": r"[AP]M", "s": r"\d{1,12}",
    "F": r"\d{4}-\d\d-\d\d", "T": r"\d\d:\d\d:\d\d", "z": r"(?:[+-]\d{4})?",
    "a": r"[^\W\d_]+", "A": r"[^\W\d_]+", "b": r"[^\W\d_]+", "B": r"[^\W\d_]+", "%": "%",
}  # fmt: skip


@dataclass(frozen=True)
class Token:
    """A part of a pattern: fixed ``text``, a ``time`` of that form, or a named ``field``."""

    text: str = ""
    time: re.Pattern[str] | None = None
    field: str = ""


def _time_form(form: str) -> re.Pattern[str]:
    made, letters = "", iter(form)
    for letter in letters:
        if letter != "%":
            made += re.escape(letter)
            continue
        directive = next(letters, "")
        if directive not in _DIRECTIVES:
            raise InvalidInput(f"%{directive} is not known in a time.", field="pattern")
        made += _DIRECTIVES[directive]
    return re.compile(made)


def parse(pattern: str) -> tuple[Token, ...]:
    """Return the parts of a pattern; raises InvalidInput."""
    if not pattern or len(pattern) > MAX_PATTERN:
        raise InvalidInput("A pattern has 1 to 200 characters.", field="pattern")
    tokens: list[Token] = []
    position = 0
    while position < len(pattern):
        found = _PART.match(pattern, position)
        if found is None:
            raise InvalidInput(f"{pattern!r} has a brace without its other one.",
                               field="pattern")  # fmt: skip
        position = found.end()
        name, form, star, text = found.groups()
        if text is not None:
            tokens.append(Token(text=text))
        elif star:
            tokens.append(Token(field="*"))
        elif name in TIMES:
            tokens.append(Token(time=_time_form(form or BORGS_TIME)))
        else:
            tokens.append(Token(field=name))
    if sum(bool(token.field) for token in tokens) > MAX_FIELDS:
        raise InvalidInput(f"A pattern has at most {MAX_FIELDS} fields.", field="pattern")
    names = [token.field for token in tokens if token.field not in ("", "*")]
    if len(set(names)) < len(names):
        raise InvalidInput("A field may be in a pattern once.", field="pattern")
    return tuple(tokens)


def splits(tokens: tuple[Token, ...], name: str) -> Iterator[dict[str, str]]:
    """Yield the ways in which a name fits, as field -> text; that of a ``*`` is ``*`` and the
    number of its token. Linear in its dead ends."""
    if len(name) > MAX_NAME:
        return
    dead: set[tuple[int, int]] = set()

    def walk(number: int, position: int, so_far: dict[str, str]) -> Iterator[dict[str, str]]:
        if (number, position) in dead:
            return
        if number == len(tokens):
            if position == len(name):
                yield so_far
            else:
                dead.add((number, position))
            return
        token, fits = tokens[number], False
        for end in _ends(token, name, position):
            values = so_far
            if token.field:
                key = f"*{number}" if token.field == "*" else token.field
                values = {**so_far, key: name[position:end]}
            for found in walk(number + 1, end, values):
                fits = True
                yield found
        if not fits:
            dead.add((number, position))

    yield from walk(0, 0, {})


def _ends(token: Token, name: str, position: int) -> Iterator[int]:
    if token.time is not None:
        found = token.time.match(name, position)
        if found is not None:
            yield found.end()
    elif token.field:
        yield from range(position + 1, len(name) + 1)
    elif name.startswith(token.text, position):
        yield position + len(token.text)


@dataclass(frozen=True)
class Assignment:
    """An archive and whom it is given to; ``plan`` may be empty."""

    archive: str
    id: str
    repository: str
    start: str
    client: str
    plan: str


@dataclass
class Proposal:
    """What a pattern makes of a repository's archives that belong to no plan.

    ``unmatched`` are names that do not fit; ``unknown`` are pairs of a name that fits and why
    nobody gets it: what it asks for does not exist here, or it can be read in several ways;
    ``taken`` counts archives that have a plan already.
    """

    assignments: list[Assignment] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)
    unknown: list[tuple[str, str]] = field(default_factory=list)
    taken: int = 0

    def as_data(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "assignments": [asdict(one) for one in self.assignments],
            "unmatched": list(self.unmatched), "unknown": [list(pair) for pair in self.unknown],
            "taken": self.taken,
        }  # fmt: skip


def _filled(template: str, values: dict[str, str], *, what: str) -> str:
    def value(found: re.Match[str]) -> str:
        if found[1] not in values:
            raise InvalidInput(f"The pattern has no field {{{found[1]}}} for the {what}.",
                               field=what)  # fmt: skip
        return values[found[1]]

    return _FIELD.sub(value, template)


@dataclass(frozen=True)
class _Known:
    """A client that a name stands for; ``loosely``: by the first word of a host name."""

    client: Client
    loosely: bool = False


@dataclass(frozen=True)
class _Reading:
    """One way to read an archive's name: who would get it, by which host name, and what a ``*``
    right behind that stands for."""

    owner: Assignment
    host: str
    loosely: bool
    rest: str


def _client_named(root: Root, name: str) -> _Known | None:
    """Return a client by its name, its host, or the first word of a host name."""
    if not name:
        return None
    found: Client | None = root.clients.find("name", name)
    if found is not None:
        return _Known(found)
    matching = [c for c in root.clients.newest(100_000) if c.host == name]
    if len(matching) == 1:
        return _Known(matching[0])
    short = root.clients.find("name", name.partition(".")[0]) if "." in name else None
    return _Known(short, loosely=True) if short is not None and not matching else None


def propose(
    root: Root, repository: str, pattern: str, *, client: str = "", plan: str = ""
) -> Proposal:
    """Return who would get which archives of a repository; changes nothing.

    ``client`` and ``plan`` are names, or templates with the pattern's fields; empty means the
    fields ``hostname`` or ``client``, and ``plan``, if the pattern has them. A plan must be of
    that repository, and its client is the archive's. Raises InvalidInput.
    """
    tokens = parse(pattern)
    fields = {token.field for token in tokens if token.field}
    plan = plan or ("{plan}" if "plan" in fields else "")
    client = client or next((f"{{{n}}}" for n in ("client", "hostname") if n in fields), "")
    if not plan and not client:
        raise InvalidInput("Neither the pattern nor you say whose the archives are.",
                           next_step="Give a plan or a client.", field="plan")  # fmt: skip
    for template, what in ((plan, "plan"), (client, "client")):
        _filled(template, dict.fromkeys(fields, ""), what=what)
    proposal = Proposal()
    clients: dict[str, _Known | None] = {}
    readings: list[_Reading] = []

    def known_client(name: str) -> _Known | None:
        if name not in clients:
            clients[name] = _client_named(root, name)
        return clients[name]

    for archive in root.archives.oldest("repository", repository):
        if archive.plan:
            proposal.taken += 1
        elif in_sight(archive):
            found, problem = _read(root, archive, tokens, client, plan, known_client)
            if found is not None:
                readings.append(found)
            elif problem:
                proposal.unknown.append((archive.name, problem))
            else:
                proposal.unmatched.append(archive.name)
    _settle(proposal, readings)
    return proposal


def _settle(proposal: Proposal, readings: list[_Reading]) -> None:
    """Assign what was read, but for hosts that would become one client without a word."""
    hosts: dict[str, set[str]] = {}
    for one in readings:
        hosts.setdefault(one.owner.client, set()).add(one.host)
    for one in readings:
        others = sorted(hosts[one.owner.client] - {one.host})
        if one.loosely and others:
            proposal.unknown.append((
                one.owner.archive, f"{one.host} and {others[0]} would both become client "
                f"{one.owner.client}: give each with a pattern of its own and a client",
            ))  # fmt: skip
        else:
            proposal.assignments.append(one.owner)


def _read(
    root: Root, archive: Archive, tokens: tuple[Token, ...], client: str, plan: str,
    known_client: Callable[[str], _Known | None],
) -> tuple[_Reading | None, str]:  # fmt: skip
    """Return the one way to read a name, or why there is none; two empty: it does not fit."""
    missing, found, behind = "", dict[tuple[str, str], _Reading](), _star_behind(tokens, client)
    for number, values in enumerate(splits(tokens, archive.name)):
        if number >= MAX_SPLITS:
            return None, "it can be read in too many ways: use a pattern that fits once"
        names = (_filled(plan, values, what="plan"), _filled(client, values, what="client"))
        owner, problem = _owner(root, archive, *names, known_client=known_client)
        if owner is None:
            missing = missing or problem
            continue
        known = known_client(names[1]) if names[1] else None
        found.setdefault((owner.client, owner.plan), _Reading(
            owner, names[1], known is not None and known.loosely, values.get(behind, ""),
        ))  # fmt: skip
    if len(found) > 1:
        ways = " or ".join(
            f"{one.owner.client or 'nobody'}{f', plan {one.owner.plan}' * bool(one.owner.plan)}"
            for one in list(found.values())[:4]
        )
        return None, f"it can be read as of {ways}: use a pattern that fits once"
    for one in found.values():
        # `*` behind a host may have swallowed the rest of a longer host's name.
        if one.rest[:1].isalpha():
            return None, (f"it may be of another host than {one.host}: {one.rest[:60]!r} is left; "
                          "use a pattern that says what follows the host")  # fmt: skip
        return one, ""
    return None, missing


def _star_behind(tokens: tuple[Token, ...], client: str) -> str:
    """Return the key of a ``*`` that follows the field of the client at once, or nothing."""
    named = set(_FIELD.findall(client))
    for number, token in enumerate(tokens):
        if token.field in named:
            for behind in range(number + 1, min(number + 3, len(tokens))):
                if tokens[behind].field == "*":
                    return f"*{behind}"
                if not tokens[behind].text:
                    break
    return ""


def _owner(
    root: Root, archive: Archive, plan: str, client: str, *,
    known_client: Callable[[str], _Known | None],
) -> tuple[Assignment | None, str]:  # fmt: skip
    known = known_client(client) if client else None
    owner = known.client if known is not None else None
    if client and owner is None:
        return None, f"there is no client {client}"
    chosen: Plan | None = root.plans.find("name", plan) if plan else None
    if plan and chosen is None:
        return None, f"there is no plan {plan}"
    if chosen is not None and chosen.repository != archive.repository:
        return None, f"plan {plan} is of repository {chosen.repository}"
    if chosen is not None and owner is not None and chosen.client != owner.name:
        return None, f"plan {plan} is of client {chosen.client}"
    name = chosen.client if chosen is not None else owner.name if owner is not None else ""
    return Assignment(
        archive.name, archive.id, archive.repository, archive.start, name, plan
    ), ""  # fmt: skip


def assign(root: Root, one: Assignment) -> None:
    """Give an archive to a client and a plan, as proposed in the same transaction."""
    for archive in root.archives.oldest("id", one.id):
        if archive.repository == one.repository and not archive.plan:
            root.archives.change(archive, client=one.client, plan=one.plan)
            root.record(events_keeping.ArchiveAssigned(
                archive=archive.name, id=archive.id, repository=archive.repository,
                client=one.client, plan=one.plan,
            ))  # fmt: skip
