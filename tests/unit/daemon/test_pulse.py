"""A vault that moves is waited for, one that stands still is not; lost time blames nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time

from borgcube.daemon.pulse import LATE_S, Pulse, process_state
from borgcube.daemon.storage import HANGS, MISSING, READ_ONLY, Seen, Storage


class World:
    """A clock and a process, both by hand."""

    def __init__(self) -> None:
        self.now, self.cpu, self.counts = 0.0, 0.0, b"0"
        self.pulse = Pulse(1, clock=lambda: self.now, state=lambda _: ("S", self.cpu, self.counts))

    def passes(self, seconds: float, *, cpu: float = 0.0, step: float = 0.25) -> float:
        for number in range(int(seconds / step)):
            self.now += step
            self.cpu += cpu * step
            if self.counts != b"0":
                self.counts = str(number + 1).encode()
            self.pulse.look()
        return self.pulse.still_s


def test_beats_say_for_how_long_the_work_stands_still() -> None:
    world = World()
    for still in (0.0, 4.0, 9.0, 0.0):
        world.passes(1)
        world.pulse.hear(still)
        assert world.pulse.look() == still


def test_without_beats_it_stands_still_unless_the_kernel_says_otherwise() -> None:
    assert World().passes(20) > 15
    assert World().passes(20, cpu=0.5) <= LATE_S + 1  # a long call that keeps its threads waiting
    assert World().passes(20, cpu=0.02) > 15  # they only wait for their turn
    reads = World()
    reads.counts = b"1"
    assert reads.passes(20) <= LATE_S + 1


def test_time_in_which_nobody_looked_does_not_count() -> None:
    world = World()
    world.passes(1)
    world.now += 3600.0  # the machine slept
    assert world.pulse.look() <= LATE_S + 1


def test_a_stopped_process_is_called_stopped() -> None:
    process = subprocess.Popen(["sleep", "60"])
    try:
        process.send_signal(signal.SIGSTOP)
        deadline = time.monotonic() + 10
        while process_state(process.pid)[0] != "T":
            assert time.monotonic() < deadline
        pulse = Pulse(process.pid)
        pulse._silent_s = 10.0
        assert "stopped" in pulse.why
    finally:
        process.kill()
        process.wait()
    assert process_state(2**22 + 1) == ("", 0.0, b"")


def test_a_disk_that_hangs_holds_nobody_up_and_is_asked_once() -> None:
    answer, asked = threading.Event(), []

    def look(path: str) -> Seen:
        asked.append(path)
        if path == "/hung":
            answer.wait(60)
        return Seen(free=1)

    storage = Storage(look)
    for _ in range(3):
        began = time.monotonic()
        seen = storage.see(["/hung", "/well"], answer_s=0.3)
        assert time.monotonic() - began < 2
        assert seen["/hung"].state == HANGS and seen["/well"] == Seen(free=1)
    assert asked.count("/hung") == 1
    answer.set()
    deadline = time.monotonic() + 10
    while storage.see(["/hung"], answer_s=1)["/hung"].state:
        assert time.monotonic() < deadline


def test_what_is_not_there_or_may_not_be_written_is_seen() -> None:
    seen = Storage().see(["/no/such", "/proc/self", "/tmp"])
    assert seen["/no/such"].state == MISSING
    assert seen["/proc/self"].state == READ_ONLY or os.access("/proc/self", os.W_OK)
    assert seen["/tmp"].state == "" and seen["/tmp"].total > 0
