"""The fence: run a program on this server that can change one directory and nothing else.

For programs that read what others wrote and make files of it: extracting an archive. The launcher
is ``python -m borgcube.core.fence`` (:mod:`~borgcube.core.fence.__main__`); this module says how it
is called, what its exit codes mean, and whether this system can have it. Knows no engine.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from borgcube.core.errors import JobFailed, Problem

# The launcher's own exit codes. A program that ends with one of them is said to have OTHER_CODE.
OTHER_CODE = 199
LEAST_CODE, MOST_CODE = 200, 215
UNAVAILABLE = 201
MEMORY_BYTES = 2 << 30
TRY_TIMEOUT_S = 20.0
WITHOUT = (
    "Let BorgCube make namespaces (docs/guide.md, The fence). To extract without a fence, an "
    "administrator runs `borgcube restore --unfenced`, or sets `unfenced = true` in section "
    "[jobs] of the configuration, for drills too."
)


@dataclass(frozen=True)
class Fence:
    """What a fenced program may write, and how much; see the launcher's arguments."""

    target: str
    hidden: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()
    bytes: int = 0
    files: int = 0
    memory: int = MEMORY_BYTES
    as_root: bool = False

    def command(
        self, argv: Sequence[str], *, writable: Sequence[str] = (), pid_file: str = ""
    ) -> list[str]:
        """Return the argv that runs ``argv`` in the fence."""
        given = [sys.executable, "-m", "borgcube.core.fence", "--target", self.target]
        for flag, paths in (
            ("--writable", writable), ("--hide", self.hidden), ("--needed", self.needed)
        ):  # fmt: skip
            for path in paths:
                given += [flag, path]
        given += ["--bytes", str(self.bytes), "--files", str(self.files)]
        given += ["--memory", str(self.memory)]
        if pid_file:
            given += ["--pid-file", pid_file]
        if self.as_root:
            given.append("--as-root")
        return [*given, "--", *argv]


def offered() -> dict[str, Any]:
    """Build a fence, run nothing in it, and return what it has (``landlock``, ``call_filter``,
    ``root``), or ``problem``, the reason why there is none, in words. Takes a tenth of a second."""
    try:
        with tempfile.TemporaryDirectory(prefix="borgcube-fence-") as target:
            argv = [sys.executable, "-m", "borgcube.core.fence", "--try", "--target", target]
            done = subprocess.run(argv, capture_output=True, timeout=TRY_TIMEOUT_S, check=False,
                                  stdin=subprocess.DEVNULL)  # fmt: skip
        if done.returncode == 0:
            return dict(json.loads(done.stdout))
        said = json.loads(done.stderr.splitlines()[-1])["message"].removeprefix("no fence: ")
        return {"problem": str(said)}
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError, KeyError) as error:
        return {"problem": f"it could not be tried ({type(error).__name__})"}


def failure(code: int | None, fence: Fence, said: Sequence[str] = ()) -> JobFailed | None:
    """Return the failure that an exit code of the launcher stands for, or None for others.

    ``said`` is what came on standard error; it counts only when no program was started.
    """
    from borgcube.core.fence import watch

    if code == UNAVAILABLE:
        why = next((one for one in reversed(said) if one.startswith("no fence: ")), "")
        return JobFailed(
            "no-fence", Problem.SERVER,
            "Nothing was extracted: this server cannot fence it off"
            + (f" ({why.removeprefix('no fence: ')})." if why else "."),
            next_step=WITHOUT,
        )  # fmt: skip
    if code == watch.TOO_MANY_BYTES or code == watch.TOO_MANY_FILES:
        what = "bytes" if code == watch.TOO_MANY_BYTES else "files"
        most = fence.bytes if code == watch.TOO_MANY_BYTES else fence.files
        return JobFailed(
            "fence-limit", Problem.REPOSITORY,
            f"The archive was extracted to more {what} than it says it has, with room to spare: "
            f"over {most:,}.",
            next_step="It was ended. Check the repository, and look at who wrote this archive.",
        )  # fmt: skip
    if code == watch.TOO_MUCH_MEMORY or code == watch.TOO_MANY_PROCESSES:
        what = f"{fence.memory >> 20:,} MiB of memory" if code == watch.TOO_MUCH_MEMORY else \
            f"{watch.MAX_PROCESSES} processes"  # fmt: skip
        return JobFailed(
            "fence-limit", Problem.SERVER,
            f"Extracting took more than the {what} that BorgCube gives it.",
            next_step="It was ended. Restore to the client instead, and please report it.",
        )  # fmt: skip
    if code == watch.NO_SPACE:
        return JobFailed(
            "target-full", Problem.SERVER,
            f"The disk of {fence.target} is nearly full: {watch.reserve_of(fence.target) >> 20:,} "
            "MiB have to stay free.",
            next_step="Make room there, or choose another directory.",
        )  # fmt: skip
    return None
