"""What a hostile client tries, each by name, against a :class:`~borgcube.testing.hostile.Peer`.

``calls``, ``chunks`` and ``archives`` fill the list; ``tests/functional/borg/test_hostile.py``
demands that every one is refused and changes nothing, ``python -m bench attack`` measures what
each costs. A name says what must not happen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from borgcube.testing.hostile import Peer

# What two clients have in the repository before an attack, one chunk each: in archive
# "good-1" of client "good" and in "bad-0" of client "bad", from which the attacks come, as
# ROOT/good/file and ROOT/bad/file. There is ROOT/bad/other as well.
SECRET = b"the secret of another client" * 1000
OWN = b"what this client backed up before" * 1000

ATTACKS: list[Attack] = []


@dataclass(frozen=True)
class Attack:
    """``kind`` is what the refusal must be called; ``by`` who must refuse: gate or vault."""

    name: str
    run: Callable[[Peer], object]
    kind: str
    by: str = "gate"
    greet: bool = True
    session: dict[str, Any] = field(default_factory=dict)

    def request(self, root: Path) -> dict[str, Any]:
        """Return what the session is opened with, for clients whose trees are in ``root``."""
        paths = [path.format(root=root) for path in self.session.get("paths", ())]
        return {**self.session, "paths": paths} if paths else self.session


def attack(name: str, *, kind: str, **how: Any) -> Callable[[Callable[[Peer], None]], Any]:
    """Add the decorated function to the list of attacks."""

    def add(function: Callable[[Peer], None]) -> Callable[[Peer], None]:
        ATTACKS.append(Attack(name, function, kind, **how))
        return function

    return add


def attacks(
    form: str,
    values: Mapping[str, Any],
    run: Callable[[Peer, Any], object],
    *,
    kind: str,
    **how: Any,
) -> None:
    """Add one attack for each value; ``form`` makes its name from the value's."""
    for name, value in values.items():
        ATTACKS.append(Attack(form.format(name), _with(run, value), kind, **how))


def _with(run: Callable[[Peer, Any], object], value: Any) -> Callable[[Peer], object]:
    return lambda peer: run(peer, value)


def all_attacks() -> list[Attack]:
    """Return the attacks of all modules, in order."""
    from borgcube.testing.attacks import archives, calls, chunks, items

    assert archives and calls and chunks and items
    return ATTACKS
