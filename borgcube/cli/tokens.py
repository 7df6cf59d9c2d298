"""Commands about API tokens: make one, list them, end one."""

from __future__ import annotations

import argparse

from borgcube.cli import output
from borgcube.cli.control import Control
from borgcube.core.errors import InvalidInput, NotFound


def token_add(control: Control, options: argparse.Namespace) -> int:
    """Make an API token for a user and print it, once."""
    if not options.scope:
        raise InvalidInput(
            "A token without a permission can do nothing.",
            next_step="Say what it may, such as --scope view, or --scope all.",
        )
    made = control.call(
        "token.add", name=options.name, user=options.user, days=options.days,
        scope=options.scope, clients=options.client or [],
    )  # fmt: skip
    if options.json:
        output.as_json(made)
    else:
        # Nothing but the token, so that a script can keep it.
        output.say(made["token"])
    return 0


def token_list(control: Control, options: argparse.Namespace) -> int:
    """List API tokens, without what they are."""
    found = control.call("token.list", user=options.user or "")
    if options.json:
        output.as_json(found)
        return 0
    output.table(
        ["USER", "TOKEN", "BEGINS", "MAY", "CLIENTS", "UNTIL", "LAST USED", "FROM"],
        [
            (t["user"], t["name"], f"{t['hint']}...",
             " ".join(t["scope"]) or ("all" if t["whole"] else "nothing"),
             " ".join(t["clients"]) or "all", output.local_time(t["expires_at"]),
             output.local_time(t["last_used_at"]), t["last_used_from"] or "-")
            for t in found
        ],
        empty="No token yet. Make one: borgcube token add NAME --user USER --scope view",
    )  # fmt: skip
    return 0


def token_remove(control: Control, options: argparse.Namespace) -> int:
    """End an API token at once."""
    found = [token for token in control.call("token.list", user=options.user or "")
             if token["name"] == options.name]  # fmt: skip
    if not found:
        raise NotFound(f"There is no token {options.name!r}.", next_step="See: borgcube token list")
    if len(found) > 1:
        users = ", ".join(str(token["user"]) for token in found)
        raise InvalidInput(f"Several users have a token {options.name!r}: {users}.",
                           next_step="Say whose with --user.")  # fmt: skip
    control.call("token.remove", id=found[0]["id"])
    output.say(f"The token {options.name} of {found[0]['user']} has ended.")
    return 0
