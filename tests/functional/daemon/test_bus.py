"""The bus, as an outside program sees it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

from tests.functional.daemon.conftest import Cube


def test_ten_lines_of_pyzmq_follow_a_backup(cube: Cube) -> None:
    tree = cube.place / "tree"
    tree.mkdir()
    (tree / "big").write_bytes(os.urandom(6 << 20))
    cube.ssh_client("alpha")
    cube.plan("tree", tree, client="alpha", extra=("--upload-ratelimit", "1024"))
    follower = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("follow_bus.py")),
         cube.call("bus")["endpoint"]],
        stdout=subprocess.PIPE, text=True, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    time.sleep(0.5)
    job_id = cube.begin("tree")
    out, _ = follower.communicate(timeout=60)
    events = [json.loads(line) for line in out.splitlines()]
    lifecycle = [event for event in events if event["seq"] is not None]
    types = [event["type"] for event in lifecycle]
    assert types[0] == "job.queued" and types[-1] == "job.finished", types
    assert "job.started" in types and "archive.added" in types
    numbers = [event["seq"] for event in lifecycle]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    begun = next(e for e in events if e["data"].get("phase") == "transferring")
    over = next(e for e in events if e["data"].get("phase") == "finishing")
    span = datetime.fromisoformat(over["at"]) - datetime.fromisoformat(begun["at"])
    between = events[events.index(begun) : events.index(over)]
    progress = [e for e in between if e["type"] == "job.progress"]
    assert span.total_seconds() > 3
    assert len(progress) >= 2 * (span.total_seconds() - 0.5), (len(progress), span)
    assert all(e["data"]["job"] == job_id for e in progress)
