"""Which borg fits which client."""

from __future__ import annotations

import contextlib
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from borgcube.core.errors import InvalidInput, JobFailed
from borgcube.core.transports import Completed
from borgcube.plugins.borg import binaries
from borgcube.plugins.borg.binaries import Platform, own_platform, parse_platform, parse_probe

GLIBC = Platform("linux", "x86_64", "glibc", (2, 36))


@pytest.mark.parametrize(
    ("printed", "platform"),
    [
        (b"Welcome\n\nLinux x86_64\nglibc 2.36\n", GLIBC),
        (b"\nLinux x86_64\nldd (Debian GLIBC 2.36-9+deb12u9) 2.36\n", GLIBC),
        (b"\nLinux aarch64\nmusl libc (aarch64)\n", Platform("linux", "aarch64", "musl")),
        (b"\nFreeBSD amd64\nusage: ldd [-a]\n", Platform("freebsd", "x86_64")),
        (b"\nDarwin arm64\n\n", Platform("darwin", "aarch64")),
    ],
)
def test_platform_is_read_from_what_a_client_prints(printed: bytes, platform: Platform) -> None:
    assert parse_probe(printed) == platform
    assert parse_platform(str(platform)) == platform


@pytest.mark.parametrize("printed", [b"", b"\n../../etc x\n", b"\nLinux\n", b"\xff" * 100])
def test_nonsense_from_a_client_is_refused(printed: bytes) -> None:
    with pytest.raises(JobFailed) as failure:
        parse_probe(printed)
    assert failure.value.cause.kind == "platform-unknown"


@pytest.mark.parametrize("name", ["", "linux", "linux-x86_64-glibc", "a/../b-c", "Linux-x86_64"])
def test_name_that_is_no_platform_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        parse_platform(name)


def test_older_c_library_does_not_run_a_newer_build() -> None:
    older = Platform("linux", "x86_64", "glibc", (2, 31))
    assert GLIBC.runs(older) and GLIBC.runs(GLIBC)
    assert not older.runs(GLIBC)
    assert not Platform("linux", "x86_64", "musl").runs(GLIBC)
    assert not Platform("linux", "aarch64", "glibc", (2, 40)).runs(GLIBC)
    assert Platform("linux", "x86_64", "musl").runs(Platform("linux", "x86_64"))
    assert own_platform().system == "linux"


class Client:
    """A client that says what system it is."""

    def __init__(self, said: bytes) -> None:
        self._said = said

    def run(self, argv: Any, **_: Any) -> Completed:
        return Completed(0, self._said, b"")


def test_a_test_of_a_client_says_what_goes_along_and_builds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs in a child with a minute and little memory: a build takes both."""
    monkeypatch.setattr(binaries, "build", lambda *_, **__: pytest.fail("built"))
    monkeypatch.setattr(binaries.importlib.util, "find_spec", lambda _: object())
    monkeypatch.setattr(binaries.shutil, "which", lambda _: "/usr/bin/objdump")
    own = own_platform()
    said = f"\n{own.system} {own.machine}\nglibc {'.'.join(map(str, own.libc_version))}\n"
    client: Any = Client(said.encode())
    assert "built with the first backup" in binaries.foreseen(client, tmp_path)
    monkeypatch.setattr(binaries.shutil, "which", lambda _: None)
    other: Any = Client(b"\nPlan9 mips\n\n")
    for asked in (client, other):
        with pytest.raises(JobFailed) as failure:
            binaries.foreseen(asked, tmp_path)
        assert failure.value.cause.kind == "borg-not-deployable"
    assert list(tmp_path.iterdir()) == []


def tarball(place: Path, *members: tuple[str, bytes | str]) -> Path:
    """Write a tar.gz with files (bytes) and symbolic links (text)."""
    path = place / "bo:rg.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, what in members:
            info = tarfile.TarInfo(name)
            if isinstance(what, str):
                info.type, info.linkname = tarfile.SYMTYPE, what
                tar.addfile(info)
            else:
                info.size, info.mode = len(what), 0o644
                tar.addfile(info, io.BytesIO(what))
    return path


def test_a_directory_of_another_platform_comes_as_a_tar(tmp_path: Path) -> None:
    packed = tarball(tmp_path, ("x/borg", b"program"), ("x/lib/a", b"a"), ("x/lib/b", "a"))
    stored = binaries.add(tmp_path, Platform("freebsd", "amd64"), packed, "1.4.5")
    with tarfile.open(stored.path) as tar:
        assert sorted(tar.getnames()) == ["borg/borg", "borg/lib", "borg/lib/a", "borg/lib/b"]
        assert tar.getmember("borg/borg").mode & 0o111 and tar.getmember("borg/lib/b").issym()


@pytest.mark.parametrize(
    "members",
    [
        (("../outside", b"x"), ("borg", b"x")),
        (("/outside", b"x"), ("borg", b"x")),
        (("way", "../.."), ("way/outside", b"x"), ("borg", b"x")),
    ],
    ids=["up", "absolute", "through a link"],
)
def test_nothing_of_a_tar_gets_out_of_its_place(tmp_path: Path, members: Any) -> None:
    packed = tarball(tmp_path, *members)
    with contextlib.suppress(InvalidInput):  # or what climbs is cut off
        binaries.add(tmp_path, Platform("freebsd", "amd64"), packed, "1.4.5")
    assert not list(tmp_path.rglob("outside")) and not Path("/outside").exists()


@pytest.mark.parametrize("data", [b"no tar", b""])
def test_a_tar_without_a_borg_is_refused(tmp_path: Path, data: bytes) -> None:
    packed = tarball(tmp_path, ("a", data))
    with pytest.raises(InvalidInput, match="no program named borg"):
        binaries.add(tmp_path, Platform("freebsd", "amd64"), packed, "1.4.5")
