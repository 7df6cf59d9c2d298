"""From an exception in the vault to the typed cause that a job ends with."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from borgcube.core import memory
from borgcube.core.errors import FailureCause, JobFailed, Problem
from borgcube.plugins.borg.vault.items import ArchiveRefused
from borgcube.plugins.borg.vault.memory import out_of_memory

# A vault that cannot write gives up with all that it had not committed.
AGAIN = "then run the job again: what was not committed is sent anew"
NO_ROOM = f"Make room on its storage, {AGAIN}."
_REPOSITORY_STEPS = {
    errno.ENOSPC: NO_ROOM,
    errno.EDQUOT: f"Raise its quota, {AGAIN}.",
    errno.EROFS: f"Its storage is mounted read-only: find out why, remount it, {AGAIN}.",
}


class HomeWriteError(OSError):
    """BorgCube's own directory, not the repository, cannot be written."""


@contextmanager
def home_writes(*, reads_repository: bool = False) -> Iterator[None]:
    """Mark an OSError inside as one of BorgCube's own directory.

    Where the repository is read too, only errors that no reading makes are marked.
    """
    try:
        yield
    except HomeWriteError:
        raise
    except OSError as error:
        if reads_repository and error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        raise HomeWriteError(error.errno, error.strerror or str(error)) from error


def cause_of(error: BaseException) -> FailureCause:
    """Return what a person is told about ``error``."""
    if isinstance(error, JobFailed):
        return error.cause
    if isinstance(error, ArchiveRefused) and error.kind == "archive-too-large":
        return FailureCause(
            error.kind,
            Problem.SERVER,
            f"{str(error)[:1].upper()}{str(error)[1:]}.",
            "Split the plan into several: each backup then has a part of the files.",
        )
    if isinstance(error, ArchiveRefused):
        return FailureCause(
            error.kind,
            Problem.CLIENT,
            str(error),
            "Set the clock that is wrong, then run the backup again; what was stored is reused."
            if error.kind == "client-clock"
            else "Look at the client: stock borg does not do this.",
        )
    if memory.is_shortage(error):
        return out_of_memory().cause
    if isinstance(error, HomeWriteError):
        return FailureCause(
            "home-write-failed",
            Problem.SERVER,
            f"The home of BorgCube cannot be written: {error.strerror or error}.",
            f"Make room in BORGCUBE_HOME, {AGAIN}.",
        )
    if type(error).__name__ == "InsufficientFreeSpaceError":
        # Borg wants room for its next index, and to compact one segment, before it commits.
        needed, free = error.args[:2]
        return FailureCause(
            "repository-write-failed",
            Problem.REPOSITORY,
            f"The repository cannot be written: Borg wants {needed} free to commit, "
            f"there is {free}.",
            NO_ROOM,
        )
    if isinstance(error, OSError) and error.errno not in _REPOSITORY_STEPS:
        return FailureCause(
            "repository-storage-failed",
            Problem.REPOSITORY,
            f"The storage of the repository fails: {error.strerror or error}.",
            f"Look at the disk, and run a check; {AGAIN}.",
        )
    if isinstance(error, OSError):
        return FailureCause(
            "repository-write-failed",
            Problem.REPOSITORY,
            f"The repository cannot be written: {error.strerror or error}.",
            _REPOSITORY_STEPS[error.errno or 0],
        )
    return FailureCause(
        "internal-error",
        Problem.SERVER,
        f"{type(error).__name__} in the vault.",
        "See the vault's log.",
    )


def as_answer(error: BaseException) -> dict[str, Any]:
    """Return the cause as an answer on the wire."""
    return {"error": cause_of(error).as_data()}
