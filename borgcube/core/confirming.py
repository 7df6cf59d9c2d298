"""What a login is asked for once more: what would turn an open browser into more than that.

Before these, a person gives the password or a code again; it counts for ten minutes, and logging
in with either counts as giving it. Tokens cannot be asked: they are secrets that are given with
each request. The console and the API ask this before each action, whatever page or endpoint it
comes from. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from borgcube.core.model import Session, User

GOOD_FOR = timedelta(minutes=10)
METHODS = frozenset({
    "factor.begin", "factor.confirm", "factor.remove",  # with new recovery codes
    "repository.passphrase",
    "user.add", "user.change", "user.password", "user.disable", "user.enable", "user.remove",
    "link.make", "token.add", "token.remove",
})  # fmt: skip


def is_fresh(session: Session, *, now: datetime | None = None) -> bool:
    """Return whether the password or a code was given within the last ten minutes."""
    if not session.confirmed_at:
        return False
    since = (now or datetime.now(UTC)) - datetime.fromisoformat(session.confirmed_at)
    return timedelta(0) <= since < GOOD_FOR


def can_confirm(user: User) -> bool:
    """Return whether there is anything to ask for. Who came with a link and has no password
    yet chooses one first."""
    return bool(user.password) or user.second_factor


def needed(method: str, params: Mapping[str, Any], *, session: Session, user: User) -> bool:
    """Return whether a person has to confirm before ``method``."""
    if method not in METHODS or is_fresh(session):
        return False
    first = method == "user.password" and params.get("name") == user.name and not can_confirm(user)
    return not first
