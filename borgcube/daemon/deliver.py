"""The process of one attempt to deliver: reads an order, calls the notifier, prints the result.

Run by ``daemon/courier.py``. The order comes on standard input, because it holds secrets; the
result is one JSON object on standard output. It loads only the plugin it needs, touches
neither home nor store, and is killed when it takes too long.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
from typing import Any

from borgcube.core.errors import BorgCubeError
from borgcube.core.letters import one_line
from borgcube.core.notifiers import Message
from borgcube.core.registry import Registry

MAX_ORDER = 8 << 20
MAX_MEMORY = 1 << 30
MAX_SAID = 500


def attempt(order: dict[str, Any]) -> dict[str, Any]:
    """Deliver what the order says; returns the result as plain data and never raises."""
    try:
        socket.setdefaulttimeout(order["timeout_s"])
        registry = Registry.load(only=(order["plugin"],), hooks=("register_notifiers",))
        notifier = registry.notifiers[order["notifier"]]
        message = Message.from_data(order["message"])
        said = notifier.deliver(message, order["options"], timeout_s=order["timeout_s"])
        return {"ok": True, "said": one_line(said, MAX_SAID)}
    except BorgCubeError as error:
        return {"ok": False, "said": one_line(error, MAX_SAID)}
    except Exception as error:
        # The words of an unknown error may hold an address with a secret in it.
        return {"ok": False, "said": f"The notifier made a mistake ({type(error).__name__})."}


def main() -> None:
    """Make one attempt."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # What a notifier prints is not the result.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    order = json.loads(sys.stdin.buffer.read(MAX_ORDER))
    json.dump(attempt(order), out)
    out.close()


if __name__ == "__main__":
    main()
