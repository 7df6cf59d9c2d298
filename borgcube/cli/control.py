"""The command line's connection to the daemon; see :mod:`borgcube.control.client`."""

from __future__ import annotations

from borgcube.control.client import QUICK_S, SLOW_S, Control, Refused

__all__ = ["QUICK_S", "SLOW_S", "Control", "Refused"]
