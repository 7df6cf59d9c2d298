"""Reads a file of an archive: asks the daemon for the vault, then the vault for the bytes.

For the console and the command line, which are on the daemon's machine. The bytes do not pass
through the daemon; see :mod:`borgcube.daemon.reads`.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from borgcube.core.errors import BorgCubeError, NotFound, Unreadable


class ArchiveFile:
    """The content of one file on its way; whoever has it closes it.

    ``source`` yields exactly ``size`` bytes. When it ends before, what came is not the file:
    the rest is damaged, or the daemon stopped.
    """

    def __init__(self, *, size: int, source: socket.socket, lock: int, place: Path) -> None:
        self.size, self.source = size, source
        self._lock, self._place = lock, place

    def close(self) -> None:
        """Let go of the vault; safe to repeat."""
        self.source.close()
        if self._lock >= 0:
            self._place.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = -1


def open_file(
    call: Callable[..., Any], engines: Mapping[str, Any], *, repository: str, id: str, key: str
) -> ArchiveFile:
    """Open the file with the path ``key`` (percent-encoded) of an archive, by its ID.

    ``call`` asks the daemon. Raises BorgCubeError: NotFound, InvalidInput for what is no
    regular file, TooMany, Unreadable for what is damaged.
    """
    found = call("archive.download", repository=repository, id=id, key=key)
    engine = engines.get(found["engine"])
    place = Path(found["lock"])
    try:
        lock = os.open(place, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise Unreadable("The daemon waited too long for this reader.",
                         next_step="Try again.") from error  # fmt: skip
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        if engine is None:
            raise NotFound(f"There is no engine {found['engine']!r}.",
                           next_step="See: borgcube plugins")  # fmt: skip
        stream = engine.open_file(Path(found["socket"]), archive_id=id, key=key)
    except (BorgCubeError, OSError) as error:
        place.unlink(missing_ok=True)
        os.close(lock)
        if isinstance(error, OSError):
            raise Unreadable("The vault does not answer.",
                             next_step="Try again in a moment.") from error  # fmt: skip
        raise
    return ArchiveFile(size=stream.size, source=stream.source, lock=lock, place=place)
