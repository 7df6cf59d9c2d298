"""``borgcube archive cat``: one file of an archive to standard output."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any
from urllib.parse import quote

from borgcube.cli.control import SLOW_S, Control
from borgcube.control.files import ArchiveFile, open_file
from borgcube.core import config
from borgcube.core.errors import InvalidInput, Unreadable
from borgcube.core.registry import Registry

BLOCK = 1 << 20


def archive_cat(control: Control, options: argparse.Namespace) -> int:
    """Write a file of an archive to standard output."""
    if sys.stdout.isatty():
        raise InvalidInput("Standard output is a terminal, and a file may have anything in it.",
                           next_step="Write it to a file: ... > FILE")  # fmt: skip
    archive = control.call("archive.show", name=options.name)
    disabled = config.load(control.home).plugins.disabled
    engines = Registry.load(disabled=disabled, hooks=("register_engines",)).engines

    def call(method: str, **params: Any) -> Any:
        return control.call(method, timeout_s=SLOW_S, **params)

    file = open_file(
        call, engines, repository=archive["repository"], id=archive["id"],
        key=quote(os.fsencode(options.path.strip("/")), safe="/"),
    )  # fmt: skip
    try:
        _copy(file)
    finally:
        file.close()
    return 0


def _copy(file: ArchiveFile) -> None:
    left = file.size
    while left:
        block = file.source.recv(min(BLOCK, left))
        if not block:
            raise Unreadable(
                f"{left} of {file.size} bytes are missing: they cannot be read.",
                next_step="What was written is not the file. The vault's log says why.",
            )
        sys.stdout.buffer.write(block)
        left -= len(block)
    sys.stdout.buffer.flush()
