"""What the fence costs a restore: ``python -m bench.fence [--pairs N] [--files N] [--bytes N]``.

Restores the same archive to a directory of this server with the fence and without it, in turns,
with a real vault and a real borg; and starts ``true`` in a fence and without. Prints the median and
the best of each in milliseconds, and the median of CPU time of the processes that were started (for
a restore without the vault's), which other load disturbs least.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from borgcube.core.fence import Fence
from borgcube.testing.rig import Rig


def timed(run: Callable[[], object]) -> tuple[float, float]:
    """Return how long a call takes, and the CPU time of its processes, in milliseconds."""
    before, started = os.times(), time.perf_counter()
    run()
    took, after = time.perf_counter() - started, os.times()
    cpu = after.children_user + after.children_system
    return took * 1000, (cpu - before.children_user - before.children_system) * 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--files", type=int, default=20)
    parser.add_argument("--bytes", type=int, default=200_000)
    options = parser.parse_args()
    took: dict[str, list[tuple[float, float]]] = {"restore, fenced": [], "restore, unfenced": [],
                                    "true, fenced": [], "true, unfenced": []}  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="borgcube-fence-") as name, Rig(Path(name)) as rig:
        source, target = rig.root / "source", rig.root / "target"
        source.mkdir()
        for number in range(options.files):
            (source / f"{number}").write_bytes(os.urandom(options.bytes // options.files))
        assert rig.backup("one", source).state == "done"

        def restore(*, unfenced: bool) -> None:
            shutil.rmtree(target, ignore_errors=True)
            done = rig.restore("one", target, server_side=True, unfenced=unfenced)
            assert done.state == "done", done

        for _ in range(options.pairs):
            took["restore, fenced"].append(timed(lambda: restore(unfenced=False)))
            took["restore, unfenced"].append(timed(lambda: restore(unfenced=True)))
            fenced = Fence(target=str(target)).command(["true"])
            took["true, fenced"].append(timed(lambda: subprocess.run(fenced, check=True)))  # noqa: B023
            took["true, unfenced"].append(timed(lambda: subprocess.run(["true"], check=True)))
    for what, each in took.items():
        walls, cpus = zip(*each, strict=True)
        print(f"{what:20} median {statistics.median(walls):8.1f} ms   best {min(walls):8.1f} ms   "
              f"CPU {statistics.median(cpus):7.1f} ms")  # fmt: skip


if __name__ == "__main__":
    main()
