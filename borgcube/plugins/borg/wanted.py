"""The paths of a plan as its client has them: which are there, and which are only links.

Borg saves a symbolic link that it is given as the link, not as what it leads to. Whoever names one
means what is behind it, mostly; so a backup and a dry run say it.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from borgcube.core.errors import JobFailed, Problem
from borgcube.core.untrusted import words


@dataclass(frozen=True)
class Wanted:
    """Of the paths of an order: those that are ``missing``, and those that are symbolic links,
    each with what the client says it leads to."""

    missing: list[str] = field(default_factory=list)
    links: Mapping[str, bytes] = field(default_factory=dict)

    def require_one(self, paths: Sequence[str]) -> None:
        """Raise JobFailed when none of the paths is there."""
        if len(self.missing) == len(paths):
            raise JobFailed(
                "path-missing", Problem.CONFIGURATION,
                f"No path of the plan exists on the client: {', '.join(self.missing)}.",
                next_step="Correct the plan's paths.",
            )  # fmt: skip

    def only_links(self, paths: Sequence[str]) -> Iterator[str]:
        """Yield a warning for each link whose target is not in the plan as well."""
        taken = [posixpath.normpath(path) for path in paths if path not in self.links]
        for path, said in self.links.items():
            bare = posixpath.normpath(path)
            target = posixpath.normpath(
                posixpath.join(posixpath.dirname(bare), os.fsdecode(said) or ".")
            )
            if said and any(
                target == one or target.startswith(f"{one.rstrip('/')}/") for one in taken
            ):
                continue
            where = f"to {words(target, limit=300)}" if said else "to somewhere"
            yield (
                f"{words(bare, limit=300)}: it is a symbolic link {where}, and the link alone is "
                "saved; put what it leads to into the plan"
            )
