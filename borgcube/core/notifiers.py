"""How people are told: the contract of notifier plugins."""

from __future__ import annotations

from typing import Any, Protocol


class Notifier(Protocol):
    """A way to tell somebody, registered by name."""

    name: str

    def notify(self, event: dict[str, Any], options: dict[str, Any]) -> None:
        """Send one message about an envelope; may raise, must time out."""
