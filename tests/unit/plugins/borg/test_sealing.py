"""What the vault compresses on many threads at once is what comes out again."""

from __future__ import annotations

import os
import random
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from borg.compress import Compressor
from borg.crypto.key import AuthenticatedKey, Blake2AuthenticatedKey, Passphrase
from borg.helpers import msgpack

from borgcube.plugins.borg.vault.clientkey import make_client_key, make_manifest
from borgcube.plugins.borg.vault.sealing import Lz4, Sealer


def texts() -> list[bytes]:
    rng = random.Random(5)
    return [bytes(rng.choices(b"abcdef", k=300_000)) for _ in range(8)]


def spoiled(compress: Any) -> int:
    """Return how often what many threads compress at once does not come out as it was."""
    plains = texts() * 12
    read = Compressor("lz4").decompress
    with ThreadPoolExecutor(8) as pool:
        packed = list(pool.map(lambda plain: bytes(compress(plain)), plains))
    wrong = 0
    for plain, data in zip(plains, packed, strict=True):
        try:
            wrong += read(data) != plain
        except Exception:
            wrong += 1
    return wrong


def test_many_threads_compress_at_once() -> None:
    assert spoiled(Lz4().compress) == 0


@pytest.mark.parametrize("size", [0, 1, 100, 100_000])
def test_borg_reads_what_we_compress(size: int) -> None:
    plain = os.urandom(size)
    assert Compressor("lz4").decompress(Lz4().compress(plain)) == plain


def test_no_key_of_a_vault_keeps_borgs_own_compressor() -> None:
    key = AuthenticatedKey(SimpleNamespace(id=bytes(32)))
    key.enc_hmac_key, key.id_key, key.chunk_seed = bytes(32), bytes(32), 1
    Sealer(key, blake2=False)
    client = make_client_key(key, blake2=False, repository_id=bytes(32))
    assert type(key.compressor) is type(client.key.compressor) is Lz4
    envelope, _ = make_manifest(client, bytes(32), {})
    assert envelope[:3] == bytes([client.key.TYPE]) + b"\1\0"


@pytest.mark.parametrize("blake2", [False, True])
def test_borg_opens_the_key_of_a_session_without_hashing_an_empty_passphrase_for_long(
    blake2: bool,
) -> None:
    repository = SimpleNamespace(id=bytes(32))
    kind = Blake2AuthenticatedKey if blake2 else AuthenticatedKey
    real = kind(repository)
    real.enc_hmac_key, real.id_key, real.chunk_seed = bytes(32), os.urandom(32), 7
    client = make_client_key(real, blake2=blake2, repository_id=bytes(32))
    opened = kind(repository)
    assert opened._load(client.blob.decode(), Passphrase(""))
    assert (opened.id_key, opened.chunk_seed) == (real.id_key, 7)
    assert opened.enc_key == client.key.enc_key != b""
    assert not kind(repository)._load(client.blob.decode(), Passphrase("another"))
    assert msgpack.unpackb(b64decode(client.blob))[b"iterations"] == 1
