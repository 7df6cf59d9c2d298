"""For pages whose views another module of this package adds."""

from __future__ import annotations

from typing import Any


def includeme(config: Any) -> None:
    """Add nothing."""
