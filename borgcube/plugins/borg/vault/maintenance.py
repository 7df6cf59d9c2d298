"""Prune and compact inside a running vault, so that backups go on meanwhile.

Plain ``borg prune`` and ``borg compact`` need the repository alone. Here the vault does the
same through Borg's own code, in steps: the archives' metadata is read without the lock, and
under the lock the references of many archives are taken off at once; compaction moves a few
segments with each commit. Every step ends in a commit that plain borg calls clean, so a kill
loses no more than the step, and what it had to do is done by the next run.

Who may be in the way: a session that was offered the chunks of an archive (its domain's), or
that restores from it. Such an archive waits for its end.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from borg.hashindex import ChunkIndex

from borgcube.core.errors import JobFailed, Problem
from borgcube.plugins.borg.vault.counts import recount, settle
from borgcube.plugins.borg.vault.domains import Domain
from borgcube.plugins.borg.vault.ledger import ENTRY_BYTES
from borgcube.plugins.borg.vault.segments import is_readable

if TYPE_CHECKING:
    from borgcube.plugins.borg.vault.main import Vault

log = logging.getLogger("borgcube.vault")
Report = Callable[..., None]
PATIENCE_S = 600.0  # how long an archive waits for the sessions in its way
LOOK_AGAIN_S = 0.2
# What is read before it is taken off: a step's lock is short, and so is what a kill undoes.
STEP_S, STEP_ARCHIVES = 20.0, 1000
# What one commit compacts: a backup waits for it, alone it may be much.
SHARED_BYTES, ALONE_BYTES = 256 << 20, 8 << 30


@dataclass
class Removal:
    """What a prune did so far; ``deleted`` and ``absent`` are names, sizes are bytes."""

    deleted: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)
    freed: int = 0

    def as_data(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {"deleted": self.deleted, "absent": self.absent, "failed": self.failed,
                "waiting": self.waiting, "freed_bytes": self.freed}  # fmt: skip


@dataclass
class Step:
    """Archives that were read and are taken off together: name -> ID, and their references in
    all and by domain."""

    archives: dict[str, bytes] = field(default_factory=dict)
    references: Any = field(default_factory=ChunkIndex)
    by_domain: dict[Path, Any] = field(default_factory=dict)

    def wanted(self) -> dict[str, str]:
        """Return name -> ID in hex."""
        return {name: archive_id.hex() for name, archive_id in self.archives.items()}


def _present(vault: Vault, wanted: Mapping[str, str], done: Removal) -> dict[str, bytes]:
    """Return what of name -> ID (hex) is in the repository; the same name may be another's."""
    archives = vault.ledger.manifest.archives
    found = {}
    with vault.ledger.lock:
        for name, archive_id in wanted.items():
            if name in archives and archives[name].id.hex() == archive_id:
                found[name] = bytes.fromhex(archive_id)
            else:
                done.absent.append(name)
    return found


def _in_the_way(vault: Vault, owners: Mapping[str, set[Path]]) -> Callable[[str, bytes], bool]:
    """Return a test whether a session stands in the way of an archive; under the lock."""
    needed = vault.sessions.in_the_way()
    return lambda name, archive_id: needed(name, owners.get(archive_id.hex(), set()))


def _owners(vault: Vault) -> dict[str, set[Path]]:
    """Return which domains list an archive: ID (hex) -> their directories."""
    found: dict[str, set[Path]] = {}
    for domain in Domain.every(vault.state_dir / "domains"):
        for archive_id in domain.archives():
            found.setdefault(archive_id, set()).add(domain.path)
    return found


def _read(vault: Vault, step: Step, name: str, archive_id: bytes, owners: set[Path]) -> None:
    """Read an archive's references into a step; raises JobFailed when it cannot be read."""
    references = vault.ledger.references(archive_id)
    step.archives[name] = archive_id
    step.references.merge(references)
    step.references.add(archive_id, 1, 0, 0)
    for path in owners:
        step.by_domain.setdefault(path, ChunkIndex()).merge(references)


def _take_off(vault: Vault, step: Step, done: Removal) -> None:
    """Take the archives of a step out of the repository and commit; under the lock."""
    ledger = vault.ledger
    freed = 0

    def change() -> None:
        nonlocal freed
        freed = ledger.drop_references(step.references)
        for name in step.archives:
            del ledger.manifest.archives[name]

    vault.commit(finishing=None, change=change)
    gone = {archive_id.hex() for archive_id in step.archives.values()}
    for domain in Domain.every(vault.state_dir / "domains"):
        references = step.by_domain.get(domain.path)
        if references is not None:
            vault.derive(partial(domain.remove_counted, gone, references))
    for archive_id in gone:
        path = vault.state_dir / "catalog" / f"{archive_id}.zst"
        vault.derive(partial(path.unlink, missing_ok=True))
    done.deleted += step.archives
    done.freed += freed


def prune(
    vault: Vault, wanted: Mapping[str, str], *, report: Report, also_quarantined: bool = False
) -> Removal:
    """Delete archives, given as name -> ID (hex), while sessions go on; return what was done.

    ``report`` is called with figures after each step, and ends the work by raising. One that
    cannot be read is left alone and named; one that a session needs waits up to ten minutes.
    One in quarantine stays, unless a person asked for it.
    """
    done = Removal()
    with _alone(vault, report):
        settle(vault, report)
        left = _present(vault, wanted, done)
        if also_quarantined:
            _remove_quarantined(vault, left, done, report)
        owners = _owners(vault)
        patience = time.monotonic() + PATIENCE_S
        while left:
            vault.check_alive()
            with vault.ledger.lock:
                blocked = _in_the_way(vault, owners)
            step = _read_step(vault, left, owners, blocked, done, report, total=len(wanted))
            if step.archives:
                with vault.ledger.lock:
                    vault.check_alive()
                    if len(_present(vault, step.wanted(), done)) < len(step.archives):
                        # Somebody deleted one since: its references are taken off already.
                        for name in done.absent:
                            left.pop(name, None)
                        continue
                    blocked = _in_the_way(vault, owners)
                    if any(blocked(name, key) for name, key in step.archives.items()):
                        continue  # a session has begun since: look again at what may go
                    _take_off(vault, step, done)
                for name in step.archives:
                    del left[name]
                patience = time.monotonic() + PATIENCE_S
                report(**_figures(done, len(wanted)), deleted_names=list(step.archives))
            elif left:
                if time.monotonic() > patience:
                    done.waiting = sorted(left)
                    break
                report(**_figures(done, len(wanted)), waiting=len(left))
                time.sleep(LOOK_AGAIN_S)
    return done


def _remove_quarantined(
    vault: Vault, left: dict[str, bytes], done: Removal, report: Report
) -> None:
    """Delete archives in quarantine: the references of all others are counted anew instead."""
    for name in [name for name, archive_id in left.items() if vault.known.reason(archive_id)]:
        archive_id = left.pop(name)
        recount(vault, report, without=name)
        vault.known.forget(archive_id)
        for domain in Domain.every(vault.state_dir / "domains"):
            if archive_id.hex() in domain.archives():
                vault.derive(domain.drop_index)
        path = vault.state_dir / "catalog" / f"{archive_id.hex()}.zst"
        vault.derive(partial(path.unlink, missing_ok=True))
        done.deleted.append(name)
        report(**_figures(done, len(left)), deleted_names=[name])


def _figures(done: Removal, total: int) -> dict[str, Any]:
    return {"archives_done": len(done.deleted) + len(done.absent), "archives_total": total,
            "bytes_freed": done.freed}  # fmt: skip


def _read_step(
    vault: Vault, left: dict[str, bytes], owners: Mapping[str, set[Path]],
    blocked: Callable[[str, bytes], bool], done: Removal, report: Report, *, total: int,
) -> Step:  # fmt: skip
    step = Step()
    began = time.monotonic()
    for name, archive_id in list(left.items()):
        if blocked(name, archive_id):
            continue
        try:
            _read(vault, step, name, archive_id, owners.get(archive_id.hex(), set()))
        except Exception as error:
            log.warning("the archive %s cannot be read and stays: %s", name, error)
            done.failed[name] = str(error)
            del left[name]
            continue
        report(**_figures(done, total), archives_read=len(done.deleted) + len(step.archives))
        if len(step.archives) >= STEP_ARCHIVES or time.monotonic() - began > STEP_S:
            break
    return step


def measure(vault: Vault, wanted: Mapping[str, str], *, report: Report) -> Removal:
    """Return what deleting these archives would free; exact, and nothing is changed.

    The chunks that count are those that no other archive references, by the repository's own
    reference counts.
    """
    done = Removal()
    step = Step()
    with _alone(vault, report):
        present = _present(vault, wanted, done)
        for name, archive_id in present.items():
            vault.check_alive()
            try:
                _read(vault, step, name, archive_id, set())
            except Exception as error:
                done.failed[name] = str(error)
            report(archives_done=len(step.archives), archives_total=len(wanted))
        with vault.ledger.lock:
            try:
                figures = step.references.stats_against(vault.ledger.chunks)
            except ValueError as error:
                raise JobFailed(
                    "repository-damaged", Problem.REPOSITORY,
                    "The repository lacks a chunk that an archive references.",
                    next_step="Stop BorgCube and run borg check on the repository.",
                ) from error  # fmt: skip
    stored, chunks = figures[3], figures[4]
    done.deleted = list(step.archives)
    done.freed = int(stored) + int(chunks) * ENTRY_BYTES
    return done


def _bytes_stored(vault: Vault) -> int:
    """Return the size of all segments; under the lock."""
    return sum(Path(name).stat().st_size for _, name in
               vault.ledger.repository.io.segment_iterator())  # fmt: skip


def compact(
    vault: Vault, *, threshold: float, least_share: float, report: Report
) -> dict[str, Any]:
    """Give unused space back, a few segments with each commit; return what was freed.

    Does nothing unless what can be freed is at least ``least_share`` of the repository.
    ``report`` is called after each step, and ends the work by raising.
    """
    with _alone(vault, report):
        settle(vault, report)
        if vault.ledger.repository.append_only:
            raise JobFailed(
                "repository-append-only", Problem.CONFIGURATION,
                "The repository is set to append only: no space comes back.",
                next_step="To compact it, set append_only to 0 with borg config.",
            )  # fmt: skip
        with vault.ledger.lock:
            vault.check_alive()
            left = vault.ledger.repository.sparse_segments(threshold)
            total = _bytes_stored(vault)
        freeable = sum(unused for unused, _ in left.values())
        result = {"freeable_bytes": freeable, "repository_bytes": total, "compacted_bytes": 0,
                  "segments": 0, "damaged_segments": 0}  # fmt: skip
        if not left or freeable < least_share * total:
            return result
        handled = 0
        while left:
            budget = SHARED_BYTES if len(vault.sessions) else ALONE_BYTES
            chosen: list[int] = []
            for number, (unused, size) in left.items():
                budget -= size - unused
                chosen.append(number)
                if budget <= 0:
                    break
            # Borg gives up in the middle of a commit when it meets a damaged entry.
            damaged = [number for number in chosen if not _is_readable(vault, number)]
            for number in damaged:
                log.warning("segment %d is damaged and stays as it is", number)
                handled += left.pop(number)[0]
                chosen.remove(number)
            result["damaged_segments"] += len(damaged)
            if not chosen:
                continue
            with vault.ledger.lock:
                vault.check_alive()
                result["compacted_bytes"] += _compact_now(vault, chosen)
            handled += sum(left.pop(number)[0] for number in chosen)
            result["segments"] += len(chosen)
            report(bytes_freed=result["compacted_bytes"], bytes_handled=handled,
                   bytes_freeable=freeable)  # fmt: skip
    return result


def _is_readable(vault: Vault, number: int) -> bool:
    """Tell whether a segment can be compacted; one that is gone is left to Borg."""
    try:
        return is_readable(Path(vault.ledger.repository.io.segment_filename(number)))
    except FileNotFoundError:
        return True


def _compact_now(vault: Vault, chosen: list[int]) -> int:
    """Compact some segments in a commit; return the bytes that are free now. Under the lock."""
    ledger = vault.ledger
    before = _bytes_stored(vault)
    ledger.begin()
    repository = ledger.repository
    repository.sparse_segments(1.0)  # opens the transaction, whose figures the check needs
    repository.chosen = chosen
    try:
        repository.check_free_space()
    except repository.InsufficientFreeSpaceError as error:
        needed, free = error.args[:2]
        raise JobFailed(
            "repository-write-failed", Problem.REPOSITORY,
            f"There is no room to compact: Borg wants {needed} free, there is {free}.",
            next_step="Make room on its storage, then compact again.",
        ) from error  # fmt: skip
    finally:
        repository.chosen = ()
    vault.commit(finishing=None, compact=chosen)
    return max(0, before - _bytes_stored(vault))


@contextmanager
def _alone(vault: Vault, report: Report) -> Iterator[None]:
    """Do one prune or compaction at a time; another waits for its turn and goes on reporting."""
    while not vault.maintenance.acquire(timeout=1.0):
        vault.check_alive()
        report(waiting=1)
    try:
        yield
    finally:
        vault.maintenance.release()
