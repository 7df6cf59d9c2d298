"""Promise 8: a nonce is never used twice, whatever crashes and whoever writes in between."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from borgcube.core.errors import JobFailed
from borgcube.testing.nonces import examine
from borgcube.testing.rig import Rig


def random_files(directory: Path, *, count: int, each: int = 300_000) -> Path:
    directory.mkdir()
    for number in range(count):
        (directory / f"f{number}").write_bytes(os.urandom(each))
    return directory


def kill_vault_while_it_writes(rig: Rig, archive: str, source: Path) -> None:
    """Start a slow backup and SIGKILL the vault once chunks have reached the disk."""
    assert rig.vault is not None
    before = segment_bytes(rig.path)

    def backup() -> None:
        with contextlib.suppress(JobFailed):
            rig.backup(archive, source, plan=archive, upload_ratelimit_kib=2000)

    thread = threading.Thread(target=backup)
    thread.start()
    deadline = time.monotonic() + 60
    while segment_bytes(rig.path) < before + 500_000:
        assert time.monotonic() < deadline, "nothing was written"
        time.sleep(0.02)
    rig.vault.send_signal(signal.SIGKILL)
    rig.vault.wait(10)
    thread.join(60)
    assert not thread.is_alive()


def segment_bytes(repository: Path) -> int:
    return sum(path.stat().st_size for path in (repository / "data").glob("*/*"))


@pytest.mark.parametrize("encryption", ["repokey", "repokey-blake2"])
def test_no_nonce_is_used_twice_by_sessions_crashes_and_plain_borg(
    tmp_path: Path, encryption: str
) -> None:
    sources = [random_files(tmp_path / name, count=6) for name in ("a", "b")]
    uncommitted = random_files(tmp_path / "c", count=12)
    with Rig(tmp_path / "rig", encryption=encryption) as rig:
        for turn in range(2):
            kill_vault_while_it_writes(rig, f"killed-{turn}", uncommitted)
            # What was written without a commit is there before Borg clears it away.
            assert examine([rig.path]).clean
            kept = tmp_path / f"kept-{turn}"
            shutil.copytree(rig.path, kept)
            rig.start_vault()
            threads = [
                threading.Thread(
                    target=rig.backup, args=(f"{source.name}-{turn}", source),
                    kwargs={"plan": source.name, "domain": f"client:{source.name}"},
                )
                for source in sources
            ]  # fmt: skip
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            rig.stop_vault()
            for same_caches in (True, False):
                (sources[0] / "f0").write_bytes(os.urandom(300_000))
                done = rig.plain_borg(
                    "create", f"{rig.path}::plain-{turn}-{same_caches}", str(sources[0]),
                    same_caches=same_caches,
                )  # fmt: skip
                assert done.returncode == 0, done.stderr
            rig.start_vault()
            (sources[1] / "f0").write_bytes(os.urandom(300_000))
            rig.backup(f"after-{turn}", sources[1], plan="b", domain="client:b")
        # The copies hold uncommitted segments of the same key that are gone by now.
        found = examine([rig.path, tmp_path / "kept-0", tmp_path / "kept-1"])
        assert found.clean, [str(pair) for pair in found.overlaps]
        assert len(found.uses) > 60
        rig.stop_vault()
        assert rig.plain_borg("check", "--verify-data", str(rig.path)).returncode == 0
        assert rig.plain_borg("compact", "--threshold", "0", str(rig.path)).returncode == 0
        rig.start_vault()
        assert examine([rig.path, tmp_path / "kept-0", tmp_path / "kept-1"]).clean


def test_an_overlap_made_on_purpose_is_found(tmp_path: Path) -> None:
    source = random_files(tmp_path / "a", count=2)
    with Rig(tmp_path / "rig") as rig:
        rig.backup("t-1", source)
        rig.stop_vault()
        # The mistake to find: a repository is copied as files, and both copies are written.
        shutil.copytree(rig.path, tmp_path / "copy")
        for number, path in enumerate((rig.path, tmp_path / "copy")):
            shutil.rmtree(rig.root / "plain", ignore_errors=True)  # what reminds Borg of it
            (source / "f0").write_bytes(os.urandom(300_000))
            done = rig.plain_borg("create", f"{path}::on-{number}", str(source))
            assert done.returncode == 0, done.stderr
            assert examine([path]).clean
        both = [str(rig.path), str(tmp_path / "copy")]
        done = subprocess.run(
            [sys.executable, "-m", "borgcube.testing.nonces", *both],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert "used twice" in done.stdout
        rig.start_vault()
