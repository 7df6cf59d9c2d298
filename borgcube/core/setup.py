"""The set-up link: lets the holder of the home make the first administrator, once.

``borgcube init --console`` writes only the token's digest and its end into the home, because
no store is open then; the daemon consumes it. There is no default password.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from borgcube.core import credentials
from borgcube.core.errors import AccessDenied

FILE_NAME = "console-setup.json"
HOURS = 24


def make_setup_token(home: Path) -> str:
    """Write a new token's digest into the home and return the token; the older one ends."""
    token = credentials.new_token()
    data = {"digest": credentials.digest(token),
            "expires_at": credentials.in_the_future(hours=HOURS)}  # fmt: skip
    new = home / f"{FILE_NAME}.new"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as out:
        json.dump(data, out)
    new.replace(home / FILE_NAME)
    return token


def check_setup_token(home: Path, token: str) -> None:
    """Raise AccessDenied unless this is the home's token and still good."""
    try:
        data = json.loads((home / FILE_NAME).read_text("utf-8"))
        wanted, expires_at = str(data["digest"]), str(data["expires_at"])
        over = credentials.is_past(expires_at)
    except (OSError, ValueError, KeyError, TypeError):
        wanted, over = "", True
    if over or not credentials.same(wanted, credentials.digest(token)):
        raise AccessDenied(
            "This set-up link is not valid, or was used already.",
            next_step="Make a new one on the server: borgcube console link",
        )


def end_setup_token(home: Path) -> None:
    """Make the token useless."""
    (home / FILE_NAME).unlink(missing_ok=True)
