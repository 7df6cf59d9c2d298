"""The object store: the only door to ZODB.

A unit of work is ``with store.transact() as root``: it commits at the end or aborts on an
exception. Events recorded in it are journalled in the same transaction and handed to
``store.on_committed`` after the commit. Units of work belong to the thread that owns the
store (the daemon's main thread), because those listeners do. Any thread may read: ``with
store.reading() as root`` sees one consistent state over a connection of its own and never
commits.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import transaction
import zodburi
from ZODB.DB import DB
from ZODB.POSException import ConflictError

from borgcube.core import packing, standing
from borgcube.core.errors import StoreError
from borgcube.core.events import Envelope, Event
from borgcube.core.evolution import CORE_STEPS, EvolutionStep
from borgcube.core.journal import Journal
from borgcube.core.model import Fleet, Table, Timetable

DONE_STEPS = "evolution_steps"
Result = TypeVar("Result")
# Of each connection to the store. A connection that is warm is used first, so that few of
# them ever fill up.
CACHED_OBJECTS, CACHED_BYTES, CONNECTIONS = 30_000, 24 << 20, 7


class Root:
    """What a unit of work sees: the tables, the journal and the after-commit hooks."""

    def __init__(self, mapping: Any) -> None:
        self.clients: Table = mapping["clients"]
        self.repositories: Table = mapping["repositories"]
        self.plans: Table = mapping["plans"]
        self.jobs: Table = mapping["jobs"]
        self.archives: Table = mapping["archives"]
        self.journal: Journal = mapping["journal"]
        self.settings: Any = mapping["settings"]
        self.plugins: Any = mapping["plugins"]
        self.users: Table = mapping["users"]
        self.sessions: Table = mapping["sessions"]
        self.links: Table = mapping["links"]
        self.tokens: Table = mapping["tokens"]
        self.audit: Table = mapping["audit"]
        self.fleet: Fleet = mapping["fleet"]
        self.channels: Table = mapping["channels"]
        self.rules: Table = mapping["rules"]
        self.incidents: Table = mapping["incidents"]
        self.deliveries: Table = mapping["deliveries"]
        self.counters: Any = mapping["counters"]
        self.schedules: Table = mapping["schedules"]
        self.tasks: Table = mapping["tasks"]
        self.pauses: Table = mapping["pauses"]
        self.triggers: Table = mapping["triggers"]
        self.timetable: Timetable = mapping["timetable"]
        self.policies: Table = mapping["policies"]
        self.trash: Any = mapping["trash"]
        self.drills: Table = mapping["drills"]
        self.proofs: Table = mapping["proofs"]
        self.held: Any = mapping["held"]  # names of plans whose pruning is on hold
        self.clocks: Any = mapping["clocks"]  # see core.clocks
        self.unread: Any = mapping["unread"]  # see core.rereading
        self.recorded: list[Envelope] = []
        self.callbacks: list[Callable[[], None]] = []

    def record(self, event: Event) -> Envelope:
        """Journal a lifecycle event in this transaction, and keep the fleet's status true."""
        envelope = self.journal.append(event)
        self.recorded.append(envelope)
        standing.follow(self, event)
        return envelope

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called once, after a successful commit."""
        self.callbacks.append(callback)


class Store:
    """An open object store."""

    def __init__(self, db: DB, *, file: Path | None = None) -> None:
        self._db = db
        self._file = file
        self._packing = threading.Lock()
        self.on_committed: Callable[[Envelope], None] = lambda envelope: None

    @classmethod
    def open(
        cls, uri: str, *, steps: Sequence[EvolutionStep] = (),
        cached_objects: int = CACHED_OBJECTS, cached_bytes: int = CACHED_BYTES,
    ) -> Store:  # fmt: skip
        """Open ``uri`` (zodburi) and evolve it; raises StoreError with one clear message.

        Each connection keeps up to ``cached_objects`` objects whose stored size is up to
        ``cached_bytes`` (0: any); what ``uri`` says of its connections comes first.
        """
        try:
            packing.mend(uri)
            factory, options = zodburi.resolve_uri(uri)
            for name, value in (("cache_size", cached_objects), ("pool_size", CONNECTIONS),
                                ("cache_size_bytes", cached_bytes)):  # fmt: skip
                if f"connection_{name}" not in uri:
                    options[name] = value
            storage = factory()
            packing.prepare(storage)
            db = DB(storage, **options)
        except Exception as error:
            raise StoreError(
                f"The store {uri} cannot be opened: {error}.",
                next_step="Is another daemon using it? Check store.uri in borgcube.toml.",
            ) from error
        # Only a FileStorage has its data in one file of that name.
        path = getattr(storage, "_file_name", None)
        store = cls(db, file=Path(path) if path else None)
        try:
            store._evolve((*CORE_STEPS, *steps))
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def join(cls, uri: str) -> Store:
        """Open a store that a daemon owns, for reading from another process.

        Nothing is evolved or written. What the daemon committed before a reading began is
        seen by it. Raises StoreError if the store is in a file (which one process has to
        itself), cannot be reached, or was made by another release.
        """
        scheme = uri.partition(":")[0]
        if scheme in ("file", "memory"):
            raise StoreError(
                f"The store {uri} belongs to one process.",
                next_step="Share it first: run ZEO, and set store.uri to its zeo:// address.",
            )
        if scheme == "zeo" and "read_only=" not in uri:
            uri += f"{'&' if '?' in uri else '?'}read_only=1"
        try:
            factory, options = zodburi.resolve_uri(uri)
            storage = factory()
            if hasattr(storage, "server_sync"):
                # zodburi has no word for it. ZEO tells its clients of a commit a little
                # later; whoever pressed a button would see the page from before it.
                storage.server_sync, storage.sync = True, storage.ping
            store = cls(DB(storage, **options))
        except Exception as error:
            raise StoreError(
                f"The store {uri} cannot be opened: {error}.",
                next_step="Does its server run? Check store.uri in borgcube.toml.",
            ) from error
        with store._mapping(commit=False) as mapping:
            done = set(mapping.get(DONE_STEPS, ()))
        core = {step.id for step in CORE_STEPS}
        if core != {step for step in done if step.startswith("core:")}:
            store.close()
            raise StoreError(
                "The store is not that of this release.",
                next_step="Start the daemon of this release first: it brings the store up to date.",
            )
        return store

    def close(self) -> None:
        """Close the store."""
        self._db.close()

    @contextmanager
    def _mapping(self, *, commit: bool = True) -> Iterator[Any]:
        manager = transaction.TransactionManager(explicit=True)
        manager.begin()
        connection = self._db.open(transaction_manager=manager)
        try:
            yield connection.root()
            if commit:
                manager.commit()
            else:
                manager.abort()
        except BaseException:
            manager.abort()
            raise
        finally:
            connection.close()

    @property
    def size(self) -> int | None:
        """Return the bytes of the store's file, None when it is not a file."""
        return self._file.stat().st_size if self._file is not None else None

    @property
    def file(self) -> Path | None:
        """Return the store's file, None when it is not a file of this machine."""
        return self._file

    def pack(self) -> None:
        """Drop what later changes have replaced; any thread may. Reads and changes go on.

        The file is written anew beside the old one, so there must be room for both. Raises
        StoreError when there is not, or when it is being packed already.
        """
        if not self._packing.acquire(blocking=False):
            raise StoreError("The store is being packed already.", next_step="Wait for its end.")
        try:
            if self._file is not None:
                packing.check_room(self._file)
            self._db.pack()
        finally:
            self._packing.release()

    def _evolve(self, steps: Sequence[EvolutionStep]) -> None:
        with self._mapping() as mapping:
            done = tuple(mapping.get(DONE_STEPS, ()))
        known = {step.id for step in CORE_STEPS}
        newer = [step for step in done if step.startswith("core:") and step not in known]
        if newer:
            raise StoreError(
                f"The store was written by a newer BorgCube (step {newer[0]}).",
                next_step="Install that release again, or put back the copy made before it.",
            )
        pending = [step for step in steps if step.id not in done]
        if done and pending:
            self._copy(pending[0].id)
        for step in pending:
            with self._mapping() as mapping:
                step.apply(mapping)
                mapping[DONE_STEPS] = (*mapping.get(DONE_STEPS, ()), step.id)

    def _copy(self, step: str) -> None:
        if self._file is not None:
            target = self._file.with_name(f"{self._file.name}.before-{step.replace(':', '-')}")
            shutil.copy2(self._file, target)

    @contextmanager
    def transact(self) -> Iterator[Root]:
        """Open a unit of work; commits at the end, aborts on any exception."""
        with self._mapping() as mapping:
            root = Root(mapping)
            yield root
        for callback in root.callbacks:
            callback()
        for envelope in root.recorded:
            self.on_committed(envelope)

    @contextmanager
    def reading(self) -> Iterator[Root]:
        """Open one consistent state for reading, in any thread; changes to it are dropped."""
        with self._mapping(commit=False) as mapping:
            yield Root(mapping)

    def run(self, work: Callable[[Root], Result], *, attempts: int = 5) -> Result:
        """Do ``work`` in a unit of work, again on a conflict; raises StoreError at the end."""
        for _ in range(attempts):
            try:
                with self.transact() as root:
                    result = work(root)
            except ConflictError:
                continue
            return result
        raise StoreError("The store stayed busy.", next_step="Try again in a moment.")
