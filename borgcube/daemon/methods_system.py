"""Control methods about the daemon itself: ping, bus, events, plugins, doctor."""

from __future__ import annotations

import os
import shutil
import threading
from typing import TYPE_CHECKING, Any

from borgcube import __version__
from borgcube.core import home as places
from borgcube.core.errors import InvalidInput
from borgcube.daemon import conditions, storage, troubles
from borgcube.daemon.control import method

if TYPE_CHECKING:
    from borgcube.daemon.main import Daemon

LOW_SPACE_BYTES = 1 << 30
SAID = {
    storage.MISSING: ("is not there", "Is the disk mounted?"),
    storage.HANGS: ("does not answer", "Look at its disk, or at the server that it is on."),
    storage.READ_ONLY: (
        "is read-only: it takes no backups and nothing can be deleted; restores, drills, "
        "downloads and checks go on",
        "Find out why: file systems with errors are mounted read-only. Then remount it, or give "
        "BorgCube's user the right to write there.",
    ),
}


class SystemMethods:
    """Methods that change nothing."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._journal = conditions.JournalWatch()
        self._looking = threading.Lock()  # the watch looks too, in its thread
        self._storage = storage.Storage()

    @method("ping")
    def ping(self) -> dict[str, Any]:
        """Say who answers."""
        with self._daemon.store.transact() as root:
            server_id = str(root.settings["server_id"])
        return {"version": __version__, "pid": os.getpid(), "home": str(self._daemon.home),
                "server_id": server_id}  # fmt: skip

    @method("bus")
    def bus(self) -> dict[str, Any]:
        """Say where events are published."""
        return {"endpoint": places.bus_endpoint(self._daemon.home)}

    @method("events.since")
    def events_since(self, *, seq: int = 0, limit: int = 1000) -> list[dict[str, Any]]:
        """Return journalled envelopes above ``seq``."""
        if seq < 0 or limit < 1:
            raise InvalidInput("events.since: seq must be at least 0 and limit at least 1.")
        with self._daemon.store.transact() as root:
            return root.journal.since(seq, limit)

    @method("plugins.list")
    def plugins_list(self) -> dict[str, Any]:
        """Return loaded plugins with their hooks, and those in quarantine."""
        return self._daemon.registry.describe()

    @method("doctor")
    def doctor(self) -> list[dict[str, str]]:
        """Return what is wrong here, worst first; empty when all is well."""
        return [{name: text for name, text in one.items() if name != "about"}
                for one in self.conditions()]  # fmt: skip

    def conditions(self) -> list[dict[str, str]]:
        """Return the same, marked where it is an incident of its own kind (``about``).

        Only looks, so it may be called in any thread; the watch does so.
        """
        found: list[dict[str, str]] = []

        def say(level: str, message: str, next_step: str, **more: str) -> None:
            found.append({"level": level, "message": message, "next_step": next_step, **more})

        registry = self._daemon.registry
        for plugin in registry.quarantined:
            say(
                "error",
                f"Plugin {plugin.name} is in quarantine: {plugin.error}",
                "Mend or remove it and restart the daemon, or name it in plugins.disabled.",
            )
        if not registry.engines:
            say("error", "No repository engine is loaded.", "See: borgcube plugins")
        if not registry.transports:
            say("error", "No transport is loaded.", "See: borgcube plugins")
        for service in self._daemon.services:
            if service.problem:
                say("error", f"The {service.name} does not run: {service.problem}",
                    "Mend it and restart the daemon.")  # fmt: skip
        if self._daemon.housekeeping.problem:
            say("warning", f"The store is not packed: {self._daemon.housekeeping.problem}",
                "It grows until it is: borgcube store pack")  # fmt: skip
        free = shutil.disk_usage(self._daemon.home).free
        if free < places.FULL_BYTES:
            say("error", f"The disk of {self._daemon.home} is full: nothing can be written down.",
                "Make room there: jobs fail, and no change is taken until there is.")  # fmt: skip
        elif free < LOW_SPACE_BYTES:
            say("error", f"Less than 1 GiB is free at {self._daemon.home}.", "Make room.")
        with self._daemon.store.reading() as root:
            paths = [(r.name, r.path, r.free_floor_bytes) for r in root.repositories.newest(1000)]
            unknown = [(name, root.clients.find("transport", name).name,
                        root.clients.count(transport=name))
                       for name in root.clients.values("transport")
                       if name not in registry.transports]  # fmt: skip
        seen = self._storage.see(path for _, path, _ in paths)
        told = set()
        for name, path, floor in paths:
            if seen[path].state:
                told.add(name)
                say("error", f"Repository {name}: {path} {SAID[seen[path].state][0]}.",
                    SAID[seen[path].state][1])  # fmt: skip
            if seen[path].state in (storage.MISSING, storage.HANGS):
                continue
            free = seen[path].free
            if free < floor:
                say(
                    "error",
                    f"Repository {name}: {free >> 20} MiB are free at {path}, less than its "
                    f"floor of {floor >> 20} MiB; it takes no backups.",
                    "Make room, delete archives, or see: borgcube repository set --help",
                    about="space",
                )
            elif free < LOW_SPACE_BYTES:
                say("warning", f"Repository {name}: less than 1 GiB is free at {path}.",
                    "Delete archives or make room.", about="space")  # fmt: skip
        for transport, client, count in unknown:
            others = f" and {count - 1} more" if count > 1 else ""
            say("error", f"Client {client}{others}: there is no transport {transport}.",
                "See: borgcube plugins")  # fmt: skip
        with self._daemon.store.reading() as root:
            with self._looking:
                found += self._journal.look(root)
            found += conditions.statuses(root)
            found += conditions.rules(root)
            found += conditions.clients(root)
            found += conditions.unpruned(root)
            found += conditions.quarantined(root)
            problems = self._daemon.dispatcher.vaults.problems
            found += troubles.findings(root, problems=dict(problems), said=told)
            records = [
                (r.name, r.path, r.encryption) for r in root.repositories.newest(1000)
                if seen.get(r.path, storage.Seen(storage.MISSING)).state not in (
                    storage.MISSING, storage.HANGS)
            ]  # fmt: skip
        found += self._daemon.scheduler.findings()
        found += conditions.private_files(self._daemon.home)
        found += conditions.repositories(records)
        found += conditions.engines(registry)
        if not shutil.which("ssh"):
            say("warning", "No ssh program is installed.", "Install the OpenSSH client.")
        return sorted(found, key=lambda one: one["level"])
