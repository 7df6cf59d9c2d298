"""Control methods for repositories."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from borgcube.core import deduplication, events, lifecycle
from borgcube.core.engines import RepositoryFacts
from borgcube.core.errors import Duplicate, InvalidInput, NotFound
from borgcube.core.model import Repository
from borgcube.core.model.names import check_name
from borgcube.daemon import checks, queue, removing, statedirs
from borgcube.daemon.archives import archive_from, archive_number
from borgcube.daemon.control import Later, method
from borgcube.daemon.dispatcher import passphrase_context
from borgcube.daemon.orders import find

if TYPE_CHECKING:
    from borgcube.daemon.main import Daemon


DEFAULT_FLOOR = Repository.free_floor_bytes


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
            raise InvalidInput(f"{path!r} is not an absolute path.", field="path")
        with self._daemon.store.transact() as root:
            checks.refuse_duplicate(root.repositories, name, what="repository")
            for other in root.repositories.rows.values():
                if other.path == str(place):
                    raise Duplicate(f"{place} is the repository {other.name!r} already.",
                                    field="path")  # fmt: skip
        if self._reserved & {name, str(place)}:
            raise Duplicate(f"{name!r} is being created.", next_step="Wait for it.")
        self._reserved |= {name, str(place)}
        return place

    def _later(
        self, work: Callable[[Path], Any], *, name: str, path: Path, engine: str,
        passphrase: str, imported: bool, free_floor_bytes: int = DEFAULT_FLOOR,
    ) -> Later:  # fmt: skip
        # Ours: what the engine keeps of this one is known by it from the first look on.
        identity = secrets.token_hex(12)
        state = statedirs.of(self._daemon.home, engine, identity)
        recorded: list[str] = []

        def finish(facts: RepositoryFacts) -> dict[str, Any]:
            sealed = self._daemon.keys.seal(passphrase, context=passphrase_context(name))
            repository = Repository(
                id=identity, name=name, path=str(path), engine=engine, repository_id=facts.id,
                encryption=facts.encryption, passphrase=sealed, created_at=events.now(),
                free_floor_bytes=free_floor_bytes,
            )  # fmt: skip
            with self._daemon.store.transact() as root:
                statedirs.refuse_copy(root, repository)
                root.repositories.add(repository)
                root.record(events.RepositoryCreated(
                    repository=name, engine=engine, encryption=facts.encryption,
                    imported=imported,
                ))  # fmt: skip
                for entry in facts.archives:
                    archive = archive_from(entry, repository=name)
                    lifecycle.add_archive(root, archive, number=archive_number(archive.at))
                data: dict[str, Any] = repository.as_data()
            recorded.append(identity)
            return data

        def always() -> None:
            self._reserved.difference_update({name, str(path)})
            if not recorded:
                shutil.rmtree(state, ignore_errors=True)

        return Later(lambda: work(state), finish, always)

    @method("repository.create")
    def create(
        self, *, name: str, path: str, encryption: str = "auto",
        passphrase: str | None = None, engine: str = "",
        free_floor_bytes: int = DEFAULT_FLOOR,
    ) -> Later:  # fmt: skip
        """Create a repository; a passphrase is generated when none is given."""
        checks.check_size(free_floor_bytes, what="free_floor_bytes")
        engine, made = self._engine(engine)
        secret = passphrase or secrets.token_urlsafe(32)
        place = self._prepare(name, path)

        def work(state: Path) -> Any:
            return made.create(place, encryption=encryption, passphrase=secret, state_dir=state)

        return self._later(
            work, name=name, path=place, engine=engine, passphrase=secret, imported=False,
            free_floor_bytes=free_floor_bytes,
        )  # fmt: skip

    @method("repository.measure", audited=False)
    def measure(self, *, engine: str = "") -> Later:
        """Return how fast this machine does each encryption mode, in bytes a second."""
        _, made = self._engine(engine)
        return Later(lambda: dict(made.measure()))

    @method("repository.set")
    def set(
        self, *, name: str, free_floor_bytes: int | None = None, version: str = ""
    ) -> dict[str, Any]:
        """Change what is given; a running vault is replaced as soon as no job uses it.

        ``version`` is that of the record the caller saw (``core.versions``); a repository
        that was changed since is left alone.
        """
        values = checks.given({"free_floor_bytes": free_floor_bytes})
        checks.check_size(values["free_floor_bytes"], what="free_floor_bytes")
        with self._daemon.store.transact() as root:
            repository = find(root.repositories, name, what="repository")
            checks.check_version(repository, version, what="repository")
            fields = checks.change(root.repositories, repository, values)
            checks.record_change(root, events.RepositoryChanged, name, fields, what="repository")
            data: dict[str, Any] = repository.as_data()
        if fields:
            self._daemon.dispatcher.vaults.retire(name)
        return data

    @method("repository.import")
    def take_in(self, *, name: str, path: str, passphrase: str, engine: str = "") -> Later:
        """Take in an existing repository with its archives."""
        engine, made = self._engine(engine)
        place = self._prepare(name, path)

        def work(state: Path) -> Any:
            return made.inspect(place, passphrase=passphrase, state_dir=state)

        return self._later(
            work, name=name, path=place, engine=engine, passphrase=passphrase, imported=True
        )

    @method("repository.remove")
    def remove(self, *, name: str, with_plans: bool = False, version: str = "") -> dict[str, Any]:
        """Forget a repository that no job uses: its settings, its passphrase and the records
        of its archives. Nothing in its directory is touched. Its plans go too only if that
        is asked for."""
        with self._daemon.store.transact() as root:
            repository = find(root.repositories, name, what="repository")
            checks.check_version(repository, version, what="repository")
            checks.refuse_in_use(root, what="repository", name=name)
            plans = removing.remove_plans_of(root, "repository", name, allowed=with_plans)
            archives = list(root.archives.oldest("repository", name))
            for archive in archives:
                lifecycle.forget_archive(root, archive)
            root.repositories.remove(repository)
            queue.set_limit(root, "repository", name, 0)
            root.record(events.RepositoryRemoved(
                repository=name, path=repository.path, archives=len(archives)
            ))  # fmt: skip
            path = repository.path
        self._daemon.dispatcher.vaults.retire(name)
        return {"removed": name, "path": path, "plans": plans, "archives": len(archives)}

    @method("repository.list")
    def every(self, *, limit: int = checks.MAX_LISTED, after: str = "", find: str = "") -> Any:
        """Return up to 1000 repositories by name; ``after``, the last name, gives the next."""
        with self._daemon.store.reading() as root:
            return checks.listed(root.repositories, limit=limit, after=after, find=find)

    @method("repository.show")
    def show(self, *, name: str) -> dict[str, Any]:
        """Return one repository."""
        with self._daemon.store.reading() as root:
            data: dict[str, Any] = find(root.repositories, name, what="repository").as_data()
            return data

    @method("repository.sizes", audited=False)
    def sizes(self, *, name: str) -> dict[str, Any]:
        """Return what a repository holds and takes, day by day, as ``core.deduplication.describe``
        says it, and how many ``archives`` it has."""
        with self._daemon.store.reading() as root:
            find(root.repositories, name, what="repository")
            told = deduplication.describe(root.fleet.repository(name), now=datetime.now(UTC))
            return {"archives": root.archives.count(repository=name), **told}

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
