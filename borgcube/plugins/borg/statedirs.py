"""What the vault keeps beside a repository: where it was in 0.1.0, and its counter of nonces.

Borg's security directory has the highest nonce that this server may have used with a repository's
key. It must survive the repository's record: removed here and imported again, perhaps from an older
copy, the repository goes on behind it. Whether two repositories have one key is asked of a
fingerprint of the key, not of the ID, which anybody can claim. Imports no borg.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from pathlib import Path

log = logging.getLogger("borgcube.vault")
REPOSITORIES = "repositories"  # as ``core.home.repository_state_dir`` calls it
SECURITY = Path("base", ".config", "borg", "security")
CACHE = Path("base", ".cache", "borg")
KEY_FILE = "key-of-nonces"
HEX_ID = re.compile(r"[0-9a-f]{64}\Z")
_NONCE = re.compile(r"[0-9a-fA-F]{16}\s*\Z")


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _move(old: Path, new: Path) -> None:
    if not old.is_dir() or new.exists():
        return
    new.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    old.rename(new)
    _sync(new.parent)
    _sync(old.parent)


def adopt(shared: Path, own: Path, repository_id: str) -> None:
    """Move what 0.1.0 kept of a repository to ``own``: first the counter of nonces, then Borg's
    cache, the vault's files and the note of who held its locks. Safe to repeat."""
    if not HEX_ID.fullmatch(repository_id):
        return
    old_cache, new_cache = shared / CACHE / repository_id, own / CACHE / repository_id
    _move(shared / SECURITY / repository_id, own / SECURITY / repository_id)
    _move(old_cache, new_cache)
    _move(shared / repository_id, own / repository_id)
    for note in (shared / "holders").glob("*.json"):
        try:
            facts = json.loads(note.read_text("utf-8"))
            held = [str(one) for one in facts["directories"]]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if not any(Path(one).is_relative_to(old_cache) for one in held):
            continue
        facts["directories"] = [
            str(new_cache / Path(one).relative_to(old_cache))
            if Path(one).is_relative_to(old_cache) else one
            for one in held
        ]  # fmt: skip
        place = own / "holders"
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        (place / note.name).write_text(json.dumps(facts), "utf-8")
        note.unlink()


def fingerprint(key: bytes) -> str:
    """Return what tells one key that encrypts from another, and nothing of it."""
    return hashlib.blake2b(key, digest_size=32, person=b"borgcube-nonces").hexdigest()


def note_key(state_dir: Path, mark: str) -> None:
    """Write down whose nonces are counted here."""
    place = state_dir / KEY_FILE
    try:
        if place.read_text("ascii") == mark:
            return
    except (OSError, ValueError):
        pass
    fresh = place.with_suffix(".new")
    fresh.write_text(mark, "ascii")
    fresh.replace(place)


def _nonce(state_dir: Path, repository_id: str) -> int:
    try:
        text = (state_dir / SECURITY / repository_id / "nonce").read_text("ascii")
    except (OSError, ValueError):
        return 0
    return int(text, 16) if _NONCE.fullmatch(text) else 0


def carry_over(state_dir: Path, repository_id: str, mark: str) -> None:
    """Begin behind every nonce that this server ever used with this key, under another record
    as well; what 0.1.0 left of a repository that was removed counts by its ID."""
    note_key(state_dir, mark)
    if state_dir.parent.name != REPOSITORIES:
        return
    highest = _nonce(state_dir.parent.parent, repository_id)
    for other in state_dir.parent.iterdir():
        try:
            known = (other / KEY_FILE).read_text("ascii")
        except (OSError, ValueError):
            continue
        if known == mark:
            highest = max(highest, *(
                _nonce(other, one.name) for one in (other / SECURITY).glob("*")
            ), 0)  # fmt: skip
    if highest <= _nonce(state_dir, repository_id):
        return
    place = state_dir / SECURITY / repository_id
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = place / "nonce.new"
    with fresh.open("w", encoding="ascii") as file:
        file.write(f"{highest:016x}")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(place / "nonce")
    _sync(place)
    log.info("the counter of nonces goes on at %d", highest)
