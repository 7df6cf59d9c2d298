"""The master key, and sealing of small secrets (repository passphrases) with it.

AES-256-GCM with a random 96-bit nonce for each seal; the associated data ties a sealed
value to the record it belongs to, so that it cannot be moved to another one.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from borgcube.core.errors import ConfigurationError

HEADER = "borgcube-master-key-1"
NONCE_BYTES = 12
KEY_BYTES = 32


def key_file(home: Path) -> Path:
    """Return the path of the home's master key."""
    return home / "master.key"


def create_master_key(home: Path) -> MasterKey:
    """Write a new random key, 0600, synced; raises ConfigurationError if one exists."""
    path = key_file(home)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError as error:
        raise ConfigurationError(f"The master key {path} exists already.") from error
    try:
        with os.fdopen(fd, "w", encoding="ascii") as out:
            out.write(f"{HEADER} {os.urandom(KEY_BYTES).hex()}\n")
            out.flush()
            os.fsync(out.fileno())
    except OSError:
        path.unlink(missing_ok=True)  # half a key seals nothing
        raise
    return load_master_key(home)


def load_master_key(home: Path) -> MasterKey:
    """Read the key; raises ConfigurationError when missing, damaged or readable by others."""
    path = key_file(home)
    try:
        with path.open("rb") as source:
            mode = stat.S_IMODE(os.fstat(source.fileno()).st_mode)
            data = source.read(1000)
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"The master key {path} is missing.",
            next_step=f"Put it back from your copy, or run: borgcube --home {home} init",
        ) from error
    except OSError as error:
        raise ConfigurationError(f"The master key {path} cannot be read: {error}.") from error
    if mode & 0o077:
        raise ConfigurationError(
            f"The master key {path} is open to other users (mode {mode:04o}).",
            next_step=f"Run: chmod 600 {path}",
        )
    try:
        header, digits = data.decode("ascii").split()
        key = bytes.fromhex(digits)
    except ValueError:
        header, key = "", b""
    if header != HEADER or len(key) != KEY_BYTES:
        raise ConfigurationError(
            f"The master key {path} is damaged.", next_step="Put it back from your copy."
        )
    return MasterKey(key)


class MasterKey:
    """Seals and unseals; never shows its bytes."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, secret: str, *, context: str) -> bytes:
        """Return ``secret`` encrypted and tied to ``context``."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret.encode(), context.encode())

    def unseal(self, sealed: bytes, *, context: str) -> str:
        """Return the secret; raises ConfigurationError for another key or context."""
        try:
            plain = self._cipher.decrypt(
                sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], context.encode()
            )
        except (InvalidTag, ValueError) as error:
            raise ConfigurationError(
                f"The secret of {context} cannot be opened with this master key.",
                next_step="Put back the master.key that belongs to this store.",
            ) from error
        return plain.decode()
