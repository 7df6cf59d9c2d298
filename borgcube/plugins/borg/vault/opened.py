"""Open a repository: Borg's Repository, key, manifest and cache as one thing.

The passphrase is given as a value and never touches the environment.
"""

from __future__ import annotations

import configparser
import logging
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from borg.cache import Cache, cache_dir
from borg.crypto.key import Passphrase, identify_key
from borg.helpers import IntegrityError, Manifest
from borg.repository import Repository

from borgcube.core.errors import JobFailed, Problem
from borgcube.core.untrusted import words
from borgcube.plugins.borg import statedirs
from borgcube.plugins.borg.gate.verify import MAX_PLAIN, Rejected, decompress
from borgcube.plugins.borg.vault.sealing import Sealer

log = logging.getLogger("borgcube.vault")
LOCK_WAIT_S = 60  # a vault that ends commits what its sessions uploaded
BLAKE2_TYPES = (0x04, 0x05, 0x06)
SUPPORTED_TYPES = (0x03, 0x05, 0x06, 0x07)


# Before compression. Borg takes 400,000 archives, and 20 MiB of them compressed.
MAX_MANIFEST = 64 << 20

# Is asked which archives Borg must not read; a second time, to look at all of them, when it
# could not read one of the rest.
Hide = Callable[["OpenedRepository", bool], Collection[str]]


def decompressed(data: bytes | memoryview, *, limit: int = MAX_PLAIN) -> bytes:
    """Stand in for the ``decompress`` of Borg's keys: bounded, as in the gate.

    Raises Borg's IntegrityError."""
    try:
        return decompress(data, limit=limit)
    except Rejected as error:
        raise IntegrityError(str(error)) from None


def _failed(kind: str, message: str, next_step: str) -> JobFailed:
    return JobFailed(kind, Problem.REPOSITORY, message, next_step=next_step)


def _holders(path: Path) -> str:
    """Return who holds the lock, as Borg names it: host, process and thread."""
    try:
        names = sorted(entry.name for entry in (path / "lock.exclusive").iterdir())
    except OSError:
        return ""
    return f" ({', '.join(names)})" if names else ""


def figures_of(metadata: Mapping[bytes, Any]) -> dict[str, int]:
    """Return what an archive's metadata says of its size, in bytes and files; archives of old
    borgs do not say it."""
    names = {b"size": "size", b"csize": "stored_size", b"nfiles": "files"}
    return {new: metadata[old] for old, new in names.items() if type(metadata.get(old)) is int}


class VaultRepository(Repository):  # type: ignore[misc]  # borg has no types
    """Borg's repository, of which a vault asks no room that it does not use.

    Borg wants room for compacting before every commit. Most commits of a vault do not compact,
    and a nearly full repository is where deletions have to work. Where it does compact, it is
    a few segments at a time, so that backups go on in between.
    """

    append_only: bool
    chosen: Collection[int] = ()  # segments that the commit under way compacts

    def check_free_space(self) -> None:
        """Raise InsufficientFreeSpaceError without room for index and hints."""
        own: bool = self.append_only
        self.append_only = own or not self.chosen
        try:
            super().check_free_space()
        finally:
            self.append_only = own

    def delete_known(self, chunk_id: bytes, size: int) -> None:
        """Delete an object that takes ``size`` bytes of its segment, as Borg does, but without
        reading its header back for that figure. Raises Repository.ObjectNotFound."""
        if not self._active_txn:
            self.prepare_txn(self.get_transaction_id())
        try:
            segment, _ = self.index.pop(chunk_id)
        except KeyError:
            raise self.ObjectNotFound(chunk_id, self.path) from None
        self.shadow_index.setdefault(chunk_id, []).append(segment)
        self.segments[segment] -= 1
        self.compact[segment] += size
        segment, size = self.io.write_delete(chunk_id)
        self.compact[segment] += size
        self.segments.setdefault(segment, 0)

    def sparse_segments(self, threshold: float) -> dict[int, tuple[int, int]]:
        """Return segments with a larger share of unused bytes than ``threshold`` (0 to 1), as
        number -> (unused bytes, size)."""
        if not self._active_txn:
            self.prepare_txn(self.get_transaction_id())
        found = {}
        for segment, unused in sorted(self.compact.items()):
            try:
                size = self.io.segment_size(segment)
            except OSError:
                continue  # Borg takes note of it when it compacts
            if size and unused / size > threshold:
                found[segment] = (unused, size)
        return found

    def commit_and_compact(self, segments: Collection[int]) -> None:
        """Commit, and move what is alive in these segments to new ones, as Borg does it."""
        self.chosen = segments
        try:
            self.commit(compact=True, threshold=0.0)
        finally:
            self.chosen = ()

    def compact_segments(self, threshold: float) -> None:
        """Compact the chosen segments only. Borg leaves out what is below its threshold; to
        leave out others is no different to it."""
        rest = {number: unused for number, unused in self.compact.items()
                if number not in self.chosen}  # fmt: skip
        for number in rest:
            del self.compact[number]
        try:
            super().compact_segments(threshold)
        finally:
            for number, unused in rest.items():
                self.compact[number] += unused

    def commit_bytes(self) -> int:
        """Return the free bytes that Borg's own check wants before a commit."""
        # As in Repository.check_free_space: four indexes; the hints are small beside them.
        if self.index is not None:
            size = int(self.index.size())
        else:  # between two transactions
            size = sum(file.stat().st_size for file in Path(self.path).glob("index.*"))
        return size * 4 + int(self.additional_free_space)


def read_only_cause(path: Path, *, still: bool) -> JobFailed:
    """Return the refusal of whatever would write to a repository that cannot be written, or
    could not when it was opened."""
    if not still:
        return _failed(
            "repository-read-only",
            f"The repository at {path} was read-only a moment ago, and is still being read so.",
            "It can be written now: run the job again when those that read are done.",
        )
    return _failed(
        "repository-read-only",
        f"The repository at {path} is read-only: it can be read, but not written.",
        "Read-only file systems: find out why, remount it, run the job again. Otherwise give "
        "BorgCube's user the right to write there.",
    )


def another_repository(path: Path, found: str, recorded: str) -> JobFailed:
    """Return the refusal of a repository that is not the one that was created or imported."""
    return _failed(
        "repository-replaced",
        f"What lies at {path} is another repository: its ID is {words(found[:16])}, and that of "
        f"the one that BorgCube knows there is {recorded[:16]}.",
        "Mount the storage that belongs there. To use what is there now, import it under another "
        "name.",
    )


class OpenedRepository:
    """An exclusively locked repository with its key, manifest and in-sync Borg cache.

    One that cannot be written is opened all the same, ``read_only``: without a lock, which
    could not be made there, and whatever lock a dead process left in it. Nobody on this
    server can write to it then. Borg's cache is elsewhere and kept as always.

    With a ``repository_id``, no other is opened.

    Raises JobFailed with kinds ``repository-replaced``, ``repository-missing``,
    ``repository-locked``, ``wrong-passphrase``, ``repository-read-only`` or
    ``repository-unusable``.
    """

    def __init__(
        self, path: Path, passphrase: str, *, with_cache: bool = True, hide: Hide | None = None,
        repository_id: str = "",
    ) -> None:  # fmt: skip
        if not path.is_dir() or not (path / "config").is_file():
            raise _failed(
                "repository-missing",
                f"There is no Borg repository at {path}.",
                "Mount its storage or correct the path.",
            )
        self.read_only = not os.access(path, os.W_OK)
        self.repository = VaultRepository(
            str(path), exclusive=not self.read_only, lock=not self.read_only,
            lock_wait=LOCK_WAIT_S,
        )  # fmt: skip
        self._recorded_id = repository_id
        self.cache: Any = None
        # Asked before Borg makes its cache from all archives: which ones it must not read.
        self._hide = hide
        self.hidden: list[str] = []
        self.unreadable: dict[bytes, str] = {}  # archives that are damaged, and how
        try:
            self._open(path, passphrase, with_cache=with_cache)
        except BaseException:
            self.close()
            raise

    def _open(self, path: Path, passphrase: str, *, with_cache: bool) -> None:
        from borg.locking import LockError, LockFailed, LockTimeout

        try:
            self.repository.__enter__()
            # Before anything that goes by its ID is looked at: counters, keys, caches.
            if self._recorded_id and self.repository.id_str != self._recorded_id:
                raise another_repository(path, self.repository.id_str, self._recorded_id)
            if self.read_only:
                log.warning("%s is read-only: it is opened to be read, without a lock", path)
                self._check_whole()
            envelope = self.repository.get(Manifest.MANIFEST_ID)
            key_type = identify_key(envelope)
            if key_type.TYPE not in SUPPORTED_TYPES:
                raise _failed(
                    "repository-unusable",
                    f"The encryption mode {key_type.ARG_NAME} is not supported.",
                    "Use a repokey or authenticated repository.",
                )
            self.key = key_type(self.repository)
            if not self.key.load(self.repository, Passphrase(passphrase)):
                raise _failed(
                    "wrong-passphrase",
                    "The passphrase does not open the repository.",
                    "Import it again with the right one.",
                )
            self.key.init_ciphers(envelope)
            # Borg's own decompressors stop at nothing.
            self.key.decompress = partial(decompressed, limit=MAX_MANIFEST)
            self.manifest, _ = Manifest.load(
                self.repository, Manifest.NO_OPERATION_CHECK, key=self.key
            )
            self.key.decompress = decompressed
            self.blake2 = self.key.TYPE in BLAKE2_TYPES
            self.encryption = str(self.key.ARG_NAME)
            if with_cache:
                self.cache = self._without_hidden()
        except (LockTimeout, LockError) as error:
            raise _failed(
                "repository-locked",
                f"Another program holds the lock of the repository at {path}{_holders(path)}.",
                "Wait for it, or run borg break-lock when it is surely gone.",
            ) from error
        except LockFailed as error:
            raise _failed(
                "repository-write-failed",
                f"The repository at {path} or Borg's cache cannot be locked: {error.args[-1]}.",
                "Make its storage writable and make room there, then run the job again.",
            ) from error
        except PermissionError as error:
            raise _failed(
                "repository-unusable",
                f"The repository cannot be opened: {error}.",
                "Give the user of BorgCube access to it.",
            ) from error
        except (Repository.DoesNotExist, Repository.InvalidRepository) as error:
            raise _failed(
                "repository-missing",
                f"There is no usable Borg repository at {path}.",
                "Mount its storage or correct the path.",
            ) from error

    def note_key(self, state_dir: Path) -> None:
        """Write down whose nonces are counted in ``state_dir``; see ``statedirs.py``."""
        if hasattr(self.key, "cipher"):
            statedirs.carry_over(
                state_dir, self.repository.id_str, statedirs.fingerprint(self.key.enc_key)
            )

    @cached_property
    def sealer(self) -> Sealer:
        """What encrypts and decrypts; the one of this repository."""
        return Sealer(self.key, blake2=self.blake2)

    def _is_current(self) -> bool:
        """Tell whether Borg takes its cache as it is, without reading archives."""
        config = configparser.ConfigParser(interpolation=None)
        try:
            config.read(Path(cache_dir(self.repository)) / "config")
            return config.get("cache", "manifest") == bytes(self.manifest.id).hex()
        except (OSError, ValueError, configparser.Error):
            return False

    def _without_hidden(self) -> Any:
        """Open the cache; what Borg must not read is not in the manifest meanwhile."""
        if self._hide is None or self._is_current():
            return self._open_cache()
        self.hidden = sorted(self._hide(self, False))
        try:
            return self._with_those_away()
        except (IntegrityError, Repository.ObjectNotFound) as error:
            log.warning("Borg cannot read all archives: %s", error)
            found = sorted(self._hide(self, True))
            if found == self.hidden:
                raise
            self.hidden = found
        return self._with_those_away()

    def _with_those_away(self) -> Any:
        archives = self.manifest.archives
        kept = {name: archives[name] for name in self.hidden}
        for name in self.hidden:
            log.warning("the archive %s is in quarantine and left out of Borg's cache",
                        words(name))  # fmt: skip
            del archives[name]
        try:
            return self._open_cache()
        finally:
            for name, info in kept.items():
                archives[name] = (info.id, info.ts)

    def _check_whole(self) -> None:
        """Raise JobFailed when Borg has to write before it can read."""
        index = self.repository.get_index_transaction_id()
        if index is None or index != self.repository.io.get_segments_transaction_id():
            raise _failed(
                "repository-read-only",
                "The repository is read-only, and whoever wrote to it last did not finish: its "
                "index has to be written before it can be read.",
                "Remount it writable, or copy it to where it can be written, then try again.",
            )

    def _open_cache(self) -> Any:
        """Open Borg's cache, made anew when a crash left it damaged; it is derived data."""
        try:
            return Cache(self.repository, self.key, self.manifest, lock_wait=LOCK_WAIT_S)
        except (ValueError, KeyError, EOFError, configparser.Error) as error:
            # Borg itself notices other damage, but not a file cut short.
            log.warning("Borg's cache is damaged and made anew: %s", error)
            shutil.rmtree(cache_dir(self.repository))
        return Cache(self.repository, self.key, self.manifest, lock_wait=LOCK_WAIT_S)

    def close(self, *, clean_up: bool = False) -> None:
        """Release cache and repository; safe to repeat.

        With ``clean_up``, what was written without a commit is deleted, so that a full disk
        has room again. Errors are logged: the process ends, and its locks are then stale.
        """
        cache, self.cache = self.cache, None
        steps = [cache.close] if cache is not None else []
        if self.repository.lock is not None:
            if clean_up:
                steps.append(lambda: self.repository._rollback(cleanup=True))
            steps.append(lambda: self.repository.__exit__(None, None, None))
        for step in steps:
            try:
                step()
            except Exception as error:
                log.warning("closing the repository: %s", error)
