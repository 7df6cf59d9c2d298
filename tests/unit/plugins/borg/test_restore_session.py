"""What a restore keeps beside the repository: on disk, within bounds, gone at its end."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgpack
import pytest
from borg.compress import Compressor

from borgcube.core import budget
from borgcube.core.errors import JobFailed
from borgcube.plugins.borg.gate.verify import decompress, hmac_sha256_id
from borgcube.plugins.borg.vault import restore
from borgcube.plugins.borg.vault.items import read_items

MIB = 1 << 20
FILE = 0o100644


def chunks_of(number: int, count: int) -> tuple[tuple[bytes, int, int], ...]:
    return tuple((b"%016d%016d" % (number, one), 100_000, 90_000) for one in range(count))


def session(place: Path, items: Iterator[Any], *paths: str) -> Any:
    ledger = SimpleNamespace(items=lambda _metadata: items)
    memory = SimpleNamespace(session=lambda *_, **__: None, forget=lambda *_: None)
    vault = SimpleNamespace(ledger=ledger, state_dir=place, memory=memory)
    made = restore.RestoreSession(vault, "token", archive="a", paths=list(paths), harmless=True)
    made.key = SimpleNamespace(id_hash=hmac_sha256_id(b"k" * 32), compressor=Compressor("lz4"))
    return made


def listed(made: Any) -> list[dict[bytes, Any]]:
    """Return the items of a session as the client would read them."""
    ids = made._write_items(made._selected(b""))
    return list(read_items(decompress(made.get(one)) for one in ids))


def test_sources_of_hard_links_that_are_left_out_take_disk_and_no_memory(tmp_path: Path) -> None:
    """Kept in memory as they were, they take 60 MB here, and of a hostile archive any number."""
    masters, each = 200, 1500

    def items() -> Iterator[dict[bytes, Any]]:
        for number in range(masters):
            yield {b"path": b"old/%d" % number, b"mode": FILE, b"mtime": 1,
                   b"hardlink_master": True, b"chunks": chunks_of(number, each)}  # fmt: skip
        for number in (7, 7, 199):
            yield {b"path": b"new/%d" % number, b"mode": FILE, b"mtime": 1,
                   b"source": b"old/%d" % number}  # fmt: skip

    made = session(tmp_path, items(), "new")
    tracemalloc.start()
    try:
        found = listed(made)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12 * MIB, f"{peak / 1e6:.0f} MB"
    assert [item.get(b"source") for item in found] == [None, b"new/7", None]
    assert found[0][b"chunks"] == chunks_of(7, each) and found[2][b"chunks"] == chunks_of(199, each)
    assert len(made.allowed) == 2 * each
    assert os.listdir(made.directory) == [], "its files have no names: a kill leaves nothing"
    made.close()
    assert not made.directory.exists()


def test_an_item_larger_than_an_object_of_borg_is_cut_into_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of some terabytes: its list of chunks alone is longer than Borg's 20 MiB."""
    item = {b"path": b"huge", b"mode": FILE, b"mtime": 1, b"chunks": chunks_of(1, 8000)}
    monkeypatch.setattr(restore, "MAX_PIECE", 160_000)
    made = session(tmp_path, iter([item, {b"path": b"small", b"mode": FILE, b"mtime": 1}]))
    ids = made._write_items(made._selected(b""))
    pieces = [decompress(made.get(one)) for one in ids]
    assert len(pieces) > 2 and max(map(len, pieces)) <= restore.MAX_PIECE
    assert [one[b"path"] for one in read_items(iter(pieces))] == [b"huge", b"small"]
    assert len(msgpack.packb(item)) > 2 * restore.MAX_PIECE


@pytest.mark.parametrize("bound", ["most", "free"])
def test_a_restore_that_does_not_fit_is_the_servers_fault(
    tmp_path: Path, bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if bound == "most":
        monkeypatch.setattr(restore, "MAX_SPOOL", MIB)
    else:
        monkeypatch.setattr(budget, "SPARE_BYTES", 1 << 60)
        monkeypatch.setattr(budget, "SPARE_PERCENT", 200)

    def items() -> Iterator[dict[bytes, Any]]:
        while True:
            yield {b"path": os.urandom(2000).replace(b"\0", b"x"), b"mode": FILE, b"mtime": 1}

    made = session(tmp_path, items())
    with pytest.raises(JobFailed) as failure:
        listed(made)
    assert failure.value.cause.kind == "restore-no-room" and failure.value.violation is None
    assert failure.value.cause.problem == "server" and failure.value.cause.next_step
    made.close()
