"""Trees: made alike from one seed, and every kind of damage is seen."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from borgcube.testing.trees import (
    compare_trees,
    make_many_small,
    make_mixed,
    make_nasty_tree,
    make_unchanged,
)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Return a small nasty tree and its faithful copy."""
    first, second = tmp_path / "a", tmp_path / "b"
    make_nasty_tree(first, big_bytes=100_000, small_files=20)
    subprocess.run(
        ["cp", "-a", "--sparse=always", "--", str(first), str(second)], check=True, timeout=60
    )
    return first, second


def test_a_faithful_copy_is_equal(pair: tuple[Path, Path]) -> None:
    assert compare_trees(*pair) == []


def test_same_seed_makes_the_same_tree(tmp_path: Path) -> None:
    for name in "ab":
        make_nasty_tree(tmp_path / name, seed=7, big_bytes=10_000, small_files=5)
    assert compare_trees(tmp_path / "a", tmp_path / "b") == []


def _content(tree: Path) -> None:
    target = tree / "big.bin"
    times = target.stat()
    data = bytearray(target.read_bytes())
    data[50_000] ^= 1
    target.write_bytes(data)
    os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))


def _unlink_hard(tree: Path) -> None:
    target = tree / "links" / "second"
    copy = tree / "links" / "copy"
    shutil.copy2(target, copy)
    copy.rename(target)


def _retarget(tree: Path) -> None:
    target = tree / "links" / "dangling"
    target.unlink()
    target.symlink_to("elsewhere")


def _fill(tree: Path) -> None:
    target = tree / "sparse.img"
    times = target.stat()
    target.write_bytes(target.read_bytes())
    os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))


def _to_file(tree: Path) -> None:
    (tree / "special" / "fifo").unlink()
    (tree / "special" / "fifo").write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_content, "'big.bin': content differs"),
        (_unlink_hard, "hard links only in the first tree"),
        (_retarget, "link target"),
        (_fill, "'sparse.img': is sparse in the first tree only"),
        (_to_file, "'special/fifo': type"),
        (lambda t: os.chmod(t / "special" / "setuid", 0o755), "mode 4755 is 0755"),
        (lambda t: os.utime(t / "empty", ns=(5, 5)), "'empty': mtime"),
        (lambda t: os.truncate(t / "big.bin", 1), "'big.bin': size"),
        (lambda t: os.rmdir(t / "empty"), "'empty': only in the first tree"),
        (lambda t: os.mkdir(t / "more"), "'more': only in the second tree"),
        (lambda t: os.unlink(os.fsencode(t) + b"/names/invalid-\xff\xfe-utf8"), "\\udcff"),
    ],
)
def test_damage_is_named(
    pair: tuple[Path, Path], damage: Callable[[Path], None], words: str
) -> None:
    damage(pair[1])
    assert any(words in line for line in compare_trees(*pair)), compare_trees(*pair)


def test_lost_attributes_and_acls_are_named(pair: tuple[Path, Path]) -> None:
    folder = pair[1] / "attributes"
    try:
        os.removexattr(folder / "xattr", "user.borgcube")
    except OSError:
        pytest.skip("this file system has no user attributes")
    assert any("xattr user.borgcube" in line for line in compare_trees(*pair))
    if shutil.which("setfacl"):
        subprocess.run(["setfacl", "-b", str(folder / "acl")], check=True, timeout=30)
        assert any("posix_acl_access" in line for line in compare_trees(*pair))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change owners")
def test_a_wrong_owner_is_named(pair: tuple[Path, Path]) -> None:
    os.chown(pair[1] / "special" / "private", 1, 1)
    assert any("owner (1234, 4321) is (1, 1)" in line for line in compare_trees(*pair))


def test_a_missing_root_is_a_difference(tmp_path: Path) -> None:
    assert compare_trees(tmp_path / "no", tmp_path / "neither") != []


def test_data_sets_have_the_sizes_asked_for(tmp_path: Path) -> None:
    make_mixed(tmp_path / "mixed", 3_000_000, seed=2)
    sizes = [p.stat().st_size for p in (tmp_path / "mixed").rglob("*") if p.is_file()]
    assert sum(sizes) == 3_000_000
    make_many_small(tmp_path / "small", 150, seed=2)
    sizes = [p.stat().st_size for p in (tmp_path / "small").rglob("*") if p.is_file()]
    assert len(sizes) == 150
    assert min(sizes) >= 1024 and max(sizes) <= 8192
    make_unchanged(tmp_path / "unchanged", files=120)
    assert sum(p.is_file() for p in (tmp_path / "unchanged").rglob("*")) == 120
