"""How long it takes to find what is due, `python -m bench.schedule`.

A store in a file has 10,000 plans on a few schedules; the daemon's own scheduler works on it
with a virtual clock. Timed are: looking when nothing is due, looking when 200 plans are, and
queueing runs. See bench/README.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from borgcube.core.model import Schedule
from borgcube.core.store import Store
from borgcube.testing.virtualtime import Fleet, VirtualClock, told_by

START = datetime(2026, 6, 1, 12, tzinfo=UTC)
SPECS = ("daily at 02:00", "daily at 03:00", "weekdays 22:30", "every 6 hours", "30 4 * * *")
ZONES = ("Europe/Berlin", "America/New_York", "UTC")
PAGE = 500


def make_fleet(path: Path, plans: int) -> Fleet:
    """Return a fleet over a store in a file, its plans spread over schedules and seconds."""
    fleet = Fleet(
        VirtualClock(START), store=Store.open(f"file://{path}"), keep_events=False, max_running=4
    )
    kinds = [(spec, zone) for spec in SPECS for zone in ZONES]
    for begin in range(0, plans, PAGE):
        spec, zone = kinds[begin // PAGE % len(kinds)]
        name = f"s{begin // PAGE % len(kinds)}"
        schedule = Schedule(name=name, spec=spec, zone=zone, jitter_s=1800)
        fleet.add(schedule, [f"p{n:06}" for n in range(begin, min(begin + PAGE, plans))])
    return fleet


def _timed(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1000


def measure(fleet: Fleet, repeats: int) -> dict[str, float]:
    """Return the figures in milliseconds."""
    scheduler, clock, store = fleet.scheduler, fleet.clock, fleet.store
    while scheduler.busy:
        scheduler.step()
    looks, finds = [], []
    for _ in range(repeats):
        clock.pass_to(clock.now() + timedelta(seconds=1))
        scheduler.wake()
        looks.append(_timed(scheduler.step))
    with store.reading() as root:
        moments = [at for at, _ in root.timetable.order]
    tenth = datetime.fromtimestamp(moments[200], UTC)
    for _ in range(repeats):

        def find() -> None:
            with store.reading() as root:
                assert len(root.timetable.due(int(tenth.timestamp()), 200)) == 200

        finds.append(_timed(find))
    clock.pass_to(tenth)
    with told_by(clock):
        queue = _timed(scheduler.step)
        clock.pass_to(datetime.fromtimestamp(moments[-1], UTC))
        begin = time.perf_counter()
        while True:
            scheduler.wake()
            scheduler.step()
            with store.reading() as root:
                if not root.timetable.due(int(clock.now().timestamp()), 1):
                    break
                queued = root.jobs.count(state="queued")
        every = (time.perf_counter() - begin) * 1000
    return {
        "look, nothing due": statistics.median(looks), "look, worst": max(looks),
        "find 200 due": statistics.median(finds), "find, worst": max(finds),
        "queue 200 runs": queue, "queue all the rest": every, "queued at least": float(queued),
    }  # fmt: skip


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.schedule", description=__doc__)
    parser.add_argument("--plans", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        fleet = make_fleet(Path(directory) / "store.fs", options.plans)
        found = measure(fleet, options.repeats)
        fleet.store.close()
    print(f"{options.plans} plans")
    for name, value in found.items():
        unit = "" if name.startswith("queued") else " ms"
        print(f"  {name:<20} {value:10.1f}{unit}")
    if options.json:
        Path(options.json).write_text(json.dumps({"plans": options.plans, **found}, indent=2))


if __name__ == "__main__":
    main()
