"""Odd trees are no attacks: each is backed up as stock borg does it, or a warning names the path.

The same borg backs the same tree up once without BorgCube; the items of both archives must be
equal, field by field. Then the judge extracts ours.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from borgcube.testing.judge import Judge
from borgcube.testing.rig import PASSPHRASE, Rig, stock_borg
from borgcube.testing.stockborg import StockBorg

DEBIAN = "/usr/bin/borg"
BORGS = [stock_borg(), DEBIAN] if Path(DEBIAN).exists() else [stock_borg()]
ROOT = os.geteuid() == 0


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with Rig(tmp_path_factory.mktemp("rig")) as rig:
        yield rig


@pytest.fixture(scope="module")
def judge(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    with Judge(
        rig.path, PASSPHRASE, cache=rig.cache, work=tmp_path_factory.mktemp("judge")
    ) as judge:
        yield judge


def times(tree: Path) -> None:
    for name, seconds in (("before", -31_000_000), ("epoch", 0), ("far", 10_413_792_000)):
        (tree / name).write_text(name)
        os.utime(tree / name, (seconds, seconds))
    (tree / "directory").mkdir()
    os.utime(tree / "directory", (-5, -5))


def owners(tree: Path) -> None:
    for uid in (54_321, (1 << 31) - 1, 1 << 31, (1 << 32) - 2):
        path = tree / str(uid)
        path.write_text("whose?")
        if ROOT:
            os.chown(path, uid, uid)


def names(tree: Path) -> None:
    for name in (b"n" * 255, b"\xff" * 255, b"new\nline", b"~", b"...", b"a\\..\\b", b"-"):
        Path(os.fsdecode(os.path.join(os.fsencode(tree), name))).write_bytes(name)


def deep(tree: Path) -> None:
    """A path of nearly 4,000 bytes, made step by step: no system call takes it whole."""
    room = 3_900 - len(os.fsencode(tree))
    folder = os.open(tree, os.O_RDONLY)
    for number in range(room // 201):
        name = f"{number:03}" + "d" * 197
        os.mkdir(name, dir_fd=folder)
        inner = os.open(name, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    with os.fdopen(os.open("f", os.O_WRONLY | os.O_CREAT, dir_fd=folder), "w") as file:
        file.write("bottom")
    os.close(folder)


def links(tree: Path) -> None:
    """Hard links with names outside the plan, of files, pipes, devices and symbolic links."""
    outside = tree.with_name(tree.name + "-outside")
    outside.mkdir()
    (outside / "first").write_text("elsewhere")
    os.link(outside / "first", tree / "second")
    os.link(outside / "first", tree / "third")
    (tree / "one").write_text("only here")
    os.link(tree / "one", outside / "one")
    os.mkfifo(tree / "pipe")
    os.link(tree / "pipe", tree / "pipe-again")
    (tree / "to").symlink_to("one")
    os.link(tree / "to", tree / "to-again", follow_symlinks=False)
    if ROOT:
        os.mknod(tree / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        os.link(tree / "null", tree / "null-again")


def special(tree: Path) -> None:
    os.mkfifo(tree / "pipe", 0o600)
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(tree, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
    if ROOT:
        os.mknod(tree / "block", 0o600 | stat.S_IFBLK, os.makedev(259, 1_000_000))
        os.mknod(tree / "character", 0o600 | stat.S_IFCHR, os.makedev(4095, 255))
    (tree / "set-user-ID").write_text("x")
    os.chmod(tree / "set-user-ID", 0o7777)


def attributes(tree: Path) -> None:
    (tree / "f").write_text("x")
    for name, value in (("user.a", b""), ("user.b", b"\0\xff" * 500), ("user.\u00e4", b"x")):
        with suppress(OSError):
            os.setxattr(tree / "f", name, value)
    if ROOT:
        with suppress(OSError):
            os.setxattr(tree / "f", "trusted.t", b"x")
    if shutil.which("setfacl"):
        for words in (["-m", "u:54321:r,g:2147483648:rw"], ["-m", "u:root:rwx"]):
            subprocess.run(["setfacl", *words, tree / "f"], capture_output=True, check=False)
        subprocess.run(["setfacl", "-d", "-m", "u:1:rwx", tree], capture_output=True, check=False)
    (tree / "flagged").write_text("x")
    subprocess.run(["chattr", "+dA", tree / "flagged"], capture_output=True, check=False)


def sparse(tree: Path) -> None:
    for name, size in (("hole", 40 << 20), ("empty", 0)):
        with (tree / name).open("wb") as file:
            file.truncate(size)
    with (tree / "end").open("wb") as file:
        file.seek(20 << 20)
        file.write(b"x")


ODDITIES: dict[str, Callable[[Path], None]] = {
    "times": times, "owners": owners, "names": names, "deep": deep, "links": links,
    "special": special, "attributes": attributes, "sparse": sparse,
}  # fmt: skip


def stock_backup(borg: str, place: Path, paths: list[str]) -> Path:
    """Back up with a borg alone, as archive ``a`` of the repository that is returned."""
    place.mkdir()
    env = {
        "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "BORG_BASE_DIR": str(place / "base"),
        "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
        "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
    }  # fmt: skip
    repository = place / "repository"
    for words in (["init", "-e", "none", str(repository)], ["create", f"{repository}::a", *paths]):
        done = subprocess.run(
            [borg, *words], env=env, capture_output=True, text=True, timeout=100, check=False
        )
        assert done.returncode in (0, 1), done.stderr
    return place / "repository"


class Reads:
    """Borg's own reading of archives, ours and stock ones."""

    def __init__(self, rig: Rig, base: Path) -> None:
        self.rig, self.base = rig, base
        self._ours, self._stock = StockBorg(PASSPHRASE), StockBorg("")

    def ours(self, archive: str) -> list[dict[str, str]]:
        return self._ours.items(self.rig.path, archive, base=self.base)

    def stock(self, borg: str, place: Path, paths: list[str]) -> list[dict[str, str]]:
        return self._stock.items(stock_backup(borg, place, paths), "a", base=self.base)

    def close(self) -> None:
        self._ours.close()
        self._stock.close()


@pytest.fixture(scope="module")
def reads(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reads]:
    found = Reads(rig, tmp_path_factory.mktemp("reads"))
    yield found
    found.close()


@pytest.mark.parametrize("borg", BORGS, ids=["bundled", "debian"][: len(BORGS)])
@pytest.mark.parametrize("oddity", ODDITIES)
def test_an_odd_tree_is_backed_up_as_stock_borg_does(
    oddity: str,
    borg: str,
    rig: Rig,
    judge: Judge,
    reads: Reads,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    place = tmp_path_factory.mktemp("odd")
    tree = place / "tree"
    tree.mkdir()
    ODDITIES[oddity](tree)
    archive = f"{oddity}-{BORGS.index(borg)}"
    result = rig.backup(archive, tree, borg=borg, plan=oddity)
    assert result.state == "done", (result.warnings, result.data)
    stock = reads.stock(borg, place / "stock", [str(tree)])
    assert reads.ours(archive) == stock
    assert len(stock) > 2
    judge.judge().require()


@pytest.mark.parametrize("borg", BORGS, ids=["bundled", "debian"][: len(BORGS)])
def test_roots_that_overlap_keep_every_item(
    borg: str, rig: Rig, judge: Judge, reads: Reads, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("odd")
    (place / "tree" / "sub").mkdir(parents=True)
    for name in ("sub/a", "b"):
        (place / "tree" / name).write_text(name)
    os.link(place / "tree" / "b", place / "tree" / "c")
    paths = [place / "tree", place / "tree" / "sub", place / "tree"]
    archive = f"overlap-{BORGS.index(borg)}"
    assert rig.backup(archive, *paths, borg=borg, plan="overlap").state == "done"
    ours = reads.ours(archive)
    assert ours == reads.stock(borg, place / "stock", [str(path) for path in paths])
    listed = [item["path"] for item in ours]
    assert len(listed) > len(set(listed))
    judge.judge().require()


@pytest.mark.parametrize("borg", BORGS, ids=["bundled", "debian"][: len(BORGS)])
def test_files_that_vanish_or_change_are_named(
    borg: str, rig: Rig, judge: Judge, reads: Reads, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tree = tmp_path_factory.mktemp("odd") / "tree"
    tree.mkdir()
    for number in range(1500):
        (tree / f"z{number:05}").write_bytes(os.urandom(200))
    growing = tree / "a-growing"
    growing.write_bytes(os.urandom(30 << 20))
    stop = threading.Event()

    def disturb() -> None:
        left = sorted(tree.glob("z*"), reverse=True)
        while not stop.wait(0.002):
            with growing.open("ab") as file:
                file.write(b"more")
            if left:
                left.pop().unlink(missing_ok=True)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        result = rig.backup(f"moving-{BORGS.index(borg)}", tree, borg=borg, plan="moving")
    finally:
        stop.set()
        thread.join()
    assert result.state == "warning", result
    assert any("a-growing" in line for line in result.warnings), result.warnings
    judge.judge().require()


def test_the_root_itself_is_kept(
    rig: Rig, judge: Judge, reads: Reads, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Borg 1.4 writes the item `.` for a path with `/./`, as for a plan of `/`."""
    place = tmp_path_factory.mktemp("odd")
    (place / "tree").mkdir()
    (place / "tree" / "f").write_text("x")
    root = f"{place}/tree/./"
    order = rig.context("backup", archive="root-1", plan="root", domain="client:a", paths=[root],
                        borg=stock_borg())  # fmt: skip
    result = rig.engine.backup(order)
    assert result.state == "done", result
    ours = reads.ours("root-1")
    assert ours == reads.stock(stock_borg(), place / "stock", [root])
    assert "'.'" in [item["path"] for item in ours]
    judge.judge().require()
