"""Pins, and the undo window: archives that are out of sight but still in their repository.

A pruned archive gets ``deleted_at`` and ``delete_after`` and an entry in ``root.trash``,
ordered by the time it goes; the repository knows nothing of it until a prune job really
deletes it. So plain borg sees it until then, and bringing it back costs nothing. Only the
daemon calls what changes; everything here is part of the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from borgcube.core import events, events_keeping
from borgcube.core.errors import InvalidInput
from borgcube.core.model import Archive
from borgcube.core.store import Root

MAX_COMMENT = 500
BY_A_PERSON = "a person deleted it"
MAX_UNDO_HOURS = 24 * 366 * 10


def in_sight(archive: Archive) -> bool:
    """Tell whether an archive is not deleted or about to be."""
    return not archive.deleted_at


def by_a_person(archive: Archive) -> bool:
    """Tell whether a person took an archive out of sight, not a policy."""
    return archive.deleted_because == BY_A_PERSON


def _key(archive: Archive) -> tuple[str, str, str]:
    return archive.delete_after, archive.repository, archive.id


def hide(
    root: Root, archive: Archive, *, hours: int, because: str, policy: str = "", job: str = "",
    now: datetime,
) -> None:  # fmt: skip
    """Take an archive out of sight; it may be deleted after ``hours``. No harm when it is
    hidden already. Raises InvalidInput for a pinned one."""
    if archive.deleted_at:
        return
    if archive.pinned:
        raise InvalidInput(
            f"The archive {archive.name} is pinned: {archive.pinned}.",
            next_step=f"To let it go: borgcube archive unpin {archive.name}",
        )
    archive.deleted_at = now.isoformat(timespec="milliseconds")
    archive.delete_after = (now + timedelta(hours=hours)).isoformat(timespec="milliseconds")
    archive.deleted_because = because
    root.trash[_key(archive)] = root.archives.number_of(archive)
    root.record(
        events_keeping.ArchivePruned(
            archive=archive.name, id=archive.id, repository=archive.repository,
            client=archive.client, plan=archive.plan, policy=policy, job=job, reason=because,
            delete_after=archive.delete_after,
        )
    )  # fmt: skip


def forget(root: Root, archive: Archive) -> None:
    """Take the entry of an archive out that is gone or stays."""
    if archive.deleted_at and _key(archive) in root.trash:
        del root.trash[_key(archive)]


def bring_back(root: Root, archive: Archive) -> None:
    """Bring a hidden archive back into sight. Raises InvalidInput for one that is not hidden."""
    if not archive.deleted_at:
        raise InvalidInput(f"The archive {archive.name} is not deleted.")
    forget(root, archive)
    archive.deleted_at = archive.delete_after = archive.deleted_because = ""
    root.record(
        events_keeping.ArchiveUndeleted(
            archive=archive.name, id=archive.id, repository=archive.repository,
            client=archive.client, plan=archive.plan,
        )
    )  # fmt: skip


def pin(root: Root, archive: Archive, comment: str) -> None:
    """Keep an archive whatever its policy says. Raises InvalidInput."""
    if archive.deleted_at:
        raise InvalidInput(
            f"The archive {archive.name} is deleted and goes at {archive.delete_after[:16]} UTC.",
            next_step=f"First: borgcube archive undelete {archive.name}",
        )
    comment = comment.strip()
    if not comment or len(comment) > MAX_COMMENT or not comment.isprintable():
        raise InvalidInput(
            "A pin needs a comment of one line, so that others know why.", field="comment"
        )
    archive.pinned, archive.pinned_at = comment, events.now()
    root.record(
        events_keeping.ArchivePinned(
            archive=archive.name, id=archive.id, repository=archive.repository,
            client=archive.client, plan=archive.plan, comment=comment,
        )
    )  # fmt: skip


def unpin(root: Root, archive: Archive) -> None:
    """Let the policy decide again. Raises InvalidInput for an archive without a pin."""
    if not archive.pinned:
        raise InvalidInput(f"The archive {archive.name} is not pinned.")
    archive.pinned = archive.pinned_at = ""
    root.record(
        events_keeping.ArchiveUnpinned(
            archive=archive.name, id=archive.id, repository=archive.repository,
            client=archive.client, plan=archive.plan,
        )
    )  # fmt: skip


def due(root: Root, *, now: datetime, repository: str | None = None) -> list[Archive]:
    """Return hidden archives whose time is over, of one repository or of all."""
    until = now.astimezone(UTC).isoformat(timespec="milliseconds")
    return waiting(root, until=until, repository=repository)


def waiting(
    root: Root, *, until: str = "9", repository: str | None = None, limit: int = 100_000,
    where: Callable[[Archive], bool] = lambda _archive: True,
) -> list[Archive]:  # fmt: skip
    """Return up to ``limit`` hidden archives of which ``where`` is true, those that go first at
    the beginning."""
    found: list[Archive] = []
    for key, number in list(root.trash.items(max=(until, "\U0010ffff", ""))):
        archive = root.archives.rows.get(number)
        if archive is None or not archive.deleted_at or repository not in (None, key[1]):
            continue
        if where(archive):
            found.append(archive)
            if len(found) == limit:
                break
    return found
