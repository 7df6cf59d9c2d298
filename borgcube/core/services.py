"""What runs beside the daemon in its process, such as the console.

The command line composes: it hands factories to ``daemon.main.serve``, so that the daemon
imports neither the console nor a plugin. A service has threads of its own; it reads the
store with ``store.reading()`` and changes things only through the control socket.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from borgcube.core.config import Config
from borgcube.core.registry import Registry

if TYPE_CHECKING:
    from borgcube.core.store import Store


@dataclass(frozen=True)
class ServiceContext:
    """What a service gets. ``home`` names the control socket and the bus."""

    home: Path
    config: Config
    store: Store
    registry: Registry


class Service(Protocol):
    """Something that runs beside the daemon. ``problem`` is what is wrong with it, in a
    sentence, and empty when nothing is; `borgcube doctor` shows it."""

    name: str
    problem: str

    def start(self) -> None:
        """Begin; must return soon. An exception is logged and becomes a problem."""

    def stop(self) -> None:
        """End within seconds; safe to repeat."""


ServiceFactory = Callable[[ServiceContext], Service]
