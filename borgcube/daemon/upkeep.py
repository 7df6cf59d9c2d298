"""Starts the vault of a repository that nobody uses, when its engine says that it is due.

What an unfinished backup left has an end although its client never comes back. The
dispatcher calls this; a vault without a job ends by itself when it has been idle.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from borgcube.core.errors import BorgCubeError
from borgcube.core.registry import Registry
from borgcube.core.store import Store
from borgcube.daemon import statedirs

LOG = logging.getLogger(__name__)
LOOK_EVERY_S = 600.0


class Upkeep:
    """Looks every ten minutes which vaults are wanted; ``start`` starts one by name."""

    def __init__(
        self, home: Path, *, store: Store, registry: Registry, start: Callable[[str], None]
    ) -> None:
        self._home, self._store, self._registry = home, store, registry
        self._start = start
        self._look_at = 0.0

    def step(self, *, running: frozenset[str]) -> None:
        """Start what is due and does not run; never waits, raises nothing of a repository."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_EVERY_S
        with self._store.reading() as root:
            known = [
                (one.name, one.engine, one.id, one.repository_id)
                for one in root.repositories.rows.values()
            ]
        for name, engine, identity, repository_id in known:
            if name not in running and self._is_due(engine, identity, repository_id):
                LOG.info("vault %s: started to give up what is over", name)
                try:
                    self._start(name)
                except (BorgCubeError, OSError) as error:
                    LOG.warning("vault %s: not started: %s", name, error)

    def _is_due(self, engine_name: str, identity: str, repository_id: str) -> bool:
        engine = self._registry.engines.get(engine_name)
        ask = getattr(engine, "upkeep_due", None)
        if ask is None or not repository_id:
            return False
        due = ask(statedirs.of(self._home, engine_name, identity), repository_id)
        return due is not None and due <= datetime.now(UTC)
