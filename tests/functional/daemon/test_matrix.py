"""Every transport with every supported borg: backup, unchanged backup, restore, check."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from borgcube.testing.trees import compare_trees, make_nasty_tree
from tests.functional.daemon.conftest import DEBIAN_BORG, STOCK_BORG, Cube


@pytest.mark.parametrize("borg", [STOCK_BORG, DEBIAN_BORG], ids=["bundled", "debian"])
@pytest.mark.parametrize("transport", ["openssh", "paramiko", "local"])
def test_round_trip(cube: Cube, transport: str, borg: str) -> None:
    tree = cube.place / "tree"
    make_nasty_tree(tree, big_bytes=4 << 20, small_files=100)
    time.sleep(0.1)
    (tree / "newest").write_text("Borg never trusts the newest file\n")
    if transport == "local":
        cube.local_client("alpha", borg=borg)
    else:
        cube.ssh_client("alpha", transport=transport, borg=borg)
    cube.plan("tree", tree, client="alpha", extra=("--sparse",))
    first = cube.backup("tree")["result"]
    assert first["new_size"] > 4 << 20
    time.sleep(1.1)
    again = cube.backup("tree")["result"]
    assert again["files"] == first["files"]
    assert again["bytes_received"] < 200_000
    target = cube.place / "restored"
    cube.ok("restore", again["archive"], "--to-client", f"alpha:{target}", "--wait")
    assert compare_trees(tree, target / str(tree).lstrip("/")) == []
    assert cube.session_directories() == []
    cube.check_clean()


def test_some_paths_to_a_directory_of_the_server(cube: Cube, tmp_path: Path) -> None:
    tree = cube.place / "tree"
    make_nasty_tree(tree, big_bytes=1 << 20, small_files=20)
    cube.ssh_client("alpha")
    cube.plan("tree", tree, client="alpha")
    archive = cube.backup("tree")["result"]["archive"]
    inside = str(tree / "big.bin").lstrip("/")
    cube.ok("restore", archive, inside, "--to-dir", str(tmp_path / "out"), "--wait")
    restored = tmp_path / "out" / inside
    assert restored.read_bytes() == (tree / "big.bin").read_bytes()
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert files == [restored]
