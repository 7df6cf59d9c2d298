"""One-off repository work in a process of its own: create and inspect.

Reads one JSON line from standard input (the passphrase is in it), prints one JSON line.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from borgcube.core import memory
from borgcube.core.errors import BorgCubeError
from borgcube.core.untrusted import words
from borgcube.plugins.borg import borgenv, layout
from borgcube.plugins.borg.plaincheck import memory_for
from borgcube.plugins.borg.speeds import faster_mode


def create(path: Path, encryption: str, passphrase: str) -> dict[str, Any]:
    """Create a repository with the key inside and an empty manifest; return its facts."""
    from borg.cache import Cache
    from borg.crypto.key import AVAILABLE_KEY_TYPES, Passphrase
    from borg.helpers import Manifest
    from borg.repository import Repository

    if encryption == "auto":
        encryption = faster_mode()
    allowed = ("repokey", "repokey-blake2", "authenticated", "authenticated-blake2")
    if encryption not in allowed:
        return _error(
            "unknown-encryption",
            f"There is no encryption mode {encryption!r}.",
            f"Choose one of {', '.join(allowed)}.",
        )
    if (path / "config").exists() and Repository.is_repository(str(path)):
        return _error(
            "repository-exists",
            f"There is a Borg repository at {path} already.",
            "Use `borgcube repository import` to take it over.",
        )
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        return _error(
            "directory-not-empty",
            f"{path} exists and is not an empty directory.",
            "Choose another directory.",
        )
    try:
        with Repository(
            str(path), create=True, exclusive=True, make_parent_dirs=True
        ) as repository:
            key_class = {kind.ARG_NAME: kind for kind in AVAILABLE_KEY_TYPES}[encryption]
            key = key_class(repository)
            key.repository_id = repository.id
            key.init_from_random_data()
            key.init_ciphers()
            key.save(repository, Passphrase(passphrase), create=True)
            manifest = Manifest(key, repository)
            manifest.key = key
            manifest.write()
            repository.commit(compact=False)
            with Cache(repository, key, manifest, warn_if_unencrypted=False):
                pass
            return {"id": repository.id_str, "encryption": encryption, "archives": []}
    except PermissionError as error:
        return _error(
            "directory-not-writable",
            f"{path} cannot be written: {error.strerror}.",
            "Give the user of BorgCube access to it.",
        )


def inspect(path: Path, passphrase: str, state_dir: Path) -> dict[str, Any]:
    """Open an existing repository, proving the passphrase; list its archives with their sizes.

    ``state_dir`` is to be this repository's own; nothing that is kept elsewhere is changed."""
    from borgcube.plugins.borg.vault.ledger import Source
    from borgcube.plugins.borg.vault.opened import OpenedRepository

    if path.is_dir() and (path / "config").exists():
        layout.check(path)
    opened = OpenedRepository(path, passphrase, with_cache=False)
    try:
        opened.note_key(state_dir)
        source = Source(opened)
        return {
            "id": opened.repository.id_str,
            "encryption": opened.encryption,
            "archives": [
                {
                    "id": info.id.hex(),
                    "name": info.name,
                    "start": info.ts.isoformat(),
                    **_figures(source, info.id),
                }
                for info in opened.manifest.archives.list()
            ],
        }
    finally:
        opened.close()


def _figures(source: Any, archive_id: bytes) -> dict[str, int]:
    """Return what an archive says of its size; nothing when it cannot be read: a check tells
    of that, and the others are taken in."""
    from borgcube.core.errors import JobFailed
    from borgcube.plugins.borg.vault.ledger import metadata_of
    from borgcube.plugins.borg.vault.opened import figures_of

    try:
        return figures_of(metadata_of(source, archive_id))
    except (JobFailed, OSError, MemoryError):
        return {}


def _error(kind: str, message: str, next_step: str) -> dict[str, Any]:
    return {"error": {"kind": kind, "message": message, "next_step": next_step}}


def main() -> int:
    """Entry point of ``python -m borgcube.plugins.borg.tool``."""
    request = SimpleNamespace(**json.loads(sys.stdin.readline()))
    os.umask(0o077)
    borgenv.prepare(Path(request.state_dir))
    memory.limit(memory_for(Path(request.path)))
    try:
        if request.op == "create":
            answer = create(Path(request.path), request.encryption, request.passphrase)
        else:
            answer = inspect(Path(request.path), request.passphrase, Path(request.state_dir))
    except BorgCubeError as error:
        answer = _error(
            getattr(getattr(error, "cause", None), "kind", "failed"), error.message, error.next_step
        )
    except OSError as error:
        answer = _error("storage", f"{error.strerror}: {error.filename}.", "Check the storage.")
    except Exception as error:
        # What a damaged or crafted repository makes Borg raise. Its words may be the repository's.
        short = memory.is_shortage(error)
        what = "needs more memory than it may have" if short else "cannot be read"
        answer = _error(
            "repository-unusable",
            f"The repository at {request.path} {what} ({type(error).__name__}: {words(error)}).",
            "Run borg check on it, where it comes from.",
        )
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
