"""What sessions of one vault do to each other: the table, its lock, whose a chunk is."""

from __future__ import annotations

import contextlib
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from borgcube.core.errors import JobFailed
from borgcube.plugins.borg.vault import backup, maintenance
from borgcube.plugins.borg.vault.verified import State
from borgcube.plugins.borg.wire import WireError
from tests.functional.borg.vaultrig import LiveVault

BIG = 100_000  # bytes of a chunk that is sealed by a thread


@pytest.fixture
def live(tmp_path: Path) -> Iterator[LiveVault]:
    with LiveVault(tmp_path / "live") as made:
        yield made


def content(seed: int, size: int = 500) -> bytes:
    return random.Random(seed).randbytes(size)


def many(start: int, count: int, size: int = 500) -> list[bytes]:
    return [content(number, size) for number in range(start, start + count)]


def in_thread(work: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def unique_bytes(live: LiveVault) -> int:
    """Return what ``borg info`` calls the deduplicated size of all archives."""
    return sum(entry[2] for _, entry in live.vault.ledger.chunks.iteritems())


# The table ------------------------------------------------------------------------------


def test_a_session_that_begins_while_another_commits_does_not_end_the_vault(
    live: LiveVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    late: list[threading.Thread] = []
    write_partial = backup.BackupSession.write_partial

    def write_and_let_one_begin(session: Any) -> bool:
        if not late:
            late.append(in_thread(lambda: live.client("late-1").back_up(many(50, 2))))
            time.sleep(0.5)
        return write_partial(session)

    waiting = live.client("waiting-1")
    waiting.files(many(0, 3))
    committing = live.client("committing-1")
    monkeypatch.setattr(backup.BackupSession, "write_partial", write_and_let_one_begin)
    committing.back_up(many(10, 3))
    late[0].join(30)
    waiting.archive(waiting.files(many(0, 3)))
    waiting.commit()
    waiting.end()
    assert set(live.archive_ids()) == {"late-1", "committing-1", "waiting-1"}
    live.judge()


def test_many_sessions_come_and_go_at_once(live: LiveVault) -> None:
    failures: list[BaseException] = []
    monkey = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)

    def run(worker: int) -> None:
        rng = random.Random(worker)
        for number in range(3):
            try:
                client = live.client(f"w{worker}-{number}")
                # Some content is everybody's, some is of this session only.
                items = client.files(
                    [content(rng.randrange(20)) for _ in range(6)]
                    + [content(100 + rng.randrange(4), BIG)]
                    + many(1000 * worker + 10 * number, 3)
                )
                end = rng.choice(("commit", "commit", "abandon", "discard", "vanish"))
                if end == "commit":
                    client.archive(items)
                    client.commit()
                    client.end()
                elif end == "vanish":
                    client.close()
                else:
                    client.end(discard=end == "discard")
            except (JobFailed, WireError) as error:
                failures.append(error)

    try:
        threads = [in_thread(lambda worker=worker: run(worker)) for worker in range(8)]
        for thread in threads:
            thread.join(120)
    finally:
        sys.setswitchinterval(monkey)
    assert not failures, failures
    live.judge()


def test_a_vault_that_stops_takes_no_session_that_it_would_not_end(live: LiveVault) -> None:
    live.vault.sessions.close()
    with pytest.raises(JobFailed) as failure:
        live.client("late-1")
    assert failure.value.cause.kind == "vault-stopped"
    assert not len(live.vault.sessions)


def test_a_data_connection_that_comes_late_or_second_is_refused(live: LiveVault) -> None:
    client = live.client("once-1")
    client.files(many(0, 2))
    second = client.session.data_socket()
    assert second.recv(1) == b"", "two connections were taken for one session"
    [session] = live.vault.sessions
    client.end()
    assert not session.attach(client.wire), "a session that is over took chunks"
    live.judge()


# Whose a chunk is -----------------------------------------------------------------------


def test_a_chunk_that_two_upload_at_once_outlives_the_first_ones_failure(
    live: LiveVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, hold = content(1, BIG), threading.Event()
    sealer = live.vault.ledger.sealer
    seal = sealer.seal

    def slow_seal(data: Any) -> bytes:
        if len(data) > BIG:
            hold.wait(30)
        return seal(data)

    monkeypatch.setattr(sealer, "seal", slow_seal)
    first, second = live.client("first-1"), live.client("second-1")
    first.put(shared)
    items = second.files([shared])
    deadline = time.monotonic() + 30
    while not all(one._pending for one in live.vault.sessions):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    hold.set()
    while live.vault.sealing:
        time.sleep(0.01)
    live.client("third-1").back_up(many(10, 2))  # its commit writes the partial archives
    first.end(discard=True)
    second.archive(items)
    second.commit()
    second.end()
    assert set(live.archive_ids()) == {"second-1", "third-1"}
    live.judge()


def test_what_an_ended_session_uploaded_keeps_nothing_alive(live: LiveVault) -> None:
    unused = content(1)
    ended = live.client("ended-1")
    ended.put(unused)
    ended.archive(ended.files(many(10, 2)))
    ended.commit()  # its worker has not said yet that it is over
    after = live.client("after-1")
    after.put(unused)
    after.archive(after.files(many(20, 2)))
    after.commit()
    live.recount()
    ended.end()
    after.end()
    live.judge()


def test_the_last_to_rely_on_a_chunk_gives_it_up(live: LiveVault) -> None:
    shared = content(1)
    storer, relier = live.client("storer-1"), live.client("relier-1")
    storer.put(shared)
    storer.taken()
    relier.put(shared)
    relier.taken()
    storer.end(discard=True)
    relier.end()
    live.client("third-1").back_up(many(10, 2))
    live.judge()


# Commits --------------------------------------------------------------------------------


def test_nobody_commits_what_another_left_half_changed(
    live: LiveVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaking, waiting = live.client("breaking-1"), live.client("waiting-1")
    ledger = live.vault.ledger
    add_archive, told = ledger.add_archive, []
    others: list[threading.Thread] = []

    def end_too() -> None:
        with contextlib.suppress(JobFailed):
            told.append(waiting.end())  # its chunks are to be kept: a commit

    def fail_while_another_waits(name: str, *args: Any, **more: Any) -> bytes:
        if name == "breaking-1":
            others.append(in_thread(end_too))
            time.sleep(0.5)  # it waits for the lock by now
            raise OSError(5, "the disk failed")
        return add_archive(name, *args, **more)

    waiting.files(many(0, 5))
    breaking.archive(breaking.files(many(0, 5)))
    monkeypatch.setattr(ledger, "add_archive", fail_while_another_waits)
    with contextlib.suppress(WireError):
        breaking.commit()
    others[0].join(30)
    with pytest.raises(JobFailed) as failure:
        breaking.end()
    assert failure.value.cause.kind == "repository-storage-failed"
    assert not told, "it was told that all is well"
    live.stop()
    live.start()  # as the daemon does
    assert not live.archive_ids()
    live.recount()
    live.judge()


def test_a_prune_takes_nothing_off_that_was_deleted_meanwhile(
    live: LiveVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = many(0, 5)
    gone = live.client("a-1").back_up(shared)
    live.client("b-1").back_up(shared)
    live.client("c-1").back_up(many(20, 5))
    read_step = maintenance._read_step

    def read_and_delete(*args: Any, **more: Any) -> Any:
        step = read_step(*args, **more)
        if "a-1" in live.archive_ids():
            live.ask("delete", archives=["a-1"])
        return step

    monkeypatch.setattr(maintenance, "_read_step", read_and_delete)
    done = maintenance.prune(live.vault, {"a-1": gone["id"]}, report=lambda **_: None)
    assert done.absent == ["a-1"] and not done.deleted
    assert set(live.archive_ids()) == {"b-1", "c-1"}
    live.judge()


def test_an_archive_that_is_deleted_under_a_check_is_not_called_damaged(
    live: LiveVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = live.client("a-1").back_up(many(0, 5))
    live.client("b-1").back_up(many(10, 5))
    ledger, read = live.vault.ledger, live.vault.ledger.archive_metadata

    deleted: list[str] = []

    def delete_and_read(archive_id: bytes) -> Any:
        if archive_id.hex() == gone["id"] and not deleted:
            deleted.append("a-1")
            live.ask("delete", archives=deleted)
        return read(archive_id)

    monkeypatch.setattr(ledger, "archive_metadata", delete_and_read)
    answer = live.ask("verify", kind="archives", budget_s=0, days=1, bytes_per_s=0, full=True)
    assert deleted and answer["damage"] == {}
    assert not State.load(live.vault.state_dir).damaged


# What was stored anew -------------------------------------------------------------------


def test_what_a_backup_stored_counts_whatever_its_neighbours_commit(live: LiveVault) -> None:
    mine, theirs = many(0, 20, 50_000), many(100, 3)
    first = live.client("first-1")
    items = first.files(mine)
    while len(live.vault.ledger.fresh) < len(mine):
        time.sleep(0.01)
    # One neighbour commits, which writes our partial archive; another refers to our chunks.
    second = live.client("second-1").back_up(theirs)
    third = live.client("third-1").back_up(mine[:10] + theirs)
    first.archive(items)
    first.commit()
    figures = first.end()
    assert 20 * 50_000 < figures["new_size"] < 20 * 50_000 + 20_000
    assert third["new_size"] < 10_000, "it stored next to nothing"
    total = sum(one["new_size"] for one in (figures, second, third))
    assert total == unique_bytes(live)
    again = live.client("first-2").back_up(mine)
    assert again["new_size"] < 10_000
    live.judge()


def test_what_unfinished_backups_stored_counts_once_with_the_archive_that_has_it(
    live: LiveVault,
) -> None:
    mine = many(0, 10, 50_000)
    cut = live.client("mine-1")
    cut.files(mine[:6])
    cut.taken()
    cut.end()
    live.stop()
    live.start()  # a vault that has not seen the first attempt
    beside = live.client("beside-1", domain="client:mine")
    done = live.client("mine-2").back_up(mine)
    assert 10 * 50_000 < done["new_size"] < 10 * 50_000 + 10_000
    assert 10 * 50_000 < done["charged_size"] < 10 * 50_000 + 20_000
    # Its partial archive waits for the end of the session beside it, and counts no more.
    again = live.client("mine-3").back_up(mine)
    assert again["new_size"] < 10_000 and again["charged_size"] < 10_000
    assert "mine-1.partial" in live.archive_ids()
    beside.end()
    assert "mine-1.partial" not in live.archive_ids()
    assert done["new_size"] + again["new_size"] == unique_bytes(live)
    live.judge()


def test_a_partial_archive_of_many_small_chunks_survives_every_neighbour(live: LiveVault) -> None:
    """40,000 chunks and more: several items of a partial archive, written again and again."""
    large = live.client("large-1")
    items, each = [], 8200
    for part in range(5):
        numbers = range(part * each, (part + 1) * each)
        items += large.files([b"%08d" % number for number in numbers])
        live.client(f"small-{part}").back_up(many(part * 10, 4))
        if part == 2:
            victim = live.client("victim-1")
            victim.files([b"%08d" % number for number in range(9000)])
            victim.end(discard=True)
    for number, item in enumerate(items):
        item["path"] = f"f{number:06d}"
    large.archive(items)
    large.commit()
    figures = large.end()
    assert figures["files"] == 41_000
    assert set(live.archive_ids()) == {"large-1", *(f"small-{part}" for part in range(5))}
    live.judge()
