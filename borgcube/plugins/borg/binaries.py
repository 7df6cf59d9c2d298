"""The borgs that the server can send along to clients that have none.

One directory for each platform under ``binaries/`` of the engine's state, with
``borg.tar.gz`` (a directory ``borg`` with the program ``borg`` in it) and ``facts.json``.
Built here for the server's own platform with PyInstaller, or added from a file for others.
What goes to a client is removed with the session's directory.
"""

from __future__ import annotations

import fcntl
import gzip
import importlib.metadata
import importlib.util
import json
import os
import platform as this_platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from borgcube.core.errors import BorgCubeError, InvalidInput, JobFailed, Problem
from borgcube.core.transports import Connection
from borgcube.core.untrusted import last_words

BUILD_TIMEOUT_S = 900
MAX_ARCHIVE_BYTES, UNPACK_S = 1 << 30, 300
PROBE = (
    'printf "\\n%s %s\\n" "$(uname -s)" "$(uname -m)"; '
    "getconf GNU_LIBC_VERSION 2>/dev/null || ldd --version 2>&1 | head -n 1"
)
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
_PLATFORM = re.compile(r"([a-z0-9]+)-([a-z0-9_]+)(?:-glibc(\d+)\.(\d+)|-(musl))?")


@dataclass(frozen=True)
class Platform:
    """A system as ``uname`` names it (lower case), and its C library where that matters."""

    system: str
    machine: str
    libc: str = ""  # "glibc", "musl" or nothing
    libc_version: tuple[int, int] = (0, 0)

    def __str__(self) -> str:
        version = ".".join(map(str, self.libc_version)) if self.libc == "glibc" else ""
        return "-".join(filter(None, (self.system, self.machine, self.libc + version)))

    def runs(self, built: Platform) -> bool:
        """Tell whether a program built for ``built`` runs here."""
        same = (self.system, self.machine) == (built.system, built.machine)
        if not built.libc:
            return same
        return same and self.libc == built.libc and self.libc_version >= built.libc_version


@dataclass(frozen=True)
class Binary:
    """A packed borg: for which platform, which version of borg, where."""

    platform: Platform
    borg: str
    path: Path


def parse_platform(text: str) -> Platform:
    """Return the platform of a name such as ``linux-x86_64-glibc2.36``; raises InvalidInput."""
    found = _PLATFORM.fullmatch(text)
    if found is None:
        raise InvalidInput(
            f"{text[:80]!r} is not a platform.",
            next_step="Write it as linux-x86_64-glibc2.36 or freebsd-x86_64.",
        )
    system, machine, major, minor, musl = found.groups()
    version = (int(major), int(minor)) if major else (0, 0)
    return Platform(system, machine, "glibc" if major else musl or "", version)


def parse_probe(output: bytes) -> Platform:
    """Return the platform from what :data:`PROBE` printed; raises JobFailed for nonsense."""
    text = output.decode("utf-8", "replace")
    found = re.search(r"\n([A-Za-z0-9]{1,32}) ([A-Za-z0-9_]{1,32})\n([^\n]{0,200})", text)
    if found is None:
        raise JobFailed(
            "platform-unknown", Problem.CLIENT, "The client does not say what system it is.",
            next_step="Install borgbackup there and set the client's --borg to its path.",
        )  # fmt: skip
    machine = found[2].lower()
    libc, version = "", (0, 0)
    glibc = re.search(r"(?:glibc|GLIBC|GNU libc|GNU C Library)\D*(\d+)\.(\d+)", found[3])
    if glibc:
        libc, version = "glibc", (int(glibc[1]), int(glibc[2]))
    elif "musl" in found[3]:
        libc = "musl"
    return Platform(found[1].lower(), _MACHINES.get(machine, machine), libc, version)


def own_platform() -> Platform:
    """Return the platform of this server."""
    name, version = this_platform.libc_ver()
    major, minor = [*version.split("."), "0", "0"][:2]
    machine = this_platform.machine().lower()
    return Platform(
        this_platform.system().lower(), _MACHINES.get(machine, machine),
        "glibc" if name == "glibc" else "", (int(major), int(minor)) if name else (0, 0),
    )  # fmt: skip


def stored(state_dir: Path) -> list[Binary]:
    """Return what is stored, by name; a damaged entry is left out."""
    found = []
    for directory in sorted((state_dir / "binaries").glob("*/")):
        try:
            facts = json.loads((directory / "facts.json").read_text())
            binary = Binary(
                parse_platform(directory.name), str(facts["borg"]), directory / "borg.tar.gz"
            )
        except (OSError, ValueError, KeyError, InvalidInput):
            continue
        if binary.path.is_file():
            found.append(binary)
    return found


def fitting(connection: Connection, state_dir: Path) -> Binary:
    """Return the borg that fits a client, built now if it is of the server's own kind.

    Raises JobFailed ``borg-not-deployable`` when there is none.
    """
    client, found = _best(connection, state_dir)
    if found is None and client.runs(own_platform()):
        found = build(state_dir)
    if found is None:
        raise _none_for(client)
    return found


def foreseen(connection: Connection, state_dir: Path) -> str:
    """Say in words which borg would go along to a client; nothing is built for that.

    Raises JobFailed ``borg-not-deployable`` when there is none, and none can be built here.
    """
    client, found = _best(connection, state_dir)
    if found is not None:
        return f"borg {found.borg} for {found.platform}, sent along"
    if not client.runs(own_platform()):
        raise _none_for(client)
    if importlib.util.find_spec("PyInstaller") is None or shutil.which("objdump") is None:
        raise JobFailed(
            "borg-not-deployable", Problem.SERVER,
            f"There is no borg for {client} to send along, and none can be built here.",
            next_step="Install BorgCube with its extra `deploy`, and binutils.",
        )  # fmt: skip
    version = importlib.metadata.version("borgbackup")
    return f"borg {version} for {own_platform()}, built with the first backup and sent along"


def _best(connection: Connection, state_dir: Path) -> tuple[Platform, Binary | None]:
    client = parse_probe(connection.run(["sh", "-c", PROBE], timeout_s=60).stdout)
    candidates = [one for one in stored(state_dir) if client.runs(one.platform)]
    newest = max(candidates, key=lambda one: one.platform.libc_version, default=None)
    return client, newest


def _none_for(client: Platform) -> JobFailed:
    return JobFailed(
        "borg-not-deployable", Problem.CONFIGURATION,
        f"There is no borg for {client} to send along.",
        next_step="Add one with `borgcube borg add`, or install borgbackup on the client.",
    )  # fmt: skip


@contextmanager
def _locked(state_dir: Path) -> Iterator[None]:
    place = state_dir / "binaries"
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# What only Borg's tests for developers import, which are not those that it runs at its start.
NOT_SENT = [f"--exclude-module={name}" for name in ("pytest", "setuptools", "pkg_resources")]


def build(state_dir: Path, *, again: bool = False) -> Binary:
    """Build a borg of our own version for this platform (about a minute); once for all.

    Raises BorgCubeError when PyInstaller is missing or fails.
    """
    from borg import __version__ as borg_version

    target = own_platform()
    with _locked(state_dir):
        for one in stored(state_dir):
            if one.platform == target and one.borg == borg_version and not again:
                return one
        with tempfile.TemporaryDirectory(dir=state_dir, prefix="build-") as name:
            place = Path(name)
            entry = place / "entry.py"
            entry.write_text("import sys\nfrom borg.archiver import main\nsys.exit(main())\n")
            argv = [
                *(sys.executable, "-m", "PyInstaller", "--onedir", "--name", "borg", "--noconfirm"),
                *("--collect-submodules", "borg", *NOT_SENT),
                *("--log-level", "ERROR", "--distpath", "dist"),
                *("--workpath", "work", "--specpath", ".", str(entry)),
            ]
            environment = {**os.environ, "PYINSTALLER_CONFIG_DIR": str(place / "config")}
            try:
                done = subprocess.run(
                    argv, cwd=place, env=environment, stdin=subprocess.DEVNULL,
                    capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False,
                )  # fmt: skip
            except subprocess.TimeoutExpired as error:
                raise BorgCubeError("Building a borg to send along took too long.") from error
            program = place / "dist" / "borg" / "borg"
            if done.returncode != 0 or not program.is_file():
                last = (done.stderr.strip().splitlines() or ["no message"])[-1][:300]
                raise BorgCubeError(
                    f"No borg could be built to send along: {last}.",
                    next_step="Install BorgCube with its extra `deploy`, or binutils if objdump "
                    "is missing.",
                )
            packed = place / "borg.tar.gz"
            _pack(place / "dist" / "borg", packed)
            return _store(state_dir, target, packed, borg_version)


def _pack(directory: Path, packed: Path) -> None:
    with (
        packed.open("wb") as raw,
        # Level 9 takes four times as long for a two-hundredth.
        gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=6, mtime=0) as out,
        tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for path in sorted(directory.rglob("*")):
            info = tar.gettarinfo(path, f"borg/{path.relative_to(directory)}")
            info.uid = info.gid = 0
            info.uname = info.gname = ""
            if info.isfile():
                with path.open("rb") as content:
                    tar.addfile(info, content)
            else:
                tar.addfile(info)


def add(state_dir: Path, target: Platform, file: Path, borg_version: str) -> Binary:
    """Store a borg for another platform: one executable file, or a tar.gz of a directory
    with the program ``borg`` in it. Raises InvalidInput."""
    if not file.is_file():
        raise InvalidInput(f"There is no file {file}.")
    with _locked(state_dir), tempfile.TemporaryDirectory(dir=state_dir, prefix="add-") as name:
        place = Path(name) / "borg"
        place.mkdir()
        if tarfile.is_tarfile(file):
            _unpack(file, Path(name) / "in")
            programs = sorted((Path(name) / "in").rglob("borg"), key=lambda path: len(path.parts))
            found = [path.parent for path in programs if path.is_file()]
            if not found:
                raise InvalidInput(f"There is no program named borg in {file}.")
            place = found[0]
            (place / "borg").chmod(0o755)
        else:
            shutil.copyfile(file, place / "borg")
            (place / "borg").chmod(0o755)
        packed = Path(name) / "borg.tar.gz"
        _pack(place, packed)
        return _store(state_dir, target, packed, borg_version)


def _unpack(file: Path, place: Path) -> None:
    try:
        with tarfile.open(file) as tar:
            if sum(member.size for member in tar) > MAX_ARCHIVE_BYTES:
                raise InvalidInput(f"{file} is larger than 1 GiB when unpacked.")
        # GNU tar and not Python's: that of Debian 12 knows no filters of what it extracts.
        place.mkdir()
        subprocess.run(
            ["tar", "--extract", "--force-local", "--no-same-owner", "--no-same-permissions",
             f"--directory={place}", f"--file={file}"],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=UNPACK_S, check=True,
        )  # fmt: skip
    except (tarfile.TarError, OSError, subprocess.TimeoutExpired) as error:
        raise InvalidInput(f"{file} cannot be unpacked: {error}.") from error
    except subprocess.CalledProcessError as error:
        said = last_words(error.stderr)
        raise InvalidInput(f"{file} cannot be unpacked: {said}.") from error


def _store(state_dir: Path, target: Platform, packed: Path, borg_version: str) -> Binary:
    place = state_dir / "binaries" / str(target)
    fresh = state_dir / "binaries" / f".new-{target}"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    shutil.move(packed, fresh / "borg.tar.gz")
    facts = {"borg": borg_version, "platform": asdict(target)}
    (fresh / "facts.json").write_text(json.dumps(facts) + "\n")
    shutil.rmtree(place, ignore_errors=True)
    fresh.rename(place)
    return Binary(target, borg_version, place / "borg.tar.gz")
