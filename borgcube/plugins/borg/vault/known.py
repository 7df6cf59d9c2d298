"""Which archives of a repository may be read beside the key, and which are in quarantine.

Archives that this server's vault encoded are known. Any other (of BorgCube 0.1.0, of an import,
made by plain borg since) holds bytes that somebody else wrote: before anything relies on them,
both readers look through them once, in a confined process (``metadata/compare.py``). One that they
read differently, or that Borg could not restore, is in quarantine: named with its reason, never
counted down by its own metadata, not restored, its chunks kept.

What is known is a file of the vault, a JSON object a line. It is derived: without it everything is
looked through again. Nothing here trusts what a repository says of itself.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from borg.crypto.key import ArchiveTAMInvalid, TAMUnsupportedSuiteError
from borg.hashindex import CacheSynchronizer, ChunkIndex

from borgcube.core.errors import ARCHIVE_QUARANTINED, JobFailed, Problem
from borgcube.core.untrusted import words
from borgcube.plugins.borg.metadata.readers import Readers
from borgcube.plugins.borg.metadata.rules import ArchiveRefused
from borgcube.plugins.borg.vault.ledger import Source

log = logging.getLogger("borgcube.vault")
FILE_NAME = "known-archives.jsonl"
# Of our encoder and of the rules for stored archives: a new one has everything looked at anew.
VERSION = 1
COUNTED = "counted"
DAMAGED = "repository-damaged"


def quarantined(name: str, reason: str) -> JobFailed:
    """Return the end of whatever wanted to use an archive that is in quarantine."""
    return JobFailed(
        ARCHIVE_QUARANTINED, Problem.REPOSITORY,
        f"The archive {name} is in quarantine: {reason}.",
        next_step=f"To rewrite what is sound of it: borgcube archive mend {name}. "
        "To let it go: borgcube archive delete it.",
    )  # fmt: skip


class Known:
    """The archives that were looked through, by ID, and what was found. Safe for threads."""

    def __init__(self, ledger: Source, directory: Path, readers: Readers) -> None:
        self._ledger, self._readers = ledger, readers
        self._path = directory / FILE_NAME
        self._lock = threading.Lock()
        self._sound: set[bytes] = set()
        self._bad: dict[bytes, str] = {}
        self._unreadable: dict[bytes, str] = {}  # of those
        # Whether the counts of this repository are those of its archives as Borg reads them.
        self.counted = False
        self._load()

    # What is known ------------------------------------------------------------------------

    def is_sound(self, archive_id: bytes) -> bool:
        """Tell whether an archive is ours or was looked through and found sound."""
        return archive_id in self._sound

    def reason(self, archive_id: bytes) -> str:
        """Return why an archive is in quarantine; empty when it is not."""
        return self._bad.get(archive_id, "")

    def bad(self) -> dict[bytes, str]:
        """Return the archives in quarantine, by ID, each with its reason."""
        with self._lock:
            return dict(self._bad)

    def unknown(self) -> dict[bytes, str]:
        """Return the archives that were not looked through yet, ID -> name."""
        with self._ledger.lock:
            listed = [(info.id, info.name) for info in self._ledger.manifest.archives.list()]
        return {
            archive_id: name for archive_id, name in listed
            if archive_id not in self._sound and archive_id not in self._bad
        }  # fmt: skip

    def require(self, archive_id: bytes, name: str = "") -> None:
        """Return if an archive is sound, after looking through it if need be.

        Raises JobFailed ``archive-quarantined``, ``repository-damaged`` or ``reader-failed``.
        """
        if archive_id in self._sound:
            return
        if archive_id not in self._bad:
            try:
                self._look_through(archive_id)
            except JobFailed as error:
                if error.cause.kind != DAMAGED:
                    raise
                self.note_unreadable(archive_id, str(error))
        if archive_id in self._bad:
            raise quarantined(name or self._name_of(archive_id), self._bad[archive_id])

    def check_whole(self, archive_id: bytes) -> None:
        """Put an archive into quarantine if Borg could not make its cache from it: when part of its
        list of files cannot be read, or when Borg does not accept its authentication. Old borgs
        left that behind when they renamed an archive."""
        if archive_id not in self._sound:
            return
        ledger = self._ledger
        try:
            ledger.key.unpack_and_verify_archive(
                ledger.read(archive_id), force_tam_not_required=True
            )
        except (ArchiveTAMInvalid, TAMUnsupportedSuiteError) as error:
            log.warning("archive %s is in quarantine: %s", archive_id.hex()[:16], error)
            self.note_bad(archive_id, "Borg does not accept its authentication, which an older "
                          "borg left behind when it renamed or made it")  # fmt: skip
            return
        except JobFailed as error:
            self.note_unreadable(archive_id, str(error))
            return
        reader = self._readers.open()
        try:
            counter = CacheSynchronizer(ChunkIndex())
            for chunk_id in reader.stored(ledger.read(archive_id)):
                counter.feed(ledger.read(chunk_id))
        except (JobFailed, ArchiveRefused, ValueError) as error:
            self.note_unreadable(archive_id, str(error))
        finally:
            reader.close()

    def note_unreadable(self, archive_id: bytes, reason: str) -> None:
        """Put an archive into quarantine until the next start: the disk may be at fault."""
        log.warning("archive %s is in quarantine: %s", archive_id.hex()[:16], words(reason))
        with self._lock:
            self._sound.discard(archive_id)
            self._unreadable[archive_id] = reason
            self._bad[archive_id] = f"not all of it can be read ({words(reason).rstrip('.')})"

    def unreadable(self) -> dict[bytes, str]:
        """Return the archives that are in quarantine because they are damaged, and how."""
        with self._lock:
            return dict(self._unreadable)

    def _name_of(self, archive_id: bytes) -> str:
        with self._ledger.lock:
            for info in self._ledger.manifest.archives.list():
                if info.id == archive_id:
                    return words(info.name)
        return archive_id.hex()[:16]

    def _look_through(self, archive_id: bytes) -> None:
        ledger = self._ledger
        plain = ledger.read(archive_id)
        reader = self._readers.open()

        def chunks(ids: tuple[bytes, ...]) -> Iterator[bytes]:
            for chunk_id in ids:
                yield ledger.read(chunk_id)

        try:
            figures = reader.compare(chunks(reader.stored(plain)))
        except ArchiveRefused as error:
            log.warning("archive %s is in quarantine: %s", archive_id.hex()[:16], error)
            self.note_bad(archive_id, words(str(error)))
        else:
            log.info("archive %s is sound: %s", archive_id.hex()[:16], figures)
            self.note_sound(archive_id)
        finally:
            reader.close()

    # What is written down -----------------------------------------------------------------

    def note_sound(self, archive_id: bytes) -> None:
        """Write down that an archive is ours, or was found sound."""
        with self._lock:
            self._bad.pop(archive_id, None)
            self._unreadable.pop(archive_id, None)
            if archive_id not in self._sound:
                self._sound.add(archive_id)
                self._append({"id": archive_id.hex()})

    def note_bad(self, archive_id: bytes, reason: str) -> None:
        """Write down that an archive is in quarantine."""
        with self._lock:
            self._sound.discard(archive_id)
            self._bad[archive_id] = reason
            self._append({"id": archive_id.hex(), "why": reason})

    def note_uncounted(self) -> None:
        """Say that the counts leave archives in quarantine out, until they are made anew."""
        with self._lock:
            self.counted = False
            self._append({COUNTED: False})

    def note_counted(self) -> None:
        """Write down that the counts are those of the archives."""
        with self._lock:
            self.counted = True
            self._append({COUNTED: True})

    def forget(self, archive_id: bytes) -> None:
        """Forget an archive that is gone; the file follows at the next start."""
        with self._lock:
            self._sound.discard(archive_id)
            self._bad.pop(archive_id, None)

    def _append(self, line: dict[str, Any]) -> None:
        try:
            with self._path.open("a", encoding="ascii") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            log.warning("%s: it is looked through again after the next start", error)

    def _load(self) -> None:
        """Read the file, and write it anew without what is gone."""
        with self._ledger.lock:
            present = {info.id for info in self._ledger.manifest.archives.list()}
        lines: list[dict[str, Any]] = [{"version": VERSION}]
        for line in self._lines():
            if COUNTED in line:
                self.counted = bool(line[COUNTED])
                continue
            try:
                archive_id = bytes.fromhex(line["id"])
                reason = str(line.get("why") or "")
            except (KeyError, ValueError, TypeError):
                continue
            if archive_id in present:
                self._sound.discard(archive_id)
                self._bad.pop(archive_id, None)
                if reason:
                    self._bad[archive_id] = words(reason)
                else:
                    self._sound.add(archive_id)
        # A repository without archives has the right counts.
        self.counted = self.counted or not present
        lines += [{"id": one.hex()} for one in sorted(self._sound)]
        lines += [{"id": one.hex(), "why": why} for one, why in sorted(self._bad.items())]
        if self.counted:
            lines.append({COUNTED: True})
        temporary = self._path.with_name(f"{FILE_NAME}.new")
        try:
            temporary.write_text("".join(json.dumps(one) + "\n" for one in lines), "ascii")
            os.replace(temporary, self._path)
        except OSError as error:
            log.warning("%s: known archives are looked through again", error)

    def _lines(self) -> list[dict[str, Any]]:
        try:
            text = self._path.read_text("ascii", errors="replace")
        except OSError:
            return []
        found = []
        for line in text.splitlines():
            try:
                data = json.loads(line)
            except ValueError:
                continue  # torn by a crash
            if isinstance(data, dict):
                found.append(data)
        return found[1:] if found and found[0].get("version") == VERSION else []
