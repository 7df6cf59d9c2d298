"""Attacks with the items of an archive: whose chunks, which paths, which types, how many."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import msgpack

from borgcube.testing.attacks import OWN, SECRET, attack, attacks
from borgcube.testing.hostile import Peer, file_item

REFUSED: dict[str, Any] = {"kind": "archive-refused", "by": "vault"}


def _commit(peer: Peer, value: Callable[[Peer], Sequence[Any]]) -> None:
    peer.archive(value(peer))
    peer.commit()


def _foreign(peer: Peer) -> tuple[bytes, int, int]:
    return peer.id_hash(SECRET), len(SECRET), len(SECRET)


REFERENCES: dict[str, Callable[[Peer], Sequence[Any]]] = {
    "a chunk of another client": lambda peer: [file_item("loot", [_foreign(peer)])],
    "a chunk of another client as the healthy one": lambda peer: [
        {**peer.honest_items()[0], "chunks_healthy": [_foreign(peer)]}
    ],
    "a chunk that does not exist": lambda _peer: [file_item("f", [(b"\x03" * 32, 4, 4)])],
    "its own chunk with another size": lambda peer: [file_item("f", [(peer.put(b"fine"), 5, 5)])],
    "its own chunk with a size below zero": lambda peer: [
        file_item("f", [(peer.put(b"fine"), -4, 4)])
    ],
    "an earlier chunk with another size": lambda peer: [
        file_item("f", [(peer.id_hash(OWN), len(OWN) + 1, 1)])
    ],
    "a chunk of two values": lambda _peer: [file_item("f", []) | {"chunks": [[1, 2]]}],
    "chunks that are a number": lambda _peer: [file_item("f", []) | {"chunks": 7}],
    "a chunk that is a map": lambda _peer: [file_item("f", []) | {"chunks": [{}]}],
    "a number": lambda _peer: [7],
    "a list": lambda _peer: [[file_item("f", [])]],
    "nothing": lambda _peer: [None],
}
attacks("references {}", REFERENCES, _commit, **REFUSED)

LINK = 0o120777
CHANGES: dict[str, dict[str, Any]] = {
    "an absolute path": {"path": "/etc/shadow"},
    "a path out of its root": {"path": "a/../../b"},
    "a path that is ..": {"path": ".."},
    "no path": {"path": None},
    "an empty path": {"path": ""},
    "a path with a zero byte": {"path": "a\0b"},
    "a path of a megabyte": {"path": "a/" * 500_000},
    "a path that is a number": {"path": 7},
    "a path that is a list": {"path": ["etc", "shadow"]},
    "a hard link to an absolute path": {"source": "/etc/shadow"},
    "a hard link out of its root": {"source": "../../etc/shadow"},
    "a symbolic link with a zero byte": {"source": "a\0b", "mode": LINK},
    "a symbolic link of a megabyte": {"source": "x" * 1_000_000, "mode": LINK},
    "a key nobody knows": {"surprise": 1},
    "a time that is a text": {"mtime": "now"},
    "a time of a thousand bits": {"mtime": b"\xff" * 125},
    "a time beyond 64 bits": {"mtime": b"\xff" * 15 + b"\x7f"},
    "a change time beyond 64 bits": {"ctime": b"\xff" * 15 + b"\x7f"},
    "a time beyond 63 bits": {"atime": (1 << 64) - 1},
    "a size that is not its chunks'": {"size": 1},
    "a size below zero": {"size": -1, "chunks": None},
    "a mode that is a text": {"mode": "0644"},
    "a mode of sixty bits": {"mode": 1 << 60},
    "an owner below zero": {"uid": -1},
    "an owner of sixty bits": {"gid": 1 << 60},
    "an owner that is a truth": {"uid": True},
    "attributes that are a list": {"xattrs": [1]},
    "attributes of numbers": {"xattrs": {"user.x": 7}},
    "attributes by the ten thousand": {"xattrs": {f"user.{n}": b"" for n in range(20_000)}},
    "an access list that is a number": {"acl_access": 7},
    "a hard link flag that is a number": {"hardlink_master": 2},
}
attacks(
    "commits an item with {}",
    CHANGES,
    lambda peer, value: _commit(peer, lambda peer: [{**peer.honest_items()[0], **value}]),
    **REFUSED,
)


def _stream(*plains: bytes, order: Sequence[int] | None = None) -> Callable[[Peer], None]:
    """Commit an archive whose item stream is made of ``plains``, in ``order``."""

    def run(peer: Peer) -> None:
        ids = []
        for plain in plains:
            chunk_id = peer.id_hash(plain)
            peer.put_packed(chunk_id, zlib.compress(plain, 1))
            ids.append(chunk_id)
        peer.archive([], ids=[ids[n] for n in order or range(len(ids))])
        peer.commit()

    return run


ITEM = msgpack.packb(file_item("f", []), use_bin_type=False)
MEGABYTE = 1 << 20
STREAMS = {
    "that ends inside an item": _stream(ITEM + ITEM[:-3]),
    "of rubbish": _stream(b"\xc1" * 1000),
    "with an item of a gigabyte": _stream(
        b"\x81\xa4path\xc6\x40\0\0\0" + b"x" * 100, b"x" * (16 * MEGABYTE),
        order=[0] + [1] * 64,
    ),
    "with fifty million empty maps for chunks": _stream(
        b"\x81\xa6chunks\xdd\x03\0\0\0" + b"\x80" * 100, b"\x80" * (16 * MEGABYTE),
        order=[0] + [1] * 3,
    ),
    "with a list that claims four billion": _stream(b"\x81\xa6chunks\xdd\xff\xff\xff\xff"),
    "with a map that claims four billion": _stream(b"\xdf\xff\xff\xff\xff\xa1a\x01"),
    "nested a million deep": _stream(b"\x91" * 1_000_000),
    "of maps nested deep": _stream(b"\x81\xa1a" * 300_000),
    "with a key that cannot be one": _stream(b"\x81\x80\x01"),
    "with a list for a key": _stream(b"\x82\xa4path\xa1f\x91\x80\x01"),
    "with an extension type": _stream(b"\xc7\xff\x05" + b"x" * 255),
    "with a time that is none": _stream(b"\xd7\xff" + b"\xff" * 8),
}  # fmt: skip
attacks("writes an item stream {}", STREAMS, lambda peer, value: value(peer), **REFUSED)


@attack("references a foreign chunk after a million of its own", **REFUSED)
def _(peer: Peer) -> None:
    own = (peer.put(b"fine"), 4, 4)
    entry = msgpack.packb(own, use_bin_type=False)
    head = msgpack.packb({"path": "big", "mode": 0o100644, "mtime": 1}, use_bin_type=False)
    foreign = msgpack.packb(_foreign(peer), use_bin_type=False)
    count = 1_000_001
    stream = (
        b"\x84" + head[1:] + b"\xa6chunks\xdd" + count.to_bytes(4, "big")
        + entry * (count - 1) + foreign
    )  # fmt: skip
    pieces = [stream[n : n + (16 << 20)] for n in range(0, len(stream), 16 << 20)]
    _stream(*pieces)(peer)
