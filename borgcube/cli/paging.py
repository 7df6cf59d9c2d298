"""Whole lists from control methods that answer page by page: never one huge answer."""

from __future__ import annotations

from typing import Any

from borgcube.cli.control import Control

PAGE = 1000


def every(control: Control, method: str, *, limit: int | None = None, key: str = "name",
          **params: Any) -> list[dict[str, Any]]:  # fmt: skip
    """Return all that a listing has, or up to ``limit``; ``key`` names what comes next."""
    found: list[dict[str, Any]] = []
    while limit is None or len(found) < limit:
        size = PAGE if limit is None else min(PAGE, limit - len(found))
        after = {"after": found[-1][key]} if found else {}
        page = control.call(method, limit=size, **params, **after)
        found += page
        if len(page) < size:
            break
    return found
