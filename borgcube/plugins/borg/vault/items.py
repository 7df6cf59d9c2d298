"""Read items of an archive that is ours: encoded by a vault, or looked through before.

Who asks for items of an archive asks :class:`~.known.Known` first. Pure; no repository here.
"""

from __future__ import annotations

from borgcube.plugins.borg.metadata.rules import ArchiveRefused, item_kind
from borgcube.plugins.borg.metadata.stream import ItemReader, read_items

__all__ = ["ArchiveRefused", "ItemReader", "as_ns", "item_kind", "read_items"]


def as_ns(value: int | bytes) -> int:
    """Return a Borg time in nanoseconds; integers may come as little-endian bytes."""
    return int.from_bytes(value, "little", signed=True) if isinstance(value, bytes) else value
