"""What somebody who sees some clients only is shown of what names more than these.

A job may concern two clients: a restore of one onto another is seen by who sees both. What the
server says in its own words (causes, warnings, logs) may name a repository's place, which is the
server's; it is named by the repository instead. Pure; the console, the API and the live feed ask.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from borgcube.core.access import Identity, Permission

if TYPE_CHECKING:
    from borgcube.core.model import Job
    from borgcube.core.store import Root

NOBODYS = frozenset({""})


def clients_of(root: Root, job: Job) -> frozenset[str]:
    """Return the clients that a job concerns: the one that it runs on or for, and that of the
    archive it reads. Nobody's (the empty name) when nothing says any more whose that was."""
    found, given = frozenset({str(job.client)}), job.parameters
    if given.get("of_client") is not None:
        return found | {str(given["of_client"])}
    if "target" not in given:
        return found
    # A restore that an older release began did not note whose archive it reads.
    return found | (frozenset(
        str(one.client) for one in root.archives.oldest("name", str(given.get("archive") or ""))
        if one.repository == job.repository
    ) or NOBODYS)  # fmt: skip


def sees_job(me: Identity, root: Root, job: Job) -> bool:
    """Return whether a job exists for ``me``."""
    return not me.limited or all(me.sees(client) for client in clients_of(root, job))


def of_jobs(me: Identity, root: Root) -> Callable[[Any], bool] | None:
    """Return what leaves out the jobs of a list that ``me`` may not see; None if none are."""
    return (lambda job: sees_job(me, root, job)) if me.limited else None


class Words:
    """The server's own words as ``me`` may read them."""

    def __init__(self, me: Identity, root: Root) -> None:
        self._places: list[tuple[re.Pattern[str], str]] = []
        self.all_shown = me.may(Permission.VIEW_SERVER)
        if self.all_shown:
            return
        # The longer first: one repository can be below another's directory.
        known = sorted(root.repositories.rows.values(), key=lambda one: -len(str(one.path)))
        for one in known:
            path = str(one.path).rstrip("/")
            if path:
                self._places.append(
                    (re.compile(re.escape(path) + r"(?![\w-]|\.\w)"), f"[repository {one.name}]")
                )

    def text(self, said: str) -> str:
        """Return a text without the places of repositories."""
        for place, name in self._places:
            said = place.sub(name, said)
        return said

    def found(self, lines: list[str], looked_for: str) -> list[str]:
        """Return the lines in which that is found as they are shown: what is put otherwise
        cannot be guessed by looking for it."""
        shown = [self.text(line) for line in lines]
        if self.all_shown:
            return shown
        return [line for line in shown if looked_for.casefold() in line.casefold()]

    def report(self, text: str, report: Mapping[str, Any] | None) -> str:
        """Return the text of a drill's report without the server's place and system, which
        those of older releases have."""
        if self.all_shown:
            return text
        system = str(((report or {}).get("versions") or {}).get("system") or "")
        return self.text(text.replace(system, "-") if system else text)

    def data(self, value: Any) -> Any:
        """Return plain data in which every text is so; what is no text stays."""
        if not self._places:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {key: self.data(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self.data(one) for one in value]
        return value
