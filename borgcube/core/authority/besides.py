"""What a request needs besides, by what it says: the right to delete, when it destroys by a policy.

A policy that keeps less, a shorter undo window and a stricter policy for a plan let archives go
at the next prune as surely as deleting them does. Pure: looks at the store and at the request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from borgcube.core.access import Permission
from borgcube.core.errors import BorgCubeError
from borgcube.core.retention import Rules, hours_within
from borgcube.core.store import Root

MAINTENANCE = frozenset({"check", "compact", "drill", "prune"})


def _kept(count: Any) -> float:
    """Return a count as a number that compares: -1 keeps one of every period."""
    value = count if type(count) is int else 0
    return float("inf") if value < 0 else value


def _hours(within: Any) -> float:
    try:
        return hours_within(str(within)) if within else 0
    except BorgCubeError:
        return 0


def is_stricter(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Return whether a policy may let an archive go that another keeps, or for less long.

    Both are its fields. Another time zone moves the borders of days, and so counts.
    """
    if _hours(new["within"]) < _hours(old["within"]) or new["zone"] != old["zone"]:
        return True
    counts = [one.name for one in fields(Rules) if one.name != "within"] + ["undo_hours"]
    return any(_kept(new[name]) < _kept(old[name]) for name in counts)


def added_policy(root: Root, params: Mapping[str, Any]) -> Permission | None:
    """``retention.add``: making a policy that a plan names already."""
    users = root.plans.oldest("retention", str(params.get("name", "")))
    return Permission.DELETE if next(iter(users), None) is not None else None


def changed_policy(root: Root, params: Mapping[str, Any]) -> Permission | None:
    """``retention.set``: making a policy stricter that a plan has."""
    policy = root.policies.find("name", str(params.get("name", "")))
    if policy is None or next(iter(root.plans.oldest("retention", policy.name)), None) is None:
        return None
    old = policy.as_data()
    new = {**old, **{key: value for key, value in params.items()
                     if key in old and value is not None}}  # fmt: skip
    return Permission.DELETE if is_stricter(new, old) else None


def attached_policy(root: Root, params: Mapping[str, Any]) -> Permission | None:
    """``retention.attach``: giving a plan a policy that is stricter than its own, or its
    first."""
    plan = root.plans.find("name", str(params.get("plan", "")))
    new = root.policies.find("name", str(params.get("policy", "")))
    if plan is None or new is None or plan.retention == new.name:
        return None
    old = root.policies.find("name", plan.retention) if plan.retention else None
    if old is None or is_stricter(new.as_data(), old.as_data()):
        return Permission.DELETE
    return None


def mapping(root: Root, params: Mapping[str, Any]) -> Permission | None:
    """``archive.map``: giving archives to plans where a plan has a policy, which then judges
    them."""
    if not params.get("apply"):
        return None
    of_it = root.plans.oldest("repository", str(params.get("repository", "")))
    return Permission.DELETE if any(plan.retention for plan in of_it) else None


def task(root: Root, params: Mapping[str, Any]) -> Permission | None:
    """``task.*``: what is no maintenance of ours needs what starting it as a job needs. Not
    about destroying, but alike: what is run later asks what running it now would."""
    known = root.tasks.find("name", str(params.get("name", "")))
    kind = str(params.get("type") or (known.type if known is not None else ""))
    return None if kind in MAINTENANCE else Permission.ADMINISTER


def unsaved(_root: Root, params: Mapping[str, Any]) -> Permission | None:
    """``plan.dry_run``: one that is not saved reads whatever it names on the client."""
    return None if params.get("options") is None else Permission.CONFIGURE


def prune(root: Root, params: Mapping[str, Any]) -> Permission | None:
    """``prune.start``: everything but a dry run."""
    return None if params.get("dry_run") else Permission.DELETE


DESTROY = (added_policy, attached_policy, changed_policy, mapping, prune)
