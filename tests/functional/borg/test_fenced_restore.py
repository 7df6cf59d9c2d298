"""Hostile archives that were never audited, restored and drilled on the server: nothing outside
of the target changes. Real borg, real vault; the archives are put there with borg's own library.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from borgcube.core import fence
from borgcube.core.errors import JobFailed
from borgcube.core.fence import watch
from borgcube.plugins.borg import fencing
from borgcube.testing import witness
from borgcube.testing.rig import PASSPHRASE, Rig, stock_borg

from . import crafted

pytestmark = pytest.mark.skipif(
    "problem" in (found := fence.offered()), reason=f"no fence: {found.get('problem')}"
)

REGULAR, DIRECTORY, LINK, BLOCK = 0o100000, 0o040000, 0o120000, 0o060000


def item(path: str, mode: int, **more: Any) -> dict[str, Any]:
    """Return an item as borg has it, with what is needed to be restored."""
    return {"path": path, "mode": mode, "uid": 0, "gid": 0, "user": "root", "group": "root",
            "mtime": 1_000_000_000, **more}  # fmt: skip


def hostile(outside: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the items of hostile archives that aim at a tree."""
    away = str(outside)
    goods = [
        item("way/file", REGULAR | 0o4755, content="changed"),
        item("way/made", REGULAR | 0o4755, content="made"),
        item("way/directory", DIRECTORY | 0o777, xattrs={"user.made": "x"}),
        item("way/node", BLOCK | 0o666, rdev=os.makedev(254, 0)),
        item("way/alias", REGULAR | 0o644, source="way/program"),
    ]
    first = item("first", REGULAR | 0o644, content="first")
    return {
        "below a link": [first, item("way", LINK | 0o777, source=away), *goods],
        "another spelling": [first, item("way/..", REGULAR | 0o644, content="x"),
                             item("./way", LINK | 0o777, source=away), *goods],
        "doubled slashes": [first, item("way//..", REGULAR | 0o644, content="x"),
                            item(".//way", LINK | 0o777, source=away),
                            *({**one, "path": one["path"].replace("/", "//")} for one in goods)],
        "going up": [first, item("../outside/made", REGULAR | 0o644, content="x"),
                     item("a/../../outside/made", REGULAR | 0o644, content="x"),
                     item(f"{away}/made", REGULAR | 0o644, content="x")],
        "sources outside": [first, item("stolen", REGULAR | 0o644, source=f"{away}/file"),
                            item("taken", REGULAR | 0o644, source="../outside/program"),
                            item("l", LINK | 0o777, source=away),
                            item("lent", REGULAR | 0o4755, source="l/program")],
        "devices": [first, item("disk", BLOCK | 0o666, rdev=os.makedev(254, 0)),
                    item("program", REGULAR | 0o6755, content="#!/bin/sh\n",
                         xattrs={"security.capability": "x", "user.kept": "x"})],
    }  # fmt: skip


# Archives that change the tree when they are restored without a fence.
REACHING = {"another spelling", "doubled slashes"}


class Adopted:
    """A repository with hostile archives, and the tree that they aim at."""

    def __init__(self, at: Path) -> None:
        self.at, self.outside = at, at / "outside"
        self.archives = hostile(self.outside)
        witness.make(self.outside)
        self.rig = Rig(at / "rig")
        for number, items in enumerate(self.archives.values()):
            crafted.add(self.rig.path, f"hostile-{number}", items, base=at / "plain")
        (at / "target").mkdir()

    def name(self, kind: str) -> str:
        return f"hostile-{list(self.archives).index(kind)}"

    def anew(self) -> str:
        """Make tree and target as they are to be; return the digest of the tree."""
        shutil.rmtree(self.outside)
        subprocess.run(["rm", "-rf", str(self.at / "target")], check=True)
        (self.at / "target").mkdir()
        witness.make(self.outside)
        return witness.digest(self.outside)


@pytest.fixture(scope="module")
def adopted() -> Iterator[Adopted]:
    # Not below /tmp: a fence covers that, and here the tree has to be seen and stay as it is.
    above = "/srv" if os.geteuid() == 0 else os.path.expanduser("~")
    at = Path(tempfile.mkdtemp(prefix="borgcube-adopted-", dir=above))
    try:
        made = Adopted(at)
        with made.rig:
            yield made
    finally:
        subprocess.run(["rm", "-rf", str(at)], check=True)


KINDS = list(hostile(Path("/x")))


@pytest.mark.parametrize("as_root", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_hostile_archive_restored_here_changes_nothing_else(
    kind: str, as_root: bool, adopted: Adopted
) -> None:
    before = adopted.anew()
    target = adopted.at / "target"
    with suppress(JobFailed):  # refused is fine as well
        adopted.rig.restore(adopted.name(kind), target, server_side=True, as_root=as_root)
    assert witness.digest(adopted.outside) == before
    if kind == "devices" and not as_root and (target / "program").exists():
        assert not (target / "disk").exists()
        assert (target / "program").stat().st_mode & 0o7777 == 0o755
        assert os.listxattr(target / "program") == ["user.kept"]


@pytest.mark.parametrize("kind", KINDS)
def test_stock_borg_in_a_fence_changes_nothing_else(kind: str, adopted: Adopted) -> None:
    """Without BorgCube's vault in between, which may refuse more than the fence has to."""
    before = adopted.anew()
    code = plain_extract(adopted, kind, fenced=True)
    assert code not in (fence.UNAVAILABLE, fence.OTHER_CODE)
    assert (adopted.at / "target" / "first").read_text() == "first"
    assert witness.digest(adopted.outside) == before


@pytest.mark.parametrize("kind", sorted(REACHING))
def test_without_a_fence_it_would_change(kind: str, adopted: Adopted) -> None:
    before = adopted.anew()
    plain_extract(adopted, kind, fenced=False)
    assert witness.digest(adopted.outside) != before
    before = adopted.anew()
    with suppress(JobFailed):  # a vault that refuses the archive is the other defence
        adopted.rig.restore(
            adopted.name(kind), adopted.at / "target", server_side=True, unfenced=True
        )
        assert witness.digest(adopted.outside) != before


def test_a_restore_that_outgrows_its_bound_is_ended_and_says_so(
    adopted: Adopted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archive has what it says; here it is the bound that is made too small."""
    source, target, bounds = adopted.at / "large", adopted.at / "target", dict[str, int]()
    source.mkdir()
    for number in range(5000):
        (source / f"{number}").write_text(f"{number}")
    (source / "large").write_bytes(os.urandom(4 << 20))
    assert adopted.rig.backup("large-1", source).state == "done"
    made = fencing.fence_for

    def tight(*given: Any, **more: Any) -> Any:
        around = made(*given, **more)
        assert around is not None
        return replace(around, **bounds)

    monkeypatch.setattr(fencing, "fence_for", tight)
    adopted.anew()
    bounds["files"] = 100
    with pytest.raises(JobFailed) as failed:
        adopted.rig.restore("large-1", target, server_side=True)
    assert failed.value.cause.kind == "fence-limit"
    assert "more files than it says it has" in failed.value.message
    assert not list(Path("/tmp").glob(f"borgcube-{adopted.rig.server}-*"))

    adopted.anew()
    bounds.update(files=0, bytes=1 << 20)
    only = str(source / "large").lstrip("/")
    try:
        said = adopted.rig.restore("large-1", target, only, server_side=True).warnings[0]
    except JobFailed as error:
        said = error.message
    # Whichever of the two comes first: the kernel's own limit, or the one that looks at all files.
    assert "File too large" in said or "more bytes than it says it has" in said


def plain_extract(adopted: Adopted, kind: str, *, fenced: bool) -> int:
    """Run ``borg extract`` on a copy of the repository; return its code."""
    copy, target = adopted.at / "copy", adopted.at / "target"
    subprocess.run(["rm", "-rf", str(copy)], check=True)
    copy.mkdir()
    shutil.copytree(adopted.rig.path, copy / "repository", ignore=shutil.ignore_patterns("lock*"))
    environment = {
        "BORG_PASSPHRASE": PASSPHRASE, "BORG_BASE_DIR": str(copy / "base"), "PATH": "/usr/bin:/bin",
        "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
        "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes", "LC_ALL": "C.UTF-8",
    }  # fmt: skip
    argv = ["env", *(f"{name}={value}" for name, value in environment.items()), "sh", "-c",
            'cd "$1" && exec "$2" extract "$3"', "sh", str(target), stock_borg(),
            f"{copy / 'repository'}::{adopted.name(kind)}"]  # fmt: skip
    if fenced:
        argv = fence.Fence(target=str(target), as_root=True).command(argv, writable=[str(copy)])
    done = subprocess.run(argv, capture_output=True, timeout=120, check=False)
    return done.returncode


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_hostile_archive_drilled_changes_nothing_else(
    kind: str, whole: bool, adopted: Adopted
) -> None:
    from borgcube.plugins.drill.drilling import drill

    before = adopted.anew()
    parameters = {
        "archive": adopted.name(kind), "archive_id": "0", "plan": "p", "of_client": "c",
        "start": "2026-01-01T00:00:00+00:00", "files": 50, "whole": whole, "whole_asked": True,
        "archive_size": 0, "canary": "", "canary_sha256": "", "server_side": True,
        "borg": stock_borg(),
    }  # fmt: skip
    context = adopted.rig.context("drill", **parameters)
    with suppress(JobFailed):
        drill(context)
    assert witness.digest(adopted.outside) == before
    scratch = adopted.rig.root / "scratch"
    assert not scratch.exists() or not list(scratch.iterdir())


def test_a_tree_thousands_deep_is_drilled_and_removed(adopted: Adopted, tmp_path: Path) -> None:
    from borgcube.core import drills

    place = drills.scratch_dir(tmp_path, "job") / "restored"
    place.mkdir(parents=True)
    subprocess.run(
        ["python3", "-c", "import os\nfor _ in range(3000):\n os.mkdir('d'); os.chdir('d')"],
        cwd=place, check=True,
    )  # fmt: skip
    (place / "closed").mkdir(mode=0)
    (tmp_path / "kept").mkdir(mode=0o500)
    os.symlink(tmp_path / "kept", place / "way")
    drills.clear_scratch(tmp_path, "job")
    assert not place.parent.exists()
    assert stat.S_IMODE((tmp_path / "kept").stat().st_mode) == 0o500


def test_a_restored_tree_is_what_it_was(adopted: Adopted, tmp_path: Path) -> None:
    """As root: owners, modes, devices, attributes, hard links, holes and flags."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    source = tmp_path / "source"
    witness.make(source)
    os.chown(source / "file", 4242, 4343)
    (source / "program").chmod(0o6755)
    os.link(source / "file", source / "other-name")
    with (source / "holes").open("wb") as file:
        file.truncate(8 << 20)
    os.mknod(source / "node", stat.S_IFBLK | 0o640, os.makedev(1, 2))
    os.setxattr(source / "file", "trusted.mark", b"x")
    os.setxattr(source / "program", "security.capability",
                bytes.fromhex("0100000200040000000000000000000000000000"))  # fmt: skip
    subprocess.run(["setfacl", "-m", "u:1234:r", str(source / "directory")], check=True)
    assert adopted.rig.backup("honest-1", source).state == "done"
    target = adopted.at / "whole"
    result = adopted.rig.restore("honest-1", target, server_side=True, as_root=True)
    assert result.state == "done", result.warnings
    restored = target / str(source).lstrip("/")
    for path in [source, *source.rglob("*")]:
        same, other = path.lstat(), (restored / path.relative_to(source)).lstat()
        for name in ("st_mode", "st_uid", "st_gid", "st_rdev", "st_mtime_ns", "st_nlink"):
            assert getattr(same, name) == getattr(other, name), (path, name)
        there = restored / path.relative_to(source)
        for name in os.listxattr(path, follow_symlinks=False):
            assert os.getxattr(there, name, follow_symlinks=False) == os.getxattr(
                path, name, follow_symlinks=False
            )
        if stat.S_ISREG(same.st_mode):
            assert path.read_bytes() == there.read_bytes()
    assert (restored / "holes").stat().st_blocks == 0
    assert (restored / "file").stat().st_ino == (restored / "other-name").stat().st_ino

    # What may not be kept without --as-root is left out before borg would complain of it.
    result = adopted.rig.restore("honest-1", adopted.at / "harmless", server_side=True)
    assert result.state == "done", result.warnings
    harmless = adopted.at / "harmless" / str(source).lstrip("/")
    assert stat.S_IMODE((harmless / "program").stat().st_mode) == 0o755
    assert os.listxattr(harmless / "program") == [] and not (harmless / "node").exists()
    assert (harmless / "file").stat().st_uid == 4242


def without_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start every fence as a system that gives no namespaces would."""
    command = fence.Fence.command
    bare = ["setpriv", "--bounding-set", "-sys_admin", "--"]
    monkeypatch.setattr(
        fence.Fence, "command", lambda self, *given, **more: [*bare, *command(self, *given, **more)]
    )


def test_without_namespaces_a_restore_is_refused_and_says_how_to_go_without(
    adopted: Adopted, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    adopted.anew()
    target, name, source = adopted.at / "target", "plain-1", adopted.at / "plain-source"
    source.mkdir()
    (source / "file").write_text("first")
    first = target / str(source / "file").lstrip("/")
    assert adopted.rig.backup(name, source).state == "done"
    without_namespaces(monkeypatch)
    with pytest.raises(JobFailed) as refused:
        adopted.rig.restore(name, target, server_side=True)
    cause = refused.value.cause
    assert (cause.kind, cause.problem) == ("no-fence", "server")
    assert "the kernel gives no namespaces" in cause.message
    assert "--unfenced" in cause.next_step and "unfenced = true" in cause.next_step
    assert list(target.iterdir()) == []
    assert not list(Path("/tmp").glob(f"borgcube-{adopted.rig.server}-*"))

    # One asked for it; or the configuration allows it where there is no fence.
    assert adopted.rig.restore(name, target, server_side=True, unfenced=True).state == "done"
    assert first.read_text() == "first"
    first.unlink()
    (adopted.rig.root / "borgcube.toml").write_text("[jobs]\nunfenced = true\n")
    try:
        with pytest.raises(JobFailed, match="cannot fence it off"):  # there is one, so it counts
            adopted.rig.restore(name, target, server_side=True)
        monkeypatch.setattr(fence, "offered", lambda: {"problem": "none here"})
        assert adopted.rig.restore(name, target, server_side=True).state == "done"
    finally:
        (adopted.rig.root / "borgcube.toml").unlink()
    assert first.read_text() == "first"


def test_a_target_that_holds_the_home_is_refused(adopted: Adopted, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert adopted.rig.backup("plain-2", tmp_path).state == "done"
    with pytest.raises(JobFailed) as refused:
        adopted.rig.restore("plain-2", adopted.at, server_side=True)
    assert refused.value.cause.kind == "target-unusable"
    assert str(adopted.rig.root) in refused.value.cause.message


def test_each_bound_names_its_cause(adopted: Adopted) -> None:
    around = fence.Fence(target=str(adopted.at))
    for code, kind, problem in (
        (watch.TOO_MANY_BYTES, "fence-limit", "repository"),
        (watch.TOO_MANY_FILES, "fence-limit", "repository"),
        (watch.TOO_MUCH_MEMORY, "fence-limit", "server"),
        (watch.TOO_MANY_PROCESSES, "fence-limit", "server"),
        (watch.NO_SPACE, "target-full", "server"),
    ):
        failed = fence.failure(code, around)
        assert failed is not None
        assert (failed.cause.kind, failed.cause.problem) == (kind, problem)
    failed = fencing.failure(2, around, ["one", "MemoryError"])
    assert failed is not None and (failed.cause.kind, failed.cause.problem) == (
        "fence-limit", "server"
    )  # fmt: skip
    assert fence.failure(0, around) is None and fence.failure(None, around) is None


def test_doctor_says_in_words_that_there_is_no_fence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fencing, "_tried", fencing._Tried())
    assert fencing.conditions() == []
    monkeypatch.setattr(fencing, "_tried", fencing._Tried())
    monkeypatch.setattr(fence, "offered", lambda: {"problem": "the kernel gives no namespaces"})
    ((level, said, next_step),) = fencing.conditions()
    assert level == "warning" and "the kernel gives no namespaces" in said
    assert "--unfenced" in next_step
