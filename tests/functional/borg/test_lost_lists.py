"""An archive of ours loses a chunk of its list of files, and Borg's cache is to be made anew."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from borgcube.core.errors import JobFailed
from borgcube.plugins.borg.vaultclient import ask, follow
from borgcube.testing.rig import PASSPHRASE, Rig

LOSE = """
import sys
from borg.helpers import Manifest
from borg.logger import setup_logging
from borg.repository import Repository
from borgcube.plugins.borg.metadata.stream import unpack_strictly

setup_logging()
with Repository(sys.argv[1], exclusive=True) as repository:
    manifest, key = Manifest.load(repository, Manifest.NO_OPERATION_CHECK)
    archive = manifest.archives[sys.argv[2]].id
    lists = unpack_strictly(bytes(key.decrypt(archive, repository.get(archive))))[b"items"]
    repository.delete(lists[0])
    repository.commit(compact=False)
"""


def test_an_archive_that_lost_part_of_its_list_does_not_shut_the_others_in(tmp_path: Path) -> None:
    sources = [tmp_path / "a", tmp_path / "b"]
    with Rig(tmp_path / "rig") as rig:
        for number, source in enumerate(sources):
            source.mkdir()
            (source / "file").write_bytes(os.urandom(100_000))
            rig.backup(f"t-{number}", source, plan=f"plan{number}")
        rig.stop_vault()
        subprocess.run(
            [sys.executable, "-c", LOSE, str(rig.path), "t-0"], check=True, timeout=60,
            env={**os.environ, "BORG_PASSPHRASE": PASSPHRASE,
                 "BORG_BASE_DIR": str(rig.state_dir / "base")},
        )  # fmt: skip
        shutil.rmtree(rig.cache)
        assert b'"ready"' in rig.start_vault()
        bad = ask(rig.socket, {"op": "quarantined"})["quarantined"]
        assert len(bad) == 1 and "not all of it can be read" in next(iter(bad.values()))
        assert rig.restore("t-1", tmp_path / "out").state == "done"
        (restored,) = (tmp_path / "out").rglob("file")
        assert restored.read_bytes() == (sources[1] / "file").read_bytes()
        rig.backup("t-2", sources[1], plan="plan1")


def test_an_archive_that_an_old_borg_renamed_shuts_nobody_in_and_can_be_mended(
    tmp_path: Path,
) -> None:
    """Borg up to 1.2.4 leaves the authentication of the old name; Borg 1.4 refuses it."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(os.urandom(100_000))
    with Rig(tmp_path / "rig") as rig:
        rig.backup("ours", source)
        rig.stop_vault()
        for words in (["create", "::good", str(source)], ["create", "::tmp", str(source)],
                      ["rename", "::tmp", "renamed"]):  # fmt: skip
            subprocess.run(
                ["/usr/bin/borg", *words], check=True, timeout=60,
                env={**os.environ, "BORG_PASSPHRASE": PASSPHRASE, "BORG_REPO": str(rig.path),
                     "BORG_BASE_DIR": str(tmp_path / "old"),
                     "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes"},
            )  # fmt: skip
        assert "ArchiveTAMInvalid" in rig.plain_borg("extract", "-n", f"{rig.path}::renamed").stderr
        assert b'"ready"' in rig.start_vault()
        (why,) = ask(rig.socket, {"op": "quarantined"})["quarantined"].values()
        assert why.startswith("Borg does not accept its authentication")
        assert rig.restore("good", tmp_path / "out").state == "done"
        assert rig.backup("next", source).state == "done"
        with pytest.raises(JobFailed, match="in quarantine"):
            rig.restore("renamed", tmp_path / "refused")
        follow(rig.socket, {"op": "mend", "archive": "renamed"}, on_progress=lambda _: None)
        assert rig.restore("renamed", tmp_path / "mended").state == "done"
        rig.stop_vault()
        assert rig.plain_borg("extract", "-n", f"{rig.path}::renamed").returncode == 0
        assert rig.plain_borg("check", "--verify-data", str(rig.path)).returncode == 0
