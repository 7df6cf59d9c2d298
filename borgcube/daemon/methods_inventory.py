"""Control methods for what people set up: repositories, clients and plans."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from borgcube.core import events, lifecycle
from borgcube.core import home as places
from borgcube.core.engines import RepositoryFacts
from borgcube.core.errors import Duplicate, InvalidInput, NotFound
from borgcube.core.model import Client, Plan, Repository
from borgcube.core.model.names import check_name
from borgcube.core.transports import TransportContext
from borgcube.daemon import hostkeys
from borgcube.daemon.control import Later, method
from borgcube.daemon.dispatcher import passphrase_context
from borgcube.daemon.orders import address_of, find
from borgcube.daemon.results import archive_from, archive_number

if TYPE_CHECKING:
    from borgcube.daemon.main import Daemon

MAX_LISTED = 10_000


def refuse_duplicate(table: Any, name: str, *, what: str) -> None:
    """Raise Duplicate when the name is taken."""
    if table.find("name", name) is not None:
        raise Duplicate(f"There is a {what} {name!r} already.", next_step="Choose another name.")


def listed(table: Any) -> list[dict[str, Any]]:
    """Return all records of a small table, in the order of their names."""
    return sorted((r.as_data() for r in table.newest(MAX_LISTED)), key=lambda d: str(d["name"]))


class RepositoryMethods:
    """repository.*"""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._reserved: set[str] = set()  # names and paths of what the pool is creating

    def _engine(self, name: str) -> tuple[str, Any]:
        engines = self._daemon.registry.engines
        chosen = name or next(iter(sorted(engines)), "")
        if chosen not in engines:
            raise NotFound(f"There is no engine {chosen!r}.", next_step="See: borgcube plugins")
        return chosen, engines[chosen]

    def _prepare(self, name: str, path: str) -> Path:
        check_name(name, what="repository")
        place = Path(os.path.normpath(path))
        if not place.is_absolute():
            raise InvalidInput(f"{path!r} is not an absolute path.")
        with self._daemon.store.transact() as root:
            refuse_duplicate(root.repositories, name, what="repository")
            for other in root.repositories.newest(MAX_LISTED):
                if other.path == str(place):
                    raise Duplicate(f"{place} is the repository {other.name!r} already.")
        if self._reserved & {name, str(place)}:
            raise Duplicate(f"{name!r} is being created.", next_step="Wait for it.")
        self._reserved |= {name, str(place)}
        return place

    def _later(
        self, work: Any, *, name: str, path: Path, engine: str, passphrase: str, imported: bool
    ) -> Later:
        def finish(facts: RepositoryFacts) -> dict[str, Any]:
            sealed = self._daemon.keys.seal(passphrase, context=passphrase_context(name))
            repository = Repository(
                name=name, path=str(path), engine=engine, repository_id=facts.id,
                encryption=facts.encryption, passphrase=sealed, created_at=events.now(),
            )  # fmt: skip
            with self._daemon.store.transact() as root:
                root.repositories.add(repository)
                root.record(events.RepositoryCreated(
                    repository=name, engine=engine, encryption=facts.encryption,
                    imported=imported,
                ))  # fmt: skip
                for entry in facts.archives:
                    archive = archive_from(entry, repository=name)
                    lifecycle.add_archive(root, archive, number=archive_number(archive.start))
                return repository.as_data()

        return Later(work, finish, lambda: self._reserved.difference_update({name, str(path)}))

    @method("repository.create")
    def create(
        self, *, name: str, path: str, encryption: str = "auto",
        passphrase: str | None = None, engine: str = "",
    ) -> Later:  # fmt: skip
        """Create a repository; a passphrase is generated when none is given."""
        engine, made = self._engine(engine)
        secret = passphrase or secrets.token_urlsafe(32)
        place = self._prepare(name, path)
        state = places.engine_state_dir(self._daemon.home, engine)

        def work() -> Any:
            return made.create(place, encryption=encryption, passphrase=secret, state_dir=state)

        return self._later(
            work, name=name, path=place, engine=engine, passphrase=secret, imported=False
        )

    @method("repository.import")
    def take_in(self, *, name: str, path: str, passphrase: str, engine: str = "") -> Later:
        """Take in an existing repository with its archives."""
        engine, made = self._engine(engine)
        place = self._prepare(name, path)
        state = places.engine_state_dir(self._daemon.home, engine)

        def work() -> Any:
            return made.inspect(place, passphrase=passphrase, state_dir=state)

        return self._later(
            work, name=name, path=place, engine=engine, passphrase=passphrase, imported=True
        )

    @method("repository.list")
    def every(self) -> Any:
        """Return all repositories."""
        with self._daemon.store.transact() as root:
            return listed(root.repositories)

    @method("repository.show")
    def show(self, *, name: str) -> dict[str, Any]:
        """Return one repository."""
        with self._daemon.store.transact() as root:
            data: dict[str, Any] = find(root.repositories, name, what="repository").as_data()
            return data

    @method("repository.passphrase")
    def passphrase(self, *, name: str) -> dict[str, str]:
        """Reveal a passphrase; the journal notes it."""
        with self._daemon.store.transact() as root:
            repository = find(root.repositories, name, what="repository")
            secret = self._daemon.keys.unseal(
                repository.passphrase, context=passphrase_context(name)
            )
            root.record(events.RepositoryPassphraseRevealed(repository=name))
            return {"name": name, "path": repository.path, "passphrase": secret}


class ClientMethods:
    """client.*"""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    @method("client.add")
    def add(
        self, *, name: str, transport: str, host: str = "", port: int = 22, user: str = "",
        identity: str = "", borg: str = "borg", domain: str = "",
        options: dict[str, Any] | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Add a client."""
        check_name(name, what="client")
        if domain:
            check_name(domain, what="domain")
        transports = self._daemon.registry.transports
        if transport not in transports:
            raise NotFound(
                f"There is no transport {transport!r}.",
                next_step=f"Choose one of: {', '.join(sorted(transports))}.",
            )
        if transport != "local" and not host:
            raise InvalidInput("This transport needs a host.", next_step="Give --host.")
        for value, what in ((host, "host"), (user, "user"), (borg, "borg")):
            # A leading dash would be read as an option by the programs it is given to.
            if value.startswith("-") or any(not char.isprintable() for char in value):
                raise InvalidInput(f"{what} {value[:80]!r} is not usable.")
        if not 1 <= port <= 65535:
            raise InvalidInput("port must be between 1 and 65535.")
        if identity and not Path(identity).is_file():
            raise InvalidInput(f"There is no identity file {identity!r} on the server.")
        with self._daemon.store.transact() as root:
            refuse_duplicate(root.clients, name, what="client")
            client = Client(
                name=name, transport=transport, host=host, port=port, user=user,
                identity=identity, borg=borg, domain=domain, options=options or {},
                created_at=events.now(),
            )  # fmt: skip
            root.clients.add(client)
            root.record(events.ClientAdded(client=name, transport=transport))
            return client.as_data()

    @method("client.list")
    def every(self) -> Any:
        """Return all clients."""
        with self._daemon.store.transact() as root:
            return listed(root.clients)

    @method("client.show")
    def show(self, *, name: str) -> dict[str, Any]:
        """Return one client."""
        with self._daemon.store.transact() as root:
            data: dict[str, Any] = find(root.clients, name, what="client").as_data()
            return data

    def _reach(self, name: str) -> tuple[Any, Any, TransportContext, str]:
        with self._daemon.store.transact() as root:
            client = find(root.clients, name, what="client")
            address, borg = address_of(client), client.borg
        transport = self._daemon.registry.transports.get(address.transport)
        if transport is None:
            raise NotFound(f"There is no transport {address.transport!r}.",
                           next_step="See: borgcube plugins")  # fmt: skip
        # One directory for each call: two of them may log in to the same client.
        directory = places.private_directory(
            places.runtime_dir(self._daemon.home) / f"ctl-{secrets.token_hex(4)}"
        )
        known = places.known_hosts_file(self._daemon.home)
        return transport, address, TransportContext(known, directory), borg

    @method("client.host_keys")
    def host_keys(self, *, name: str) -> Later:
        """Return the keys the host offers, unverified, for a person to compare."""
        transport, address, context, _ = self._reach(name)

        def finish(lines: Any) -> dict[str, Any]:
            trusted = hostkeys.trusted_lines(context.known_hosts)
            keys = [hostkeys.describe(line) for line in lines]
            return {"keys": keys, "known": all(key["line"] in trusted for key in keys)}

        return Later(
            lambda: transport.scan_host_keys(address, context), finish,
            lambda: hostkeys.remove_directory(context.runtime_dir),
        )  # fmt: skip

    @method("client.trust")
    def trust(self, *, name: str, lines: list[str]) -> dict[str, Any]:
        """Accept host keys a person has compared; they replace older ones of their type."""
        with self._daemon.store.transact() as root:
            client = find(root.clients, name, what="client")
            hosts = {client.host, f"[{client.host}]:{client.port}"}
            keys = [hostkeys.describe(line, hosts=hosts) for line in lines]
            if not keys:
                raise InvalidInput("No host key was given.")
            hostkeys.trust(places.known_hosts_file(self._daemon.home), keys)
            prints = [key["fingerprint_sha256"] for key in keys]
            root.record(events.ClientTrusted(client=name, fingerprints=prints))
        return {"trusted": len(keys)}

    @method("client.test")
    def test(self, *, name: str) -> Later:
        """Log in and ask for the version of borg."""
        transport, address, context, borg = self._reach(name)
        engines = self._daemon.registry.engines
        if not engines:
            raise NotFound("No repository engine is loaded.", next_step="See: borgcube plugins")
        kind, engine = sorted(engines.items())[0]
        state = places.engine_state_dir(self._daemon.home, kind)

        def work() -> dict[str, Any]:
            connection = transport.connect(address, context)
            try:
                said = engine.probe(connection, borg=borg, state_dir=state)
            finally:
                connection.close()
            return {"ok": True, "borg_version": said}

        return Later(work, always=lambda: hostkeys.remove_directory(context.runtime_dir))


class PlanMethods:
    """plan.*"""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    @method("plan.add")
    def add(
        self, *, name: str, client: str, repository: str, paths: list[str],
        excludes: list[str] | None = None, patterns: list[str] | None = None,
        exclude_caches: bool = False, exclude_if_present: list[str] | None = None,
        one_file_system: bool = False, compression: str = "lz4",
        upload_ratelimit_kib: int = 0, numeric_ids: bool = False, atime: bool = False,
        sparse: bool = False, comment: str = "", files_cache: str = "ctime,size",
        retries: int = 0, retry_delay_s: int = 60, idle_timeout_s: int = 900,
        max_duration_s: int = 14 * 86400,
    ) -> dict[str, Any]:  # fmt: skip
        """Add a plan."""
        check_name(name, what="plan")
        if not paths:
            raise InvalidInput("A plan needs at least one path.", next_step="Give --path.")
        for path in paths:
            if not path.startswith("/") or any(ord(char) < 32 for char in path):
                raise InvalidInput(f"{path[:80]!r} is not an absolute path.")
        for text in [*(excludes or []), *(patterns or []), *(exclude_if_present or [])]:
            if not text or any(ord(char) < 32 for char in text):
                raise InvalidInput(f"{text[:80]!r} is not a usable pattern.")
        if not compression or compression.startswith("-") or not compression.isprintable():
            raise InvalidInput(f"{compression[:80]!r} is not a compression.")
        if files_cache not in ("ctime,size", "mtime,size", "disabled"):
            raise InvalidInput("files_cache must be ctime,size or mtime,size or disabled.")
        if min(retries, retry_delay_s, upload_ratelimit_kib) < 0 or retries > 100:
            raise InvalidInput("retries, delay and rate limit must not be negative.")
        if min(idle_timeout_s, max_duration_s) < 1:
            raise InvalidInput("idle timeout and longest duration must be a second or more.")
        with self._daemon.store.transact() as root:
            refuse_duplicate(root.plans, name, what="plan")
            find(root.clients, client, what="client")
            find(root.repositories, repository, what="repository")
            plan = Plan(
                name=name, client=client, repository=repository, paths=tuple(paths),
                excludes=tuple(excludes or ()), patterns=tuple(patterns or ()),
                exclude_caches=exclude_caches,
                exclude_if_present=tuple(exclude_if_present or ()),
                one_file_system=one_file_system, compression=compression,
                upload_ratelimit_kib=upload_ratelimit_kib, numeric_ids=numeric_ids,
                atime=atime, sparse=sparse, comment=comment, files_cache=files_cache,
                retries=retries, retry_delay_s=retry_delay_s, idle_timeout_s=idle_timeout_s,
                max_duration_s=max_duration_s, created_at=events.now(),
            )  # fmt: skip
            root.plans.add(plan)
            root.record(events.PlanAdded(plan=name, client=client, repository=repository))
            return plan.as_data()

    @method("plan.list")
    def every(self) -> Any:
        """Return all plans."""
        with self._daemon.store.transact() as root:
            return listed(root.plans)

    @method("plan.show")
    def show(self, *, name: str) -> dict[str, Any]:
        """Return one plan."""
        with self._daemon.store.transact() as root:
            data: dict[str, Any] = find(root.plans, name, what="plan").as_data()
            return data
