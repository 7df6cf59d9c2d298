"""A stored files cache is used as it was written, or not at all."""

from __future__ import annotations

from pathlib import Path

import msgpack

from borgcube.plugins.borg.vault.filescache import FilesCacheWriter, pack_record, synthesise

IDS = [bytes([number]) * 32 for number in range(4)]


def stored(path: Path) -> Path:
    writer = FilesCacheWriter(path, started_ns=10_000)
    record = pack_record()
    writer.add([
        record(bytes([100 + number]) * 32, 1000, (number, number), [chunk_id])
        for number, chunk_id in enumerate(IDS)
    ])  # fmt: skip
    writer.commit()
    return path


def test_files_older_than_the_newest_are_known(tmp_path: Path) -> None:
    path, target = stored(tmp_path / "plan.files"), tmp_path / "files"
    assert synthesise(path, target, IDS, mode="ctime,size") == 3
    entries = list(msgpack.Unpacker(target.open("rb"), raw=True, use_list=False))
    assert [entry[1][4] for entry in entries] == [(IDS[0],), (IDS[1],), (IDS[2],)]
    assert synthesise(path, target, IDS[1:], mode="ctime,size") == 2


def test_no_changed_byte_and_no_cut_is_taken_for_a_cache(tmp_path: Path) -> None:
    path, target = stored(tmp_path / "plan.files"), tmp_path / "files"
    whole = path.read_bytes()
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 1
        for data in (bytes(changed), whole[:position]):
            path.write_bytes(data)
            assert synthesise(path, target, IDS, mode="ctime,size") == 0, position
            assert target.read_bytes() == b""
