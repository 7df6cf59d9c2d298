"""What was restored on a client is moved into its place without following anybody's link."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from borgcube.core.errors import JobFailed
from borgcube.core.transports import Completed
from borgcube.plugins.borg import placing as placing_module
from borgcube.plugins.borg.placing import Placing

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs another user on this machine")
NOBODY = 65534
SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]


class Shell:
    """Runs what goes to ``sh`` on the client with a shell of this machine."""

    def __init__(self, name: str, *, user: int = 0) -> None:
        self._argv = [name, "sh"] if name == "busybox" else [name]
        self._user = user
        self.errors = b""

    def run(self, argv: Any, *, timeout_s: float = 60.0, **_: Any) -> Completed:
        words = [*self._argv, *argv[1:]] if argv[0] == "sh" else list(argv)
        done = subprocess.run(
            words, capture_output=True, timeout=50, check=False, user=self._user, cwd="/",
            env={"PATH": os.environ["PATH"], "TMPDIR": "/tmp"}, umask=0o022,
        )  # fmt: skip
        self.errors += done.stderr
        return Completed(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of root's on the disk: a home of somebody, and a directory of root's."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="bc-placing-") as name:
        place = Path(name)
        place.chmod(0o755)
        for one in ("home", "victim", "out"):
            (place / one).mkdir()
        (place / "victim" / "kept").write_text("root's")
        os.chown(place / "home", NOBODY, NOBODY)
        yield place


def placing(target: Path, *, shared: bool = False, shell: str = "dash", user: int = 0) -> Placing:
    return Placing(Shell(shell, user=user), str(target), server="s", token="t", shared=shared)  # type: ignore[arg-type]


def extracted(one: Placing, **files: str) -> None:
    """Play borg: write files below the stage. In names, ``__`` is a slash."""
    for name, text in files.items():
        path = Path(one.into) / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def put(one: Placing) -> list[str]:
    told = one.place(timeout_s=60)
    one.clean_up(lambda level, text: pytest.fail(text))
    assert not Path(one.stage).exists()
    return told


@pytest.mark.parametrize("shell", SHELLS)
def test_odd_names_and_trees_come_into_place(place: Path, shell: str) -> None:
    target = place / "out" / "new one" / "deep"
    one = placing(target, shell=shell)
    one.prepare()
    assert Path(one.stage).stat().st_mode & 0o777 == 0o700
    names = ["-rf", " ", "a\nb", "end\n", ".hidden", "..odd", "*", "'", '"', "$HOME", "\\", "ä"]
    for name in names:
        (Path(one.into) / name).write_text(name)
        (Path(one.into) / "dir" / f"{name}d").mkdir(parents=True)
    (Path(one.into) / "link").symlink_to("/nowhere")
    os.mkfifo(Path(one.into) / "fifo")
    os.link(Path(one.into) / "-rf", Path(one.into) / "dir" / "hard")
    Path(one.into).chmod(0o777)  # as the archive's own root may be
    assert put(one) == []
    assert sorted(os.listdir(target)) == sorted([*names, "dir", "link", "fifo"])
    assert len(os.listdir(target / "dir")) == len(names) + 1
    assert (target / "dir" / "hard").stat().st_ino == (target / "-rf").stat().st_ino
    assert sorted(os.listdir(place / "out")) == ["new one"]


@pytest.mark.parametrize("shell", SHELLS)
def test_what_is_there_is_merged_and_replaced_and_no_link_is_followed(
    place: Path, shell: str
) -> None:
    home = place / "home"
    one = placing(place, shell=shell)
    one.prepare()
    (home / "docs").mkdir(mode=0o750)
    os.chown(home / "docs", NOBODY, NOBODY)
    (home / "docs" / "mine").write_text("stays")
    (home / "docs" / "old").write_text("old")
    (home / "was-file").write_text("a file in place of a directory")
    (home / "full").mkdir()
    (home / "full" / "file").write_text("in the way")
    for name in ("dir", "file", "docs/inner"):
        (home / name).symlink_to(place / "victim")
    extracted(one, home__docs__old="new", home__docs__inner__evil="x", home__dir__evil="x",
              home__file="plain", home__full="a file")  # fmt: skip
    extracted(one, **{"home__was-file__now": "dir"})
    assert put(one) == [f"{home}/full: could not be put into its place"]
    assert os.listdir(place / "victim") == ["kept"]
    assert (home / "docs" / "mine").read_text() == "stays"
    assert (home / "docs").stat().st_mode & 0o777 == 0o750
    assert (home / "docs").stat().st_uid == NOBODY, "what is there stays whose it was"
    assert (home / "docs" / "old").read_text() == "new"
    assert not (home / "dir").is_symlink() and (home / "dir" / "evil").read_text() == "x"
    assert (home / "docs" / "inner" / "evil").read_text() == "x"
    assert not (home / "file").is_symlink() and (home / "file").read_text() == "plain"
    assert (home / "was-file" / "now").read_text() == "dir"


def test_a_target_that_others_can_write_is_asked_for(place: Path) -> None:
    (place / "sticky").mkdir()
    (place / "sticky").chmod(0o1777)
    (place / "group").mkdir()
    (place / "group").chmod(0o775)
    os.chown(place / "group", 0, NOBODY)
    (place / "own-group").mkdir()
    (place / "own-group").chmod(0o775)
    placing(place / "own-group").prepare()
    for target in (place / "home", place / "home" / "new", place / "sticky", place / "group",
                   place / "group" / "new"):  # fmt: skip
        with pytest.raises(JobFailed) as failure:
            placing(target).prepare()
        assert failure.value.cause.kind == "target-shared", target
        assert "--shared-target" in failure.value.cause.next_step
    assert os.listdir(place / "home") in ([], ["new"])
    one = placing(place / "home" / "new", shared=True)
    one.prepare()
    assert not Path(one.stage).is_relative_to(place / "home"), "borg goes where she cannot"
    extracted(one, a="1")
    assert put(one) == [] and (place / "home" / "new" / "a").read_text() == "1"
    fresh = placing(place / "sticky" / "mine")  # nobody else can take it away
    fresh.prepare()
    assert put(fresh) == []


def test_a_link_on_the_way_is_followed_only_if_it_is_ours(place: Path) -> None:
    (place / "ours").symlink_to(place / "out")
    one = placing(place / "ours" / "deep")
    one.prepare()
    extracted(one, a="1")
    assert put(one) == [] and (place / "out" / "deep" / "a").read_text() == "1"
    (place / "sticky").mkdir()
    (place / "sticky").chmod(0o1777)
    for where in ("sticky/link", "home/link"):
        (place / where).symlink_to(place / "victim")
        os.chown(place / where, NOBODY, NOBODY, follow_symlinks=False)
        for shared in (False, True):
            with pytest.raises(JobFailed) as failure:
                placing(place / where / "deep", shared=shared).prepare()
            assert failure.value.cause.kind == "target-link"
    assert os.listdir(place / "victim") == ["kept"]


def test_another_file_system_is_reached_and_a_user_restores_to_her_own(place: Path) -> None:
    (place / "home" / "disk").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "none", str(place / "home" / "disk")],
                      capture_output=True, check=False).returncode:  # fmt: skip
        pytest.skip("no mounts here")
    try:
        os.chown(place / "home" / "disk", NOBODY, NOBODY)
        one = placing(place)
        one.prepare()
        extracted(one, home__disk__docs__a="1", home__disk__b="2")
        (Path(one.into) / "home" / "disk" / "b").chmod(0o640)
        os.chown(Path(one.into) / "home" / "disk" / "b", NOBODY, NOBODY)
        assert put(one) == []
        disk = place / "home" / "disk"
        assert (disk / "docs" / "a").read_text() == "1"
        assert ((disk / "b").stat().st_mode & 0o777, (disk / "b").stat().st_uid) == (0o640, NOBODY)
        assert sorted(os.listdir(disk)) == ["b", "docs"]
        own = placing(disk / "mine", user=NOBODY)
        own.prepare()
        assert own.stage.startswith(str(disk))
        extracted(own, read__a="1")
        for path in (Path(own.into) / "read", Path(own.into) / "read" / "a"):
            os.chown(path, NOBODY, NOBODY)
        (Path(own.into) / "read").chmod(0o555)
        assert put(own) == [] and (disk / "mine" / "read").stat().st_mode & 0o777 == 0o555
    finally:
        subprocess.run(["umount", str(place / "home" / "disk")], check=True)


RACE = """
import os, sys, time
home, victim = sys.argv[1:]
os.chdir(home)
print("ready", flush=True)
while True:
    for name in ("docs", "dir", "sub"):
        try:
            os.rename(name, name + ".away")
        except OSError:
            pass
        try:
            os.symlink(victim, name)
        except OSError:
            pass
        try:
            os.unlink(name)
        except OSError:
            pass
        try:
            os.rename(name + ".away", name)
        except OSError:
            pass
        for inside in os.listdir("."):
            if inside.startswith(".borgcube"):
                try:
                    os.rename(inside, "gone%d" % time.monotonic_ns())
                    os.symlink(victim, inside)
                except OSError:
                    pass
"""


SWAP = """
swap() {
  mv -- "$1" "$1.away" && ln -s -- {victim} "$1"
}
"""


@pytest.mark.parametrize("over", [False, True], ids=["same", "other"])
def test_a_directory_that_becomes_a_link_at_the_worst_moment_leads_nowhere(
    place: Path, monkeypatch: pytest.MonkeyPatch, over: bool
) -> None:
    """The swap comes right before each step into a directory, after all that was looked at."""
    script = SWAP.replace("{victim}", str(place / "victim")) + placing_module.PLACE
    for word in ('"./$entry"', '"./$name.in"'):
        assert f"cd -P {word}" in script
        script = script.replace(f"cd -P {word}", f"swap {word}; cd -P {word}")
    if over:
        script = script.replace('near "$stage" || put=put_over', "put=put_over")
    monkeypatch.setattr(placing_module, "PLACE", script)
    one = placing(place)
    one.prepare()
    (place / "home" / "docs").mkdir()
    extracted(one, home__docs__a="1", kept="2", kept2__kept="3")
    told = put(one)
    assert f"{place}/home: could not be put into its place" in told
    assert (place / "victim" / "kept").read_text() == "root's"
    assert os.listdir(place / "victim") == ["kept"]


@pytest.mark.parametrize("over", [False, True], ids=["same", "other"])
def test_somebody_who_swaps_directories_all_the_time_leads_nobody_away(
    place: Path, over: bool
) -> None:
    home, victim = place / "home", place / "victim"
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        os.chmod(other, 0o755)
        if over:
            home = Path(other) / "home"
            home.mkdir()
        for name in ("docs", "dir", "sub"):
            (home / name).mkdir()
            (home / name / "deep").mkdir()
            for path in (home, home / name, home / name / "deep"):
                os.chown(path, NOBODY, NOBODY)
        racer = subprocess.Popen(
            ["python3", "-c", RACE, str(home), str(victim)], user=NOBODY, stdout=subprocess.PIPE
        )
        try:
            assert racer.stdout is not None and racer.stdout.readline() == b"ready\n"
            for _ in range(12):
                one = placing(home, shared=True)
                if over:
                    # As where no place on that file system is safe.
                    stage = place / one._name
                    (stage / "x").mkdir(parents=True, exist_ok=True)
                    stage.chmod(0o700)
                    one.stage = str(stage)
                else:
                    one.prepare()
                extracted(one, docs__a="1", docs__deep__b="2", dir__deep__c="3", sub__d="4", e="5")
                try:
                    one.place(timeout_s=60)
                except JobFailed:
                    pass
                one.clean_up(lambda level, text: pytest.fail(text))
                assert os.listdir(victim) == ["kept"], "root was led away"
        finally:
            racer.kill()
            racer.communicate()
        assert (victim / "kept").read_text() == "root's"
        if over:
            assert not (Path(other) / "kept").exists()
