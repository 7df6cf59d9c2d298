"""Bounds in bytes where a client, an archive or a repository fills something: promise 9."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from borgcube.testing.rig import Rig

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
