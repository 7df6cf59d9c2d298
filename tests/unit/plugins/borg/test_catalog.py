"""Browsing an archive: what was stored is found where it was, whatever a client chose as names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from borgcube.core.errors import BorgCubeError, InvalidInput
from borgcube.plugins.borg import catalog

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
        catalog.build(iter(items), database)
        import sqlite3

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
