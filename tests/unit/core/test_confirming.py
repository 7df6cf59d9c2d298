"""When a person is asked again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from borgcube.core import confirming
from borgcube.core.model import Session, Token, User

NOW = datetime.now(UTC)


def at(minutes: float) -> Session:
    return Session(confirmed_at=(NOW - timedelta(minutes=minutes)).isoformat())


@pytest.mark.parametrize(("minutes", "fresh"), [(0, True), (9.9, True), (10, False), (-5, False)])
def test_a_password_is_good_for_ten_minutes(minutes: float, fresh: bool) -> None:
    assert confirming.is_fresh(at(minutes), now=NOW) is fresh
    assert not confirming.is_fresh(Session(), now=NOW)


def test_only_the_first_password_of_oneself_needs_none() -> None:
    bare, other = User(name="ada"), User(name="ada", password="x")

    def needed(method: str, user: User, **params: str) -> bool:
        return confirming.needed(method, params, session=Session(), user=user)

    assert not needed("user.password", bare, name="ada")
    assert needed("user.password", bare, name="bob") and needed("user.password", other, name="ada")
    assert needed("user.change", bare, name="ada") and not needed("plan.set", other, name="x")


def test_a_token_of_an_older_release_may_what_it_might_and_a_new_one_what_was_ticked() -> None:
    """The store of an older release has no field ``whole``."""
    old = Token(name="x")
    assert "whole" not in old.__dict__ and old.permissions is None
    assert Token(scope=("view",)).permissions == {"view"}
    assert Token(whole=False).permissions == frozenset()
