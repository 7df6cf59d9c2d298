"""Control methods for clients."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from borgcube.core import clocks, events
from borgcube.core.authority import serverside
from borgcube.core.model import Client
from borgcube.core.options import checked_options
from borgcube.daemon import checks, hostkeys, removing
from borgcube.daemon.control import method
from borgcube.daemon.orders import find

if TYPE_CHECKING:
    from borgcube.daemon.main import Daemon


class ClientMethods:
    """client.*"""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    @method("client.add")
    def add(
        self, *, name: str, transport: str, host: str = "", port: int = 22, user: str = "",
        identity: str = "", borg: str = "borg", domain: str = "",
        options: dict[str, Any] | None = None, max_job_bytes: int = 0, max_total_bytes: int = 0,
        max_files: int = 0, max_duration_s: int = 0, max_sessions: int = 0,
        network: str = "",
    ) -> dict[str, Any]:  # fmt: skip
        """Add a client; a limit of 0 is none."""
        client = Client(
            name=name, transport=transport, host=host, port=port, user=user,
            identity=identity, borg=borg, domain=domain, options=options or {},
            max_job_bytes=max_job_bytes, max_total_bytes=max_total_bytes, max_files=max_files,
            max_duration_s=max_duration_s, max_sessions=max_sessions, network=network,
            created_at=events.now(),
        )  # fmt: skip
        transports = self._daemon.registry.transports
        checks.check_client(client.as_data(), transports=transports)
        client.options = checked_options(transports[transport], client.options)
        checks.check_identity(identity)
        with self._daemon.store.transact() as root:
            checks.refuse_duplicate(root.clients, name, what="client")
            root.clients.add(client)
            root.record(events.ClientAdded(client=name, transport=transport))
            return client.as_data()

    @method("client.set")
    def set(
        self, *, name: str, transport: str | None = None, host: str | None = None,
        port: int | None = None, user: str | None = None, identity: str | None = None,
        borg: str | None = None, domain: str | None = None,
        options: dict[str, Any] | None = None, max_job_bytes: int | None = None,
        max_total_bytes: int | None = None, max_files: int | None = None,
        max_duration_s: int | None = None, max_sessions: int | None = None,
        network: str | None = None, version: str = "",
    ) -> dict[str, Any]:  # fmt: skip
        """Change what is given; jobs that run already keep what they began with.

        ``version`` is that of the record the caller saw (``core.versions``); a client that
        was changed since is left alone.
        """
        values = checks.given({
            "transport": transport, "host": host, "port": port, "user": user,
            "identity": identity, "borg": borg, "domain": domain, "options": options,
            "max_job_bytes": max_job_bytes, "max_total_bytes": max_total_bytes,
            "max_files": max_files, "max_duration_s": max_duration_s,
            "max_sessions": max_sessions, "network": network,
        })  # fmt: skip
        checks.check_identity(identity or "")
        with self._daemon.store.transact() as root:
            client = find(root.clients, name, what="client")
            checks.check_version(client, version, what="client")
            checks.check_client(
                {**client.as_data(), **values}, transports=self._daemon.registry.transports
            )
            if "options" in values or values.get("transport", client.transport) != client.transport:
                chosen = self._daemon.registry.transports[values.get("transport", client.transport)]
                values["options"] = checked_options(chosen, values.get("options", client.options))
            before = self._daemon.registry.transports.get(client.transport)
            fields = checks.change(root.clients, client, values)
            if "transport" in fields:
                serverside.remember(root, name, before, at=events.now())
            if {"host", "port"} & set(fields):
                # They were compared with another machine's.
                root.clients.change(client, host_keys=())
            root.after_commit(lambda: self._daemon.hosts.cancel(name))
            checks.record_change(root, events.ClientChanged, name, fields, what="client")
            root.after_commit(self._daemon.dispatcher.wake)
            data: dict[str, Any] = client.as_data()
            return data

    @method("client.remove")
    def remove(self, *, name: str, with_plans: bool = False, version: str = "") -> dict[str, Any]:
        """Forget a client that no job uses; its archives stay, and so does the history of
        its jobs. Its plans go too only if that is asked for. A key that was made for it is
        deleted."""
        with self._daemon.store.transact() as root:
            client = find(root.clients, name, what="client")
            checks.check_version(client, version, what="client")
            plans = removing.remove_plans_of(root, "client", name, allowed=with_plans)
            checks.refuse_in_use(root, what="client", name=name)
            root.clients.remove(client)
            transport = self._daemon.registry.transports.get(client.transport)
            serverside.remember(root, name, transport, at=events.now())
            clocks.forget(root, name)
            root.record(events.ClientRemoved(client=name))
            root.after_commit(lambda: self._forget_key(name, client.identity))
            root.after_commit(lambda: self._daemon.hosts.cancel(name))
        return {"removed": name, "plans": plans}

    def _forget_key(self, name: str, identity: str) -> None:
        """Delete the key pair that was made for a client; a person's own key is not ours."""
        directory = self._daemon.home / "keys" / name
        if Path(identity).parent == directory:
            shutil.rmtree(directory, ignore_errors=True)

    @method("client.list")
    def every(self, *, limit: int = checks.MAX_LISTED, after: str = "", find: str = "") -> Any:
        """Return up to 1000 clients by name; ``after``, the last one's name, gives the next."""
        with self._daemon.store.reading() as root:
            return checks.listed(root.clients, limit=limit, after=after, find=find)

    @method("client.show")
    def show(self, *, name: str) -> dict[str, Any]:
        """Return one client."""
        with self._daemon.store.transact() as root:
            data: dict[str, Any] = find(root.clients, name, what="client").as_data()
            return data

    @method("client.trust")
    def trust(self, *, name: str, lines: list[str]) -> dict[str, Any]:
        """Accept host keys a person has compared; they replace older ones of their type."""
        with self._daemon.store.transact() as root:
            client = find(root.clients, name, what="client")
            keys = hostkeys.accepted(lines, host=client.host, port=client.port)
            kept = hostkeys.merged(client.host_keys, keys)
            root.clients.change(client, host_keys=kept)
            prints = [key.fingerprint for key in keys]
            root.record(events.ClientTrusted(client=name, fingerprints=prints))
        return {"trusted": len(keys)}
