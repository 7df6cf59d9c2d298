"""Ask hostile hosts and measure it: behaviour x place x transport, as a table.

``python -m borgcube.testing.hostilehosts`` plays every cell with the deadlines that the daemon
has, and prints for each: the peak memory of the child and of the ssh programs that it started,
the seconds to the end, and what a person is told. The places ``keys``, ``test``, ``diagnose``
and ``reach`` are those in which the daemon asks; ``command`` and ``kill`` are those of a worker
(preparing a client, ending what runs there), in a process with a worker's limit of memory.
The asking process stands for the daemon: its own peak is the last line.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from borgcube.core import hostkeys, memory
from borgcube.core.errors import BorgCubeError
from borgcube.core.home import init_home
from borgcube.core.registry import Registry
from borgcube.core.transports import ClientAddress, TransportContext
from borgcube.daemon import worker
from borgcube.daemon.hostanswers import DIAGNOSE, KEYS, REACH, TEST, Answer
from borgcube.daemon.hostask import DEADLINES_S, HostAsker, Question
from borgcube.testing.hostilesshd import BEHAVIOURS, COMMANDS, RAW, HostileSSHD
from borgcube.testing.sshd import make_key

TRANSPORTS = ("openssh", "paramiko")
COMMAND, KILL = "command", "kill"
COMMAND_S = 20.0
WORKER_S = 90.0
SAMPLE_S = 0.02


@dataclass(frozen=True)
class Cell:
    """One way to be hostile, met at one place with one transport."""

    behaviour: str
    place: str
    transport: str

    @property
    def name(self) -> str:
        """Return what its client is called."""
        return f"{self.behaviour}-{self.place}-{self.transport}"


@dataclass
class Outcome:
    """What came of a cell; ``peaks`` are bytes of memory by program."""

    cell: Cell
    seconds: float
    told: str
    peaks: Mapping[str, int]
    kind: str = ""


def every_cell() -> list[Cell]:
    """Return the cells of the long table: each behaviour where it can be met."""
    cells = []
    for transport in TRANSPORTS:
        for behaviour in BEHAVIOURS:
            everywhere = behaviour in ("greeting-drip", "greeting-flood", "giant-packet")
            if behaviour in RAW:
                places: Sequence[str] = (KEYS, TEST, *((DIAGNOSE, REACH) if everywhere else ()))
            elif behaviour in COMMANDS:
                more = (DIAGNOSE,) if behaviour in ("out-flood", "wild-words") else ()
                places = (TEST, *more, COMMAND, KILL)
            else:
                places = (TEST, REACH)
            cells += [Cell(behaviour, place, transport) for place in places]
    return cells


class Peaks:
    """Samples the peak memory of the processes of each cell that is being played, by its name."""

    def __init__(self, roots: Callable[[], Mapping[str, Sequence[int]]]) -> None:
        self._roots = roots
        self._found: dict[str, dict[str, int]] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while not self._ending.wait(SAMPLE_S):
            for name, pids in self._roots().items():
                for pid in pids:
                    self._look(name, pid)

    def _look(self, name: str, pid: int) -> None:
        found = self._found.setdefault(name, {})
        with contextlib.suppress(psutil.Error, OSError, StopIteration):
            root = psutil.Process(pid)
            for one in (root, *root.children(recursive=True)):
                status = Path(f"/proc/{one.pid}/status").read_text().splitlines()
                peak = next(line for line in status if line.startswith("VmHWM"))
                program = one.name()
                found[program] = max(found.get(program, 0), int(peak.split()[1]) << 10)

    def of(self, name: str) -> dict[str, int]:
        """Return the peaks of a cell by program."""
        return self._found.get(name, {})

    def end(self) -> None:
        """Stop sampling."""
        self._ending.set()
        self._thread.join(5)


class Range:
    """A home, a key, the hostile daemons and someone who asks."""

    def __init__(self, place: Path, *, deadlines_s: Mapping[str, float] = DEADLINES_S) -> None:
        self.home = init_home(place / "home")
        self.identity = place / "identity"
        make_key(self.identity)
        self.registry = Registry.load(only=["borg", *(f"transport_{one}" for one in TRANSPORTS)])
        self.asker = HostAsker(self.home, self.registry, deadlines_s=deadlines_s)
        self.sshd = HostileSSHD()
        self._workers: dict[str, list[int]] = {}
        self.peaks = Peaks(lambda: {**self.asker.running(), **self._workers})

    def __enter__(self) -> Range:
        self.sshd.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.peaks.end()
        self.asker.close()
        self.sshd.__exit__(None, None, None)

    def address(self, cell: Cell) -> ClientAddress:
        """Return a client behind a behaviour; its host key is trusted."""
        return ClientAddress(
            cell.name, cell.transport, "127.0.0.1",
            self.sshd.ports[cell.behaviour], "root", str(self.identity),
            host_keys=(self.sshd.key.text,),
        )  # fmt: skip

    def play(self, cell: Cell) -> Outcome:
        """Play a cell to its end."""
        began = time.monotonic()
        try:
            if cell.place in (COMMAND, KILL):
                told, kind = self._by_worker(cell)
            else:
                question = Question(cell.place, self.address(cell), borg="borg", engine="borg")
                told, kind = _said(self.asker.ask(question).result(timeout=300)), "answered"
        except BorgCubeError as error:
            told = str(error)
            kind = getattr(getattr(error, "cause", None), "kind", type(error).__name__)
        return Outcome(cell, time.monotonic() - began, told, self.peaks.of(cell.name), kind)

    def _by_worker(self, cell: Cell) -> tuple[str, str]:
        with tempfile.TemporaryDirectory(prefix="bc") as name:
            order = {"address": asdict(self.address(cell)), "place": cell.place, "dir": name}
            process = subprocess.Popen(
                [sys.executable, "-m", "borgcube.testing.hostilehosts", "--as-worker"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
            self._workers = {**self._workers, cell.name: [process.pid]}
            try:
                out, err = process.communicate(json.dumps(order).encode(), timeout=WORKER_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                return f"no end within {WORKER_S:.0f} s", "no-end"
        if process.returncode != 0:
            return err[-300:].decode("utf-8", "replace"), "died"
        answer = json.loads(out)
        return str(answer["told"]), str(answer["kind"])


def _said(answer: Answer) -> str:
    if answer.steps:
        return next((f"{one.name}: {one.said} {one.next_step}" for one in answer.steps
                     if one.state == "bad"), "all good")  # fmt: skip
    if answer.keys:
        return ", ".join(f"{key.algorithm} {key.fingerprint}" for key in answer.keys)
    return answer.version or "there"


def as_worker() -> int:
    """Do what a worker does with a client: log in, run a command or end one."""
    order = json.loads(sys.stdin.buffer.read())
    memory.limit(worker.MEMORY_BYTES)
    address = ClientAddress(**order["address"])
    directory = Path(order["dir"])
    known = hostkeys.known_hosts_for(address, directory, directory)
    registry = Registry.load(only=[f"transport_{address.transport}"])
    told, kind = "", "answered"
    try:
        transport = registry.transports[address.transport]
        connection = transport.connect(address, TransportContext(known, directory))
        try:
            if order["place"] == COMMAND:
                done = connection.run(["sh", "-c", "true"], timeout_s=COMMAND_S)
                told = f"code {done.exit_code}, {len(done.stdout)} + {len(done.stderr)} bytes"
            else:
                process = connection.start(["sleep", "60"])
                process.terminate()
                process.wait(COMMAND_S)
                told = "ended"
        finally:
            connection.close()
    except BorgCubeError as error:
        told, kind = str(error), error.cause.kind if hasattr(error, "cause") else "refused"
    sys.stdout.write(json.dumps({"told": told, "kind": kind}))
    sys.stdout.flush()
    os._exit(0)


def main(argv: Sequence[str] | None = None) -> int:
    """Play the table and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--as-worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--only", default="", help="cells whose name holds this")
    parser.add_argument("--at-once", type=int, default=4, help="cells at once (4)")
    options = parser.parse_args(argv)
    if options.as_worker:
        return as_worker()
    cells = [cell for cell in every_cell() if options.only in cell.name]
    with (
        tempfile.TemporaryDirectory(prefix="bc") as name, Range(Path(name)) as place,
        ThreadPoolExecutor(options.at_once) as pool,
    ):  # fmt: skip
        print(f"{'BEHAVIOUR':<16} {'PLACE':<9} {'TRANSPORT':<9} {'SECONDS':>7}  PEAK MiB")
        for outcome in pool.map(place.play, cells):
            _print(outcome)
    own = Path("/proc/self/status").read_text()
    peak = next(line for line in own.splitlines() if line.startswith("VmHWM"))
    print(f"{len(cells)} cells; peak of the process that asked: {int(peak.split()[1]) >> 10} MiB")
    return 0


def _print(outcome: Outcome) -> None:
    cell = outcome.cell
    peaks = " ".join(f"{name} {size >> 20}" for name, size in sorted(outcome.peaks.items()))
    print(f"{cell.behaviour:<16} {cell.place:<9} {cell.transport:<9} {outcome.seconds:>7.1f}  "
          f"{peaks}\n    {outcome.kind}: {outcome.told[:240]}", flush=True)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
