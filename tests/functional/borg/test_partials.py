"""What an unfinished backup uploaded is kept for its plan, and for nobody for ever."""

from __future__ import annotations

import os
import shutil
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from borgcube.core.errors import JobCancelled
from borgcube.testing.rig import Rig
from tests.functional.borg.test_engine import archive_names, check_is_clean, random_files


def cancel_after_bytes(rig: Rig, archive: str, source: Path, count: int, **options) -> None:
    """Run a backup that is cancelled once ``count`` bytes have reached the repository."""
    context = rig.context("backup")

    def watch() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if sum(p.stat().st_size for p in (rig.path / "data").glob("*/*")) > before + count:
                break
            time.sleep(0.01)
        context.stop.set()

    before = sum(path.stat().st_size for path in (rig.path / "data").glob("*/*"))
    thread = threading.Thread(target=watch)
    thread.start()
    with pytest.raises(JobCancelled):
        rig.backup(archive, source, context=context, upload_ratelimit_kib=4000, **options)
    thread.join()


def names_now(rig: Rig, *, free_floor_bytes: int = 0) -> set[str]:
    rig.stop_vault()
    try:
        return archive_names(rig)
    finally:
        rig.start_vault(free_floor_bytes=free_floor_bytes)


def test_a_partial_archive_is_given_up_after_its_time_and_its_space_comes_back(
    tmp_path: Path,
) -> None:
    source = random_files(tmp_path / "source", count=12, each=700_000)
    with Rig(tmp_path / "rig") as rig:
        rig.backup("kept-1", random_files(tmp_path / "other", count=2), plan="other")
        cancel_after_bytes(rig, "cut-1", source, 2_000_000)
        assert names_now(rig) == {"kept-1", "cut-1.partial"}
        rig.stop_vault()
        rig.start_vault(partial_days=0)
        assert names_now(rig) == {"kept-1"}
        check_is_clean(rig)
        rig.stop_vault()
        before = sum(path.stat().st_size for path in (rig.path / "data").glob("*/*"))
        assert rig.plain_borg("compact", "--threshold", "0", str(rig.path)).returncode == 0
        after = sum(path.stat().st_size for path in (rig.path / "data").glob("*/*"))
        assert after < before - 2_000_000
        rig.start_vault()


def test_what_is_left_has_an_end_although_nobody_comes_back(tmp_path: Path) -> None:
    source = random_files(tmp_path / "source", count=12, each=700_000)
    with Rig(tmp_path / "rig") as rig:
        repository_id = rig.facts.id
        assert rig.engine.upkeep_due(rig.state_dir, repository_id) is None
        cancel_after_bytes(rig, "cut-1", source, 2_000_000)
        rig.stop_vault()
        due = rig.engine.upkeep_due(rig.state_dir, repository_id)
        assert timedelta(days=13) < due - datetime.now(UTC) < timedelta(days=15)
        rig.start_vault()
        again = rig.engine.upkeep_due(rig.state_dir, repository_id)
        assert abs(again - due) < timedelta(minutes=1)
        rig.stop_vault()
        rig.start_vault(partial_days=0)
        assert rig.engine.upkeep_due(rig.state_dir, repository_id) is None
        assert names_now(rig) == set()


def test_somebody_elses_archive_with_such_a_name_is_never_given_up(tmp_path: Path) -> None:
    source = random_files(tmp_path / "source", count=1)
    with Rig(tmp_path / "rig") as rig:
        rig.stop_vault()
        made = rig.plain_borg("create", f"{rig.path}::mine.partial", str(source))
        assert made.returncode == 0, made.stderr
        rig.start_vault(partial_days=0)
        assert names_now(rig) == {"mine.partial"}
        listed = rig.engine.list_archives(rig.socket, known=())
        assert [entry["name"] for entry in listed] == ["mine.partial"]


def test_partials_go_although_sessions_of_one_domain_always_overlap(tmp_path: Path) -> None:
    source = random_files(tmp_path / "source", count=12, each=700_000)
    slow = random_files(tmp_path / "slow", count=8, each=700_000)
    with Rig(tmp_path / "rig") as rig:
        cancel_after_bytes(rig, "cut-1", source, 2_000_000, plan="quick")
        thread = threading.Thread(
            target=rig.backup, args=("slow-1", slow),
            kwargs={"plan": "slow", "upload_ratelimit_kib": 1200},
        )  # fmt: skip
        thread.start()
        deadline = time.monotonic() + 30
        while not list((rig.state_dir).glob("*/sessions/*/files")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        result = rig.backup("quick-1", source, plan="quick").archives_added[0]
        assert result["bytes_received"] < 12 * 700_000 - 1_000_000
        assert thread.is_alive(), "the two did not overlap"
        thread.join()
        assert names_now(rig) == {"quick-1", "slow-1"}
        check_is_clean(rig)


def test_a_session_that_was_offered_a_partials_chunks_can_rely_on_them(tmp_path: Path) -> None:
    source = random_files(tmp_path / "source", count=12, each=700_000)
    slow = tmp_path / "slow"
    shutil.copytree(source, slow)
    with Rig(tmp_path / "rig") as rig:
        cancel_after_bytes(rig, "cut-1", source, 4_000_000, plan="quick")
        (slow / "zzz-new").write_bytes(os.urandom(5_000_000))
        for path in source.iterdir():
            path.unlink()
        (source / "other").write_bytes(b"this archive needs nothing of the partial one")
        ended: list[str] = []
        thread = threading.Thread(
            target=lambda: ended.append(
                rig.backup("slow-1", slow, plan="slow", upload_ratelimit_kib=1000).state
            )
        )
        thread.start()
        deadline = time.monotonic() + 30
        while not list((rig.state_dir).glob("*/sessions/*/files")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        rig.backup("quick-1", source, plan="quick")
        assert thread.is_alive(), "the two did not overlap"
        thread.join()
        assert ended == ["done"]
        assert names_now(rig) == {"quick-1", "slow-1"}
        check_is_clean(rig)


def test_a_retry_under_the_same_name_keeps_what_the_first_attempt_sent(tmp_path: Path) -> None:
    source = random_files(tmp_path / "source", count=12, each=700_000)
    with Rig(tmp_path / "rig") as rig:
        cancel_after_bytes(rig, "t-1", source, 2_000_000)
        cancel_after_bytes(rig, "t-1", source, 2_000_000)
        result = rig.backup("t-1", source).archives_added[0]
        assert result["bytes_received"] < 12 * 700_000 - 3_000_000
        assert names_now(rig) == {"t-1"}
        check_is_clean(rig)


def test_a_lost_or_torn_home_costs_time_and_nothing_else(tmp_path: Path) -> None:
    source = random_files(tmp_path / "source", count=4)
    (source / "newer").write_bytes(b"makes the others older than the newest")
    with Rig(tmp_path / "rig") as rig:
        rig.backup("t-1", source)
        state = next(rig.state_dir.glob("*/domains")).parent
        damages = {
            "chunks": [*state.glob("domains/*/chunks")],
            "archives": [*state.glob("domains/*/archives.json")],
            "files": [*state.glob("plans/*.files")],
            "cache": [*rig.state_dir.glob("base/.cache/borg/*/chunks")],
        }
        for number, (what, paths) in enumerate(damages.items()):
            assert paths, what
            rig.stop_vault()
            for path in paths:
                data = bytearray(path.read_bytes())
                data[len(data) // 2] ^= 0xFF
                path.write_bytes(data[: len(data) - 5] if number % 2 else data)
            rig.start_vault()
            (source / "newer").write_bytes(os.urandom(1000))
            assert rig.backup(f"{what}-2", source).state == "done", what
        check_is_clean(rig)
        rig.restore("cache-2", tmp_path / "out")
        for path in source.iterdir():
            restored = tmp_path / "out" / str(path).lstrip("/")
            assert restored.read_bytes() == path.read_bytes()
