"""The fence round a borg that extracts on this server: what it may write, how much, or why not.

Called by ``push.py`` for every restore; of one to another machine it says that there is none.
``borgcube doctor`` asks through the engine whether a fence can be built here.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from borgcube.core import config, fence
from borgcube.core.errors import JobFailed, Problem
from borgcube.core.fence import Fence
from borgcube.core.jobs import JobContext
from borgcube.core.transports import Connection

# What an archive may take beyond what it says it has: blocks that are not full, directories,
# attributes; directories that lead to what was selected.
SPARE_BYTES, SPARE_SHARE = 64 << 20, 1.05
BLOCKS_FOR_EACH = 4
SPARE_FILES = 10_000


TRIED_EVERY_S, FIRST_ANSWER_S = 3600.0, 2.0


class _Tried:
    """Whether a fence can be built here: tried once an hour, in a thread of its own."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._known: dict[str, Any] | None = None
        self._at = 0.0

    def _try(self) -> None:
        self._known = fence.offered()

    def answer(self) -> dict[str, Any]:
        """Return what is known, or nothing as long as the first try goes on."""
        now = time.monotonic()
        if self._thread is None or now - self._at > TRIED_EVERY_S:
            self._at = now
            self._thread = threading.Thread(target=self._try, name="fence", daemon=True)
            self._thread.start()
        if self._known is None:
            self._thread.join(FIRST_ANSWER_S)
        return self._known or {}


_tried = _Tried()


def conditions() -> list[tuple[str, str, str]]:
    """Say what restores and drills on this server have to do without."""
    problem = _tried.answer().get("problem")
    if not problem:
        return []
    return [(
        "warning", "This server cannot fence off what extracts archives: restores to it and "
        f"drills are refused, or run without a fence where that is allowed ({problem}).",
        fence.WITHOUT,
    )]  # fmt: skip


def is_here(context: JobContext, connection: Connection) -> bool:
    """Tell whether what a job extracts is extracted on this server."""
    server_side = bool(context.order.parameters.get("server_side"))
    return server_side or bool(getattr(connection, "runs_here", False))


def fence_for(
    context: JobContext, connection: Connection, terms: Mapping[str, Any], *, borg: str
) -> Fence | None:
    """Return the fence of a restore whose target exists, or None where there is to be none.

    ``terms`` are the session's: ``size`` and ``files`` of what is selected. Raises JobFailed for a
    target that holds BorgCube's own files.
    """
    options = context.order.parameters
    if not is_here(context, connection):
        return None
    if options.get("unfenced"):
        context.log("warning", "borg extracts without a fence: an administrator asked for it")
        return None
    if config.load(context.home).jobs.unfenced:
        problem = fence.offered().get("problem")
        if problem:
            context.log("warning", f"borg extracts without a fence: {problem}")
            return None
    target = os.path.realpath(str(options["target"]))
    hidden = tuple(
        os.path.realpath(path)
        for path in (str(context.home), str(context.order.repository.get("path") or ""))
        if path and os.path.isdir(path)
    )
    needed = tuple(sorted({*_program_places(borg)}))
    for path in ("/", *hidden, *needed, sys.prefix, sys.base_prefix):
        if _holds(target, os.path.realpath(path)):
            raise JobFailed(
                "target-unusable", Problem.CONFIGURATION,
                f"The directory {target} holds {path}, which what is restored must not change.",
                next_step="Choose another directory; an administrator can use "
                "`borgcube restore --unfenced`.",
            )  # fmt: skip
    files, paths = int(terms["files"]), options.get("paths") or ()
    block = os.statvfs(target).f_frsize
    context.log("info", f"borg extracts in a fence: of this server's files it can change {target}")
    return Fence(
        target=target, hidden=hidden, needed=needed,
        bytes=int(int(terms["size"]) * SPARE_SHARE) + BLOCKS_FOR_EACH * block * files + SPARE_BYTES,
        files=2 * files + sum(str(path).count("/") + 1 for path in paths) + SPARE_FILES,
        as_root=not options.get("server_side") or bool(options.get("as_root")),
    )  # fmt: skip


def program(borg: str) -> str:
    """Return the path of the borg that is started in a fence, which sees another PATH's links."""
    return shutil.which(borg) or borg


def _program_places(borg: str) -> list[str]:
    found = shutil.which(borg)
    if found is None:
        return []
    return [os.path.dirname(os.path.abspath(found)), os.path.dirname(os.path.realpath(found))]


def _holds(target: str, path: str) -> bool:
    return path == target or path.startswith(target.rstrip("/") + "/")


def failure(code: int | None, around: Fence, said: Sequence[str]) -> JobFailed | None:
    """Return why the fence ended borg, or None when it did not."""
    if code is not None and code != 0 and any("MemoryError" in one for one in said[-3:]):
        return JobFailed(
            "fence-limit", Problem.SERVER,
            f"borg needed more than the {around.memory >> 20:,} MiB of memory that BorgCube gives "
            "it.",
            next_step="Restore to the client instead, and please report it.",
        )  # fmt: skip
    return fence.failure(code, around, said)
