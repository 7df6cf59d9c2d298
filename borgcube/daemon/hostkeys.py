"""BorgCube's own known_hosts file: describe, compare and accept host keys."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import shutil
from pathlib import Path

from borgcube.core.errors import InvalidInput

KEY_TYPE = re.compile(r"[a-z0-9][a-z0-9@.-]{2,60}")


def describe(line: str, *, hosts: set[str] | None = None) -> dict[str, str]:
    """Return ``line``, ``type`` and ``fingerprint_sha256`` of a known_hosts line; raises
    InvalidInput when it is none, or is not for one of ``hosts``."""
    parts = line.strip().split()
    if "\n" in line.strip() or len(parts) < 3 or not KEY_TYPE.fullmatch(parts[1]):
        raise InvalidInput(f"{line[:80]!r} is not a known_hosts line.")
    try:
        blob = base64.b64decode(parts[2], validate=True)
    except binascii.Error as error:
        raise InvalidInput(f"{line[:80]!r} is not a known_hosts line.") from error
    if hosts is not None and not set(parts[0].split(",")) <= hosts:
        raise InvalidInput(f"The key of {parts[0][:80]!r} is not one of this client's host.")
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return {"line": " ".join(parts[:3]), "type": parts[1],
            "fingerprint_sha256": f"SHA256:{digest}"}  # fmt: skip


def trusted_lines(path: Path) -> set[str]:
    """Return the lines of the file, none when it does not exist."""
    try:
        return {" ".join(line.split()[:3]) for line in path.read_text("utf-8").splitlines()}
    except FileNotFoundError:
        return set()


def trusted_of(path: Path, host: str, port: int) -> list[dict[str, str]]:
    """Return the keys that are trusted for a host, described."""
    names = {host, f"[{host}]:{port}"}
    return [describe(line) for line in sorted(trusted_lines(path))
            if names & set(line.split(" ", 1)[0].split(","))]  # fmt: skip


def trust(path: Path, keys: list[dict[str, str]]) -> None:
    """Add keys; an older key of the same host and type is no longer trusted."""
    replaced = {tuple(key["line"].split()[:2]) for key in keys}
    kept = sorted(line for line in trusted_lines(path) if tuple(line.split()[:2]) not in replaced)
    new = path.with_name(path.name + ".new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as out:
        out.write("".join(f"{line}\n" for line in [*kept, *(key["line"] for key in keys)]))
        out.flush()
        os.fsync(out.fileno())
    new.replace(path)


def remove_directory(path: Path) -> None:
    """Remove a call's private directory."""
    shutil.rmtree(path, ignore_errors=True)
