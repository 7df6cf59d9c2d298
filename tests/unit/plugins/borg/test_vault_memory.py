"""The limit of a vault's memory, and what a session may take of it."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from borgcube.core.budget import Room
from borgcube.core.errors import Problem
from borgcube.plugins.borg.vault import memory
from borgcube.plugins.borg.vault.causes import cause_of
from borgcube.plugins.borg.vault.limits import SessionStopped
from borgcube.plugins.borg.vault.refusing import refusing


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The limits that are set, in turn; this process keeps its own."""
    taken: list[int] = []
    monkeypatch.setattr(memory.memory, "limit", taken.append)
    monkeypatch.setattr(memory.memory, "address_space", lambda: 100 << 20)
    return taken


def ledger(size: int) -> Any:
    index = SimpleNamespace(size=lambda: size)
    return SimpleNamespace(chunks=index, fresh=index, repository=SimpleNamespace(index=index))


def test_the_limit_is_raised_with_indexes_sessions_and_uploads(limits: list[int]) -> None:
    held = memory.Memory(enforced=True)
    held.indexes(ledger(1 << 30))
    held.session("a", offered=1 << 30)
    held.uploads("a", memory.UPLOADS_AT_ONCE, offered=1 << 30)
    held.forget("a")
    held.forget("a")
    one = memory.BASE + 3 * memory.INDEX_FACTOR * (1 << 30)
    two = one + memory.SESSION + memory.OFFERED_FACTOR * (1 << 30)
    step = memory.UPLOAD * memory.UPLOADS_AT_ONCE
    assert limits == [one, two + step, two + 2 * step, one, one]


def test_what_is_held_beyond_the_formula_is_followed_for_a_while_only(
    limits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory.memory, "address_space", lambda: 100 << 30)
    memory.Memory(enforced=True).indexes(ledger(0))
    assert limits == [2 * memory.BASE]


def test_a_session_that_uploads_more_chunks_than_fit_goes_on_the_next_time(
    limits: list[int],
) -> None:
    """It was refused, and its client blamed for it."""
    held = memory.Memory(enforced=True)
    most = memory.UPLOADED_BYTES // memory.UPLOAD
    held.uploads("a", most - 1, offered=0)
    with pytest.raises(SessionStopped) as stopped:
        held.uploads("a", most + 1, offered=0)
    assert stopped.value.keep, "what it uploaded is kept for the next run"
    assert (stopped.value.cause.kind, stopped.value.cause.problem) == ("session-full", "server")


def test_a_lack_of_memory_is_never_the_clients() -> None:
    """In an audit it was a refused archive, and elsewhere a mistake."""
    with pytest.raises(SessionStopped) as stopped, refusing():
        raise MemoryError
    assert stopped.value.cause.kind == "vault-memory" and stopped.value.keep
    assert stopped.value.cause.problem is Problem.SERVER
    assert cause_of(MemoryError()).kind == "vault-memory"


def test_a_room_is_never_fuller_than_its_bytes_but_for_one_piece() -> None:
    room = Room(1000)
    done: list[int] = []

    def use(count: int) -> None:
        room.acquire(count)
        time.sleep(0.002)
        room.release(count)
        done.append(count)

    threads = [threading.Thread(target=use, args=(100 * (n % 9) + 1,)) for n in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 60 and 700 < room.peak <= 1000
    use(5000)
    assert room.peak == 5000, "one that is larger than all of it waits for nobody"
