"""A version changes with any value, and with nothing else."""

from __future__ import annotations

from borgcube.core.model import Plan
from borgcube.core.versions import version_of


def test_a_version_changes_with_every_field_and_stays_without_a_change() -> None:
    first = Plan(name="p", paths=("/etc",)).as_data()
    assert version_of(first) == version_of(Plan(name="p", paths=("/etc",)).as_data())
    versions = {version_of(first)}
    for name, value in first.items():
        other = {bool: not value, int: 7, list: ["/x"]}.get(type(value), "other")
        versions.add(version_of({**first, name: other}))
    assert len(versions) == len(first) + 1


def test_a_version_does_not_mind_the_order_of_fields() -> None:
    data = Plan(name="p").as_data()
    assert version_of(dict(reversed(data.items()))) == version_of(data)
