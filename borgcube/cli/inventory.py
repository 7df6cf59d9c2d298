"""Commands about what there is: repositories, clients, plans."""

from __future__ import annotations

import argparse
import getpass
import sys
from pathlib import Path
from typing import Any

from borgcube.cli import listings, output, settings
from borgcube.cli.control import SLOW_S, Control
from borgcube.cli.paging import every
from borgcube.cli.schedules import HELD
from borgcube.core.errors import BorgCubeError, InvalidInput

MAX_PASSPHRASE = 4096
TIMES_AT_ONCE = 1000


def read_passphrase(options: argparse.Namespace, *, ask: bool) -> str | None:
    """Return the passphrase from the file that was named, or from the terminal."""
    if options.passphrase_file:
        if options.passphrase_file == "-":
            text = sys.stdin.readline(MAX_PASSPHRASE)
        else:
            try:
                with Path(options.passphrase_file).open(encoding="utf-8") as file:
                    text = file.readline(MAX_PASSPHRASE)
            except (OSError, UnicodeDecodeError) as error:
                raise InvalidInput(
                    f"The passphrase file cannot be read: {error}.",
                    next_step="Its first line is the passphrase.",
                ) from error
        passphrase = text.rstrip("\r\n")
        if not passphrase:
            raise InvalidInput("The passphrase file is empty.")
        return passphrase
    if ask and sys.stdin.isatty():
        return getpass.getpass("Passphrase of the repository: ")
    if ask:
        raise InvalidInput("A passphrase is needed.", next_step="Give --passphrase-file FILE.")
    return None


def repository_create(control: Control, options: argparse.Namespace) -> int:
    """Create a repository."""
    params: dict[str, Any] = {
        "name": options.name,
        "path": settings.absolute(options.path),
        "encryption": options.encryption,
        "free_floor_bytes": options.free_floor,
    }
    passphrase = read_passphrase(options, ask=False)
    if passphrase is not None:
        params["passphrase"] = passphrase
    made = control.call("repository.create", timeout_s=SLOW_S, **params)
    if options.json:
        output.as_json(made)
        return 0
    output.say(f"Repository {made['name']} at {made['path']}, {made['encryption']}.")
    if passphrase is None:
        output.say(
            "Its passphrase was generated. Keep a copy away from this machine: "
            f"borgcube repository passphrase {made['name']}"
        )
    return 0


def repository_import(control: Control, options: argparse.Namespace) -> int:
    """Take in a repository that exists already."""
    passphrase = read_passphrase(options, ask=True)
    made = control.call(
        "repository.import", timeout_s=SLOW_S, name=options.name,
        path=settings.absolute(options.path), passphrase=passphrase,
    )  # fmt: skip
    if options.json:
        output.as_json(made)
    else:
        output.say(f"Repository {made['name']} at {made['path']} is taken in.")
    return 0


def repository_list(control: Control, options: argparse.Namespace) -> int:
    """List repositories."""
    found = every(control, "repository.list")
    if options.json:
        output.as_json(found)
    else:
        output.table(
            ["NAME", "PATH", "ENCRYPTION", "ID"],
            [(r["name"], r["path"], r["encryption"], r["repository_id"][:12]) for r in found],
            empty="No repository yet. Make one: borgcube repository create NAME --path DIR",
        )
    return 0


def show(control: Control, options: argparse.Namespace) -> int:
    """Show one client or plan."""
    data = control.call(f"{options.noun}.show", name=options.name)
    if options.json:
        output.as_json(data)
    else:
        if data.get("schedule"):
            times = control.call("timetable.show", plan=options.name)
            data.update({**times, "held": HELD.get(times["held"], "")})
        for key in ("created_at", "next_at", "expected_by"):
            if data.get(key):
                data[key] = output.local_time(data[key])
        output.fields(output.readable({key: value for key, value in data.items() if key != "id"}))
    return 0


SHOWN_DAYS = 14  # of what a repository holds and takes; --json has more


def repository_show(control: Control, options: argparse.Namespace) -> int:
    """Show one repository with what it holds and takes, day by day."""
    data = control.call("repository.show", name=options.name)
    sizes = control.call("repository.sizes", name=options.name)
    if options.json:
        output.as_json({**data, "sizes": sizes})
        return 0
    data["created_at"] = output.local_time(data["created_at"])
    data |= {
        "archives": sizes["archives"],
        "held_by_archives": output.size(sizes["held_bytes"]),
        "taken_on_disk": output.size(sizes["stored_bytes"]),
        "held_to_taken": ratio(sizes["ratio"]),
        "archives_of_unknown_size": sizes["unsized"] or "",
    }
    output.fields(output.readable({key: value for key, value in data.items() if key != "id"}))
    days = sizes["days"][-SHOWN_DAYS:]
    if days:
        output.say("")
        output.table(
            heads := ["DAY", "ARCHIVES", "STORED ANEW", "HELD", "TAKEN", "RATIO"],
            [
                (day["day"], day["archives"], output.size(day["new_bytes"]),
                 output.size(day["held_bytes"]), output.size(day["stored_bytes"]),
                 ratio(day["ratio"]))
                for day in reversed(days)
            ],
            empty="", right=heads[1:],
        )  # fmt: skip
    return 0


def ratio(value: object) -> str:
    """Return how many bytes are held for each that is taken, in words; ``-`` when unknown."""
    return f"{value:.1f} : 1" if isinstance(value, int | float) else "-"


def repository_passphrase(control: Control, options: argparse.Namespace) -> int:
    """Reveal a passphrase."""
    data = control.call("repository.passphrase", name=options.name)
    if options.json:
        output.as_json(data)
    else:
        sys.stdout.write(data["passphrase"] + "\n")
        if sys.stdout.isatty():
            output.console(stderr=True).print(
                f"With it, plain borg opens {data['path']}. This was noted in the journal."
            )
    return 0


def client_add(control: Control, options: argparse.Namespace) -> int:
    """Add a client, and its host keys when asked."""
    made = control.call("client.add", name=options.name, **settings.client_params(options))
    if options.accept_host_key:
        _trust(control, options.name, accept=True)
    if options.json:
        output.as_json(made)
        return 0
    output.say(f"Client {made['name']} added.")
    if made["transport"] != "local" and not options.accept_host_key:
        output.say(f"Next, compare its host key: borgcube client trust {made['name']}")
    return 0


def client_list(control: Control, options: argparse.Namespace) -> int:
    """List clients."""
    found = every(control, "client.list")
    if options.json:
        output.as_json(found)
    else:
        output.table(
            ["NAME", "TRANSPORT", "LOGIN", "BORG", "DOMAIN"],
            [(c["name"], c["transport"], _login(c), c["borg"], c["domain"]) for c in found],
            empty="No client yet. Add one: borgcube client add NAME --transport openssh --host H",
        )
    return 0


def _login(client: dict[str, Any]) -> str:
    if not client["host"]:
        return "this server"
    user = f"{client['user']}@" if client["user"] else ""
    return f"{user}{client['host']}:{client['port']}"


def client_test(control: Control, options: argparse.Namespace) -> int:
    """Log in to a client and look for its borg."""
    if options.steps:
        return _test_steps(control, options)
    answer = control.call("client.test", timeout_s=SLOW_S, name=options.name)
    if options.json:
        output.as_json(answer)
    else:
        output.say(f"Login to {options.name} works; it has {answer['borg_version']}.")
    return 0


def _test_steps(control: Control, options: argparse.Namespace) -> int:
    found = control.call("client.diagnose", timeout_s=SLOW_S, name=options.name)
    if options.json:
        output.as_json(found)
    else:
        for step in found["steps"]:
            output.say(f"{step['state']:<8} {step['name']:<9} {step['said']}".rstrip())
            if step["state"] == "bad":
                output.say(f"{'':<18} {step['next_step']}")
    return 0 if found["good"] else 2


def client_trust(control: Control, options: argparse.Namespace) -> int:
    """Compare and accept the host keys of a client."""
    return _trust(control, options.name, accept=options.yes, fingerprints=options.fingerprint)


def _trust(
    control: Control, name: str, *, accept: bool, fingerprints: list[str] | None = None
) -> int:
    answer = control.call("client.host_keys", timeout_s=SLOW_S, name=name)
    keys = answer["keys"]
    if not keys:
        output.say(f"{name} has no host keys; nothing to do.")
        return 0
    if answer["known"]:
        output.say(f"The host keys of {name} are known already.")
        return 0
    if fingerprints:
        keys = [key for key in keys if key["fingerprint_sha256"] in fingerprints]
        if not keys:
            raise BorgCubeError(
                "The host offers no key with that fingerprint.",
                next_step="Something may sit between you and it: do not go on before you know.",
            )
    for key in keys:
        output.say(f"  {key['type']:<22} {key['fingerprint_sha256']}")
    if not accept and not fingerprints:
        if not sys.stdin.isatty():
            raise InvalidInput(
                "These keys were not accepted.",
                next_step="Compare them, then use --fingerprint SHA256:... or --yes.",
            )
        print("On the client, `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` shows the same.")
        if input("Accept them? [y/N] ").strip().lower() not in ("y", "yes"):
            raise BorgCubeError("Nothing was changed.")
    control.call("client.trust", name=name, lines=[key["line"] for key in keys])
    output.say(f"{len(keys)} host {'key' if len(keys) == 1 else 'keys'} of {name} accepted.")
    return 0


def plan_add(control: Control, options: argparse.Namespace) -> int:
    """Add a plan, or list what it would save."""
    if options.dry_run:
        return listings.dry_run(control, options, options=settings.plan_params(options))
    made = control.call("plan.add", name=options.name, **settings.plan_params(options))
    if options.json:
        output.as_json(made)
    else:
        output.say(f"Plan {made['name']} added. Run it: borgcube backup {made['name']} --wait")
    return 0


def _next(times: dict[str, str] | None) -> str:
    if times is None:
        return "-"
    return HELD.get(times["held"]) or output.local_time(times["next_at"])


def plan_list(control: Control, options: argparse.Namespace) -> int:
    """List plans."""
    found = every(control, "plan.list")
    if options.json:
        output.as_json(found)
    else:
        times: dict[str, Any] = {}
        scheduled = [p["name"] for p in found if p["schedule"]]
        for start in range(0, len(scheduled), TIMES_AT_ONCE):
            some = scheduled[start : start + TIMES_AT_ONCE]
            times.update(control.call("timetable.list", plans=some))
        output.table(
            ["NAME", "CLIENT", "REPOSITORY", "SCHEDULE", "NEXT", "PATHS"],
            [
                (
                    p["name"],
                    p["client"],
                    p["repository"],
                    p["schedule"] or "-",
                    _next(times.get(p["name"])),
                    " ".join(p["paths"]),
                )
                for p in found
            ],
            empty="No plan yet. Add one: borgcube plan add NAME --client C --repository R --path P",
        )
    return 0
