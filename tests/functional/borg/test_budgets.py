"""Bounds in bytes where a client, an archive or a repository fills something: promise 9."""

from __future__ import annotations

import hashlib
import os
import resource
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from borgcube.core.errors import JobFailed
from borgcube.plugins.borg import rpcrun
from borgcube.plugins.borg.gate.confine import MEMORY_BYTES
from borgcube.plugins.borg.gateprocess import start_gate
from borgcube.plugins.borg.vault import memory
from borgcube.plugins.borg.vaultclient import VaultSession
from borgcube.plugins.borg.wire import HEADER, PUT
from borgcube.testing.rig import Rig
from tests.functional.borg.test_engine import check_is_clean

MIB = 1 << 20


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_the_largest_chunks_of_an_adopted_repository_restore(tmp_path: Path) -> None:
    """Chunks of 16 MiB, not compressed: as many answers as Borg asks for ahead do not fit."""
    source = tmp_path / "source"
    source.mkdir()
    blocks = [os.urandom(16 * MIB) for _ in range(4)]
    with (source / "image").open("wb") as file:
        for number in range(64):
            file.write(blocks[number % 4])
    with Rig(tmp_path / "rig") as rig:
        rig.stop_vault()
        done = rig.plain_borg(
            "create", "--chunker-params", f"fixed,{16 * MIB}", "--compression", "none",
            f"{rig.path}::adopted", str(source),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        rig.start_vault()
        result = rig.restore("adopted", tmp_path / "out")
        assert result.state == "done", result.warnings
        restored = tmp_path / "out" / str(source).lstrip("/") / "image"
        assert digest_of(restored) == digest_of(source / "image")


def test_a_sparse_file_of_a_gigabyte_without_compression_restores(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with (source / "sparse").open("wb") as file:
        file.truncate(1 << 30)
    with Rig(tmp_path / "rig") as rig:
        rig.backup("t-1", source, compression="none")
        result = rig.restore("t-1", tmp_path / "out")
        assert result.state == "done", result.warnings
        restored = tmp_path / "out" / str(source).lstrip("/") / "sparse"
        assert restored.stat().st_size == 1 << 30
        assert restored.stat().st_blocks * 512 < 64 * MIB, "it is still sparse"


def _size(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if "VmSize" in line)


def _starve(gate: subprocess.Popen[bytes]) -> None:
    """Leave a gate nearly no more memory than it has, once it has confined itself and has
    started its threads."""
    deadline = time.monotonic() + 30
    while limit_of(gate.pid) != MEMORY_BYTES or len(os.listdir(f"/proc/{gate.pid}/task")) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    resource.prlimit(gate.pid, resource.RLIMIT_AS, (_size(gate.pid) + MIB // 4, MEMORY_BYTES))


def test_a_gate_without_memory_is_the_servers_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(os.urandom(96 * MIB))

    def start(*args: Any, **more: Any) -> subprocess.Popen[bytes]:
        gate = start_gate(*args, **more)
        _starve(gate)
        return gate

    with Rig(tmp_path / "rig") as rig:
        monkeypatch.setattr(rpcrun, "start_gate", start)
        with pytest.raises(JobFailed) as failure:
            rig.backup("t-1", source, compression="none")
        assert failure.value.cause.kind == "gate-memory", failure.value.cause
        assert failure.value.cause.problem == "server" and failure.value.cause.next_step
        assert failure.value.violation is None
        monkeypatch.undo()
        assert rig.backup("t-2", source).state == "done", "the vault went on"


def limit_of(pid: int) -> int:
    return resource.prlimit(pid, resource.RLIMIT_AS)[0]


def test_a_vaults_limit_of_memory_follows_from_its_index_and_its_sessions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(3000):
        (source / f"{number}").write_bytes(b"%d" % number)
    during: list[int] = []

    def start(*args: Any, **more: Any) -> subprocess.Popen[bytes]:
        assert rig.vault is not None
        during.append(limit_of(rig.vault.pid))
        return start_gate(*args, **more)

    with Rig(tmp_path / "rig") as rig:
        monkeypatch.setattr(rpcrun, "start_gate", start)
        assert rig.vault is not None
        before = limit_of(rig.vault.pid)
        rig.backup("t-1", source)
        after = limit_of(rig.vault.pid)
        assert memory.BASE < before < during[0] - memory.SESSION < memory.BASE + 100 * MIB
        # 3000 chunks more, of some 90 bytes in each of two indexes, ten times over.
        assert MIB < after - before < 20 * MIB


def test_a_vault_without_memory_harms_no_repository_and_blames_no_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "first").write_bytes(os.urandom(8 * MIB))
    with Rig(tmp_path / "rig") as rig:
        assert rig.backup("t-1", source).state == "done"
        (source / "second").write_bytes(os.urandom(128 * MIB))

        def start(*args: Any, **more: Any) -> subprocess.Popen[bytes]:
            assert rig.vault is not None
            gate = start_gate(*args, **more)
            room = (_size(rig.vault.pid) + 4 * MIB, resource.RLIM_INFINITY)
            resource.prlimit(rig.vault.pid, resource.RLIMIT_AS, room)
            return gate

        monkeypatch.setattr(rpcrun, "start_gate", start)
        with pytest.raises(JobFailed) as failure:
            rig.backup("t-2", source, compression="none")
        assert failure.value.cause.kind == "vault-memory", failure.value.cause
        assert failure.value.cause.problem == "server" and failure.value.cause.next_step
        assert failure.value.violation is None
        monkeypatch.undo()
        rig.stop_vault()
        rig.start_vault()
        assert rig.backup("t-3", source).state == "done"
        check_is_clean(rig)


def test_no_frame_of_a_gate_is_longer_than_a_chunk_may_be(tmp_path: Path) -> None:
    """Room for a frame is made before its content is there."""
    with Rig(tmp_path / "rig") as rig:
        request = {"op": "backup", "archive": "a", "plan": "p", "domain": "client:a"}
        session = VaultSession(rig.socket, request)
        with session.data_socket() as sock:
            sock.settimeout(20)
            sock.sendall(HEADER.pack(25 << 20, PUT))
            assert sock.recv(1) == b"", "the vault waits for the rest of it"
        session.close()
