"""Where an engine keeps what belongs to one repository: by our record, never by its own word.

0.1.0 had one directory for all repositories of an engine, in which each was known by the ID that it
claimed. Two with one ID, a copy as well as a forgery, shared their counters, caches and locks. What
such a home has is moved when the daemon starts.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from borgcube.core import home as places
from borgcube.core.errors import BorgCubeError, Duplicate
from borgcube.core.model import Repository
from borgcube.core.registry import Registry
from borgcube.core.store import Root, Store

LOG = logging.getLogger(__name__)


def of(home: Path, engine: str, identity: str) -> Path:
    """Return the directory of the repository whose record has that identity."""
    return places.repository_state_dir(places.engine_state_dir(home, engine), identity)


def first_with(root: Root, engine: str, repository_id: str) -> Repository | None:
    """Return the record that was the first with an ID of a repository, None without one."""
    if not repository_id:
        return None
    for found in root.repositories.rows.values():  # in the order in which they were added
        if found.engine == engine and found.repository_id == repository_id:
            known: Repository = found
            return known
    return None


def refuse_copy(root: Root, repository: Repository) -> None:
    """Raise Duplicate when another record, added before, has the ID of this repository: two
    copies of one repository have one key and would encrypt with the same counters."""
    first = first_with(root, repository.engine, repository.repository_id)
    if first is None or first.name == repository.name:
        return
    raise Duplicate(
        f"The repository at {repository.path} is a copy of {first.name}, which lies at "
        f"{first.path}: it has the same ID, {repository.repository_id[:16]}.",
        next_step=f"To use the copy instead, remove {first.name} first (borgcube repository remove "
        "deletes no data) and import the copy. Two copies of one repository must never both be "
        "written to.",
        field="path",
    )


def _is_first(root: Root, repository: Repository) -> bool:
    first = first_with(root, repository.engine, repository.repository_id)
    return first is not None and first.name == repository.name


def adopt_one(home: Path, engine: Any, *, identity: str, repository_id: str) -> None:
    """Have an engine move what 0.1.0 kept of a repository; raises OSError when it cannot."""
    if hasattr(engine, "adopt_state"):
        shared, own = places.engine_state_dir(home, engine.name), of(home, engine.name, identity)
        engine.adopt_state(shared, own, repository_id=repository_id)


def adopt(home: Path, store: Store, registry: Registry) -> None:
    """Do so for all repositories. One that cannot be moved now is before its vault starts."""
    with store.reading() as root:
        known = [
            (one.name, one.engine, one.id, one.repository_id)
            for one in root.repositories.rows.values()
            if _is_first(root, one)
        ]
    for name, kind, identity, repository_id in known:
        engine = registry.engines.get(kind)
        try:
            adopt_one(home, engine, identity=identity, repository_id=repository_id)
        except (BorgCubeError, OSError) as error:
            LOG.error("repository %s: what is kept of it could not be moved: %s", name, error)
