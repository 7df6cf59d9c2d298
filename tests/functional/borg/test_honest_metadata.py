"""Honest borgs lose nothing: what is stored says what the client wrote, field by field.

A client's metadata is decoded and encoded anew. For random trees with everything a file can have,
the bytes that come of it are those that the client's borg wrote, but for the stored sizes.
"""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zstandard
from borg import logger as borg_logger
from borg.archive import Archive
from borg.constants import REQUIRED_ITEM_KEYS
from borg.helpers import Manifest
from borg.repository import Repository

from borgcube.core.errors import JobFailed, Problem
from borgcube.plugins.borg.metadata.decode import (
    decode_archive,
    decode_manifest,
    read_records,
)
from borgcube.plugins.borg.metadata.encode import ItemEncoder
from borgcube.plugins.borg.metadata.rules import Links, check_record
from borgcube.plugins.borg.vault.streams import HEAD
from borgcube.testing.rig import PASSPHRASE, Rig, stock_borg
from borgcube.testing.trees import make_nasty_tree

# The two that a computer with BorgCube's tests has; others where their place is told, as in
# BORGCUBE_TEST_BORGS=/opt/borg-1.4.0/bin/borg:/opt/borg-1.2.9/bin/borg.
BORGS = [stock_borg(), "/usr/bin/borg", *os.environ.get("BORGCUBE_TEST_BORGS", "").split(":")]
PLAIN = {
    "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
    "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
    "BORG_PASSPHRASE": PASSPHRASE,
}
FS_IOC_SETFLAGS, NODUMP, NOATIME, APPEND = 0x40086602, 0x40, 0x80, 0x20


def version_of(borg: str) -> str:
    if not borg or shutil.which(borg) is None:
        return ""
    said = subprocess.run([borg, "--version"], capture_output=True, text=True, timeout=60)
    return said.stdout.strip().removeprefix("borg ")


USABLE = {version: borg for borg in reversed(BORGS) if (version := version_of(borg))}


@pytest.fixture(params=sorted({*USABLE, "1.2.4", "1.2.9", "1.4.0", "1.4.5"}))
def borg(request: pytest.FixtureRequest) -> str:
    """The path of a borg of each version that there is to be."""
    if request.param not in USABLE:
        pytest.skip(f"no borg {request.param} here; BORGCUBE_TEST_BORGS tells its place")
    return USABLE[request.param]


def make_odd_tree(root: Path, seed: int) -> None:
    """Make what `make_nasty_tree` makes, and everything else that an item has a field for."""
    make_nasty_tree(root, seed=seed, big_bytes=3 << 20, small_files=60)
    rng = random.Random(seed)
    place = root / "odd"
    place.mkdir()
    for number in range(40):
        name = (
            os.fsencode(place)
            + b"/"
            + bytes(
                rng.choice([*range(1, 0x2F), *range(0x30, 0x100)])
                for _ in range(rng.randint(3, 60))
            )
        )
        with suppress(FileExistsError), open(name, "xb") as file:
            file.write(rng.randbytes(rng.choice([0, 1, 100, 70_000])))
            for n in range(rng.randint(0, 5)):
                value = rng.choice([b"", b"\0", rng.randbytes(rng.randint(1, 200))])
                os.setxattr(name, f"user.{'n' * rng.randint(1, 30)}{n}".encode(), value)
        with suppress(OSError):
            os.link(name, os.fsencode(place) + b"/link-%d" % number)
            os.link(name, os.fsencode(root.parent) + b"/outside-%d-%d" % (seed, number))
        when = rng.choice([0, 1, -1, -86400, rng.randint(0, 1 << 32), 9 * 10**9, 10_413_792_000])
        with suppress(OSError, OverflowError):
            os.utime(name, (rng.randint(0, 1 << 31), when))
        with suppress(OSError, ValueError):
            owner = rng.choice([0, 54321, (1 << 31) + 7, (1 << 32) - 2])
            os.chown(name, owner, rng.choice([0, 77]))
    os.mkfifo(place / "pipe")
    os.link(place / "pipe", place / "pipe too")
    with socket.socket(socket.AF_UNIX) as sock:
        place_of_socket = Path(f"/tmp/units-{os.getpid()}.sock")
        sock.bind(str(place_of_socket))
        shutil.move(place_of_socket, place / "socket")
    for name, kind in (("character", 0o020000), ("block", 0o060000)):
        with suppress(PermissionError):
            device = os.makedev(rng.randint(0, 4095), rng.randint(0, (1 << 20) - 1))
            os.mknod(place / name, kind | 0o640, device)
            os.link(place / name, place / f"{name} too")
    os.symlink("x" * 4000, place / "long link")
    os.symlink("../" * 30 + "etc", place / "link up")
    deep = place
    for _ in range(15):
        deep = deep / ("d" * 240)
        if len(os.fsencode(deep)) > 3700:
            break
        deep.mkdir()
    for name, flags in (("nodump", NODUMP), ("both", NODUMP | NOATIME)):
        (place / name).write_text("flags")
        set_flags(place / name, flags)
    if shutil.which("setfacl"):
        for arguments in (["-m", "u:54322:rwx,g:99:-"], ["-d", "-m", "u:1:r,g:2:w,o::-"]):
            subprocess.run(["setfacl", *arguments, place], check=False, timeout=30)


def set_flags(path: Path, flags: int) -> None:
    """Set flags of a file as chattr does, where the file system has them."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        ctypes.CDLL(None, use_errno=True).ioctl(
            descriptor, FS_IOC_SETFLAGS, ctypes.byref(ctypes.c_long(flags))
        )
    finally:
        os.close(descriptor)


class Written:
    """An archive in a repository of its own, as a borg wrote it."""

    def __init__(self, place: Path, borg: str, *argv: str, name: str = "a") -> None:
        self.path = place / "repository"
        environment = {**os.environ, **PLAIN, "BORG_BASE_DIR": str(place / "base")}

        def run(*words: str) -> None:
            done = subprocess.run(
                [borg, *words], env=environment, capture_output=True, text=True, timeout=300,
                check=False,
            )  # fmt: skip
            assert done.returncode in (0, 1), done.stderr

        run("init", "-e", "authenticated", str(self.path))
        run("create", "--atime", f"{self.path}::{name}", *argv)
        os.environ.update({**PLAIN, "BORG_BASE_DIR": str(place / "base")})

    def read(self) -> tuple[bytes, bytes, list[bytes]]:
        """Return the plaintexts of the manifest, of the archive's metadata and its stream."""
        with Repository(str(self.path), lock=False) as repository:
            manifest, key = Manifest.load(repository, (Manifest.Operation.READ,))
            found = key.decrypt(None, repository.get(Manifest.MANIFEST_ID))
            (entry,) = manifest.archives.list()
            archive = key.decrypt(entry.id, repository.get(entry.id))
            ids = msgpack.unpackb(archive, raw=True)[b"items"]
            return found, archive, [key.decrypt(one, repository.get(one)) for one in ids]


@pytest.fixture(autouse=True)
def plain_environment() -> Iterator[None]:
    """Leave the environment as it was; borg's library reads it."""
    before = dict(os.environ)
    borg_logger.configured = True
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_an_honest_borg_wrote_comes_out_of_our_encoder(
    tmp_path: Path, borg: str, seed: int
) -> None:
    source = tmp_path / "source"
    make_odd_tree(source, seed)
    overlap = source / "odd"
    written = Written(tmp_path, borg, str(source), str(overlap), "--exclude", "*/names/deep*")
    manifest, archive, chunks = written.read()
    assert len(decode_manifest(manifest, expected="a")) == 32
    facts = decode_archive(archive, expected="a")
    assert len(facts.items) == len(chunks)

    stored = {}
    for item in msgpack_items(b"".join(chunks)):
        for chunk_id, size, csize in item.get(b"chunks", ()):
            stored[chunk_id] = (size, csize)
    links, encoder = Links(), ItemEncoder()
    made, kinds, fields = bytearray(), set(), set()
    for record in read_records(chunks):
        kinds.add(check_record(record, links))
        made += encoder.encode(record, stored.__getitem__)[0]
    assert bytes(made) == b"".join(chunks)
    # The tree had something of everything.
    for item in msgpack_items(bytes(made)):
        fields |= set(item)
    assert kinds == {"-", "d", "l", "p"} | ({"c", "b"} if os.geteuid() == 0 else set())
    assert fields >= {b"xattrs", b"atime", b"ctime", b"hardlink_master", b"source", b"size"}
    assert b"bsdflags" in fields and b"acl_access" in fields and b"acl_default" in fields


def msgpack_items(stream: bytes) -> Iterator[dict[bytes, Any]]:
    unpacker = msgpack.Unpacker(raw=True, use_list=False, strict_map_key=False)
    unpacker.feed(stream)
    yield from unpacker


def stream_in(rig: Rig) -> bytes:
    """Return what the client of a rig's only plan wrote, as the vault keeps it."""
    (path,) = rig.state_dir.rglob("*.stream")
    data, at, parts = path.read_bytes(), 0, []
    while at < len(data):
        _, length, packed = HEAD.unpack_from(data, at)
        at += HEAD.size
        parts.append(zstandard.decompress(data[at : at + packed], max_output_size=length))
        at += packed
    return b"".join(parts)


def without_csize(item: dict[Any, Any]) -> dict[Any, Any]:
    if b"chunks" not in item:
        return item
    return {**item, b"chunks": tuple(tuple(entry[:2]) for entry in item[b"chunks"])}


def test_an_archive_has_every_field_that_the_client_wrote(tmp_path: Path, borg: str) -> None:
    source = tmp_path / "source"
    make_odd_tree(source, 4)
    time.sleep(1.1)  # the newest files are never trusted
    (source / "newest").write_text("newest")
    with Rig(tmp_path / "rig") as rig:
        first = rig.backup("t-1", source, borg=borg, sparse=True)
        assert first.state in ("done", "warning"), first
        wrote = [without_csize(item) for item in msgpack_items(stream_in(rig))]
        # Borg writes the stored sizes that its index has: those of chunks it uploaded before
        # are other than it knew then, so the second backup's metadata differs, once.
        rig.backup("t-2", source, borg=borg, sparse=True)
        assert len(stream_in(rig)) > 50_000
        third = rig.backup("t-3", source, borg=borg, sparse=True).archives_added[0]
        assert third["charged_size"] < 3000, "the unchanged metadata was sent again"
        rig.stop_vault()
        os.environ.update({**PLAIN, "BORG_BASE_DIR": str(tmp_path / "plain")})
        with Repository(str(rig.path), lock=False) as repository:
            manifest, key = Manifest.load(repository, (Manifest.Operation.READ,))
            for name in ("t-1", "t-2", "t-3"):
                archive = Archive(repository, key, manifest, name)
                ids = archive.metadata.items
                plain = b"".join(key.decrypt(one, repository.get(one)) for one in ids)
                stored = [without_csize(item) for item in msgpack_items(plain)]
                assert len(stored) == len(wrote) > 100
                assert stored == wrote
                # Borg's own reader sees the same.
                seen = list(archive.iter_items())
                assert [os.fsencode(one.path) for one in seen] == [one[b"path"] for one in stored]
                assert all(set(one.as_dict()) >= REQUIRED_ITEM_KEYS for one in seen)
        rig.start_vault()


def test_a_damaged_stream_of_a_plan_costs_one_run(tmp_path: Path) -> None:
    """It is our file, not the repository and not the client, and the next run needs none of it."""
    source = tmp_path / "source"
    source.mkdir()
    for number in range(300):
        (source / f"file{number}").write_bytes(os.urandom(50))
    time.sleep(1.1)
    (source / "newest").write_text("newest")
    with Rig(tmp_path / "rig") as rig:
        for name in ("t-1", "t-2"):
            assert rig.backup(name, source).state == "done"
        (path,) = rig.state_dir.rglob("*.stream")
        data = bytearray(path.read_bytes())
        data[HEAD.size + 200] ^= 1
        path.write_bytes(data)
        with pytest.raises(JobFailed) as caught:
            rig.backup("t-3", source)
        assert caught.value.cause.kind == "metadata-lost"
        assert caught.value.cause.problem is Problem.SERVER
        assert rig.backup("t-4", source).state == "done"
        assert rig.backup("t-5", source).archives_added[0]["charged_size"] < 3000
        rig.stop_vault()
        assert rig.plain_borg("check", str(rig.path)).returncode == 0
        rig.start_vault()
