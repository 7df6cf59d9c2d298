"""Browsing an archive: what was stored is found where it was, whatever a client chose as names."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import psutil
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from borgcube.core import budget
from borgcube.core.errors import BorgCubeError, InvalidInput, JobFailed
from borgcube.plugins.borg import catalog, catalogindex

ITEMS = [
    (b"etc", "d", 0, 1_000), (b"etc/hosts", "-", 120, 2_000), (b"etc/ssh", "d", 0, 3_000),
    (b"etc/ssh/key", "-", 80, 4_000), (b"etc/link", "l", 0, 5_000),
    (b"srv/deep/er/file", "-", 7, 6_000), (b"lone", "-", 1, 7_000),
]  # fmt: skip


def written(place: Path, items: Any) -> Path:
    path = place / "repository" / "catalog" / f"{'ab' * 32}.zst"
    path.parent.mkdir(parents=True, exist_ok=True)
    pack = msgpack.Packer(use_bin_type=True).pack
    path.write_bytes(zstandard.compress(b"".join(map(pack, items))))
    return path


def names(page: Any) -> list[str]:
    return [entry["name"] for entry in page["entries"]]


def test_a_directory_lists_directories_first_with_all_they_hold(tmp_path: Path) -> None:
    path = written(tmp_path, ITEMS)
    top = catalog.browse(path)
    assert top is not None and names(top) == ["etc", "srv", "lone"] and top["total"] == 3
    etc = top["entries"][0]
    assert (etc["kind"], etc["size"], etc["files"], etc["mtime_ns"]) == ("d", 200, 3, 1_000)
    assert top["entries"][1]["mtime_ns"] is None  # never stored itself
    inside = catalog.browse(path, key="etc")
    assert inside is not None and names(inside) == ["ssh", "hosts", "link"]
    assert inside["entries"][1]["key"] == "etc/hosts"
    second = catalog.browse(path, key="etc", start=1, limit=1)
    assert second is not None and names(second) == ["hosts"] and second["total"] == 3
    with pytest.raises(InvalidInput, match="no such directory"):
        catalog.browse(path, key="etc/hosts")


def test_search_finds_by_name_anywhere_and_says_where(tmp_path: Path) -> None:
    path = written(tmp_path, ITEMS)
    found = catalog.browse(path, find="ER")
    assert found is not None and names(found) == ["srv/deep/er"]
    assert names(catalog.browse(path, find="nothing")) == []


def test_names_no_text_can_hold_are_browsed_by_key(tmp_path: Path) -> None:
    odd = b"d\xff\n\x1b[2J/%41/a b"
    path = written(tmp_path, [(odd, "-", 3, 0)])
    key = ""
    for _ in range(2):
        (entry,) = catalog.browse(path, key=key)["entries"]  # type: ignore[index]
        assert entry["name"].isprintable() and entry["key"].isascii()
        key = entry["key"]
    (entry,) = catalog.browse(path, key=key)["entries"]  # type: ignore[index]
    assert catalog.path_of(entry["key"]) == odd


def test_a_tree_that_is_deeper_than_any_stays_small(tmp_path: Path) -> None:
    items = [(b"/".join([b"%d" % n] * 8000), "-", 1, 0) for n in range(100)]
    path = written(tmp_path, items)
    page = catalog.browse(path)
    assert page is not None and page["total"] == 100
    database = path.parent.parent / "browse" / f"{path.stem}.db"
    assert database.stat().st_size < 20 << 20


def test_a_damaged_catalog_is_said_to_be_so_and_a_missing_one_is_none(tmp_path: Path) -> None:
    path = written(tmp_path, ITEMS)
    path.write_bytes(path.read_bytes()[:-10] + b"x" * 10)
    with pytest.raises(BorgCubeError, match="cannot be read"):
        catalog.browse(path)
    assert os.listdir(path.parent.parent / "browse") == []
    path.unlink()
    assert catalog.browse(path) is None


@pytest.mark.parametrize("word", ["", "..", "../" * 20 + "x", "A" * 64, "ab" * 31])
def test_only_an_id_names_a_catalog(tmp_path: Path, word: str) -> None:
    with pytest.raises(InvalidInput):
        catalog.catalog_file(tmp_path, "ab" * 32, word)
    with pytest.raises(InvalidInput):
        catalog.catalog_file(tmp_path, word, "ab" * 32)


PART = st.binary(min_size=1, max_size=4).filter(lambda b: b"/" not in b and b"\0" not in b)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(PART, min_size=1, max_size=4), max_size=12))
def test_every_path_is_found_by_walking_and_sums_are_right(paths: list[list[bytes]]) -> None:
    import tempfile

    items = [(b"/".join(parts), "-", 1, 0) for parts in paths]
    with tempfile.TemporaryDirectory() as place:
        database = Path(place) / "x.db"
        catalogindex.build(iter(items), database)
        connection = sqlite3.connect(database)
        connection.row_factory = sqlite3.Row
        left = [""]
        found = []
        while left:
            page = catalog._listed(connection, catalog.path_of(left.pop()), start=0, limit=1000)
            for entry in page["entries"]:
                if entry["kind"] == "d":
                    left.append(entry["key"])
                else:
                    found.append(catalog.path_of(entry["key"]))
        assert sorted(found) == sorted(path for path, *_ in items)
        top = catalog._listed(connection, b"", start=0, limit=1000)
        assert sum(entry["files"] for entry in top["entries"]) == len(items)
        connection.close()


# Bounds in bytes -------------------------------------------------------------------------


def test_long_names_are_written_a_few_megabytes_at_a_time(tmp_path: Path) -> None:
    """20,000 rows of 16 KB waited in memory before they were written: a gigabyte."""
    name = b"x" * 16_000
    tracemalloc.start()
    try:
        assert catalogindex.build(
            ((b"%06d" % n + name, "-", 1, 0) for n in range(5000)), tmp_path / "x.db"
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 24 << 20, f"{peak / 1e6:.0f} MB"


def test_directories_take_little_memory_each_however_they_are_called(tmp_path: Path) -> None:
    count, name = 5000, b"d" * 8000
    tracemalloc.start()
    try:
        assert catalogindex.build(
            ((b"%05d%s/%d" % (n, name, n), "-", 1, 0) for n in range(count)), tmp_path / "x.db"
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 24 << 20, f"{peak / 1e6:.0f} MB"


def test_more_directories_than_fit_stay_together_in_names_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogindex, "DIRECTORIES_BYTES", 100 * catalogindex.DIRECTORY_BYTES)
    items = [(b"a%d/b%d/file" % (n % 60, n), "-", 1, 0) for n in range(300)]
    assert not catalogindex.build(iter(items), tmp_path / "x.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "x.db")) as connection:
        connection.row_factory = sqlite3.Row
        top = catalog._listed(connection, b"", start=0, limit=1000)
        assert top["cut"] and sum(entry["files"] for entry in top["entries"]) == 300
        assert catalog._found(connection, "file", start=0, limit=1000)["total"] == 300


def test_an_index_stops_at_its_bytes_on_disk_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogindex, "INDEX_BYTES", 8 << 20)

    def endless() -> Iterator[Any]:
        number = 0
        while True:
            number += 1
            yield b"%d/" % number + os.urandom(2000).hex().encode(), "-", 1, 0

    assert not catalogindex.build(endless(), tmp_path / "x.db")
    assert 4 << 20 < (tmp_path / "x.db").stat().st_size < 10 << 20


def test_an_index_leaves_the_home_its_last_gigabyte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "SPARE_BYTES", 1 << 60)
    monkeypatch.setattr(budget, "SPARE_PERCENT", 200)
    with pytest.raises(JobFailed, match="Make room in the home"):
        catalogindex.build(iter(ITEMS), tmp_path / "x.db")


def _builder_of(place: Path) -> int:
    """Return the process that makes an index of something below ``place``."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if catalog.BUILDER in words and any(word.startswith(str(place)) for word in words):
                if list(place.glob("*/browse/*.new")):
                    return int(process.pid)
        time.sleep(0.01)
    raise AssertionError("no index is being made")


def test_a_builder_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, ((b"%d/%d" % (n % 999, n), "-", 1, 0) for n in range(300_000)))
    failures: list[BaseException] = []

    def look() -> None:
        try:
            catalog.browse(path)
        except BorgCubeError as error:
            failures.append(error)

    reader = threading.Thread(target=look)
    reader.start()
    os.kill(_builder_of(tmp_path), signal.SIGKILL)
    reader.join(60)
    assert len(failures) == 1
    browse = path.parent.parent / "browse"
    assert os.listdir(browse) == []
    # What a daemon that died left is taken away by the next look at any archive.
    (browse / "left.new").write_bytes(b"x")
    os.utime(browse / "left.new", (0, 0))
    (browse / "fresh.new").write_bytes(b"another builder's")
    page = catalog.browse(path)
    assert page is not None and page["total"] == 999 and not page["cut"]
    assert sorted(os.listdir(browse)) == sorted([f"{path.stem}.db", "fresh.new"])


def test_a_builder_has_a_limit_of_memory_and_says_when_it_reaches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, ITEMS)
    asked: list[int] = []
    monkeypatch.setattr(catalogindex.memory, "limit", asked.append)
    monkeypatch.setattr(catalogindex.resource, "setrlimit", lambda *_: None)

    def build(*_: Any) -> bool:
        raise MemoryError

    monkeypatch.setattr(catalogindex, "build", build)
    assert catalogindex.main(path, tmp_path / "x.db") == catalog.NO_ROOM
    assert asked == [catalogindex.MEMORY_BYTES]
    assert "memory" in capsys.readouterr().out


def test_indexes_are_kept_up_to_so_many_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "KEPT_BYTES", 2500)
    for number in range(4):
        (tmp_path / f"{number}.db").write_bytes(bytes(1000))
        os.utime(tmp_path / f"{number}.db", (number, number))
    catalog._prune(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["2.db", "3.db"]
    monkeypatch.setattr(catalog, "KEPT_BYTES", 1)
    catalog._prune(tmp_path)
    assert os.listdir(tmp_path) == ["3.db"], "the newest stays"
