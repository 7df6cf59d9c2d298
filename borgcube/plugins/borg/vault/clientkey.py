"""The key and the synthetic manifest a session gives its client.

The client key shares the ID key and the chunker seed with the repository and nothing
else: encryption and MAC keys are random, so that no tag made with it opens or forges
anything in the repository.
"""

from __future__ import annotations

import os
from base64 import b64decode, encodebytes
from dataclasses import dataclass
from hashlib import pbkdf2_hmac
from types import SimpleNamespace
from typing import Any

from borg.crypto.key import AuthenticatedKey, Blake2AuthenticatedKey
from borg.helpers import Manifest, msgpack

from borgcube.plugins.borg.vault.sealing import Lz4

ROUNDS = 1
"""How often a session's empty passphrase is hashed. There is nothing to guess in it, so Borg's
100,000 rounds would only cost a tenth of a second of CPU on either side of each session."""


class _NoPassphrase:
    """Stands in for Borg's ``Passphrase`` of no words, which is hashed ``ROUNDS`` times."""

    def kdf(self, salt: bytes, _iterations: int, length: int) -> bytes:
        return pbkdf2_hmac("sha256", b"", salt, ROUNDS, length)


@dataclass(frozen=True)
class ClientKey:
    """A session's key object, its sealed blob and the mode's name of the ID function."""

    key: Any
    blob: bytes
    id_kind: str


def make_client_key(real_key: Any, *, blake2: bool, repository_id: bytes) -> ClientKey:
    """Return a fresh session key that computes the repository's chunk IDs."""
    stand_in = SimpleNamespace(id=repository_id)
    key = (Blake2AuthenticatedKey if blake2 else AuthenticatedKey)(stand_in)
    key.repository_id = repository_id
    key.enc_key = os.urandom(32)
    key.enc_hmac_key = os.urandom(len(real_key.enc_hmac_key))
    key.id_key = real_key.id_key
    key.chunk_seed = real_key.chunk_seed
    key.tam_required = True
    key.compressor = Lz4()
    return ClientKey(key, _sealed(key), "blake2b" if blake2 else "hmac-sha256")


def _sealed(key: Any) -> bytes:
    """Return the key as Borg stores it. Borg writes its own number of rounds down and hashes
    as often as it reads (``borg/crypto/key.py``, ``decrypt_key_file``)."""
    fields = msgpack.unpackb(b64decode(key._save(_NoPassphrase())))
    return encodebytes(msgpack.packb({**fields, b"iterations": ROUNDS}))


class _Sink:
    """Receives the one put of Manifest.write."""

    def __init__(self, repository_id: bytes) -> None:
        self.id = repository_id
        self.data = b""

    def put(self, _id: bytes, data: bytes, wait: bool = True) -> None:
        self.data = data


def make_manifest(
    client: ClientKey, repository_id: bytes, archives: dict[str, tuple[bytes, str]]
) -> tuple[bytes, bytes]:
    """Return (envelope, manifest ID) of a manifest listing ``archives`` only.

    ``archives`` maps a name to (archive ID, ISO time).
    """
    sink = _Sink(repository_id)
    manifest = Manifest(client.key, sink)
    for name, info in archives.items():
        manifest.archives[name] = info
    manifest.write()
    return sink.data, manifest.id
