"""Is a directory from outside built as Borg builds a repository? Looked at before it is opened.

Borg follows links and opens whatever has the right name. When it opens a repository it deletes
segments of a transaction that was not finished, and it moves and deletes them later: with a link
in their place these would be another repository's. Imports no borg, opens nothing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from borgcube.core.errors import JobFailed, Problem
from borgcube.core.untrusted import words

MAX_DEPTH = 3  # the repository, data/, its directories, their segments


def _refused(what: str, next_step: str) -> JobFailed:
    return JobFailed("repository-unusable", Problem.REPOSITORY, what, next_step=next_step)


def check(repository: Path) -> None:
    """Raise JobFailed ``repository-unusable`` when there is anything but files and directories
    of the expected size."""
    for place, entry, facts in _entries(repository):
        name = words(os.fsdecode(os.path.relpath(entry.path, repository)))
        if stat.S_ISLNK(facts.st_mode):
            raise _refused(
                f"{name} in the repository at {repository} is a link.",
                "Borg makes none. If you did, put what it leads to in its place: BorgCube takes in "
                "no repository that reaches out of its own directory.",
            )
        if not (stat.S_ISREG(facts.st_mode) or stat.S_ISDIR(facts.st_mode)):
            raise _refused(
                f"{name} in the repository at {repository} is neither a file nor a directory.",
                "Borg makes nothing of the kind: take it out of there.",
            )
        if place == 0 and entry.name == "config" and facts.st_size > 1 << 20:
            raise _refused(
                f"The configuration of the repository at {repository} is larger than any.",
                "Put back the file config that Borg made.",
            )


def _entries(repository: Path) -> Iterator[tuple[int, os.DirEntry[str], os.stat_result]]:
    waiting = [(0, os.fspath(repository))]
    while waiting:
        depth, place = waiting.pop()
        with os.scandir(place) as found:
            for entry in found:
                facts = entry.stat(follow_symlinks=False)
                yield depth, entry, facts
                if stat.S_ISDIR(facts.st_mode) and depth < MAX_DEPTH:
                    waiting.append((depth + 1, entry.path))
