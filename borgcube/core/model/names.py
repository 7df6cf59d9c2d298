"""Names that people give to clients, repositories and plans."""

from __future__ import annotations

import re

from borgcube.core.errors import InvalidInput

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_name(value: object, *, what: str = "name") -> str:
    """Return ``value`` if it is a name, else raise InvalidInput."""
    if isinstance(value, str) and NAME.fullmatch(value):
        return value
    raise InvalidInput(
        f"{what} {str(value)[:80]!r} is not a valid name.",
        field=what if what in ("domain", "network") else "name",
        next_step="Use up to 64 letters, digits, '.', '_' and '-', beginning with a letter"
        " or digit.",
    )
