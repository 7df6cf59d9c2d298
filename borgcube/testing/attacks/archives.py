"""Attacks with the manifest and the metadata of an archive; the vault must refuse them."""

from __future__ import annotations

import zlib
from datetime import UTC, datetime, timedelta
from typing import Any

import msgpack

from borgcube.testing.attacks import OWN, SECRET, attack, attacks
from borgcube.testing.hostile import MANIFEST_ID, Peer, at, file_item

REFUSED: dict[str, Any] = {"kind": "archive-refused", "by": "vault"}


def _manifest(peer: Peer, value: bytes) -> None:
    peer.put(value, MANIFEST_ID)
    peer.commit()


def _entry(peer: Peer) -> dict[str, Any]:
    packed = msgpack.packb(peer.metadata([]), use_bin_type=False)
    return {"id": peer.put(packed), "time": at(datetime.now(UTC))}


@attack("commits two archives", **REFUSED)
def _(peer: Peer) -> None:
    entry = _entry(peer)
    _manifest(peer, peer.manifest({peer.archive_name: entry, "second": entry}))


@attack("commits no archive", **REFUSED)
def _(peer: Peer) -> None:
    _manifest(peer, peer.manifest({}))


NAMES = (
    "mine", "good-1", "bad-0", "bad-1.checkpoint", "bad-1.checkpoint.1", "bad-1.partial",
    "../bad-1", "bad-1\0", "",
)  # fmt: skip


def _commit_as(peer: Peer, value: str) -> None:
    peer.archive(peer.honest_items(), list_as=value, name=value)
    peer.commit()


attacks("commits under the name {}", {ascii(n): n for n in NAMES}, _commit_as, **REFUSED)


@attack("commits under the ordered name with another inside", **REFUSED)
def _(peer: Peer) -> None:
    peer.archive(peer.honest_items(), name="good-1")
    peer.commit()


@attack("commits an archive it did not upload", **REFUSED)
def _(peer: Peer) -> None:
    peer.list_archive(b"\x07" * 32)
    peer.commit()


@attack("commits a file of another client as its archive", **REFUSED)
def _(peer: Peer) -> None:
    peer.list_archive(peer.id_hash(SECRET))
    peer.commit()


@attack("commits an earlier file of its own as its archive", **REFUSED)
def _(peer: Peer) -> None:
    peer.list_archive(peer.id_hash(OWN))
    peer.commit()


MANIFESTS = {
    "a list": b"\x93\1\2\3",
    "nothing": b"\xc0",
    "a map of lists": msgpack.packb({"archives": [1]}),
    "deep maps": b"\x81\xa8archives" + b"\x81\xa1x" * 900 + b"\xc0",
    "a list of four billion": b"\xdd\xff\xff\xff\xff",
    "sixty thousand empty maps": b"\xdc\xea\x60" + b"\x80" * 60_000,
    "a key that cannot be one": b"\x81\x80\x01",
    "two objects": b"\x80\x80",
}
attacks("writes a manifest that is {}", MANIFESTS, _manifest, **REFUSED)
ENTRIES = {
    "an ID too short": {"id": b"short", "time": "x"},
    "a number for an ID": {"id": 7, "time": "x"},
    "no ID": {},
    "a number for an entry": 7,
}
attacks(
    "lists its archive with {}",
    ENTRIES,
    lambda peer, value: _manifest(peer, peer.manifest({peer.archive_name: value})),
    **REFUSED,
)


def _metadata(peer: Peer, value: bytes) -> None:
    peer.list_archive(peer.put(value))
    peer.commit()


METADATA = {
    "a list": b"\x93\1\2\3",
    "rubbish": b"\xc1" * 50,
    "an empty map": b"\x80",
    "deep": b"\x81\xa5items" + b"\x91" * 100_000,
    "a list of chunks of four billion": b"\x81\xa5items\xdd\xff\xff\xff\xff",
    "cut off": b"\x85\xa5items\x90",
    "a map with a list for a key": b"\x82\x90\1\x80\1",
}
attacks("writes metadata that is {}", METADATA, _metadata, **REFUSED)


def _commit(peer: Peer, value: dict[str, Any]) -> None:
    peer.archive(peer.honest_items(), **value)
    peer.commit()


@attack("writes metadata of twenty megabytes of empty maps", **REFUSED)
def _(peer: Peer) -> None:
    plain = b"\x81\xa5items\xdd\x01\0\0\0" + b"\x80" * (1 << 24)
    chunk_id = peer.id_hash(plain)
    peer.put_packed(chunk_id, zlib.compress(plain))
    peer.list_archive(chunk_id)
    peer.commit()


VALUES: dict[str, dict[str, Any]] = {
    "another version": {"version": 2},
    "no items": {"items": None},
    "a number of items": {"items": 7},
    "numbers for items": {"items": [1, 2]},
    "short IDs for items": {"items": [b"short"]},
    "lists for items": {"items": [[bytes(32)]]},
    "a command line that is a number": {"cmdline": 7},
    "a command line of lists": {"cmdline": [["x"]]},
    "a command line of two megabytes": {"cmdline": ["x" * (1 << 21)]},
    "a host name that is a list": {"hostname": [1]},
    "a user name of a megabyte": {"username": "u" * 1_000_000},
    "chunker parameters without end": {"chunker_params": list(range(10_000))},
    "no time": {"time": None},
    "a number for a time": {"time": 7},
    "the thirteenth month": {"time": "2026-13-01T00:00:00.000000"},
    "the hour 99": {"time_end": "2026-01-01T99:99:99.000000"},
    "the year nothing": {"time": "0000-01-01T00:00:00.000000"},
    "a time with more behind it": {"time": "2026-01-01T00:00:00.000000\n"},
}
attacks("commits an archive with {}", VALUES, _commit, **REFUSED)
HOURS = {
    "from the future": (48, 48),
    "that ends in the future": (0, 48),
    "from the past": (-48, 0),
    "that ends before it begins": (1, -1),
    "from 1970": (-24 * 365 * 50, 0),
}


def _commit_at(peer: Peer, value: tuple[int, int]) -> None:
    start, end = (at(datetime.now(UTC) + timedelta(hours=hours)) for hours in value)
    _commit(peer, {"time": start, "time_end": end})


attacks("commits an archive {}", HOURS, _commit_at, kind="client-clock", by="vault")


@attack("lists another client's chunk as its metadata", **REFUSED)
def _(peer: Peer) -> None:
    peer.archive([], ids=[peer.id_hash(SECRET)])
    peer.commit()


@attack("lists one metadata chunk half a million times", **REFUSED)
def _(peer: Peer) -> None:
    stream = msgpack.packb(file_item("f", []), use_bin_type=False) * 100_000
    chunk_id = peer.id_hash(stream)
    peer.put_packed(chunk_id, zlib.compress(stream))
    ids = b"".join(b"\xda\0\x20" + chunk_id for _ in range(500_000))
    packed = msgpack.packb(peer.metadata([]), use_bin_type=False)
    metadata = packed.replace(b"\xa5items\x90", b"\xa5items\xdd\0\x07\xa1\x20" + ids)
    archive_id = peer.id_hash(metadata)
    peer.put_packed(archive_id, zlib.compress(metadata))
    peer.list_archive(archive_id)
    peer.commit()
