"""What a job is made of: the order a worker gets, the context it works in, the result.

A JobOrder is plain data: everything a worker needs except secrets, so that another
executor can run it on another machine.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from borgcube.core.errors import FailureCause
from borgcube.core.transports import ClientAddress, Connection

JOB_DONE = "done"
JOB_WARNING = "warning"


@dataclass(frozen=True)
class JobOrder:
    """The order for one job. ``parameters`` belong to the job type.

    ``repository`` holds ``name``, ``path``, ``engine``, ``id``; ``vault_socket`` is the
    unix socket of the running vault (empty when the job type needs none).
    """

    job_id: str
    type: str
    client: ClientAddress | None = None
    repository: dict[str, Any] = field(default_factory=dict)
    vault_socket: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    server_id: str = ""

    def as_data(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return asdict(self)

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> JobOrder:
        """Rebuild from :meth:`as_data`."""
        client = data.get("client")
        return cls(
            job_id=data["job_id"],
            type=data["type"],
            client=ClientAddress(**client) if client else None,
            repository=data.get("repository", {}),
            vault_socket=data.get("vault_socket", ""),
            parameters=data.get("parameters", {}),
            server_id=data.get("server_id", ""),
        )


@dataclass
class JobResult:
    """How a job ended. ``data`` is plain JSON, recorded with the job; ``archives_added``
    are archive records the daemon stores and announces; ``violations`` are ``kind`` and
    ``details`` of what the client did that no honest one does. ``checked`` (with ``kind``) and
    ``damage`` are what a check found, see ``core.checks``; ``damage`` None says nothing about
    it. ``drill`` is what a restore drill reports, see ``core.drills``. ``archives_mended`` are
    records like ``archives_added`` that take the place of ``was``, an ID. ``quarantined`` maps
    IDs of archives of the repository to why they are in quarantine; with ``looked_through``,
    all others are sound."""

    state: str = JOB_DONE
    data: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    archives_added: list[dict[str, Any]] = field(default_factory=list)
    archives_deleted: list[str] = field(default_factory=list)
    archives_mended: list[dict[str, Any]] = field(default_factory=list)
    quarantined: dict[str, str] = field(default_factory=dict)
    looked_through: bool = False
    violations: list[dict[str, str]] = field(default_factory=list)
    checked: dict[str, Any] = field(default_factory=dict)
    damage: dict[str, Any] | None = None
    drill: dict[str, Any] = field(default_factory=dict)
    cause: FailureCause | None = None


class JobContext(Protocol):
    """What a worker offers the job plugin that runs in it."""

    order: JobOrder
    home: Path
    runtime_dir: Path
    state_dir: Path

    def phase(self, name: str) -> None:
        """Enter a phase; reported at once. Raises JobCancelled when asked to stop."""

    def progress(self, **figures: Any) -> None:
        """Report figures (``files``, ``bytes_read``, ``bytes_new``, ``bytes_total``,
        ``path``); the last ones count, published at most five times a second."""

    def log(self, level: str, message: str, **fields: Any) -> None:
        """Write a line to the job's log; control characters are escaped."""

    def check_cancelled(self) -> None:
        """Raise JobCancelled when the job is to stop."""

    def connect(self) -> Connection:
        """Log in to the order's client. Closed by the worker at the end."""

    def passphrase(self) -> str:
        """Return the passphrase of the order's repository. Raises JobFailed unless the job type
        has ``needs_repository_alone`` and needs neither vault nor client."""

    def engine(self) -> Any:
        """Return the engine of the order's repository (``core.engines.Engine``)."""


class JobType(Protocol):
    """A kind of job, registered by name; instances are stateless.

    With ``needs_repository_alone`` and without ``needs_vault``, it runs while no vault holds the
    repository and no other job uses it.

    It may have ``prepare(root, job) -> dict``: the parameters of its order, made from those
    that it was queued with. Called in the daemon, in the order's transaction, so it must be
    quick and only read; what it raises (BorgCubeError) fails the job.

    It may have ``parameter_fields() -> Sequence[core.forms.Field]``: the parameters that a task
    may set, as fields named like the parameters. The console draws them in the form of a task,
    and the daemon refuses values that do not fit them. Called often, so it must be quick.
    """

    name: str
    needs_vault: bool
    needs_client: bool

    def run(self, context: JobContext) -> JobResult:
        """Do the job, in a worker process. Raises JobFailed or JobCancelled."""
