"""Asking before what is not easily undone: a page that says what it means, with one button.

The button sends the same form once more with a word for yes; nothing is done before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

TEMPLATE = "borgcube.plugins.console:templates/asking.jinja2"
YES = "sure"


def is_sure(request: Any) -> bool:
    """Return whether the form is that of the page that asked."""
    return bool(request.POST.get(YES) == "yes")


def page(
    request: Any, title: Any, *, lines: Sequence[Any], button: Any, back: str,
    danger: bool = False, facts: Mapping[Any, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return what the page shows: a question, what it means, and facts by their label."""
    return {"title": title, "lines": lines, "button": button, "back": back, "danger": danger,
            "facts": facts or {}}  # fmt: skip
