"""What happened, as frozen dataclasses; each docstring is the event's manual.

An event travels in an envelope ``{v, seq, id, type, at, data}``. Lifecycle events are
journalled with a gapless ``seq``; those marked ``JOURNALLED = False`` are only published
and carry ``seq`` null. Secrets never go into an event.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from borgcube.core import events_notify, events_scheduling
from borgcube.core.envelope import VERSION as VERSION
from borgcube.core.envelope import Envelope as Envelope
from borgcube.core.envelope import Event as Event
from borgcube.core.envelope import now as now


@dataclass(frozen=True)
class JobQueued(Event):
    """A job was accepted and waits for its turn.

    ``attempt`` counts from 1; a further one waits until ``not_before`` (empty: no wait).
    """

    TYPE = "job.queued"
    job: str
    job_type: str
    client: str = ""
    repository: str = ""
    plan: str = ""
    attempt: int = 1
    not_before: str = ""


@dataclass(frozen=True)
class JobStarted(Event):
    """A worker took up the job."""

    TYPE = "job.started"
    job: str
    job_type: str
    client: str = ""
    repository: str = ""
    plan: str = ""


@dataclass(frozen=True)
class JobPhase(Event):
    """A running job entered a phase."""

    TYPE = "job.phase"
    job: str
    phase: str


@dataclass(frozen=True)
class JobProgress(Event):
    """Figures of a running job, a few times a second; published only.

    ``files``, ``bytes_read``, ``bytes_new``, ``bytes_total`` and ``path`` are usual;
    the path is the client's word.
    """

    TYPE = "job.progress"
    JOURNALLED = False
    job: str
    progress: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class JobCancelRequested(Event):
    """Somebody asked for the job to stop."""

    TYPE = "job.cancel_requested"
    job: str


@dataclass(frozen=True)
class JobFinished(Event):
    """The job ended as ``done``, ``warning``, ``failed`` or ``cancelled``.

    ``cause`` is set when it failed: kind, problem, message, next_step.
    """

    TYPE = "job.finished"
    job: str
    job_type: str
    state: str
    client: str = ""
    repository: str = ""
    plan: str = ""
    cause: dict[str, Any] | None = None
    result: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class JobLost(Event):
    """The daemon restarted and found no worker for a job that was running."""

    TYPE = "job.lost"
    job: str
    job_type: str
    client: str = ""
    repository: str = ""
    plan: str = ""


@dataclass(frozen=True)
class ArchiveAdded(Event):
    """A durable archive was recorded: in the transaction that finished its job, or when it
    was found in the repository after a crash or after work with plain borg."""

    TYPE = "archive.added"
    archive: str
    id: str
    repository: str
    client: str = ""
    plan: str = ""
    job: str = ""
    stats: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ArchiveDeleted(Event):
    """An archive was deleted from its repository; without ``job``, by something other than
    BorgCube."""

    TYPE = "archive.deleted"
    archive: str
    id: str
    repository: str
    job: str = ""


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
class ClientAdded(Event):
    """A client was added."""

    TYPE = "client.added"
    client: str
    transport: str


@dataclass(frozen=True)
class ClientChanged(Event):
    """Settings of a client were changed; ``fields`` are their names."""

    TYPE = "client.changed"
    client: str
    fields: list[str]


@dataclass(frozen=True)
class ClientRemoved(Event):
    """A client was removed; its archives stay."""

    TYPE = "client.removed"
    client: str


@dataclass(frozen=True)
class ClientTrusted(Event):
    """Host keys of a client were accepted; ``fingerprints`` are SHA-256."""

    TYPE = "client.trusted"
    client: str
    fingerprints: list[str]


@dataclass(frozen=True)
class ClientViolation(Event):
    """A client did what no honest client does, or what cannot be told from it; it was refused.

    Recorded in the transaction that ends its job, before ``job.finished``. ``kind`` is a
    stable word, ``docs/guarantees.md`` lists them; ``details`` is one escaped line. Silence
    and a wrong clock are here too, and may be no ill will.
    """

    TYPE = "client.violation"
    client: str
    job: str
    repository: str
    plan: str
    kind: str
    details: str


@dataclass(frozen=True)
class RepositoryCreated(Event):
    """A repository was created, or an existing one taken in (``imported``)."""

    TYPE = "repository.created"
    repository: str
    engine: str
    encryption: str
    imported: bool = False


@dataclass(frozen=True)
class RepositoryChanged(Event):
    """Settings of a repository were changed; ``fields`` are their names."""

    TYPE = "repository.changed"
    repository: str
    fields: list[str]


@dataclass(frozen=True)
class RepositoryRemoved(Event):
    """A repository was forgotten, with its passphrase and the records of ``archives``
    archives. What is in its directory ``path`` was not touched."""

    TYPE = "repository.removed"
    repository: str
    path: str
    archives: int


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

    ``kind`` is ``plan-held``, ``newest-not-good`` or ``keeps-nothing``; ``reason`` and
    ``next_step`` are for people.
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


@dataclass(frozen=True)
class RepositoryPassphraseRevealed(Event):
    """Somebody was shown the passphrase of a repository."""

    TYPE = "repository.passphrase_revealed"
    repository: str


@dataclass(frozen=True)
class PlanAdded(Event):
    """A plan was added."""

    TYPE = "plan.added"
    plan: str
    client: str
    repository: str


@dataclass(frozen=True)
class PlanChanged(Event):
    """Settings of a plan were changed; ``fields`` are their names."""

    TYPE = "plan.changed"
    plan: str
    fields: list[str]


@dataclass(frozen=True)
class PlanRemoved(Event):
    """A plan was removed; its archives stay."""

    TYPE = "plan.removed"
    plan: str


@dataclass(frozen=True)
class PlanStale(Event):
    """The newest archive of a plan has become too old; told once, until there is a new one.

    ``archive_at`` is when it was taken. A plan without any archive is not told of.
    """

    TYPE = "plan.stale"
    plan: str
    client: str
    repository: str
    archive_at: str


@dataclass(frozen=True)
class DaemonStarted(Event):
    """The daemon is ready."""

    TYPE = "daemon.started"
    version: str
    pid: int


@dataclass(frozen=True)
class DaemonStopping(Event):
    """The daemon was asked to stop and takes no more work."""

    TYPE = "daemon.stopping"
    pid: int


@dataclass(frozen=True)
class PluginQuarantined(Event):
    """A plugin could not be used and was set aside."""

    TYPE = "plugin.quarantined"
    plugin: str
    distribution: str
    error: str


BUILT_IN: tuple[type[Event], ...] = (
    *events_scheduling.EVENTS, *events_notify.EVENTS,
    JobQueued, JobStarted, JobPhase, JobProgress, JobCancelRequested, JobFinished, JobLost,
    ArchiveAdded, ArchiveDeleted, ArchiveSuspicious, PlanReleased, CheckDamageFound,
    CheckDamageGone, DrillFinished, ClientAdded, ClientChanged, ClientRemoved, ClientTrusted,
    ClientViolation, RepositoryChanged, RepositoryCreated, RepositoryPassphraseRevealed,
    RepositoryRemoved, PlanAdded, PlanChanged, PlanRemoved, PlanStale, DaemonStarted,
    DaemonStopping,
    PluginQuarantined,
    ArchivePruned, ArchiveUndeleted, ArchivePinned, ArchiveUnpinned, ArchiveAssigned,
    RepositoryCompacted, RetentionAdded, RetentionChanged, RetentionRemoved, RetentionAttached,
    RetentionMatchedNothing, PruneHeld,
)  # fmt: skip
