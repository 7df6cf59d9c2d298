"""What happened, as frozen dataclasses; each docstring is the event's manual.

Jobs, archives and what is set up are here; ``events_scheduling``, ``events_keeping`` and
``events_notices`` are rooms beside it.

An event travels in an envelope ``{v, seq, id, type, at, data}``. Lifecycle events are
journalled with a gapless ``seq``; those marked ``JOURNALLED = False`` are only published
and carry ``seq`` null. Secrets never go into an event.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from borgcube.core import events_keeping, events_notices, events_scheduling
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
    *events_scheduling.EVENTS, *events_keeping.EVENTS, *events_notices.EVENTS,
    JobQueued, JobStarted, JobPhase, JobProgress, JobCancelRequested, JobFinished, JobLost,
    ArchiveAdded, ArchiveDeleted, ClientAdded, ClientChanged, ClientRemoved, ClientTrusted,
    ClientViolation, RepositoryChanged, RepositoryCreated, RepositoryPassphraseRevealed,
    RepositoryRemoved, PlanAdded, PlanChanged, PlanRemoved, PlanStale, DaemonStarted,
    DaemonStopping, PluginQuarantined,
)  # fmt: skip
