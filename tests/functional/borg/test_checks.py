"""Checks find what is damaged, name the files, and a backup mends what it can."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from borgcube.core.anomalies import Past, judge
from borgcube.core.errors import JobCancelled, JobFailed
from borgcube.core.jobs import JobResult
from borgcube.testing.rig import Rig

MIB = 1 << 20


def check(rig: Rig, kind: str = "data", **parameters: Any) -> JobResult:
    parameters = {"kind": kind, "full": True, **parameters}
    return rig.engine.check(rig.context("check", **parameters))


def largest_segment(rig: Rig) -> Path:
    files = [path for path in (rig.path / "data").glob("*/*") if path.name.isdigit()]
    return max(files, key=lambda path: path.stat().st_size)


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x40]))


def tree(place: Path) -> Path:
    place.mkdir()
    for number in range(6):
        (place / f"large-{number}").write_bytes(os.urandom(MIB))
    for number in range(200):
        (place / f"small-{number}").write_text(f"{number} words, always the same\n" * 40)
    return place


def test_a_flipped_byte_is_found_its_file_named_and_mended(tmp_path: Path) -> None:
    source = tree(tmp_path / "source")
    with Rig(tmp_path / "rig") as rig:
        rig.backup("t-1", source)
        for kind in ("data", "archives"):
            sound = check(rig, kind)
            assert (sound.state, sound.damage) == ("done", {}), sound.cause
        assert sound.checked["slice_items"] == 207
        rig.stop_vault()
        # In the middle of the segment is the content of one of the large files.
        segment = largest_segment(rig)
        flip(segment, segment.stat().st_size // 2)
        rig.start_vault()
        found = check(rig)
        assert (found.state, found.cause.kind) == ("failed", "damage-found")
        assert found.damage["chunks"] == 1
        (named,) = found.damage["archives"]["t-1"]["files"]
        assert named.startswith(str(source).lstrip("/") + "/large-")
        rig.stop_vault()
        verdict = rig.plain_borg("check", "--repository-only", str(rig.path))
        assert verdict.returncode == 1, "plain borg does not agree"
        lost = rig.plain_borg("extract", "--dry-run", f"{rig.path}::t-1", named)
        assert lost.returncode != 0, "plain borg reads the file that was named"
        rig.start_vault()
        # A client that still has the file mends every archive that uses it.
        assert rig.backup("t-2", source).state == "done"
        assert check(rig).damage == {}
        rig.stop_vault()
        done = rig.plain_borg("extract", "--dry-run", f"{rig.path}::t-1")
        assert done.returncode == 0, done.stderr
        rig.start_vault()


@pytest.mark.parametrize("encryption", ["repokey-blake2", "authenticated"])
def test_a_lost_file_and_a_changed_object_of_the_repository_are_found(
    tmp_path: Path, encryption: str
) -> None:
    source = tree(tmp_path / "source")
    with Rig(tmp_path / "rig", encryption=encryption) as rig:
        archive_id = bytes.fromhex(rig.backup("t-1", source).archives_added[0]["id"])
        rig.stop_vault()
        segment = largest_segment(rig)
        content = segment.read_bytes()
        segment.unlink()
        rig.start_vault()
        found = check(rig)
        assert found.state == "failed" and found.damage["chunks"] > 100
        lost = found.damage["archives"]["t-1"]
        assert lost["count"] > 0 or lost["unreadable"]
        rig.stop_vault()
        segment.write_bytes(content)
        place = next(
            (path, path.read_bytes().rindex(archive_id))
            for path in (rig.path / "data").glob("*/*")
            if path.name.isdigit() and archive_id in path.read_bytes()
        )
        flip(place[0], place[1] + 32 + 60)
        rig.start_vault()
        for kind in ("data", "archives"):
            found = check(rig, kind)
            assert found.damage["chunks"] == 1, found.damage
            assert found.damage["archives"]["t-1"]["unreadable"]


def test_a_damaged_segment_is_left_alone_by_a_compaction(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with Rig(tmp_path / "rig") as rig:
        for number in (1, 2):
            (source / "file").write_bytes(os.urandom(2 * MIB))
            (source / f"kept-{number}").write_bytes(os.urandom(MIB))
            rig.backup(f"t-{number}", source)
        rig.stop_vault()
        segment = min(
            (path for path in (rig.path / "data").glob("*/*") if path.stat().st_size > MIB),
            key=lambda path: int(path.name),
        )
        flip(segment, segment.stat().st_size // 2)
        rig.start_vault()
        rig.engine.delete_archives(rig.context("archive-delete", archives=["t-1"]))
        done = rig.engine.compact(rig.context("compact"))
        assert done.state == "warning" and done.data["damaged_segments"] == 1
        assert segment.exists()
        assert check(rig, "archives").state == "done", "the vault did not outlive it"


def test_a_check_goes_on_beside_a_backup_and_ends_when_cancelled(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "large").write_bytes(os.urandom(60 * MIB))
    more = tmp_path / "more"
    more.mkdir()
    (more / "file").write_bytes(os.urandom(4 * MIB))
    with Rig(tmp_path / "rig") as rig:
        rig.backup("t-1", source)
        context = rig.context("check", kind="data", full=True, max_mib_s=1)
        ended: list[BaseException] = []

        def slow() -> None:
            try:
                rig.engine.check(context)
            except BaseException as error:
                ended.append(error)

        thread = threading.Thread(target=slow)
        thread.start()
        assert rig.backup("t-2", more).state == "done"
        assert thread.is_alive(), "the check did not run beside it"
        with pytest.raises(JobFailed) as second:
            check(rig)
        assert second.value.cause.kind == "repository-busy"
        context.stop.set()
        thread.join(60)
        assert isinstance(ended[0], JobCancelled)
        deadline = time.monotonic() + 60
        while True:
            try:
                assert check(rig).state == "done"
                return
            except JobFailed as error:
                if error.cause.kind != "repository-busy" or time.monotonic() > deadline:
                    raise


def test_encrypted_files_and_an_empty_mount_stand_out_in_real_figures(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    mount = tmp_path / "mount"
    mount.mkdir()
    for number in range(50):
        (source / f"file-{number}").write_text(f"{number} words, always the same\n" * 40)
    for number in range(300):
        (mount / f"text-{number}").write_text(f"{number} plain and rather dull\n" * 400)
    with Rig(tmp_path / "rig") as rig:
        rig.backup("t-1", source, mount)
        (source / "diary").write_text("nothing happened\n" * 100_000)
        usual = Past(rig.backup("t-2", source, mount).archives_added[0])
        assert usual.stats["changed_files"] < 10
        history = [usual] * 5
        assert judge(usual.stats, history) == []
        for path in mount.iterdir():
            path.write_bytes(os.urandom(path.stat().st_size))
        hit = rig.backup("t-3", source, mount).archives_added[0]
        assert hit["changed_files"] >= 300
        assert {"many-changed", "incompressible"} <= {one.kind for one in judge(hit, history)}
        for path in mount.iterdir():
            path.unlink()
        empty = rig.backup("t-4", source, mount).archives_added[0]
        assert empty["roots"] == {str(source): 51, str(mount): 0}
        assert "empty-path" in {one.kind for one in judge(empty, history)}
