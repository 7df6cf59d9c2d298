"""What the vault compresses on many threads at once is what comes out again."""

from __future__ import annotations

import os
import random
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from borg.compress import Compressor
from borg.crypto.key import AuthenticatedKey

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
