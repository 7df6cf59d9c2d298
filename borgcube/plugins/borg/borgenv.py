"""Make Borg usable as a library: its directories, its loggers, its questions.

Borg reads the environment for directories and answers. Only processes of the engine call
this; secrets never go through the environment.
"""

from __future__ import annotations

import os
from pathlib import Path

BASE_NAME = "base"


def prepare(state_dir: Path) -> None:
    """Point Borg's directories into ``state_dir`` and mark its logging as set up.

    Must run before the first borg object is made in this process.
    """
    base = state_dir / BASE_NAME
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in list(os.environ):
        if name.startswith("BORG_"):
            del os.environ[name]
    os.environ["BORG_BASE_DIR"] = str(base)
    os.environ["BORG_RELOCATED_REPO_ACCESS_IS_OK"] = "yes"
    os.environ["BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK"] = "yes"
    import borg.logger

    borg.logger.configured = True
