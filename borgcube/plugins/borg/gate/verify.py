"""Bounded decompression and chunk IDs.

Borg's own decompressors trust what they are given. These stop at ``limit`` bytes, whatever
a client sends. Compression headers: Borg 1.4 documentation, "Internals, Data structures,
Compression". Chunk IDs: the same document, "Key files / Encryption".
"""

from __future__ import annotations

import hashlib
import lzma
import zlib
from collections.abc import Callable
from typing import Any

import lz4.block
import zstandard

MAX_PLAIN = 20971479  # Borg's MAX_DATA_SIZE: the largest content of one object, in bytes
MAX_MANIFEST = 64 * 1024  # bytes; a manifest of one archive takes about one KiB
LZMA_MEMORY = 128 << 20  # bytes; level 9, Borg's highest, takes 65 MiB

IdHash = Callable[[bytes], bytes]


class Rejected(Exception):
    """The client sent something that is not acceptable; the text is for our log only.

    ``kind`` is a stable word for what it did, see ``docs/guarantees.md``.
    """

    def __init__(self, message: str, *, kind: str = "protocol") -> None:
        super().__init__(message)
        self.kind = kind


def _bad(message: str) -> Rejected:
    return Rejected(message, kind="bad-compression")


def _too_large() -> Rejected:
    return Rejected("decompressed data is larger than a chunk may be", kind="too-large")


def _lz4(data: memoryview, limit: int) -> bytes:
    # LZ4 cannot expand more than 255 times, so that small input needs no large buffer.
    bound = min(limit, 255 * len(data) + 64)
    plain: bytes = lz4.block.decompress(data, uncompressed_size=bound)
    return plain


def _zstd(data: memoryview, limit: int) -> bytes:
    announced = zstandard.frame_content_size(data)
    if announced > limit:
        raise _too_large()
    # Borg reads no frame that does not tell its size, and reads past the first one: what
    # means something else to it than to us would spoil whoever relies on the chunk.
    if announced < 1:
        raise _bad("a zstd frame announces no content")
    plain: bytes = zstandard.ZstdDecompressor().decompress(
        data, max_output_size=limit, allow_extra_data=False
    )
    return plain


def _zlib(data: memoryview, limit: int) -> bytes:
    engine = zlib.decompressobj()
    plain = engine.decompress(data, limit + 1)
    return _whole(engine, plain, limit=limit, what="zlib")


def _lzma(data: memoryview, limit: int) -> bytes:
    engine = lzma.LZMADecompressor(memlimit=LZMA_MEMORY)
    plain = engine.decompress(data, limit + 1)
    return _whole(engine, plain, limit=limit, what="lzma")


def _whole(engine: Any, plain: bytes, *, limit: int, what: str) -> bytes:
    if len(plain) > limit:
        raise _too_large()
    if not engine.eof:
        raise _bad(f"{what} data is incomplete")
    if engine.unused_data:
        # Borg would go on with a second lzma stream.
        raise _bad(f"{what} data goes on after its end")
    return plain


def decompress(data: bytes | memoryview, *, limit: int = MAX_PLAIN) -> bytes:
    """Return the plaintext of Borg-compressed ``data``, at most ``limit`` bytes.

    What it returns is what Borg's own decompressor returns. Raises Rejected for anything
    unknown, damaged, too large, or that Borg would read in another way; MemoryError when this
    process has too little, which is no fault of the data.
    """
    view = memoryview(data)
    if len(view) < 2:
        raise _bad("a chunk is too short")
    first, second = view[0], view[1]
    try:
        if (first, second) == (1, 0):
            plain = _lz4(view[2:], limit)
        elif (first, second) == (0, 0):
            plain = bytes(view[2:])
        elif (first, second) == (3, 0):
            plain = _zstd(view[2:], limit)
        elif (first, second) == (2, 0):
            plain = _lzma(view[2:], limit)
        elif first & 0x0F == 8 and (first * 256 + second) % 31 == 0:
            plain = _zlib(view, limit)
        else:
            raise _bad("a chunk has an unknown compression")
    except (lz4.block.LZ4BlockError, zstandard.ZstdError, lzma.LZMAError, zlib.error) as error:
        raise _bad(f"a chunk does not decompress: {error}") from None
    except (ValueError, EOFError) as error:
        raise _bad(f"a chunk does not decompress: {type(error).__name__}") from None
    if len(plain) > limit:
        raise _too_large()
    return plain


def rehearse() -> None:
    """Use every decompressor once, so that nothing is loaded after the gate is confined."""
    plain = b"borgcube" * 8
    for data in (
        b"\0\0" + plain,
        b"\1\0" + lz4.block.compress(plain, store_size=False),
        b"\2\0" + lzma.compress(plain),
        b"\3\0" + zstandard.ZstdCompressor().compress(plain),
        zlib.compress(plain),
    ):
        if decompress(data) != plain:
            raise RuntimeError("a decompressor does not work")


def hmac_sha256_id(key: bytes) -> IdHash:
    """Return the HMAC-SHA256 chunk ID function (RFC 2104) with the pads precomputed."""
    short = key if len(key) <= 64 else hashlib.sha256(key).digest()
    block = short.ljust(64, b"\0")
    inner_start = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
    outer_start = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def id_hash(data: bytes) -> bytes:
        inner = inner_start.copy()
        inner.update(data)
        outer = outer_start.copy()
        outer.update(inner.digest())
        return outer.digest()

    return id_hash


def blake2b_id(key: bytes) -> IdHash:
    """Return Borg's BLAKE2b-256 chunk ID function: the key is prepended to the data."""
    start = hashlib.blake2b(key, digest_size=32)

    def id_hash(data: bytes) -> bytes:
        state = start.copy()
        state.update(data)
        return state.digest()

    return id_hash


def id_hash_for(kind: str, key: bytes) -> IdHash:
    """Return the chunk ID function named ``hmac-sha256`` or ``blake2b``."""
    return {"hmac-sha256": hmac_sha256_id, "blake2b": blake2b_id}[kind](key)
