"""Attacks with Borg's calls: what is called, when, how often, and in what form."""

from __future__ import annotations

import os
import struct
from typing import Any

import msgpack

from borgcube.testing.attacks import OWN, SECRET, attack, attacks
from borgcube.testing.hostile import MANIFEST_ID, Peer, Refused

RESTORE = {"mode": "restore", "archive": "bad-0", "paths": ["{root}/bad/other"]}


FORBIDDEN: dict[str, dict[str, Any]] = {
    "list": {"limit": 100, "marker": None},
    "scan": {"limit": 100},
    "check": {"repair": True, "save_space": False},
    "delete": {"id": bytes(32)},
    "destroy": {},
    "break_lock": {},
    "save_key": {"keydata": b"mine"},
    "inject_exception": {"kind": b"divide"},
    "__len__": {},
    "__class__": {},
    "close": {},
    "get_many": {"ids": [bytes(32)]},
    "no such\x1b[2J<script>\u202ething": {},
    "put" * 10_000: {},
}
attacks(
    "calls {}",
    {ascii(method)[:30]: (method, arguments) for method, arguments in FORBIDDEN.items()},
    lambda peer, value: peer.call(value[0], **value[1]),
    kind="forbidden-call",
)


def _open(peer: Peer, value: Any) -> None:
    peer.negotiate()
    peer.call("open", path=value)


attacks(
    "opens the path {}",
    {repr(path): path for path in (b"/other", b"/r/../other", b"/r/", b"", 7, None)},
    _open,
    kind="forbidden-call",
    greet=False,
)


@attack("creates a repository", kind="forbidden-call", greet=False)
def _(peer: Peer) -> None:
    peer.negotiate()
    peer.call("open", path=b"/r", create=True, make_parent_dirs=True)


# Out of order ---------------------------------------------------------------------------


def _call_early(peer: Peer, value: str) -> None:
    peer.negotiate()
    peer.call(value, id=MANIFEST_ID, data=b"x")


attacks(
    "calls {} before it opened",
    {name: name for name in ("load_key", "get", "put", "commit", "rollback", "get_free_nonce")},
    _call_early,
    kind="out-of-order",
    greet=False,
)


@attack("opens without negotiating", kind="out-of-order", greet=False)
def _(peer: Peer) -> None:
    peer.call("open", path=b"/r")


@attack("negotiates twice", kind="out-of-order")
def _(peer: Peer) -> None:
    peer.negotiate()


@attack("opens twice", kind="out-of-order")
def _(peer: Peer) -> None:
    peer.call("open", path=b"/r")


@attack("commits without a manifest", kind="out-of-order")
def _(peer: Peer) -> None:
    peer.put(b"x")
    peer.commit()


@attack("writes a chunk after its manifest", kind="out-of-order")
def _(peer: Peer) -> None:
    peer.archive(peer.honest_items())
    peer.put(b"one more")


@attack("writes two manifests", kind="out-of-order")
def _(peer: Peer) -> None:
    peer.archive(peer.honest_items())
    peer.list_archive(bytes(32))


# Reading --------------------------------------------------------------------------------


@attack("reads another client's chunk", kind="forbidden-read")
def _(peer: Peer) -> None:
    peer.call("get", id=peer.id_hash(SECRET))


@attack("reads a chunk of its own earlier archive", kind="forbidden-read")
def _(peer: Peer) -> None:
    peer.call("get", id=peer.id_hash(OWN))


@attack("reads a chunk it just uploaded", kind="forbidden-read")
def _(peer: Peer) -> None:
    peer.call("get", id=peer.put(b"mine"))


@attack("reads by an ID that is no ID", kind="forbidden-read")
def _(peer: Peer) -> None:
    peer.call("get", id=[1, 2, 3])


@attack("reads after its manifest", kind="out-of-order")
def _(peer: Peer) -> None:
    peer.archive(peer.honest_items())
    peer.call("get", id=MANIFEST_ID)


@attack("reads another client's chunk during a restore", kind="forbidden-read", session=RESTORE)
def _(peer: Peer) -> None:
    peer.call("get", id=peer.id_hash(SECRET))


@attack("reads outside the selection of its restore", kind="forbidden-read", session=RESTORE)
def _(peer: Peer) -> None:
    peer.call("get", id=peer.id_hash(OWN))


@attack("writes during a restore", kind="forbidden-call", session=RESTORE)
def _(peer: Peer) -> None:
    peer.put(b"x")


@attack("commits during a restore", kind="out-of-order", session=RESTORE)
def _(peer: Peer) -> None:
    peer.commit()


# Too much -------------------------------------------------------------------------------


def _flood(peer: Peer, method: str, **arguments: Any) -> None:
    one = msgpack.packb({"i": 9, "m": method, "a": arguments}, use_bin_type=True)
    block = one * 1000
    for _ in range(1000):
        peer.raw(block)
        if peer.gate.poll() is not None:
            raise Refused("the gate is gone")


def _reading(peer: Peer, method: str, **arguments: Any) -> None:
    """Flood, and read what is answered: a pipe full of answers would stop the gate."""
    peer.drain_answers()
    _flood(peer, method, **arguments)


FLOODS: dict[str, dict[str, Any]] = {
    "rollback": {},
    "get_free_nonce": {},
    "commit_nonce_reservation": {"next_unreserved": 1 << 60, "start_nonce": 0},
    "get": {"id": MANIFEST_ID},
    "load_key": {},
}
attacks(
    "sends a million times {}",
    {method: (method, arguments) for method, arguments in FLOODS.items()},
    lambda peer, value: _reading(peer, value[0], **value[1]),
    kind="flood",
)


# No messages ----------------------------------------------------------------------------


EMPTY_MAPS = b"\x9f" + b"\x80" * 15
JUNK = {
    "a byte that begins nothing": b"\xc1" * 100,
    "an array of four billion": b"\xdd\xff\xff\xff\xff",
    "a map of four billion": b"\xdf\xff\xff\xff\xff",
    "a string of four billion": b"\xdb\xff\xff\xff\xff" + bytes(30 << 20),
    "maps within maps": b"\x81" * 5000,
    "arrays within arrays": b"\x91" * 1_000_000,
    "a tree of empty maps": b"\x9f" + (b"\x9f" + EMPTY_MAPS * 15) * 4000,
    "a key that cannot be one": b"\x81\x80\x01",
    "an extension type": b"\xc7\x10\x05" + bytes(16),
    "a time that is none": b"\xd7\xff" + b"\xff" * 8,
    "random bytes": bytes(range(255, 0, -1)) * 20,
    "another protocol": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 10,
    "a request without arguments": msgpack.packb({"i": 1, "m": "put"}),
    "a request with a number for a name": msgpack.packb({"i": 1, "m": 2, "a": {}}),
    "a request with a list of arguments": msgpack.packb({"i": 1, "m": "put", "a": [1]}),
    "a request with a text for a number": msgpack.packb({"i": "1", "m": "put", "a": {}}),
    "a string longer than an object": b"\xc6" + struct.pack(">I", 21 << 20) + bytes(22 << 20),
    "a number that is no request": b"\x07" * 5,
}
attacks("sends {}", JUNK, lambda peer, value: peer.raw(value), kind="protocol")


@attack("sends random bytes instead of the first message", kind="protocol", greet=False)
def _(peer: Peer) -> None:
    peer.raw(b"\xc1" + os.urandom(4096))


@attack("sends the bytes of a session that was another's", kind="archive-refused", by="vault")
def _(peer: Peer) -> None:
    other = Peer(peer.session.socket_path, archive="other-1", plan="other", domain="client:other")
    try:
        other.greet()
        other.sent.clear()
        other.archive(other.honest_items())
        recorded = bytes(other.sent)
        other.refusal()
        other.session.end(discard=True)
    finally:
        other.close()
    peer.raw(recorded)
    peer.commit()
