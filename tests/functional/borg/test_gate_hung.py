"""A gate that says nothing any more ends its run, and nobody blames the client."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import psutil
import pytest

from borgcube.core.errors import JobFailed
from borgcube.plugins.borg import rpcrun
from borgcube.testing.rig import Rig


def stop_the_gate() -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for process in psutil.Process().children():
            if "borgcube.plugins.borg.gate.main" in process.cmdline():
                time.sleep(1.5)
                process.suspend()
                return
        time.sleep(0.02)


def test_a_gate_that_stands_still_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpcrun, "GATE_SILENT_S", 3.0)
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(os.urandom(6 << 20))
    with Rig(tmp_path / "rig") as rig:
        threading.Thread(target=stop_the_gate, daemon=True).start()
        with pytest.raises(JobFailed, match="stands still") as failure:
            rig.backup("a", tree, upload_ratelimit_kib=500, idle_timeout_s=60)
        assert failure.value.cause.kind == "gate-hung" and failure.value.violation is None
        assert rig.backup("b", tree).state == "done"
