"""Promises 1 to 4 and 9 against a client that speaks Borg's RPC and means harm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from borgcube.core.errors import JobFailed
from borgcube.plugins.borg.gate.verify import id_hash_for
from borgcube.plugins.borg.vaultclient import VaultSession
from borgcube.testing.rig import Rig

MANIFEST_ID = bytes(32)


class Peer:
    """A hostile client in front of a real gate and a real vault."""

    def __init__(self, rig: Rig, mode: str = "backup", **request: Any) -> None:
        request = {"op": mode, "archive": "bad-1", "plan": "bad", "domain": "client:bad", **request}
        self.session = VaultSession(rig.socket, request)
        self.terms = self.session.terms
        self.id_hash = id_hash_for(self.terms["id_kind"], bytes.fromhex(self.terms["id_key"]))
        to_gate, self.to_gate = os.pipe()
        self.from_gate, from_gate = os.pipe()
        self.report, report = os.pipe()
        data = self.session.data_socket()
        fds = (to_gate, from_gate, data.fileno(), report)
        argv = [sys.executable, "-m", "borgcube.plugins.borg.gate.main"]
        for name, fd in zip(("peer-in", "peer-out", "vault", "report"), fds, strict=True):
            argv += [f"--{name}", str(fd)]
        self.gate = subprocess.Popen(argv, stdin=subprocess.PIPE, pass_fds=fds)
        for fd in (to_gate, from_gate, report):
            os.close(fd)
        data.close()
        keep = ("repository_id", "key_blob", "manifest", "type_byte", "id_kind", "id_key")
        order = {key: self.terms[key] for key in keep}
        order |= {"mode": mode, "opens": "/r", "max_bytes": 1 << 40}
        assert self.gate.stdin is not None
        self.gate.stdin.write(json.dumps(order).encode() + b"\n")
        self.gate.stdin.close()
        self._unpacker = msgpack.Unpacker(raw=True)
        self._number = 0

    def send(self, method: str, **arguments: Any) -> None:
        """Send one call without waiting."""
        self._number += 1
        message = {"i": self._number, "m": method, "a": arguments}
        self.raw(msgpack.packb(message, use_bin_type=True))

    def raw(self, data: bytes) -> None:
        """Send bytes; a gate that has hung up is fine."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self.to_gate, view) :]
        except BrokenPipeError:
            pass

    def answer(self) -> Any:
        """Return the next reply, or None when the gate has ended the stream."""
        while True:
            for message in self._unpacker:
                return message
            data = os.read(self.from_gate, 65536)
            if not data:
                return None
            self._unpacker.feed(data)

    def call(self, method: str, **arguments: Any) -> Any:
        """Call and return the result; raises PermissionError when refused."""
        self.send(method, **arguments)
        reply = self.answer()
        if reply is None or b"exception_class" in reply:
            raise PermissionError("refused")
        return reply[b"r"]

    def greet(self) -> None:
        """Do what every client does first."""
        self.raw(msgpack.packb((1, 1, "negotiate", ({"client_data": {}},))))
        assert self.answer()[3][b"server_version"]
        assert self.call("open", path=b"/r") == bytes.fromhex(self.terms["repository_id"])

    def put(self, plain: bytes, chunk_id: bytes | None = None) -> bytes:
        """Upload an uncompressed chunk and return its ID."""
        chunk_id = chunk_id or self.id_hash(plain)
        self.call("put", id=chunk_id, data=bytes([self.terms["type_byte"]]) + b"\0\0" + plain)
        return chunk_id

    def refused(self) -> str:
        """End the conversation and return what the gate reports as the reason."""
        os.close(self.to_gate)
        self.gate.wait(30)
        with os.fdopen(self.report) as lines:
            last = json.loads(lines.read().splitlines()[-1])
        os.close(self.from_gate)
        return str(last.get("refused", ""))

    def finish(self) -> str:
        """End the session; return the kind of the vault's refusal, or nothing."""
        try:
            self.session.end()
        except JobFailed as error:
            return error.cause.message
        return ""

    def archive(self, items: list[dict[str, Any]], *, name: str = "bad-1", ids: Any = None) -> None:
        """Write an archive and a manifest as a client would, with the given items."""
        stream = b"".join(msgpack.packb(item, use_bin_type=False) for item in items)
        metadata = {
            "version": 1,
            "name": name,
            "items": ids or [self.put(stream)],
            "cmdline": [],
            "hostname": "h",
            "username": "u",
            "time": "2026-01-01T00:00:00.000000",
            "time_end": "2026-01-01T00:00:01.000000",
            "chunker_params": [],
        }
        archive_id = self.put(msgpack.packb(metadata, use_bin_type=False))
        manifest = {
            "version": 1,
            "timestamp": "2026-01-01T00:00:00",
            "config": {},
            "item_keys": [],
            "archives": {name: {"id": archive_id, "time": "2026-01-01T00:00:00.000000"}},
        }
        packed = msgpack.packb(manifest, use_bin_type=False)
        self.call("put", id=MANIFEST_ID, data=bytes([self.terms["type_byte"]]) + b"\0\0" + packed)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A repository in which client "good" has one archive."""
    root = tmp_path_factory.mktemp("rig")
    (root / "good").mkdir()
    (root / "good" / "secret").write_bytes(b"the secret of another client" * 1000)
    with Rig(root) as made:
        made.backup("good-1", root / "good", plan="good", domain="client:good")
        yield made


@pytest.fixture
def peer(rig: Rig) -> Iterator[Peer]:
    made = Peer(rig)
    made.greet()
    yield made
    made.gate.kill()
    made.gate.wait()
    made.session.close()


def file_item(path: str, chunks: list[tuple[bytes, int, int]], **more: Any) -> dict[str, Any]:
    return {
        "path": path,
        "mode": 0o100644,
        "mtime": 1,
        "uid": 0,
        "gid": 0,
        "user": "u",
        "group": "g",
        "size": sum(size for _, size, _ in chunks),
        "chunks": chunks,
        **more,
    }


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("list", {}), ("delete", {"id": bytes(32)}), ("check", {"repair": True}), ("scan", {}),
        ("save_key", {"keydata": b"x"}), ("destroy", {}), ("break_lock", {}), ("__len__", {}),
        ("inject_exception", {"kind": b"divide"}), ("no such\x1b[2J thing", {}),
        ("open", {"path": b"/other"}), ("put", {"id": b"short", "data": b"x"}),
    ],
)  # fmt: skip
def test_gate_refuses_every_call_a_backup_does_not_need(
    peer: Peer, method: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(PermissionError):
        peer.call(method, **arguments)
    assert peer.refused()


def test_client_cannot_read_a_chunk_it_uploaded(peer: Peer) -> None:
    chunk_id = peer.put(b"mine")
    with pytest.raises(PermissionError):
        peer.call("get", id=chunk_id)
    assert "read a chunk" in peer.refused()


def test_chunk_whose_id_is_not_its_mac_is_never_stored(peer: Peer) -> None:
    with pytest.raises(PermissionError):
        peer.put(b"poison", chunk_id=b"\x01" * 32)
    assert "MAC" in peer.refused()


def test_decompression_bomb_is_cut_off(peer: Peer) -> None:
    bomb = zlib.compress(bytes(300 << 20), 9)
    with pytest.raises(PermissionError):
        peer.call("put", id=b"\x02" * 32, data=bytes([peer.terms["type_byte"]]) + bomb)
        for _ in range(200):  # a large chunk is verified while the conversation goes on
            peer.call("rollback")
            time.sleep(0.05)
    assert "larger than a chunk" in peer.refused()


@pytest.mark.parametrize(
    "junk",
    [
        b"\xc1" * 100,
        b"\xdd\xff\xff\xff\xff",
        b"\x81" * 5000,
        b"\x00" + bytes(range(256)) * 16,
        b"GET / HTTP/1.1\r\n",
    ],
)
def test_bytes_that_are_not_requests_end_the_session(peer: Peer, junk: bytes) -> None:
    peer.raw(junk)
    assert peer.refused()


def test_archive_that_references_another_domains_chunk_is_refused(rig: Rig, peer: Peer) -> None:
    stolen = peer.id_hash(b"the secret of another client" * 1000)
    peer.archive([file_item("loot", [(stolen, 28000, 28000)])])
    with pytest.raises(PermissionError):
        peer.call("commit")
    assert "outside the session" in peer.finish()


@pytest.mark.parametrize(
    "change",
    [
        {"path": "/etc/shadow"}, {"path": "a/../../b"}, {"path": ""}, {"surprise": 1},
        {"mtime": "now"}, {"size": 1}, {"xattrs": {"user.x": 7}}, {"mode": "0644"},
        {"chunks": [(b"\x03" * 32, 4, 4)]}, {"chunks": [[1, 2]]},
        {"chunks_healthy": [(b"z" * 32, 1, 1)]},
    ],
)  # fmt: skip
def test_archive_with_a_malformed_item_is_refused(peer: Peer, change: dict[str, Any]) -> None:
    chunk = (peer.put(b"fine"), 4, 4)
    peer.archive([file_item("a", [chunk]) | change])
    with pytest.raises(PermissionError):
        peer.call("commit")
    assert "Refused" in peer.finish()


def test_archive_under_another_name_is_refused(peer: Peer) -> None:
    peer.archive([file_item("a", [(peer.put(b"fine"), 4, 4)])], name="good-1")
    with pytest.raises(PermissionError):
        peer.call("commit")
    assert "ordered archive" in peer.finish()


def test_honest_archive_from_the_same_peer_is_admitted(rig: Rig) -> None:
    peer = Peer(rig, archive="bad-2")
    peer.greet()
    peer.archive([file_item("a", [(peer.put(b"fine"), 4, 4)])], name="bad-2")
    peer.call("commit")
    assert not peer.refused()
    result = peer.session.end()
    assert result is not None and result["files"] == 1 and result["size"] == 4


def test_restore_serves_only_the_chunks_of_its_selection(rig: Rig) -> None:
    peer = Peer(rig, mode="restore", archive="good-1", paths=["no/such/../x", "tmp"])
    peer.greet()
    secret = peer.id_hash(b"the secret of another client" * 1000)
    assert peer.call("get", id=MANIFEST_ID)
    allowed = True
    try:
        peer.call("get", id=secret)
    except PermissionError:
        allowed = False
    inside = str(rig.root).startswith("/tmp/")
    assert allowed is inside
    peer.refused()
    peer.session.close()


def test_repository_is_clean_and_unharmed_after_all_this(rig: Rig) -> None:
    rig.stop_vault()
    try:
        check = rig.plain_borg("check", "--verify-data", str(rig.path))
        assert check.returncode == 0, check.stderr
        names = json.loads(rig.plain_borg("list", "--json", str(rig.path)).stdout)["archives"]
        archives = {archive["name"] for archive in names}
        assert {"good-1", "bad-2"} <= archives
        assert all(name.endswith(".partial") for name in archives - {"good-1", "bad-2"})
        target = rig.root / "plain-out"
        target.mkdir()
        done = subprocess.run(
            [str(Path(sys.executable).with_name("borg")), "extract", f"{rig.path}::good-1"],
            cwd=target, capture_output=True, timeout=60, check=False,
            env={**os.environ, "BORG_PASSPHRASE": "correct horse",
                 "BORG_BASE_DIR": str(rig.root / "plain")},
        )  # fmt: skip
        assert done.returncode == 0
        restored = target / str(rig.root / "good" / "secret").lstrip("/")
        assert restored.read_bytes() == (rig.root / "good" / "secret").read_bytes()
    finally:
        rig.start_vault()
