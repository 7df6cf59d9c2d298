"""Commands about BorgCube itself: init, serve, doctor, events, plugins."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

from borgcube.cli import access, output
from borgcube.cli.control import Control
from borgcube.core import config, secrets
from borgcube.core import home as places
from borgcube.core.errors import BorgCubeError, DaemonUnreachable
from borgcube.core.registry import Registry
from borgcube.core.services import ServiceFactory

LEVEL_STYLE = {"error": "red", "warning": "yellow"}


def init(home: Path, options: argparse.Namespace) -> int:
    """Make the home; safe to repeat."""
    new = not (home / "store").is_dir()
    places.init_home(home)
    if options.console:
        access.enable_console(home, options.console)
    link = access.set_up_link(home) if config.load(home).console.enabled else ""
    if options.json:
        output.as_json({"home": str(home), "created": new, "set_up_link": link})
        return 0
    if not new:
        output.say(f"{home} is a BorgCube home already; nothing was replaced.")
        if link:
            access.say_set_up_link(link)
        return 0
    output.say(f"Made {home}: configuration borgcube.toml, store, logs and a master key.")
    output.say(f"Keep a copy of {secrets.key_file(home)} away from this machine.")
    # The usual home need not be named again.
    command = "borgcube" if home == places.resolve_home() else f"borgcube --home {home}"
    output.say(f"Next: {command} serve")
    if link:
        access.say_set_up_link(link)
    else:
        output.say(f"For the web console as well: {command} init --console")
    return 0


def services(home: Path) -> list[ServiceFactory]:
    """Return what runs beside the daemon; only what is enabled is imported at all."""
    found: list[ServiceFactory] = []
    if config.load(home).console.enabled:
        # Pyramid still imports it (docs/dependencies.md); nobody who starts a server can help it.
        warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)
        from borgcube.web.service import ConsoleService

        found.append(ConsoleService)
    return found


def serve(home: Path, _options: argparse.Namespace) -> int:
    """Run the daemon in the foreground, and the console if it is enabled."""
    from borgcube.daemon.main import serve as run

    places.require_home(home)
    beside = services(home)
    print(f"BorgCube serves {home}; its log is {places.log_dir(home) / 'borgcubed.log'}.",
          file=sys.stderr, flush=True)  # fmt: skip
    if beside:
        print(f"The console is at {access.console_url(home)}.", file=sys.stderr, flush=True)
    return run(home, beside)


def _offline(home: Path) -> list[dict[str, str]]:
    """Return what can be said about a home without its daemon."""
    found: list[dict[str, str]] = []

    def say(level: str, message: str, next_step: str) -> None:
        found.append({"level": level, "message": message, "next_step": next_step})

    disabled: tuple[str, ...] = ()
    for check in (places.require_home, config.load, secrets.load_master_key):
        try:
            loaded = check(home)
        except BorgCubeError as error:
            say("error", error.message, error.next_step)
            if check is places.require_home:
                return found
        else:
            if isinstance(loaded, config.Config):
                disabled = tuple(loaded.plugins.disabled)
    if shutil.disk_usage(home).free < places.FULL_BYTES:
        say(
            "error", f"The disk of {home} is full: nothing can be written down.", "Make room there."
        )
    for plugin in Registry.load(disabled=disabled).quarantined:
        say("error", f"Plugin {plugin.name} is in quarantine: {plugin.error}",
            "Mend or remove it, or name it in plugins.disabled.")  # fmt: skip
    if not shutil.which("ssh"):
        say("warning", "No ssh program is installed.", "Install the OpenSSH client.")
    return found


def doctor(home: Path, options: argparse.Namespace) -> int:
    """Say what is wrong and how to mend it."""
    unreachable = False
    try:
        with Control(home) as control:
            found = control.call("doctor")
    except DaemonUnreachable as error:
        unreachable = True
        found = _offline(home)
        found.append({"level": "error", "message": error.message, "next_step": error.next_step})
    except BorgCubeError:
        found = _offline(home)
    if options.json:
        output.as_json(found)
    else:
        from rich.text import Text

        for entry in found:
            line = Text(f"{entry['level']:<8} ", style=LEVEL_STYLE.get(entry["level"], ""))
            line.append(output.harmless(f"{entry['message']} {entry['next_step']}"), "default")
            output.console().print(line)
        if not found:
            output.say("All is well.")
    errors = [entry for entry in found if entry["level"] == "error"]
    if unreachable and len(errors) == 1:
        return 3
    return 2 if errors else 1 if found else 0


def plugins(home: Path, options: argparse.Namespace) -> int:
    """List plugins; from the daemon, or from what is installed when none answers."""
    try:
        with Control(home) as control:
            data = control.call("plugins.list")
    except BorgCubeError:
        disabled: tuple[str, ...] = ()
        if (home / config.FILE_NAME).exists():
            disabled = tuple(config.load(home).plugins.disabled)
        data = Registry.load(disabled=disabled).describe()
        output.complain("No daemon answers; this is what it would load.")
    if options.json:
        output.as_json(data)
        return 0
    output.table(
        ["PLUGIN", "FROM", "HOOKS"],
        [(p["name"], p["distribution"], " ".join(p["hooks"])) for p in data["plugins"]],
        empty="No plugin is loaded.",
    )
    for plugin in data["quarantined"]:
        output.say(
            f"In quarantine: {plugin['name']} (from {plugin['distribution'] or 'unknown'}): "
            f"{plugin['error']}"
        )
    return 1 if data["quarantined"] else 0


def _write(envelope: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(envelope, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def _catch_up(control: Control, seq: int) -> int:
    """Print the journal above ``seq`` and return the last number."""
    while True:
        batch = control.call("events.since", seq=seq, limit=1000)
        for envelope in batch:
            _write(envelope)
            seq = envelope["seq"]
        if len(batch) < 1000:
            return seq


def events(control: Control, options: argparse.Namespace) -> int:
    """Print events, one JSON object a line; gaps are filled from the journal."""
    if not options.follow:
        _catch_up(control, options.since or 0)
        return 0
    bus = control.subscribe()
    last = options.since
    try:
        if last is not None:
            last = _catch_up(control, last)
        while True:
            _topic, payload = bus.recv_multipart()
            envelope = json.loads(payload)
            seq = envelope["seq"]
            if seq is not None and last is not None:
                if seq <= last:
                    continue
                if seq > last + 1:
                    last = _catch_up(control, last)
                    continue
            if seq is not None:
                last = seq
            _write(envelope)
    except KeyboardInterrupt:
        return 130
    finally:
        bus.close(linger=0)


def quiet_exit() -> None:
    """Keep Python from complaining about a closed standard output at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
