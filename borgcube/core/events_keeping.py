"""What is said of keeping: retention, the undo window, checks, drills, and what stands out.

Registered and documented with the others; see ``core.events``.
"""

from __future__ import annotations

from dataclasses import dataclass

from borgcube.core.envelope import Event


@dataclass(frozen=True)
class ArchiveSuspicious(Event):
    """A new archive stands out from the history of its plan, whose pruning is on hold now.

    Recorded right after its ``archive.added``. ``kinds`` are stable words, ``reasons`` say the
    same in sentences, worst first; ``docs/checks.md`` explains them.
    """

    TYPE = "archive.suspicious"
    archive: str
    id: str
    repository: str
    client: str
    plan: str
    job: str
    kinds: list[str]
    reasons: list[str]


@dataclass(frozen=True)
class ArchiveQuarantined(Event):
    """An archive was looked through and cannot be relied upon; ``reason`` says why in words.

    It is not restored from, is no plan's last backup, and no policy deletes it.
    ``docs/quarantine.md`` says what to do.
    """

    TYPE = "archive.quarantined"
    archive: str
    id: str
    repository: str
    client: str
    plan: str
    job: str
    reason: str


@dataclass(frozen=True)
class ArchiveQuarantineEnded(Event):
    """An archive is in quarantine no more.

    ``reason`` is ``mended`` (rewritten; ``became`` is the ID that it has now), ``deleted``, or
    ``sound`` (looked through again by newer rules).
    """

    TYPE = "archive.quarantine_ended"
    archive: str
    id: str
    repository: str
    client: str
    plan: str
    job: str
    reason: str
    became: str


@dataclass(frozen=True)
class PlanReleased(Event):
    """Somebody looked at what stood out: the plan may be pruned again.

    ``accepted`` are the archives that now count as usual.
    """

    TYPE = "plan.released"
    plan: str
    accepted: list[str]


@dataclass(frozen=True)
class CheckDamageFound(Event):
    """A check found damage in a repository that was not known before.

    ``chunks`` is how many objects are damaged or missing. ``archives`` are the archives that
    use them, ``files`` some of the files, as ``ARCHIVE: PATH``; both lists are cut at 100.
    """

    TYPE = "check.damage_found"
    repository: str
    job: str
    check: str
    chunks: int
    archives: list[str]
    files: list[str]
    words: str


@dataclass(frozen=True)
class CheckDamageGone(Event):
    """A check found that nothing in a repository is damaged any more."""

    TYPE = "check.damage_gone"
    repository: str
    job: str
    check: str


@dataclass(frozen=True)
class DrillFinished(Event):
    """A restore drill ended and its report is kept.

    ``result`` is ``passed``, ``remarks`` (passed with remarks) or ``failed``; ``sha256`` is
    that of the report's JSON file, so that the journal vouches for it.
    """

    TYPE = "drill.finished"
    drill: str
    repository: str
    client: str
    plan: str
    archive: str
    job: str
    result: str
    files: int
    size: int
    sha256: str


@dataclass(frozen=True)
class ArchivePruned(Event):
    """An archive is out of sight and stays restorable until ``delete_after``, when it goes.

    By its plan's ``policy``, or, without one, because a person asked; ``reason`` says why in
    words. ``archive.deleted`` follows when it is really gone.
    """

    TYPE = "archive.pruned"
    archive: str
    id: str
    repository: str
    client: str
    plan: str
    policy: str
    job: str
    reason: str
    delete_after: str


@dataclass(frozen=True)
class ArchiveUndeleted(Event):
    """An archive that was pruned is back; its undo window was not over."""

    TYPE = "archive.undeleted"
    archive: str
    id: str
    repository: str
    client: str = ""
    plan: str = ""


@dataclass(frozen=True)
class ArchivePinned(Event):
    """An archive is kept whatever its policy says; ``comment`` is why."""

    TYPE = "archive.pinned"
    archive: str
    id: str
    repository: str
    client: str
    plan: str
    comment: str


@dataclass(frozen=True)
class ArchiveUnpinned(Event):
    """The policy decides about an archive again."""

    TYPE = "archive.unpinned"
    archive: str
    id: str
    repository: str
    client: str = ""
    plan: str = ""


@dataclass(frozen=True)
class ArchiveAssigned(Event):
    """An archive that belonged to no plan was given to a client and, maybe, a plan."""

    TYPE = "archive.assigned"
    archive: str
    id: str
    repository: str
    client: str
    plan: str


@dataclass(frozen=True)
class RepositoryCompacted(Event):
    """Space that deleted archives had used was given back to the repository's storage."""

    TYPE = "repository.compacted"
    repository: str
    job: str
    freed_bytes: int


@dataclass(frozen=True)
class RetentionAdded(Event):
    """A retention policy was added; ``rules`` says in words what it keeps."""

    TYPE = "retention.added"
    policy: str
    rules: str


@dataclass(frozen=True)
class RetentionChanged(Event):
    """A retention policy was changed; ``fields`` are the names of what changed."""

    TYPE = "retention.changed"
    policy: str
    rules: str
    fields: list[str]


@dataclass(frozen=True)
class RetentionRemoved(Event):
    """A retention policy was removed; no plan used it."""

    TYPE = "retention.removed"
    policy: str


@dataclass(frozen=True)
class RetentionAttached(Event):
    """A plan's archives are kept by ``policy`` from now on; empty: none is ever pruned."""

    TYPE = "retention.attached"
    plan: str
    policy: str
    client: str = ""
    repository: str = ""


@dataclass(frozen=True)
class RetentionMatchedNothing(Event):
    """A prune or a mapping of archives found nothing to work on; it may be set up wrongly.

    ``what`` is ``prune`` (the plan has no archive, or the repository no plan with a policy) or
    ``mapping`` (no archive's name fits ``pattern``).
    """

    TYPE = "retention.matched_nothing"
    what: str
    repository: str
    plan: str = ""
    policy: str = ""
    pattern: str = ""
    job: str = ""


@dataclass(frozen=True)
class PruneHeld(Event):
    """Nothing of a plan was pruned although its policy would.

    ``kind`` is ``plan-held``, ``newest-not-good``, ``keeps-nothing`` or ``much-more``;
    ``reason`` and ``next_step`` are for people.
    """

    TYPE = "prune.held"
    plan: str
    client: str
    repository: str
    policy: str
    kind: str
    reason: str
    next_step: str
    job: str


EVENTS: tuple[type[Event], ...] = (
    ArchivePruned,
    ArchiveUndeleted,
    ArchivePinned,
    ArchiveUnpinned,
    ArchiveAssigned,
    RepositoryCompacted,
    RetentionAdded,
    RetentionChanged,
    RetentionRemoved,
    RetentionAttached,
    RetentionMatchedNothing,
    PruneHeld,
    ArchiveSuspicious,
    ArchiveQuarantined,
    ArchiveQuarantineEnded,
    PlanReleased,
    CheckDamageFound,
    CheckDamageGone,
    DrillFinished,
)
