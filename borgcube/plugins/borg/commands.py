"""``borgcube borg``: the borgs that go along to clients without one. Needs no daemon."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from borgcube.core import home as places
from borgcube.plugins.borg import binaries


def _row(binary: binaries.Binary) -> dict[str, Any]:
    return {
        "platform": str(binary.platform), "borg": binary.borg,
        "bytes": binary.path.stat().st_size, "path": str(binary.path),
    }  # fmt: skip


def _shown(binary: binaries.Binary) -> str:
    size = binary.path.stat().st_size / (1 << 20)
    return f"borg {binary.borg} for {binary.platform}, {size:.1f} MiB packed"


class BorgCommand:
    """List, build and add them."""

    name = "borg"
    help = "borgs that go along to clients without one"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add ``list``, ``build`` and ``add``."""
        commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="what")
        commands.add_parser("list", help="list what is stored")
        build = commands.add_parser("build", help="build one for the platform of this server")
        build.add_argument("--again", action="store_true", help="even when there is one")
        add = commands.add_parser("add", help="store one for another platform")
        add.add_argument("file", type=Path, help="an executable, or a .tar.gz with borg in it")
        add.add_argument("--platform", required=True, metavar="NAME",
                         help="such as linux-aarch64-glibc2.31 or freebsd-x86_64")  # fmt: skip
        add.add_argument("--borg-version", required=True, metavar="X.Y.Z")
        for command in (*commands.choices.values(),):
            command.add_argument("--json", action="store_true", help="print JSON")

    def run(self, home: Path, options: argparse.Namespace) -> int:
        """Do what was asked for."""
        state = places.engine_state_dir(places.require_home(home), "borg")
        if options.what == "list":
            found = binaries.stored(state)
            if options.json:
                print(json.dumps([_row(one) for one in found], indent=2))
            else:
                for one in found:
                    print(_shown(one))
                if not found:
                    print("None yet. One for this platform is built when it is first needed.")
            return 0
        if options.what == "build":
            print("Building; this takes about a minute.", file=sys.stderr, flush=True)
            made = binaries.build(state, again=options.again)
        else:
            target = binaries.parse_platform(options.platform)
            made = binaries.add(state, target, options.file, options.borg_version)
        print(json.dumps(_row(made), indent=2) if options.json else f"Stored {_shown(made)}.")
        return 0
