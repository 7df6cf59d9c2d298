"""The Borg engine: the only package that imports borg."""

from __future__ import annotations

from borgcube.core.commands import Command
from borgcube.core.engines import Engine
from borgcube.core.hookspecs import hookimpl
from borgcube.plugins.borg.commands import BorgCommand
from borgcube.plugins.borg.engine import BorgEngine


@hookimpl
def register_engines() -> list[Engine]:
    """Register the engine ``borg``."""
    return [BorgEngine()]


@hookimpl
def register_cli_commands() -> list[Command]:
    """Register ``borgcube borg``."""
    return [BorgCommand()]
