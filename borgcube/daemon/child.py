"""The first moments of a child process: tie its life to the daemon's, then become it.

Run as a plain script (``python -I -S child.py <parent pid> <program> ...``), so it imports
nothing of BorgCube. The kernel keeps the parent-death signal across exec.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # prctl(2)


def main() -> None:
    """Ask for SIGTERM when the parent dies, and run the program given."""
    parent, *argv = sys.argv[1:]
    if ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        sys.exit("prctl failed")
    # The parent may have died before the call above.
    if os.getppid() != int(parent):
        sys.exit("the parent is gone")
    os.execvp(argv[0], argv)


if __name__ == "__main__":
    main()
