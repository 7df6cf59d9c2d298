"""Attacks with chunks: wrong IDs, wrong envelopes, and what decompresses into something else."""

from __future__ import annotations

import lzma
import struct
import zlib
from collections.abc import Callable
from typing import Any

import lz4.block
import zstandard

from borgcube.testing.attacks import SECRET, attack, attacks
from borgcube.testing.hostile import MANIFEST_ID, Peer

PLAIN = b"two meanings " * 500
BOMB_BYTES = 400 << 20
BAD = "bad-compression"


@attack("stores a chunk under an ID it chose", kind="wrong-id")
def _(peer: Peer) -> None:
    peer.put(b"poison", chunk_id=b"\x01" * 32)


@attack("stores another content under the ID of another client's chunk", kind="wrong-id")
def _(peer: Peer) -> None:
    peer.put(b"poison", chunk_id=peer.id_hash(SECRET))


@attack("stores another large content under an ID it uploaded", kind="wrong-id")
def _(peer: Peer) -> None:
    chunk_id = peer.put(b"first")
    peer.put_packed(chunk_id, b"\0\0" + b"poison" * 50_000)


@attack("writes rubbish as its manifest", kind="archive-refused", by="vault")
def _(peer: Peer) -> None:
    peer.put(b"rubbish" * 100, MANIFEST_ID)
    peer.commit()


@attack("writes a manifest of twenty megabytes", kind="too-large")
def _(peer: Peer) -> None:
    peer.put(bytes(19 << 20), MANIFEST_ID)


attacks(
    "stores a chunk {}",
    {
        "of no bytes": b"",
        "of its type byte alone": b"T",
        "of no content": b"T\0\0",
        "with the envelope of an encrypted repository": b"\x03" + bytes(100),
        "with an envelope of its own": b"\xff\0\0data",
    },
    lambda peer, value: peer.call(
        "put", id=peer.id_hash(b""), data=value.replace(b"T", peer.type_byte)
    ),
    kind="bad-envelope",
)
attacks(
    "stores a chunk with an ID that is {}",
    {"short": b"short", "long": bytes(33), "numeric": 7, "absent": None},
    lambda peer, value: peer.call("put", id=value, data=peer.type_byte + b"\0\0x"),
    kind="protocol",
)


@attack("stores data that is text", kind="protocol")
def _(peer: Peer) -> None:
    peer.call("put", id=bytes(31) + b"x", data=1.5)


@attack("stores a chunk over Borg's limit", kind="protocol")
def _(peer: Peer) -> None:
    peer.put_packed(b"\x02" * 32, b"\0\0" + bytes(21 << 20))


@attack("stores a chunk just over the limit of content", kind="too-large")
def _(peer: Peer) -> None:
    peer.put_packed(b"\x02" * 32, b"\0\0" + bytes(20971479 + 1))


def _zeros(engine: Any, begin: bytes = b"") -> bytes:
    block = bytes(1 << 20)
    parts = [begin, *(engine.compress(block) for _ in range(BOMB_BYTES >> 20))]
    return b"".join([*parts, engine.flush()])


def _lz4_bomb() -> bytes:
    # LZ4 packs 255 to 1 at best: a message within Borg's limit holds up to 5 GB.
    return b"\1\0" + bytes(lz4.block.compress(bytes(BOMB_BYTES), store_size=False))


BOMBS: dict[str, Callable[[], bytes]] = {
    "lz4": _lz4_bomb,
    "zstd": lambda: b"\3\0" + zstandard.ZstdCompressor().compress(bytes(BOMB_BYTES)),
    "zstd without its size": lambda: _zeros(zstandard.ZstdCompressor().compressobj(), b"\3\0"),
    "zlib": lambda: _zeros(zlib.compressobj(9)),
    "lzma": lambda: _zeros(lzma.LZMACompressor(preset=0), b"\2\0"),
}


def _explode(peer: Peer, value: Callable[[], bytes]) -> None:
    peer.put_packed(b"\x03" * 32, value())


UNREADABLE = ("lz4", "zstd without its size")
for kind, bombs in (
    (BAD, {name: make for name, make in BOMBS.items() if name in UNREADABLE}),
    ("too-large", {name: make for name, make in BOMBS.items() if name not in UNREADABLE}),
):
    attacks("sends a bomb of {}", bombs, _explode, kind=kind)


@attack("sends lzma that asks for a dictionary of a gigabyte", kind=BAD)
def _(peer: Peer) -> None:
    filters = [{"id": lzma.FILTER_LZMA1, "preset": 0}]
    packed = bytearray(lzma.compress(PLAIN, format=lzma.FORMAT_ALONE, filters=filters))
    packed[1:5] = struct.pack("<I", 1 << 30)
    peer.put_packed(peer.id_hash(PLAIN), b"\2\0" + bytes(packed))


def _frame(plain: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(plain)


def _lying_frame() -> bytes:
    frame = bytearray(_frame(PLAIN))
    frame[5:7] = struct.pack("<H", len(PLAIN) - 256 - 1000)
    return bytes(frame)


# Each is PLAIN to one reader and something else, or nothing, to Borg's own: whoever relied on
# such a chunk could not restore.
TWO_MEANINGS = {
    "two zstd frames": b"\3\0" + _frame(PLAIN) + _frame(b"and more"),
    "a zstd frame that hides its size": b"\3\0"
    + zstandard.ZstdCompressor(write_content_size=False).compress(PLAIN),
    "a zstd frame after a skippable one": b"\3\0\x50\x2a\x4d\x18\4\0\0\0abcd" + _frame(PLAIN),
    "a zstd frame that lies about its size": b"\3\0" + _lying_frame(),
    "a zstd frame with bytes after it": b"\3\0" + _frame(PLAIN) + b"tail",
    "two lzma streams": b"\2\0" + lzma.compress(PLAIN) + lzma.compress(b"and more"),
    "an lzma stream with bytes after it": b"\2\0" + lzma.compress(PLAIN) + b"tail",
    "two zlib streams": zlib.compress(PLAIN) + zlib.compress(b"and more"),
    "lz4 with a byte after it": b"\1\0" + lz4.block.compress(PLAIN, store_size=False) + b"\0",
    "half a zstd frame": b"\3\0" + _frame(PLAIN)[:-10],
    "half an lzma stream": b"\2\0" + lzma.compress(PLAIN)[:-10],
    "half a zlib stream": zlib.compress(PLAIN)[:-10],
    "an unknown compressor": b"\5\0" + PLAIN,
    "an obfuscated chunk": b"\4\0" + struct.pack(">I", len(PLAIN) + 2) + b"\0\0" + PLAIN,
}
attacks(
    "stores {}",
    TWO_MEANINGS,
    lambda peer, value: peer.put_packed(peer.id_hash(PLAIN), value),
    kind=BAD,
)
