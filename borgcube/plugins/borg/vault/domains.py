"""What each domain's clients may know: the chunk index of their own archives.

One directory per domain with ``archives.json`` (which archives are the domain's) and
``chunks``, a Borg ChunkIndex. Both are derived: a missing ``chunks`` file is made again
from the archives, and what it lists is offered only if the repository still has it.

An archive is entered before the commit that makes it, as ``pending``, and a second time
after it, so that a crash in between neither loses it nor leaves an index without it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from borg.hashindex import ChunkIndex

from borgcube.core.errors import ARCHIVE_QUARANTINED, JobFailed
from borgcube.plugins.borg.vault.causes import home_writes
from borgcube.plugins.borg.vault.ledger import Ledger


def _safe(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def _count_in(index: Any, references: Any, *, partial: bool) -> None:
    """Add an archive's references; those of an unfinished backup are listed, not counted."""
    if not partial:
        index.merge(references)
        return
    for chunk_id, entry in references.iteritems():
        if chunk_id not in index:
            index[chunk_id] = (0, entry[1], 0)


def _count_out(index: Any, references: Any) -> None:
    """Take an archive's references out again; what nobody has any more goes."""
    for chunk_id, entry in references.iteritems():
        held = index.get(chunk_id)
        if held is None:
            continue
        left = held[0] - entry[0]
        if left > 0:
            index[chunk_id] = (left, held[1], 0)
        else:
            del index[chunk_id]


class Domain:
    """The archives and the chunk index of one domain of one repository."""

    def __init__(self, root: Path, name: str) -> None:
        self._set(root / _safe(name))
        with home_writes():
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _set(self, path: Path) -> None:
        self.path = path
        self._archives = self.path / "archives.json"
        self._chunks = self.path / "chunks"

    @classmethod
    def every(cls, root: Path) -> list[Domain]:
        """Return all domains that have a directory below ``root``."""
        found = []
        for path in sorted(root.glob("*/archives.json")):
            domain = cls.__new__(cls)
            domain._set(path.parent)
            found.append(domain)
        return found

    def archives(self) -> dict[str, dict[str, Any]]:
        """Return archive ID (hex) -> facts (name, plan, client, job, partial, pending)."""
        try:
            data = json.loads(self._archives.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return data if isinstance(data, dict) else {}

    def _save(self, archives: dict[str, dict[str, Any]]) -> None:
        temporary = self._archives.with_suffix(".new")
        with home_writes():
            with temporary.open("w") as file:
                json.dump(archives, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._archives)

    def index(self, ledger: Ledger, *, into: Any = None) -> Any:
        """Return the ChunkIndex of the domain, limited to chunks the repository holds.

        With ``into`` they are added to that one.
        """
        stored = self._load(ledger)
        offered = ChunkIndex() if into is None else into
        known = ledger.chunks
        for chunk_id, _entry in stored.iteritems():
            entry = known.get(chunk_id)
            if entry is not None:
                # Count and stored size are constants: they would tell of other clients.
                offered[chunk_id] = (1, entry[1], entry[1])
        return offered

    def _load(self, ledger: Ledger) -> Any:
        index = self._read()
        return self.rebuild(ledger) if index is None else index

    def _read(self) -> Any:
        """Return the stored index, or None when it is missing or damaged."""
        if not self._chunks.exists():
            return None
        try:
            return ChunkIndex.read(str(self._chunks))
        except Exception:  # a damaged file raises several types; it is derived data
            self._chunks.unlink()
            return None

    def rebuild(self, ledger: Ledger) -> Any:
        """Make the index again from the domain's archives that still exist.

        Pending ones are left out: :meth:`add` is about to count them.
        """
        present = {info.id.hex() for info in ledger.manifest.archives.list()}
        archives = {key: facts for key, facts in self.archives().items() if key in present}
        index = ChunkIndex()
        for archive_id, facts in archives.items():
            if facts.get("pending"):
                continue
            try:
                references = ledger.references(bytes.fromhex(archive_id))
            except JobFailed as error:
                if error.cause.kind != ARCHIVE_QUARANTINED:
                    raise
                continue  # what only it has is not offered
            _count_in(index, references, partial=bool(facts.get("partial")))
        self._save(archives)
        self._write(index)
        return index

    def _write(self, index: Any) -> None:
        temporary = self.path / "chunks.new"
        with home_writes():
            index.write(str(temporary))
            descriptor = os.open(temporary, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(temporary, self._chunks)

    def intend(self, archive_id: str, facts: dict[str, Any]) -> None:
        """Note an archive that the commit to come will make."""
        self._save({**self.archives(), archive_id: {**facts, "pending": True}})

    def forget(self, names: Iterable[str]) -> None:
        """Take partial archives out that were deleted; what only they had is offered no more."""
        gone = set(names)
        kept = {key: facts for key, facts in self.archives().items() if facts["name"] not in gone}
        if not any(facts.get("partial") for facts in kept.values()) and self._chunks.exists():
            index = self._read()
            if index is not None:
                for chunk_id in [key for key, entry in index.iteritems() if entry[0] == 0]:
                    del index[chunk_id]
                self._write(index)
        self._save(kept)

    def settle(self, names: Collection[str]) -> None:
        """Note that what unfinished backups stored is counted with an archive now."""
        self._save({
            key: {**facts, "charged": 0} if facts["name"] in names else facts
            for key, facts in self.archives().items()
        })  # fmt: skip

    def remove(self, deleted: Mapping[str, Any]) -> None:
        """Take archives out that were deleted: archive ID (hex) -> its references.

        What no other archive of the domain has is offered no more.
        """
        archives = self.archives()
        counted = ChunkIndex()
        for key, references in deleted.items():
            if key in archives and not archives[key].get("partial"):
                counted.merge(references)
        self.remove_counted(set(deleted), counted)

    def remove_counted(self, deleted: Collection[str], references: Any) -> None:
        """Take archives out that were deleted, and what they referenced, all in one index."""
        archives = self.archives()
        if not any(key in archives for key in deleted):
            return
        index = self._read()
        if index is not None:
            _count_out(index, references)
            self._write(index)
        self._save({key: facts for key, facts in archives.items() if key not in deleted})

    def reconcile(self, present: dict[str, str]) -> None:
        """Keep what the repository has: ``present`` maps archive ID (hex) to name.

        An archive that was made again under its old name (a repair, ``borg recreate``) stays
        in the domain. The index is dropped when it may list too much or too little.
        """
        listed = self.archives()
        by_name = {name: key for key, name in present.items()}
        kept: dict[str, dict[str, Any]] = {}
        current = True
        for key, facts in listed.items():
            if not isinstance(facts, dict) or "name" not in facts:
                continue
            settled = {field: value for field, value in facts.items() if field != "pending"}
            again = by_name.get(facts["name"], "")
            if key in present:
                kept[key] = settled
                current = current and not facts.get("pending")
            elif again and again not in listed and not facts.get("pending"):
                kept[again] = settled
                current = False
            elif not facts.get("pending"):
                current = current and bool(facts.get("partial"))
        if not current:
            self.drop_index()
        if kept != listed:
            self._save(kept)

    def add(self, ledger: Ledger, archive_id: str, facts: dict[str, Any], references: Any) -> None:
        """Record a committed archive; ``references`` is a ChunkIndex of counts and sizes."""
        index = self._load(ledger)
        _count_in(index, references, partial=bool(facts.get("partial")))
        self._write(index)
        self._save({**self.archives(), archive_id: facts})

    def partials(self, plan: str, *, before: str) -> list[str]:
        """Return names of the plan's partial archives other than ``before``'s own."""
        return [
            facts["name"]
            for facts in self.archives().values()
            if facts.get("partial") and facts.get("plan") == plan and facts["name"] != before
        ]

    def drop_index(self) -> None:
        """Forget the chunk index, so that it is made again; after a deletion."""
        self._chunks.unlink(missing_ok=True)
