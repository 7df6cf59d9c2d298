"""Control methods about the object store itself: what is in it, and packing it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from borgcube.core.errors import InvalidInput
from borgcube.daemon.control import Later, method
from borgcube.daemon.housekeeping import PACKED

if TYPE_CHECKING:
    from borgcube.daemon.main import Daemon

COUNTED = ("clients", "plans", "repositories", "jobs", "archives", "audit")


class StoreMethods:
    """store.*"""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    @method("store.show")
    def show(self) -> dict[str, Any]:
        """Return where the store is, its size in bytes, what is in it, when it was packed."""
        store = self._daemon.store
        with store.reading() as root:
            counts = {name: getattr(root, name).count() for name in COUNTED}
            events = root.journal.last - root.journal.first + 1
            packed = dict(root.settings.get(PACKED) or {"at": "", "size": 0})
        return {
            "file": str(store.file or ""), "size": store.size,
            "counts": {**counts, "events": events},
            "packed_at": packed["at"], "packed_size": packed["size"],
        }  # fmt: skip

    @method("store.pack")
    def pack(self) -> Later:
        """Pack the store's file now; jobs and pages go on."""
        store, before = self._daemon.store, self._daemon.store.size
        if before is None:
            raise InvalidInput(
                "This store is not a file of this machine.",
                next_step="Pack it with the tools of its database.",
            )

        def finish(_: Any) -> dict[str, Any]:
            return {"before": before, "after": self._daemon.housekeeping.note_packed()["size"]}

        return Later(store.pack, finish)
