"""Commands about the console: its users, one-time links, switching it on."""

from __future__ import annotations

import argparse
import getpass
import sys
import tomllib
from pathlib import Path
from urllib.parse import urlencode

import tomli_w

from borgcube.cli import output
from borgcube.cli.control import Control
from borgcube.core import config, setup
from borgcube.core.errors import ConfigurationError, InvalidInput

MAX_PASSWORD = 4096


def console_url(home: Path) -> str:
    """Return the address of the console as configured."""
    from borgcube.web.settings import WebSettings

    return WebSettings.of(config.load(home).console).public_url()


def enable_console(home: Path, listen: str) -> None:
    """Write a ``[console]`` section into the configuration; what is there stays."""
    path = home / config.FILE_NAME
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    section = tomllib.loads(text).get("console", {})
    if section.get("enabled") is True:
        return
    if section:
        raise ConfigurationError(
            f"{path} has a [console] section already.", next_step="Set enabled = true in it."
        )
    wanted = {"console": {"enabled": True, "listen": listen}}
    config.parse({**tomllib.loads(text), **wanted}, path=path)
    # The commented sample has the section's head; TOML allows a section only once.
    kept = text.replace("\n[console]\n", f"\n{tomli_w.dumps(wanted)}", 1)
    if kept == text:
        kept = f"{text}\n{tomli_w.dumps(wanted)}"
    new = path.with_name(f"{path.name}.new")
    new.touch(mode=0o600)
    new.write_text(kept, encoding="utf-8")
    new.replace(path)


def set_up_link(home: Path) -> str:
    """Make a new set-up link; an older one ends."""
    token = setup.make_setup_token(home)
    return f"{console_url(home)}/setup?{urlencode({'token': token})}"


def say_set_up_link(link: str) -> None:
    """Print the link that makes the first administrator."""
    output.say(f"Make the console's first user within {setup.HOURS} hours, once: {link}")


def _password(options: argparse.Namespace) -> str | None:
    if not options.password_file:
        return None
    if options.password_file == "-":
        text = sys.stdin.readline(MAX_PASSWORD)
    else:
        with Path(options.password_file).open(encoding="utf-8") as file:
            text = file.readline(MAX_PASSWORD)
    password = text.rstrip("\r\n")
    if not password:
        raise InvalidInput("The password file is empty.")
    return password


def user_add(control: Control, options: argparse.Namespace) -> int:
    """Add a user of the console."""
    params = {"name": options.name, "role": options.role, "clients": options.client or []}
    password = _password(options)
    if password is not None:
        params["password"] = password
    made = control.call("user.add", **params)
    link = made.pop("link")
    address = f"{console_url(control.home)}/link?{urlencode({'token': link})}" if link else ""
    if options.json:
        output.as_json(made | {"link": address})
        return 0
    output.say(f"User {made['name']}, {made['role']}.")
    if address:
        output.say(f"They log in once with this link, and choose a password: {address}")
    return 0


def user_list(control: Control, options: argparse.Namespace) -> int:
    """List users."""
    found = control.call("user.list")
    if options.json:
        output.as_json(found)
        return 0
    output.table(
        ["USER", "ROLE", "CLIENTS", "CODE", "LAST LOGIN", ""],
        [
            (u["name"], u["role"], " ".join(u["clients"]), "yes" if u["second_factor"] else "no",
             output.local_time(u["last_login_at"]), "disabled" if u["disabled"] else "")
            for u in found
        ],
        empty="No user yet. Make a link for the first one: borgcube console link",
    )  # fmt: skip
    return 0


def user_password(control: Control, options: argparse.Namespace) -> int:
    """Set a user's password; their logins end."""
    password = _password(options)
    if password is None:
        if not sys.stdin.isatty():
            raise InvalidInput("A password is needed.", next_step="Give --password-file FILE.")
        password = getpass.getpass(f"New password of {options.name}: ")
        if getpass.getpass("Again: ") != password:
            raise InvalidInput("The two are different.", next_step="Try again.")
    control.call("user.password", name=options.name, password=password)
    output.say(f"The password of {options.name} is set; their logins have ended.")
    return 0


def user_disable(control: Control, options: argparse.Namespace) -> int:
    """Disable a user; their logins end."""
    control.call("user.disable", name=options.name)
    output.say(f"{options.name} is disabled.")
    return 0


def user_enable(control: Control, options: argparse.Namespace) -> int:
    """Enable a user again."""
    control.call("user.enable", name=options.name)
    output.say(f"{options.name} may log in again.")
    return 0


def user_remove(control: Control, options: argparse.Namespace) -> int:
    """Remove a user with their logins and tokens."""
    control.call("user.remove", name=options.name)
    output.say(f"{options.name} is removed.")
    return 0


def console_link(control: Control, options: argparse.Namespace) -> int:
    """Print a link that logs in once; without any user, one that makes the first."""
    made = control.call("link.make", user=options.user or "", without_code=options.without_code)
    if made["user"]:
        link = f"{console_url(control.home)}/link?{urlencode({'token': made['token']})}"
        text = f"Logs {made['user']} in, once, within {made['minutes']} minutes: {link}"
    else:
        link = set_up_link(control.home)
        text = f"Makes the first user, once, within {setup.HOURS} hours: {link}"
    if options.json:
        output.as_json({"user": made["user"], "link": link})
    else:
        output.say(text)
    if not config.load(control.home).console.enabled:
        output.complain("The console is not enabled.",
                        "Set enabled = true in [console] of borgcube.toml.")  # fmt: skip
    return 0
