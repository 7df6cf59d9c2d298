"""The heartbeat of a vault: what moves is not still, what waits for a disk is."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

from borgcube.plugins.borg.gate.session import CLIENT, VAULT
from borgcube.plugins.borg.gateprocess import MOST_OF_A_TURN_S, Silence
from borgcube.plugins.borg.vault.watch import Heart, Stillness, owner_of


def test_the_holder_of_a_lock_is_known() -> None:
    lock = threading.RLock()
    assert owner_of(lock) == 0
    with lock, lock:
        assert owner_of(lock) == threading.get_ident()
    assert owner_of(lock) == 0


def still_after(work: threading.Thread, lock: object, seconds: float) -> float:
    stillness = Stillness(lambda: [lock])
    work.start()
    time.sleep(0.3)
    deadline, still = time.monotonic() + seconds, 0.0
    while time.monotonic() < deadline:
        still = stillness.look()
        time.sleep(0.1)
    return still


def test_who_waits_for_a_disk_with_the_lock_stands_still(tmp_path: Path) -> None:
    """In one call that nobody answers, as a write to a disk that hangs."""
    lock, pipe = threading.RLock(), tmp_path / "pipe"
    os.mkfifo(pipe)

    def work() -> None:
        with lock:
            os.close(os.open(pipe, os.O_RDONLY))

    thread = threading.Thread(target=work)
    assert still_after(thread, lock, 2) > 1.5
    os.close(os.open(pipe, os.O_WRONLY))
    thread.join()
    stillness = Stillness(lambda: [lock])
    time.sleep(0.2)
    assert stillness.look() == 0.0  # nobody holds it


def test_who_works_with_the_lock_moves_however_long_it_takes(tmp_path: Path) -> None:
    """Little by little, as on a slow disk, and with the processor alone."""
    over = threading.Event()

    def slowly() -> None:
        with lock, (tmp_path / "file").open("wb", buffering=0) as file:
            while not over.is_set():
                file.write(b"x")
                time.sleep(0.2)

    def busily() -> None:
        with lock:
            while not over.is_set():
                sum(range(1000))

    for work in (slowly, busily):
        lock = threading.RLock()
        over.clear()
        thread = threading.Thread(target=work)
        assert still_after(thread, lock, 2) < 0.7
        over.set()
        thread.join()


def test_who_waits_for_another_lock_moves_as_long_as_its_holder_does() -> None:
    """As one that stores waits for one that reserves nonces, on a slow disk."""
    outer, inner, over = threading.RLock(), threading.RLock(), threading.Event()

    def waits() -> None:
        with outer, inner:
            pass

    def works() -> None:
        with inner:
            while not over.is_set():
                time.sleep(0.05)

    threads = [threading.Thread(target=works), threading.Thread(target=waits)]
    for thread in threads:
        thread.start()
        time.sleep(0.2)
    alone, together = Stillness(lambda: [outer]), Stillness(lambda: [outer, inner])
    still = [0.0, 0.0]
    for _ in range(15):
        still = [alone.look(), together.look()]
        time.sleep(0.1)
    over.set()
    assert still[0] > 1 > still[1]
    for thread in threads:
        thread.join()


def test_beats_are_lines_and_stop_when_nobody_reads() -> None:
    lock = threading.RLock()
    reading, writing = os.pipe()
    Heart(lambda: [lock], descriptor=writing).start()
    with os.fdopen(reading, "rb", buffering=0) as said:
        assert json.loads(said.readline()) == {"beat": {"still_s": 0.0}}


def test_who_waits_for_a_disk_without_the_lock_stands_still_too() -> None:
    clock, moved = Clock(), {1: ("a",), 2: ("a",)}
    waiting = [1, 2]
    stillness = Stillness(
        lambda: [], clock=clock, moved=lambda thread: moved[thread], waiting=lambda: waiting
    )
    for _ in range(5):
        assert stillness.look() == clock.now
        moved[2] = (*moved[2], "b")
        clock.now += 1
    waiting.remove(1)
    assert stillness.look() == 0


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_only_a_client_that_has_to_speak_is_silent() -> None:
    clock = Clock()
    silence = Silence(clock)

    def told(turn: str, times: int, *, bytes_in: int = 0, every: float = 1.0) -> float:
        for _ in range(times):
            clock.now += every
            silence.take(turn, (bytes_in, 0))
        return silence.client

    told(CLIENT, 1)
    assert told(CLIENT, 5) == 5
    assert told(VAULT, 100) == 0  # a long admission
    assert silence.server == 100
    assert told(CLIENT, 4) == 4
    assert told(CLIENT, 1, bytes_in=1) == 0  # it sent something
    assert told(CLIENT, 3, bytes_in=1) == 3
    # A gate that stood still tells of no more than one turn.
    assert told(CLIENT, 1, bytes_in=1, every=600) == 3 + MOST_OF_A_TURN_S
    assert told("anything", 1, bytes_in=1) == 0
