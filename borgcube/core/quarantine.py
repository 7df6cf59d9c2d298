"""Archives in quarantine: what an engine found of them is kept on their records.

An archive that this server did not encode may mean one thing to one reader and something else to
another, or be one that cannot be restored. Its engine says so, with a reason, and leaves it alone;
``docs/quarantine.md`` has it in plain words. Here the reason goes onto the record, and everything
that relies on archives asks here whether one counts. Only the daemon calls what changes; it is
part of the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Mapping

from borgcube.core import events_keeping, trash
from borgcube.core.errors import QUARANTINE_NEXT_STEP, InvalidInput
from borgcube.core.model import Archive
from borgcube.core.store import Root

MENDED, DELETED, SOUND = "mended", "deleted", "sound"  # how a quarantine ends


def counts(archive: Archive) -> bool:
    """Tell whether an archive counts as a backup: neither deleted nor in quarantine."""
    return trash.in_sight(archive) and not archive.quarantine


def require_sound(archive: Archive) -> None:
    """Raise InvalidInput for an archive that is in quarantine."""
    if archive.quarantine:
        raise InvalidInput(
            f"The archive {archive.name} is in quarantine: {archive.quarantine}.",
            next_step=QUARANTINE_NEXT_STEP.format(name=archive.name),
        )


def begin(root: Root, archive: Archive, reason: str, *, job: str = "") -> None:
    """Note that an archive is in quarantine. One that a policy took out of sight comes back:
    no policy deletes it. What a person deleted stays deleted."""
    was, archive.quarantine = archive.quarantine, reason
    if archive.deleted_at and not trash.by_a_person(archive):
        trash.bring_back(root, archive)
    if not was:
        root.record(events_keeping.ArchiveQuarantined(
            archive=archive.name, id=archive.id, repository=archive.repository,
            client=archive.client, plan=archive.plan, job=job, reason=reason,
        ))  # fmt: skip


def end(root: Root, archive: Archive, why: str, *, job: str = "", became: str = "") -> None:
    """Note that an archive is in quarantine no more; no harm when it never was."""
    if archive.quarantine:
        archive.quarantine = ""
        root.record(events_keeping.ArchiveQuarantineEnded(
            archive=archive.name, id=archive.id, repository=archive.repository,
            client=archive.client, plan=archive.plan, job=job, reason=why, became=became,
        ))  # fmt: skip


def settle(
    root: Root, repository: str, reasons: Mapping[str, str], *, complete: bool, job: str = ""
) -> None:
    """Make the records say what an engine says: archive ID -> reason, of those in quarantine.

    Only when it is ``complete``, when every archive was looked through, are the others sound.
    """
    status = root.fleet.repository(repository)
    for key in list(status.quarantined) if complete else ():
        if key not in reasons:
            end(root, root.archives.rows[status.archives[key]], SOUND, job=job)
    for key, reason in reasons.items():
        if key in status.archives:
            archive = root.archives.rows[status.archives[key]]
            if archive.quarantine != reason:
                begin(root, archive, reason, job=job)
