"""Commands that plugins add to the command line.

The command line loads plugins only when it meets a command that it does not know, or is
asked for help, so that the usual ones stay quick.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Protocol


class Command(Protocol):
    """One command ``borgcube NAME``, registered by name."""

    name: str
    help: str

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add arguments or commands of its own."""

    def run(self, home: Path, options: argparse.Namespace) -> int:
        """Do it and return the exit code; raises BorgCubeError. The home may not exist."""
