"""Limits of clients and the floor of a repository: held by the vault, with the real borg."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from borgcube.core.errors import JobFailed
from borgcube.testing.rig import Rig
from borgcube.testing.trees import compare_trees
from tests.functional.borg.test_engine import check_is_clean, random_files
from tests.functional.borg.test_partials import names_now

MIB = 1 << 20


def stored(rig: Rig) -> int:
    return sum(path.stat().st_size for path in (rig.path / "data").glob("*/*"))


def stopped(rig: Rig, kind: str, archive: str, *paths: Path, **options: Any) -> JobFailed:
    """Run a backup that must be ended with that cause."""
    with pytest.raises(JobFailed) as failure:
        rig.backup(archive, *paths, **options)
    assert failure.value.cause.kind == kind, failure.value.cause
    assert failure.value.violation is None, "a limit is no misdeed"
    return failure.value


def test_a_job_stores_no_more_than_its_limit_and_goes_on_when_it_is_raised(
    tmp_path: Path,
) -> None:
    source = random_files(tmp_path / "source", count=8)
    with Rig(tmp_path / "rig") as rig:
        before = stored(rig)
        error = stopped(rig, "limit-job-bytes", "t-1", source, limits={"job_bytes": 7 * MIB})
        assert error.cause.problem == "client"
        assert "7.0 MiB" in error.cause.message
        assert "borgcube client set NAME --max-job-bytes" in error.cause.next_step
        assert names_now(rig) == {"t-1.partial"}
        # The rest is what the repository itself writes: manifest, partial archive, indexes.
        assert stored(rig) - before < 7 * MIB + 300_000
        result = rig.backup("t-2", source, limits={"job_bytes": 12 * MIB})
        facts = result.archives_added[0]
        assert result.state == "done" and facts["bytes_received"] < 12 * MIB
        assert 15 * MIB < facts["charged_size"] < 17 * MIB, "its first attempt's bytes are its own"
        rig.restore("t-2", tmp_path / "out")
        assert compare_trees(source, tmp_path / "out" / str(source).lstrip("/")) == []
        check_is_clean(rig)


def test_unfinished_backups_count_for_what_a_client_may_store_in_all(tmp_path: Path) -> None:
    first = random_files(tmp_path / "first", count=4)
    second = random_files(tmp_path / "second", count=4)
    limits = {"total_bytes": 10 * MIB, "total_left": 6 * MIB}
    with Rig(tmp_path / "rig") as rig:
        error = stopped(rig, "limit-total-bytes", "a-1", first, plan="a", limits=limits)
        assert "10.0 MiB" in error.cause.message
        assert "--max-total-bytes" in error.cause.next_step
        before = stored(rig)
        stopped(rig, "limit-total-bytes", "b-1", second, plan="b", limits=limits)
        assert stored(rig) - before < 3 * MIB, "the client stored its total a second time"
        # Another client's total is another.
        rig.backup("c-1", second, plan="c", domain="client:c", limits={"total_left": 9 * MIB})
        check_is_clean(rig)


def test_sessions_of_one_client_share_what_it_may_store(tmp_path: Path) -> None:
    trees = [random_files(tmp_path / f"s{n}", count=4) for n in range(3)]
    limits = {"total_bytes": 9 * MIB, "total_left": 9 * MIB}
    with Rig(tmp_path / "rig") as rig:
        before = stored(rig)
        failures: list[JobFailed] = []

        def run(number: int) -> None:
            try:
                rig.backup(
                    f"p{number}-1", trees[number], plan=f"p{number}", limits=limits,
                    upload_ratelimit_kib=3000,
                )  # fmt: skip
            except JobFailed as error:
                failures.append(error)

        threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(failures) >= 2
        assert {failure.cause.kind for failure in failures} == {"limit-total-bytes"}
        assert stored(rig) - before < 10 * MIB
        check_is_clean(rig)


def test_an_archive_of_too_many_files_is_not_made(tmp_path: Path) -> None:
    source = random_files(tmp_path / "source", count=30, each=1000)
    with Rig(tmp_path / "rig") as rig:
        error = stopped(
            rig, "limit-files", "t-1", source, limits={"files": 30}
        )  # and one directory
        assert "--max-files" in error.cause.next_step
        assert "t-1" not in names_now(rig)
        assert rig.backup("t-2", source, limits={"files": 31}).state == "done"
        check_is_clean(rig)


def test_a_backup_that_takes_too_long_is_ended_and_goes_on_the_next_time(tmp_path: Path) -> None:
    source = random_files(tmp_path / "source", count=6)
    with Rig(tmp_path / "rig") as rig:
        error = stopped(
            rig, "limit-duration", "t-1", source, limits={"duration_s": 3},
            upload_ratelimit_kib=1000,
        )  # fmt: skip
        assert error.cause.problem == "client" and "--max-duration" in error.cause.next_step
        assert rig.backup("t-2", source, limits={"duration_s": 3600}).state == "done"
        assert names_now(rig) == {"t-2"}


def test_a_limit_of_one_session_leaves_the_others_alone(tmp_path: Path) -> None:
    calm = random_files(tmp_path / "calm", count=4)
    greedy = random_files(tmp_path / "greedy", count=4)
    with Rig(tmp_path / "rig") as rig:
        results: list[Any] = []
        thread = threading.Thread(
            target=lambda: results.append(
                rig.backup("calm-1", calm, plan="calm", upload_ratelimit_kib=1500)
            )
        )
        thread.start()
        stopped(rig, "limit-job-bytes", "g-1", greedy, plan="g", domain="client:g",
                limits={"job_bytes": 3 * MIB})  # fmt: skip
        thread.join()
        assert [result.state for result in results] == ["done"]
        check_is_clean(rig)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 96 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    path = tmp_path / "disk"
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=96m,mode=700", "tmpfs", str(path)],
        capture_output=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        pytest.skip(f"the kernel allows no mount here: {done.stderr.decode().strip()}")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=False)


def free(path: Path) -> int:
    facts = os.statvfs(path)
    return facts.f_bavail * facts.f_frsize


def test_sessions_end_cleanly_before_the_disk_is_full(disk: Path, tmp_path: Path) -> None:
    floor = 40 * MIB
    small = random_files(tmp_path / "small", count=2)
    large = random_files(tmp_path / "large", count=50)
    with Rig(disk / "rig") as rig, Rig(tmp_path / "elsewhere") as elsewhere:
        rig.stop_vault()
        rig.start_vault(free_floor_bytes=floor)
        rig.backup("small-1", small, plan="small")
        vault = rig.vault.pid
        error = stopped(rig, "repository-low-space", "large-1", large, plan="large")
        assert error.cause.problem == "repository"
        assert "40.0 MiB" in error.cause.message and "set rig --free-floor" in error.cause.next_step
        # A step of at most a few MiB, the partial archive and indexes went below it.
        assert free(disk) > floor - 10 * MIB
        assert rig.vault.pid == vault and rig.vault.poll() is None, "the vault went on"
        # No further session is begun, on this repository.
        error = stopped(rig, "repository-low-space", "small-2", small, plan="small")
        assert elsewhere.backup("large-1", large, plan="large").state == "done"
        # Restoring and deleting work; with more room it goes on, in the same vault.
        rig.restore("small-1", tmp_path / "out")
        assert compare_trees(small, tmp_path / "out" / str(small).lstrip("/")) == []
        from borgcube.plugins.borg.vaultclient import delete_archives

        assert delete_archives(str(rig.socket), ["large-1.partial"])
        assert names_now(rig, free_floor_bytes=floor) == {"small-1"}
        stopped(rig, "repository-low-space", "small-3", small, plan="small")
        subprocess.run(["mount", "-o", "remount,size=160m", str(disk)], check=True)
        (small / "new").write_bytes(os.urandom(MIB))
        assert rig.backup("small-4", small, plan="small").state == "done"
        check_is_clean(rig)


def test_all_sessions_of_a_repository_end_at_its_floor_and_are_kept(
    disk: Path, tmp_path: Path
) -> None:
    trees = {name: random_files(tmp_path / name, count=20) for name in ("a", "b")}
    with Rig(disk / "rig") as rig:
        rig.stop_vault()
        rig.start_vault(free_floor_bytes=50 * MIB)
        kinds: list[str] = []

        def run(name: str) -> None:
            with pytest.raises(JobFailed) as failure:
                rig.backup(
                    f"{name}-1", trees[name], plan=name, domain=f"client:{name}",
                    upload_ratelimit_kib=20_000,
                )  # fmt: skip
            kinds.append(failure.value.cause.kind)

        threads = [threading.Thread(target=run, args=(name,)) for name in trees]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert kinds == ["repository-low-space"] * 2
        assert rig.vault is not None and rig.vault.poll() is None
        assert names_now(rig) == {"a-1.partial", "b-1.partial"}
        check_is_clean(rig)


def test_a_repository_without_a_floor_is_never_stopped_for_it(tmp_path: Path) -> None:
    source = random_files(tmp_path / "source", count=1)
    with Rig(tmp_path / "rig") as rig:
        rig.stop_vault()
        rig.start_vault(free_floor_bytes=1 << 60)
        stopped(rig, "repository-low-space", "t-1", source)
        rig.stop_vault()
        rig.start_vault(free_floor_bytes=0)
        assert rig.backup("t-2", source).state == "done"
