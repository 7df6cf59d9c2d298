"""A repository format behind one contract. The only built-in engine is Borg.

``create``, ``inspect`` and ``vault_command`` are called by the daemon and must be cheap
to import; ``backup`` and ``restore`` run in a worker.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from borgcube.core.jobs import JobContext, JobResult
from borgcube.core.transports import Connection


@dataclass(frozen=True)
class RepositoryFacts:
    """What an engine says of a repository: its ID (hex) and encryption mode."""

    id: str
    encryption: str
    archives: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class FileStream:
    """The content of a file of an archive: ``source`` yields exactly ``size`` bytes, each
    proved to be the archive's before it comes. It ends early when something is damaged, and
    then what came is not the file. Whoever has it closes it."""

    size: int
    mtime_ns: int
    source: socket.socket


class Engine(Protocol):
    """A repository format. All methods raise BorgCubeError with one clear message."""

    name: str

    def create(
        self, path: Path, *, encryption: str, passphrase: str, state_dir: Path
    ) -> RepositoryFacts:
        """Create a repository in an absent or empty directory (may take seconds)."""

    def measure(self) -> Mapping[str, int]:
        """Return how fast this machine does each encryption mode that ``create`` offers, in
        bytes a second on one thread. Called in a thread of the daemon; takes a moment."""

    def inspect(self, path: Path, *, passphrase: str, state_dir: Path) -> RepositoryFacts:
        """Open an existing one and list its archives, proving the passphrase."""

    def conditions(self) -> Sequence[tuple[str, str, str]]:
        """Return what weakens a promise on this system: (``error`` or ``warning``, what it
        is, what to do). Cheap; called in the daemon."""

    def probe(self, connection: Connection, *, borg: str, state_dir: Path) -> str:
        """Return in words what would run on a client: the version of the program ``borg``
        there, or what goes along for ``deploy``. Raises JobFailed when nothing would. Called in
        a process of its own that has bounds of memory and time: the client is not trusted, and
        nothing is built or stored here."""

    def vault_command(
        self, *, name: str, path: Path, socket: Path, state_dir: Path, partial_days: int,
        free_floor_bytes: int, repository_id: str,
    ) -> Sequence[str]:  # fmt: skip
        """Return the argv of the vault process. It opens the repository only if that has the ID
        ``repository_id``; ``state_dir`` is this repository's own. Chunks of a backup that was
        never finished are given up after ``partial_days``; no backup is taken or gone on with
        below ``free_floor_bytes`` of free space at ``path``. It reads the passphrase, one line,
        from its standard input, writes one JSON line ``{"ready": true}`` (with ``"read_only":
        true`` when it serves nobody who writes) or ``{"error": {kind, problem, message,
        next_step}}`` to standard output and another one when it gives up later, in between
        about every second ``{"beat": {"still_s": seconds}}`` (for how long its work has
        stood still), serves ``socket`` and ends cleanly on SIGTERM."""

    def adopt_state(self, shared: Path, own: Path, *, repository_id: str) -> None:
        """Move to ``own`` what 0.1.0 kept of a repository in ``shared``, a directory for all.
        May be called again, and go on where a crash ended it. Called when the daemon starts."""

    def upkeep_due(self, state_dir: Path, repository_id: str) -> datetime | None:
        """Return when a repository's vault is wanted although no job asks for it, as an
        aware time, or None. Called in the daemon now and then; reads one small file."""

    def list_archives(
        self, vault_socket: Path, *, known: Collection[str]
    ) -> Sequence[dict[str, Any]]:
        """Ask a running vault for the archives of its repository, unfinished ones left out:
        ``id`` and ``name``, and for those whose ID is not ``known`` also ``start`` (ISO
        8601), statistics and, where the engine knows, ``client``, ``plan`` and ``job``.
        ``quarantined`` is why one is in quarantine (``core.quarantine``), empty when it is not,
        None or left out where it was not looked at.
        Called in a thread of the daemon; may take seconds."""

    def quarantined(self, vault_socket: Path) -> tuple[Mapping[str, str], bool]:
        """Ask a running vault which archives are in quarantine, ID -> reason, and whether all
        were looked through. Called in a worker; quick."""

    def mend_archive(self, context: JobContext) -> JobResult:
        """Rewrite the archive of the parameter ``archive`` (name), which is in quarantine, from
        what is sound of it; see ``JobResult.archives_mended``. ``data`` has ``items``,
        ``left_out`` (how many) and ``names`` (of the first of those, with reasons)."""

    def claim_archive(self, vault_socket: Path, *, job_id: str) -> dict[str, Any] | None:
        """Ask a running vault what a job that did not report an archive left in the
        repository: the facts of its archive, or None. Waits until the job's session is
        over. Called in a thread of the daemon."""

    def browse(
        self, *, state_dir: Path, repository_id: str, archive_id: str, key: str, find: str,
        start: int, limit: int,
    ) -> dict[str, Any] | None:  # fmt: skip
        """Return one page of the files of an archive, without its repository: of the
        directory ``key`` (empty is the top), or of everything whose name contains ``find``.
        None when nothing is known of its files yet; :meth:`read_catalog` changes that.

        ``entries`` have ``key`` (ASCII; the percent-encoded path), ``name``, ``kind``
        (``ls``'s letter), ``size`` in bytes and ``files``, of a directory with all below it,
        and ``mtime_ns``; ``total`` counts all entries, and ``cut`` says that there are more
        than are counted. Called in a thread of the daemon; the first look at a large archive
        may take a minute."""

    def open_file(self, vault_socket: Path, *, archive_id: str, key: str) -> FileStream:
        """Ask a running vault for the content of one regular file; ``key`` as in
        :meth:`browse`. Raises NotFound, InvalidInput for what is no regular file, and
        Unreadable for what is damaged. Called in the console or on the command line, which
        hold the vault meanwhile; may take a while in a large archive."""

    def preview(self, parameters: Mapping[str, Any]) -> Sequence[str]:
        """Return the command that a backup with these parameters runs on the client, for a
        person to read. Called in the console; must be cheap and touch nothing."""

    def backup(self, context: JobContext) -> JobResult:
        """Pull one backup. Parameters: ``archive`` (name), ``plan``, ``domain``,
        ``paths`` and the plan options."""

    def dry_run(self, context: JobContext) -> JobResult:
        """List what a backup with these parameters would take, without storing anything or
        opening the repository. The list goes into the job's listing (``core.listings``);
        the result's ``data`` has ``included``, ``excluded``, ``files``, ``directories`` and,
        when ``measured``, ``size``. ``cut`` says that the listing does not have all."""

    def restore(self, context: JobContext) -> JobResult:
        """Restore from ``archive`` (name), ``paths`` (may be empty) to ``target``, a
        directory on the order's client."""

    def read_catalog(self, context: JobContext) -> JobResult:
        """Read the list of files of the archive with the ID ``archive_id`` from the
        repository, so that :meth:`browse` knows it."""

    def check(self, context: JobContext) -> JobResult:
        """Check the order's repository; parameters as ``core.checks.check_parameters``. The
        result has ``checked`` and ``damage``; damage makes it fail as ``damage-found``."""

    def check_alone(self, context: JobContext) -> JobResult:
        """Have the format's own program check the order's repository, which no vault holds;
        ``context.passphrase()`` opens it. Parameters ``budget_s`` and ``full``."""

    def sample(
        self, context: JobContext, *, archive: str, files: int, most_bytes: int, canary: str,
        whole_into: str = "",
    ) -> dict[str, Any]:  # fmt: skip
        """Draw up to ``files`` regular files of an archive by lot, of ``most_bytes`` in all,
        and the file ``canary``. Return ``items`` (``path``, ``size``, ``mode``, ``mtime_ns``,
        ``pieces``: a list of ID in hex and length in bytes), ``files`` and ``size`` of the
        whole archive, and ``id_kind`` and ``id_key`` for :meth:`content_hash`. With
        ``whole_into``, a file to make, all files go there instead (``core.expected``)."""

    def content_hash(self, kind: str, key: bytes) -> Callable[[bytes], bytes]:
        """Return the function that makes the ID of a piece of content, so that restored
        files can be compared without reading the repository a second time."""

    def delete_archives(self, context: JobContext) -> JobResult:
        """Delete the archives named in the parameter ``archives``, which a person did: those in
        quarantine as well."""

    def prune_archives(self, context: JobContext) -> JobResult:
        """Delete the archives in the parameter ``archives`` (name -> ID in hex) that are still
        there, while backups go on; with ``dry_run`` only measure, exactly, what would be freed
        (``freed_bytes``). One in quarantine stays, unless the list ``by_person`` names it. Then
        compact as ``compact`` says: ``auto`` (when it pays),
        ``always`` or ``never``."""

    def compact(self, context: JobContext) -> JobResult:
        """Give unused space of the repository back to its storage, while backups go on;
        ``compacted_bytes`` says how much. ``threshold_percent`` of a part of it must be
        unused for that part to be worth it."""
