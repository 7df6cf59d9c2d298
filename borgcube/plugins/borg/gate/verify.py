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

import lz4.block
import zstandard

MAX_PLAIN = 20971479  # Borg's MAX_DATA_SIZE: the largest content of one object, in bytes

IdHash = Callable[[bytes], bytes]


class Rejected(Exception):
    """The client sent something that is not acceptable; the text is for our log only."""


def _lz4(data: memoryview, limit: int) -> bytes:
    # LZ4 cannot expand more than 255 times, so that small input needs no large buffer.
    bound = min(limit, 255 * len(data) + 64)
    plain: bytes = lz4.block.decompress(data, uncompressed_size=bound)
    return plain


def _zstd(data: memoryview, limit: int) -> bytes:
    announced = zstandard.frame_content_size(data)
    if announced > limit:
        raise Rejected("a zstd frame announces more than a chunk may hold")
    if announced >= 0:
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=limit)
    reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(data)
    plain = reader.read(limit + 1)
    if len(plain) > limit:
        raise Rejected("decompressed data is larger than a chunk may be")
    return plain


def _zlib(data: memoryview, limit: int) -> bytes:
    engine = zlib.decompressobj()
    plain = engine.decompress(data, limit)
    if not engine.eof:
        raise Rejected("zlib data is incomplete or larger than a chunk may be")
    return plain


def _lzma(data: memoryview, limit: int) -> bytes:
    engine = lzma.LZMADecompressor(memlimit=128 << 20)
    plain = engine.decompress(data, limit)
    if not engine.eof:
        raise Rejected("lzma data is incomplete or larger than a chunk may be")
    return plain


def decompress(data: bytes | memoryview, *, limit: int = MAX_PLAIN) -> bytes:
    """Return the plaintext of Borg-compressed ``data``, at most ``limit`` bytes.

    Raises Rejected for anything unknown, damaged or too large.
    """
    view = memoryview(data)
    if len(view) < 2:
        raise Rejected("a chunk is too short")
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
            raise Rejected("a chunk has an unknown compression")
    except (lz4.block.LZ4BlockError, zstandard.ZstdError, lzma.LZMAError, zlib.error) as error:
        raise Rejected(f"a chunk does not decompress: {error}") from None
    except (MemoryError, ValueError, EOFError) as error:
        raise Rejected(f"a chunk does not decompress: {type(error).__name__}") from None
    if len(plain) > limit:
        raise Rejected("decompressed data is larger than a chunk may be")
    return plain


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
