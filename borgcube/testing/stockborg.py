"""Stock borg as a witness: its commands behind a fence, and its own readers of metadata.

The one module outside the engine that imports borg, because what borg itself says is the
point. A server process loads borg once and forks for each command, which spares its start;
the child gets a mount namespace of its own, in which all but the named directories is
read-only, no network, and limits. Used by :mod:`borgcube.testing.judge` and the fuzz targets.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

TIMEOUT_S = 120.0
MEMORY_BYTES = 2 << 30
FILE_BYTES = 2 << 30
MAX_WORDS = 8 << 20  # bytes of output that are kept of a command
# From linux/sched.h, linux/mount.h; mount_setattr has this number on every architecture.
_NEWNS, _NEWUSER, _NEWNET = 0x20000, 0x10000000, 0x40000000
_BIND, _PRIVATE = 4096, 1 << 18
_MOUNT_SETATTR, _RECURSIVE, _RDONLY = 442, 0x8000, 1
FENCE_FAILED = 97  # exit code of a child that could not fence itself


class CannotFence(RuntimeError):
    """This machine gives no mount namespace, so nothing hostile is extracted on it."""


@dataclass(frozen=True)
class Ran:
    """How a command ended: 0 well, 1 with warnings, 2 failed, -1 not in time."""

    code: int
    out: str
    err: str

    @property
    def crashed(self) -> bool:
        """Whether borg met what it did not expect, or did not come to an end."""
        return self.code < 0 or self.code > 2 or "Traceback" in self.err + self.out


class StockBorg:
    """The server process. A context manager; ``passphrase`` is the repository's."""

    def __init__(self, passphrase: str) -> None:
        env = {
            "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "BORG_PASSPHRASE": passphrase,
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
            "BORG_SELFTEST": "disabled", "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
        }  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, "-m", "borgcube.testing.stockborg"], env=env,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def __enter__(self) -> StockBorg:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the server; safe to repeat."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(30)
        self._process.stdout.close()

    def run(
        self, *argv: str, base: Path, cwd: Path, writable: Sequence[Path] = (),
        timeout_s: float = TIMEOUT_S,
    ) -> Ran:  # fmt: skip
        """Run a command of stock borg that can change ``base``, ``cwd`` and ``writable`` only.

        ``base`` is its BORG_BASE_DIR. Raises CannotFence.
        """
        return self._ask(
            argv=["borg", *argv], base=str(base), cwd=str(cwd), timeout=timeout_s,
            writable=[str(path) for path in (base, cwd, *writable)],
        )  # fmt: skip

    def digests(self, repository: Path, *, base: Path) -> dict[str, str]:
        """Return what each archive is, byte for byte: name -> digest of its ID, its metadata
        chunks and their IDs, and all content. Read by borg's own classes."""
        done = self._ask(
            argv=[], digests=str(repository), base=str(base), cwd=str(base), timeout=600.0,
            writable=[str(base)],
        )  # fmt: skip
        if done.code != 0:
            raise RuntimeError(f"borg cannot read the repository: {done.err[-2000:]}")
        found: dict[str, str] = json.loads(done.out)
        return found

    def items(self, repository: Path, archive: str, *, base: Path) -> list[dict[str, Any]]:
        """Return an archive's items as borg's own classes read them: field -> its ``repr``.

        Of each chunk there is the size only, for comparisons between repositories.
        """
        done = self._ask(
            argv=[], items=str(repository), archive=archive, base=str(base), cwd=str(base),
            timeout=600.0, writable=[str(base)],
        )  # fmt: skip
        if done.code != 0:
            raise RuntimeError(f"borg cannot read the archive: {done.err[-2000:]}")
        found: list[dict[str, Any]] = json.loads(done.out)
        return found

    def plant(
        self, repository: Path, name: str, streams: Sequence[bytes], *, base: Path,
        contents: Sequence[bytes] = (), metadata: bytes = b"",
    ) -> str:  # fmt: skip
        """Put an archive of these item streams into a repository as its owner can; return its ID.

        ``contents`` are chunks that it may reference. ``metadata`` is more of its metadata map,
        packed, without a header. Nothing is judged, and no vault may run.
        """
        done = self._ask(
            argv=[], plant=str(repository), name=name, base=str(base), cwd=str(base),
            streams=[one.hex() for one in streams], contents=[one.hex() for one in contents],
            metadata=metadata.hex(), timeout=600.0, writable=[str(base), str(repository)],
        )  # fmt: skip
        if done.code != 0:
            raise RuntimeError(f"borg cannot write the archive: {done.err[-2000:]}")
        return done.out.strip()

    def _ask(self, **order: Any) -> Ran:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        deadline = time.monotonic() + float(order["timeout"]) + 30
        if not select.select([self._process.stdout], [], [], deadline - time.monotonic())[0]:
            raise TimeoutError("the server of stock borg does not answer")
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the server of stock borg is gone")
        done = Ran(**json.loads(line))
        if done.code == FENCE_FAILED:
            raise CannotFence(done.err[-500:])
        return done


# What borg reads --------------------------------------------------------------------------


def index_of(path: Path) -> dict[bytes, tuple[int, int, int]]:
    """Return a chunk index of borg's cache: ID -> (references, size, csize)."""
    from borg.hashindex import ChunkIndex

    found = ChunkIndex.read(str(path))
    return {key: (entry[0], entry[1], entry[2]) for key, entry in found.iteritems()}


def counted_by_borg(pieces: Iterable[bytes]) -> dict[bytes, tuple[int, int, int]]:
    """Return what borg's C reader counts in an item stream: ID -> (references, size, csize).

    Raises ValueError where borg would refuse to make its cache.
    """
    from borg.hashindex import CacheSynchronizer, ChunkIndex

    found = ChunkIndex()
    counter = CacheSynchronizer(found)
    for piece in pieces:
        counter.feed(piece)
    return {key: (entry[0], entry[1], entry[2]) for key, entry in found.iteritems()}


def items_of_borg(pieces: Iterable[bytes]) -> list[dict[str, Any]]:
    """Return the items of a stream, field by field, as borg's extract and list get them.

    Raises whatever borg would fail with. Texts are in borg's own form, with surrogates.
    """
    from borg.helpers import msgpack
    from borg.item import Item

    unpacker = msgpack.Unpacker(use_list=False)
    found = []
    for piece in pieces:
        unpacker.feed(piece)
        for raw in unpacker:
            item = Item(internal_dict=raw)
            found.append({key: item.get(key) for key in item.as_dict()})
    return found


def _digests(repository: str) -> dict[str, str]:
    from borg.archive import Archive
    from borg.helpers import Manifest
    from borg.repository import Repository

    found = {}
    with Repository(repository, exclusive=False, lock=False) as opened:
        manifest, key = Manifest.load(opened, Manifest.NO_OPERATION_CHECK)
        for info in manifest.archives.list():
            archive = Archive(opened, key, manifest, info.name)
            digest = hashlib.sha256(info.id + key.decrypt(info.id, opened.get(info.id)))
            metadata = [bytes(one) for one in archive.metadata.items]
            for chunk_id in metadata:
                digest.update(chunk_id + key.decrypt(chunk_id, opened.get(chunk_id)))
            for item in archive.iter_items():
                for chunk_id, size, _csize in item.get("chunks", ()):
                    digest.update(struct.pack("<Q", size))
                    digest.update(key.decrypt(chunk_id, opened.get(chunk_id)))
            found[info.name] = digest.hexdigest()
    return found


def _items(repository: str, name: str) -> list[dict[str, str]]:
    from borg.archive import Archive
    from borg.helpers import Manifest
    from borg.repository import Repository

    found = []
    with Repository(repository, exclusive=False, lock=False) as opened:
        manifest, key = Manifest.load(opened, Manifest.NO_OPERATION_CHECK)
        for item in Archive(opened, key, manifest, name).iter_items():
            fields = {key: item.get(key) for key in item.as_dict()}
            if "chunks" in fields:
                fields["chunks"] = [entry[1] for entry in fields["chunks"]]
            if "xattrs" in fields:
                fields["xattrs"] = sorted(fields["xattrs"].items())
            found.append({key: repr(value) for key, value in fields.items()})
    return found


def _plant(order: dict[str, Any]) -> str:
    import msgpack
    from borg.helpers import Manifest
    from borg.repository import Repository

    with Repository(order["plant"], exclusive=True) as opened:
        manifest, key = Manifest.load(opened, Manifest.NO_OPERATION_CHECK)

        def put(text: str) -> bytes:
            plain = bytes.fromhex(text)
            chunk_id: bytes = key.id_hash(plain)
            opened.put(chunk_id, key.encrypt(plain))
            return chunk_id

        for text in order["contents"]:
            put(text)
        now = datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
        metadata = {
            "version": 1, "name": order["name"], "items": [put(one) for one in order["streams"]],
            "cmdline": ["borg"], "hostname": "h", "username": "u", "time": now, "time_end": now,
            "comment": "", "chunker_params": ["buzhash", 19, 23, 21, 4095],
        }  # fmt: skip
        packed = key.pack_and_authenticate_metadata(metadata, context=b"archive")
        more = bytes.fromhex(order["metadata"])
        if more:  # the tag is then of a map without them, as 1.4 allows for archives
            keys = msgpack.packb(metadata, use_bin_type=False)
            packed = bytes([keys[0] + 1]) + keys[1:] + more
        archive_id = put(packed.hex())
        manifest.archives[order["name"]] = (archive_id, now)
        manifest.write()
        opened.commit(compact=False)
    return archive_id.hex()


# The server -------------------------------------------------------------------------------


def _fence(writable: Sequence[str]) -> None:
    """Make everything read-only for this process but these directories; no network."""
    libc = ctypes.CDLL(None, use_errno=True)

    def call(result: int, what: str) -> None:
        if result != 0:
            raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")

    def set_read_only(path: str, *, on: bool) -> None:
        # struct mount_attr: set, clear, propagation, user namespace.
        attributes = struct.pack("<QQQQ", _RDONLY * on, _RDONLY * (not on), _PRIVATE * on, 0)
        flags = _RECURSIVE if on else 0
        size = len(attributes)
        call(
            libc.syscall(_MOUNT_SETATTR, -100, path.encode(), flags, attributes, size),
            "mount_setattr",
        )

    spaces = _NEWNS | _NEWNET
    uid, gid = os.getuid(), os.getgid()
    if uid != 0:
        spaces |= _NEWUSER
    call(libc.unshare(spaces), "unshare")
    if uid != 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    call(libc.mount(b"none", b"/", None, _PRIVATE | 16384, None), "mount private")
    above = [Path(path) for path in writable]
    writable = sorted({path for path in writable if not {*Path(path).parents} & {*above}})
    for path in writable:
        call(libc.mount(path.encode(), path.encode(), None, _BIND, None), "bind mount")
    set_read_only("/", on=True)
    for path in writable:
        set_read_only(path, on=False)


def _child(order: dict[str, Any], out: int, err: int) -> None:
    """Become the command; never returns."""
    code = FENCE_FAILED
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.setsid()
        _fence(order["writable"])
        code = 2
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.chdir(order["cwd"])
        os.environ.update(BORG_BASE_DIR=order["base"], HOME=order["base"], TMPDIR=order["base"])
        tempfile.tempdir = None  # the server's own is read-only here
        if not order["argv"]:
            from borg.logger import setup_logging

            setup_logging()
        if "digests" in order:
            print(json.dumps(_digests(order["digests"])))
            code = 0
        elif "items" in order:
            print(json.dumps(_items(order["items"], order["archive"])))
            code = 0
        elif "plant" in order:
            print(_plant(order))
            code = 0
        else:
            from borg.archiver import main

            sys.argv = order["argv"]
            main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 2
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _serve() -> None:
    import borg.archiver  # loaded here, and so in every child

    assert borg.archiver
    for line in sys.stdin:
        order = json.loads(line)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            pid = os.fork()
            if pid == 0:
                _child(order, out.fileno(), err.fileno())
            deadline = time.monotonic() + order["timeout"]
            code = -1
            pause = 0.002
            while True:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    code = os.waitstatus_to_exitcode(status)
                    break
                if time.monotonic() > deadline:
                    os.killpg(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                    break
                time.sleep(pause)
                pause = min(pause * 1.5, 0.05)
            words = []
            for stream in (out, err):
                stream.seek(0)
                words.append(stream.read(MAX_WORDS).decode("utf-8", "replace"))
        print(json.dumps({"code": code, "out": words[0], "err": words[1]}), flush=True)


if __name__ == "__main__":
    _serve()
