"""A home and a repository as 0.1.0 left them, in which three of ten archives are poisoned.

:func:`load` unpacks ``tests/data/poisoned`` at a new place: a home that has not been opened
since 0.1.0, and its repository with seven honest archives of alice, bob and carol, and three of
mallory's that 0.1.0 admitted. ``python -m borgcube.testing.poisoned build OUT`` made it, run with
the code of commit 6885215 on ``PYTHONPATH``; it cannot be made with a later one, which refuses
the three. Paths are absolute in a home, so that the place has a name of a fixed length, which is
replaced wherever it stands.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import secrets
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import zstandard

FIXTURE = Path(__file__).parents[2] / "tests" / "data" / "poisoned"
PASSPHRASE = "correct horse"
# Where one lies: this and eight characters.
PLACE = "/tmp/bcpoison-"
HONEST = {"alice": 3, "bob": 2, "carol": 2}
# What mallory did, in this order: one archive each.
POISONS = ("chunks twice", "a way out", "no owner")
SHARED = b"a file that alice and mallory both have" * 100
OUTSIDE = "outside"  # what "a way out" writes into: a directory beside its target


@dataclass(frozen=True)
class Poisoned:
    """The unpacked fixture. ``facts`` are its archives, as ``facts.json`` has them."""

    place: Path
    facts: dict[str, Any]

    @property
    def home(self) -> Path:
        """The home of BorgCube."""
        return self.place / "home"

    @property
    def repository(self) -> Path:
        """The repository, called ``main``."""
        return self.place / "repository"

    @property
    def cache(self) -> Path:
        """Borg's cache that the vault keeps."""
        (found,) = (self.home / "engines/borg/base/.cache/borg").glob("*/chunks")
        return found.parent

    @property
    def honest(self) -> list[str]:
        """The names of the seven honest archives."""
        return [one["name"] for one in self.facts["archives"] if not one["poison"]]

    @property
    def poisoned(self) -> dict[str, str]:
        """The names of the other three, by their poison."""
        return {one["poison"]: one["name"] for one in self.facts["archives"] if one["poison"]}

    def tree(self, archive: str) -> dict[str, str]:
        """Return what an honest archive holds: path below the root -> SHA-256."""
        found: dict[str, str] = self.facts["trees"][archive]
        return found

    def remove(self) -> None:
        """Remove the place."""
        shutil.rmtree(self.place, ignore_errors=True)


def load(fixture: Path = FIXTURE) -> Poisoned:
    """Unpack the fixture at a new place; the caller removes it."""
    facts = json.loads((fixture / "facts.json").read_text())
    place = Path(PLACE + secrets.token_hex(4))
    place.mkdir(mode=0o700)
    with (
        zstandard.open(fixture / "poisoned.tar.zst", "rb") as packed,
        tarfile.open(fileobj=packed, mode="r|") as archive,
    ):
        # It is ours; Debian 12's Python knows no filters.
        if hasattr(tarfile, "tar_filter"):
            archive.extractall(place, filter="tar")
        else:
            archive.extractall(place)
    _move(place, str(facts["place"]), str(place))
    return Poisoned(place, facts)


def _move(place: Path, before: str, after: str) -> None:
    """Replace one place's name by another's of the same length, in files and their names."""
    assert len(before) == len(after)
    for form in (str, lambda text: text.replace("/", "%")):
        old, new = form(before), form(after)
        for folder, folders, files in os.walk(place, topdown=False):
            for name in files:
                path = Path(folder, name)
                data = path.read_bytes()
                if old.encode() in data and not path.is_relative_to(place / "repository" / "data"):
                    facts = path.stat()
                    path.write_bytes(data.replace(old.encode(), new.encode()))
                    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
            for name in (*files, *folders):
                if old in name:
                    Path(folder, name).rename(Path(folder, name.replace(old, new)))


# How it was made --------------------------------------------------------------------------


def _fields(path: str, mode: int = 0o100644, **more: Any) -> dict[str, Any]:
    return {"path": path, "mode": mode, "uid": 0, "gid": 0, "user": "u", "group": "g",
            "mtime": 10**18, **more}  # fmt: skip


def _streams(poison: str, shared: tuple[bytes, int, int]) -> bytes:
    """Return the item stream of a poisoned archive; ``shared`` is a chunk of alice's."""

    def pack(*items: dict[str, Any]) -> bytes:
        return b"".join(msgpack.packb(item, use_bin_type=False) for item in items)

    if poison == "chunks twice":
        # Python keeps the second list, borg's C reader counts both: what is taken off one day
        # are two references more than were added.
        whole: bytes = pack(_fields("f", size=0))
        lists = [msgpack.packb(one, use_bin_type=False) for one in ([shared] * 2, [])]
        twice = b"".join(b"\xa6chunks" + one for one in lists)
        return bytes([whole[0] + 2]) + whole[1:] + twice
    if poison == "a way out":
        return pack(
            _fields("d/x", source="absent"),
            _fields("./d", 0o120777, source=f"../{OUTSIDE}"),
            _fields("d/written", chunks=[shared], size=shared[1]),
        )
    bare = _fields("f", chunks=[shared], size=shared[1])
    del bare["user"], bare["group"], bare["uid"], bare["gid"]
    return pack(_fields("before", chunks=[], size=0), bare)


def deed(poison: str) -> None:
    """Stand in borg's place on mallory's client and commit the archive."""
    from borgcube.testing.hostile import MANIFEST_ID, at
    from borgcube.testing.hostileborg import Borg

    borg = Borg()
    shared = (borg.id_hash(SHARED), len(SHARED), len(SHARED))
    if poison != "chunks twice":  # its own upload, or the vault would say that it is foreign
        borg.put(SHARED)
    from datetime import UTC, datetime

    now = at(datetime.now(UTC))
    metadata = {
        "version": 1, "name": borg.archive, "items": [borg.put(_streams(poison, shared))],
        "cmdline": ["borg", "create"], "hostname": "mallory", "username": "u", "time": now,
        "time_end": now, "chunker_params": ["buzhash", 19, 23, 21, 4095],
    }  # fmt: skip
    entry = {"id": borg.put(msgpack.packb(metadata, use_bin_type=False)), "time": now}
    manifest = {"version": 1, "archives": {borg.archive: entry}}
    borg.put(msgpack.packb(manifest, use_bin_type=False), MANIFEST_ID)
    borg.result("commit", compact=False)
    borg.close()


class _Builder:
    def __init__(self, place: Path) -> None:
        self.place, self.home = place, place / "home"
        self.env = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(place / "user"),
            "LANG": "C.UTF-8", "BORGCUBE_HOME": str(self.home),
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""), "TMPDIR": str(place / "tmp"),
        }  # fmt: skip
        self.trees: dict[str, dict[str, str]] = {}
        self.archives: list[dict[str, str]] = []

    def ok(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "borgcube", *words], env=self.env, capture_output=True,
            text=True, timeout=120, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"{words}: {done.stdout} {done.stderr}")
        return done.stdout

    def until(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not ready():
            if time.monotonic() > deadline:
                raise TimeoutError("the daemon does not answer")
            time.sleep(0.1)

    def answers(self) -> bool:
        try:
            self.ok("client", "list")
        except RuntimeError:
            return False
        return True

    def run(self) -> None:
        for name in ("user", "tmp", "trees"):
            (self.place / name).mkdir()
        self.ok("init")
        (self.home / "borgcube.toml").write_text("[console]\nenabled = false\n")
        secret = self.place / "secret"
        secret.write_text(PASSPHRASE + "\n")
        daemon = subprocess.Popen(
            [sys.executable, "-m", "borgcube", "serve"], env=self.env, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=(self.place / "serve.log").open("ab"),
        )  # fmt: skip
        try:
            self.until(self.answers)
            self.ok("repository", "create", "main", "--path", str(self.place / "repository"),
                    "--encryption", "repokey", "--passphrase-file", str(secret))  # fmt: skip
            self._fill()
        finally:
            daemon.terminate()
            daemon.wait(60)

    def _fill(self) -> None:
        rng = random.Random(1)
        evil = self.place / "evil"
        evil.write_text("#!/bin/sh\nexit 2\n")
        evil.chmod(0o755)
        stock = str(Path(sys.executable).with_name("borg"))
        for name in (*HONEST, "mallory"):
            borg = str(evil) if name == "mallory" else stock
            domain = ["--domain", "office"] if name in ("alice", "mallory") else []
            self.ok("client", "add", name, "--transport", "local", "--borg", borg, *domain)
            tree = self.place / "trees" / name
            tree.mkdir()
            self.ok(
                "plan", "add", name, "--client", name, "--repository", "main", "--path", str(tree)
            )
        for round_number in range(max(HONEST.values())):
            for name, count in HONEST.items():
                if round_number < count:
                    self._honest(name, round_number, rng)
            self._poison(evil, POISONS[round_number])

    def _honest(self, name: str, number: int, rng: random.Random) -> None:
        tree = self.place / "trees" / name
        (tree / f"new-{number}").write_bytes(rng.randbytes(3000))
        (tree / "changes").write_bytes(rng.randbytes(2000))
        if name == "alice":
            (tree / "shared").write_bytes(SHARED)
        self._backup(name, "")
        self.trees[self.archives[-1]["name"]] = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in tree.iterdir()
        }

    def _poison(self, evil: Path, poison: str) -> None:
        words = f"'{sys.executable}' '{__file__}' deed '{poison}'"
        evil.write_text(f'#!/bin/sh\nPYTHONPATH={self.env["PYTHONPATH"]} exec {words} "$@"\n')
        self._backup("mallory", poison)

    def _backup(self, plan: str, poison: str) -> None:
        known = {one["name"] for one in self.archives}
        self.ok("backup", plan, "--wait")
        (made,) = (
            one for one in json.loads(self.ok("archive", "list", "--json"))
            if one["name"] not in known
        )  # fmt: skip
        self.archives.append({"name": made["name"], "client": plan, "poison": poison})


def build(out: Path) -> None:
    """Make the fixture in ``out``."""
    place = Path(PLACE + secrets.token_hex(4))
    place.mkdir(mode=0o700)
    builder = _Builder(place)
    try:
        builder.run()
        out.mkdir(parents=True, exist_ok=True)
        facts = {"place": str(place), "archives": builder.archives, "trees": builder.trees}
        (out / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")
        with (
            zstandard.open(out / "poisoned.tar.zst", "wb", cctx=zstandard.ZstdCompressor(19)) as to,
            tarfile.open(fileobj=to, mode="w|") as archive,
        ):
            for name in ("home", "repository"):
                archive.add(place / name, name, filter=_plain)
    except BaseException:
        print((place / "serve.log").read_text()[-3000:], file=sys.stderr)
        raise
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member if member.isreg() or member.isdir() else None


if __name__ == "__main__":
    if sys.argv[1] == "deed":
        name = sys.argv[2]
        sys.argv = [sys.argv[0], *sys.argv[3:]]
        deed(name)
    else:
        build(Path(sys.argv[2]))
