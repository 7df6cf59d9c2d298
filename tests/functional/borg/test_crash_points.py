"""A vault killed at the worst moments, and what the next one makes of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace

from borgcube.core.errors import JobFailed
from borgcube.plugins.borg.vault import recovery
from borgcube.plugins.borg.vault.backup import BackupSession
from borgcube.plugins.borg.vault.sessions import Session, Sessions
from borgcube.testing.rig import Rig
from tests.functional.borg.test_engine import archive_names, check_is_clean, random_files


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def last_segment(repository: Path) -> Path:
    return max(repository.glob("data/*/*"), key=lambda path: int(path.name))


def is_committed(segment: Path) -> bool:
    """Tell whether a segment ends with COMMIT: crc32, size 9, tag 2."""
    return segment.read_bytes()[-5:] == struct.pack("<IB", 9, 2)


def kill_between_the_commits(rig: Rig, archive: str, source: Path) -> None:
    """Back up, and SIGKILL the vault after the repository's commit, before the cache's.

    The files that Borg writes its hints to, after the commit, are FIFOs without a reader, at
    which it waits.
    """
    vault = rig.vault
    assert vault is not None
    cache = next(rig.state_dir.glob("base/.cache/borg/*/chunks")).parent
    before = last_segment(rig.path)
    first = int(before.name) + 1
    traps = [rig.path / f"hints.{number}.tmp" for number in range(first, first + 50)]
    for trap in traps:
        os.mkfifo(trap)

    def backup() -> None:
        with contextlib.suppress(JobFailed):
            rig.backup(archive, source)

    thread = threading.Thread(target=backup)
    thread.start()
    wait_until(lambda: last_segment(rig.path) != before and is_committed(last_segment(rig.path)))
    assert (cache / "txn.active").exists() and thread.is_alive()
    vault.send_signal(signal.SIGKILL)
    vault.wait(10)
    for trap in traps:
        trap.unlink()
    thread.join(60)
    assert not thread.is_alive()


def test_a_kill_between_the_two_commits_loses_no_archive_and_miscounts_nothing(
    tmp_path: Path,
) -> None:
    source = random_files(tmp_path / "source", count=3, each=300_000)
    with Rig(tmp_path / "rig") as rig:
        rig.backup("t-0", source)
        (source / "f0").write_bytes(os.urandom(300_000))
        kill_between_the_commits(rig, "t-1", source)
        rig.start_vault()
        found = rig.engine.list_archives(rig.socket, known=())
        entry = next(entry for entry in found if entry["name"] == "t-1")
        # Entered before the commit, so that it has its owner, and its chunks are offered.
        assert entry["plan"] == "plan" and entry["files"] == 3
        again = rig.backup("after", source).archives_added[0]
        assert again["bytes_received"] < 100_000
        rig.engine.delete_archives(rig.context("archive-delete", archives=["t-1"]))
        check_is_clean(rig)
        rig.stop_vault()
        assert archive_names(rig) == {"t-0", "after"}
        rig.start_vault()


def test_the_lock_of_a_dead_vault_is_removed_although_its_number_lives_again(
    tmp_path: Path,
) -> None:
    with Rig(tmp_path / "rig") as rig:
        assert rig.vault is not None
        rig.vault.kill()
        rig.vault.wait(10)
        note = next(rig.state_dir.glob("holders/*.json"))
        facts = json.loads(note.read_text())
        host = facts["lock"].rpartition(".")[0]
        # After a reboot the number belongs to somebody else: here, to this process.
        name = f"{host}.{os.getpid()}-0"
        for directory in map(Path, facts["directories"]):
            (directory / facts["lock"]).rename(directory / name)
        facts |= {"lock": name, "pid": os.getpid()}
        note.write_text(json.dumps(facts))
        assert json.loads(rig.start_vault())["ready"] is True


def test_a_lock_of_somebody_else_is_never_removed(tmp_path: Path) -> None:
    lock = tmp_path / "repository" / "lock.exclusive"
    lock.mkdir(parents=True)
    sleeper = subprocess.Popen(["sleep", "100"])
    try:
        opened = SimpleNamespace(
            repository=SimpleNamespace(
                path=str(tmp_path / "repository"),
                lock=SimpleNamespace(id=("host", sleeper.pid, 0), path=str(lock)[:-10]),
            ),
            cache=None,
        )
        recovery.note_holder(tmp_path, opened)
        mine, foreign = lock / f"host.{sleeper.pid}-0", lock / "other.1-0"
        mine.touch()
        recovery.break_dead_lock(tmp_path / "repository", tmp_path)
        assert mine.exists(), "its holder lives"
        foreign.touch()
    finally:
        sleeper.kill()
        sleeper.wait()
    recovery.break_dead_lock(tmp_path / "repository", tmp_path)
    assert not mine.exists() and foreign.exists()


def test_one_damaged_archive_does_not_hide_the_others(tmp_path: Path) -> None:
    info = SimpleNamespace(id=b"a" * 32, name="bad.partial", ts=datetime.now(UTC))

    def unreadable(_id: bytes) -> None:
        raise ValueError("the authentication of an object fails")

    ledger = SimpleNamespace(
        lock=threading.RLock(), archive_metadata=unreadable,
        manifest=SimpleNamespace(archives=SimpleNamespace(list=lambda: [info])),
    )  # fmt: skip
    vault = SimpleNamespace(ledger=ledger, state_dir=tmp_path)
    found = recovery.list_archives(vault, known=frozenset())
    assert [(entry["name"], "files" in entry) for entry in found] == [("bad.partial", False)]


def test_a_chunk_another_session_waits_for_is_not_taken_back() -> None:
    chunk, table = b"c" * 32, Sessions(threading.RLock())
    asking, waiting = Session("a", "a-1"), Session("b", "b-1")
    facts = SimpleNamespace(over=False, uploaded=(), own_metadata=(), _pending=[(None, chunk)])
    waiting.relies_on = partial(BackupSession.relies_on, facts)
    table.begin(asking)
    table.begin(waiting)
    assert table.rely_on(chunk, but=asking)
    assert not table.rely_on(chunk, but=waiting)
    facts._pending.clear()
    assert not table.rely_on(chunk, but=asking)
