"""The Borg engine: the only package that imports borg.

Gate, reader and vault are processes of this package that start for each job: nothing is
imported here before somebody asks for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from borgcube.core.hookspecs import hookimpl

if TYPE_CHECKING:
    from borgcube.core.commands import Command
    from borgcube.core.engines import Engine


@hookimpl
def register_engines() -> list[Engine]:
    """Register the engine ``borg``."""
    from borgcube.plugins.borg.engine import BorgEngine

    return [BorgEngine()]


@hookimpl
def register_cli_commands() -> list[Command]:
    """Register ``borgcube borg``."""
    from borgcube.plugins.borg.commands import BorgCommand

    return [BorgCommand()]
