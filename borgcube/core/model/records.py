"""One class for each thing the store keeps.

Every field is a class-level default, so that records written by an older release gain
new fields without being rewritten. Values are immutable or replaced as a whole. Times
are ISO 8601 strings in UTC, references are names (which never change).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

from persistent import Persistent


class Record(Persistent):  # type: ignore[misc]  # persistent has no types
    """A record; ``PRIVATE`` fields are left out of :meth:`as_data`, and ``PASSING`` ones, which
    change by themselves, of :meth:`settings_of`."""

    PRIVATE: ClassVar[frozenset[str]] = frozenset()
    PASSING: ClassVar[frozenset[str]] = frozenset()
    id: str = ""
    created_at: str = ""

    def __init__(self, **values: Any) -> None:
        super().__init__()
        known = self.field_names()
        for name, value in values.items():
            if name not in known:
                raise TypeError(f"{type(self).__name__} has no field {name!r}")
            setattr(self, name, value)

    @classmethod
    @cache
    def field_names(cls) -> tuple[str, ...]:
        """Return the names of all fields, the general ones first."""
        names: list[str] = []
        for kind in reversed(cls.__mro__):
            if issubclass(kind, Record):
                names += [
                    n for n in kind.__annotations__ if n not in ("PRIVATE", "PASSING", *names)
                ]
        return tuple(names)

    def as_data(self) -> dict[str, Any]:
        """Return plain JSON data without private fields."""
        return {
            name: _plain(getattr(self, name))
            for name in self.field_names()
            if name not in self.PRIVATE
        }

    @classmethod
    def settings_of(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return what people set of such a record's data: without what passes by itself, and
        without what an answer says of it besides. Two of them are one version."""
        left = cls.PRIVATE | cls.PASSING
        return {name: data[name] for name in cls.field_names() if name not in left}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


class Client(Record):
    """A machine that is backed up. ``host_keys`` are the keys of its host that a person has
    compared, each ``ALGORITHM BASE64``; they are of this client alone."""

    PRIVATE = frozenset({"host_keys"})
    name: str = ""
    transport: str = ""
    host: str = ""
    port: int = 22
    user: str = ""
    identity: str = ""
    borg: str = "borg"
    domain: str = ""
    network: str = ""  # clients of one network share its slots
    # Limits; 0 is none.
    max_job_bytes: int = 0
    max_total_bytes: int = 0
    max_files: int = 0
    max_duration_s: int = 0
    max_sessions: int = 0
    options: dict[str, Any] = {}
    host_keys: tuple[str, ...] = ()


class Repository(Record):
    """A repository on the server's storage; ``passphrase`` is sealed."""

    PRIVATE = frozenset({"passphrase"})
    name: str = ""
    path: str = ""
    engine: str = "borg"
    repository_id: str = ""
    encryption: str = ""
    passphrase: bytes = b""
    free_floor_bytes: int = 1 << 30
    # Every byte is verified at least once in so many days.
    verify_days: int = 30


class Plan(Record):
    """What of a client goes into which repository, with which options.

    ``pruned`` is how many archives its last prune let go, at ``pruned_at``; ``prune_looked`` is
    how many would have gone when a person last let it be pruned again, until it was.
    """

    PRIVATE = frozenset({"pruned", "pruned_at", "prune_looked"})
    name: str = ""
    client: str = ""
    repository: str = ""
    paths: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    exclude_caches: bool = False
    exclude_if_present: tuple[str, ...] = ()
    one_file_system: bool = False
    compression: str = "lz4"
    upload_ratelimit_kib: int = 0
    numeric_ids: bool = False
    atime: bool = False
    sparse: bool = False
    comment: str = ""
    files_cache: str = "ctime,size"
    retries: int = 0
    retry_delay_s: int = 60
    idle_timeout_s: int = 900
    # Run on the client around the backup, as shell command lines.
    before_command: str = ""
    before_failure: str = "fail"  # or warn: go on with a warning
    after_command: str = ""
    command_timeout_s: int = 3600
    max_duration_s: int = 14 * 86400
    schedule: str = ""
    retention: str = ""  # the name of its retention policy; empty: nothing is ever pruned
    # A file that every restore drill restores and compares with the last drill.
    canary: str = ""
    # Why nothing of this plan is pruned until a person has looked; empty when it may be.
    prune_hold: str = ""
    pruned: int = 0
    pruned_at: str = ""
    prune_looked: int = 0


class Job(Record):
    """One run of a job type."""

    type: str = ""
    state: str = ""
    client: str = ""
    repository: str = ""
    plan: str = ""
    parameters: dict[str, Any] = {}
    started_at: str = ""
    finished_at: str = ""
    phase: str = ""
    # Each phase it entered, as "TIME NAME".
    phases: tuple[str, ...] = ()
    progress: dict[str, Any] = {}
    result: dict[str, Any] = {}
    warnings: tuple[str, ...] = ()
    cause: dict[str, Any] | None = None
    attempt: int = 1
    retry_of: str = ""
    not_before: str = ""
    # Empty for a job that a person asked for; else schedule or trigger.
    origin: str = ""
    schedule: str = ""
    due: str = ""
    task: str = ""


class Archive(Record):
    """One archive of a repository; ``stats`` are the vault's figures.

    ``pinned`` is why it is never pruned. One with ``deleted_at`` is out of sight but still
    in the repository and restorable until ``delete_after``; see ``core.trash``.

    ``start`` and ``end`` are the archive's own words: Borg's ``time``, by the clock of whoever
    made it. ``begun_at`` is when the job that made it began, by ours; empty for one that plain
    borg made. What orders or judges archives goes by :attr:`at`; so do their numbers.
    """

    name: str = ""
    client: str = ""
    plan: str = ""
    repository: str = ""
    job: str = ""
    start: str = ""
    end: str = ""
    begun_at: str = ""
    stats: dict[str, Any] = {}
    pinned: str = ""
    pinned_at: str = ""
    deleted_at: str = ""
    delete_after: str = ""
    deleted_because: str = ""
    # What stood out when it was recorded (core.anomalies.Suspicion), and when a person
    # accepted it.
    suspicions: tuple[dict[str, Any], ...] = ()
    accepted_at: str = ""
    # Why it is in quarantine (core.quarantine): not restored, and no backup; empty when it is not.
    quarantine: str = ""

    @property
    def at(self) -> str:
        """Return when the archive was taken: by this server's clock if the job is known, else as
        the archive says, else when it was recorded."""
        return self.begun_at or self.start or self.created_at


class Proof(Record):
    """What checks found of a repository, whose ``id`` it has; ``core.checks`` has the forms.

    Apart from the repository: it changes with every check, and may be long.
    """

    repository: str = ""
    # The figures of the last check of each kind.
    checked: dict[str, Any] = {}
    # What is damaged now, and which archives and files it concerns; empty when nothing is.
    damage: dict[str, Any] = {}


class Drill(Record):
    """One restore drill; its report is in files below the home's ``drills``."""

    repository: str = ""
    client: str = ""
    plan: str = ""
    archive: str = ""
    archive_id: str = ""
    job: str = ""
    result: str = ""
    whole: bool = False
    files: int = 0
    size: int = 0
    seconds: float = 0.0
    problems: tuple[str, ...] = ()
    canary_sha256: str = ""
    sha256: str = ""
