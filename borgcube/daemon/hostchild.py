"""The child that asks one host one thing, and ends.

Started by :mod:`borgcube.daemon.hostask` with an order on its standard input; writes one line to
standard output. It logs in with the transport and asks with the engine that the order names, and
loads no other plugin. Before the first packet it takes its limits: memory, processor time, what
may be written to a file, and an alarm in case that the daemon does not end it.
"""

from __future__ import annotations

import json
import logging
import math
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from borgcube.core import memory
from borgcube.core.errors import BorgCubeError, JobFailed, Problem
from borgcube.core.registry import Registry
from borgcube.core.transports import ClientAddress, TransportContext
from borgcube.daemon import hostanswers
from borgcube.daemon.diagnosis import Diagnosis
from borgcube.daemon.hostanswers import DIAGNOSE, KEYS, TEST

# Python, one transport and an engine take 100 MiB of address space, Paramiko some threads more.
MEMORY_BYTES = 384 << 20
FILE_BYTES = 1 << 20
ALARM_SPARE_S = 10
HOOKS = ("register_transports", "register_engines")


class _Ended(BaseException):
    """The daemon asks this child to end."""


def _limit(deadline_s: float) -> None:
    memory.limit(MEMORY_BYTES)
    seconds = math.ceil(deadline_s)
    for what, most in (
        (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):  # fmt: skip
        _, hard = resource.getrlimit(what)
        resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard),
                                  hard))  # fmt: skip
    signal.alarm(seconds + ALARM_SPARE_S)


def find_out(order: dict[str, Any], registry: Registry) -> Any:
    """Return what was asked for; raises BorgCubeError."""
    address = ClientAddress(**order["address"])
    context = TransportContext(Path(order["known_hosts"]), Path(order["runtime_dir"]))
    transport = registry.transports.get(address.transport)
    if transport is None:
        raise JobFailed("transport-missing", Problem.CONFIGURATION,
                        f"The transport {address.transport!r} cannot be loaded.",
                        next_step="See: borgcube plugins")  # fmt: skip
    if order["asked"] == KEYS:
        return transport.scan_host_keys(address, context)
    engine = registry.engines.get(order["engine"])

    def probe(connection: Any) -> str:
        assert engine is not None
        said: str = engine.probe(connection, borg=order["borg"], state_dir=Path(order["state_dir"]))
        return said

    if order["asked"] == DIAGNOSE:
        return Diagnosis(transport, address, context, probe=probe).run()
    connection = transport.connect(address, context)
    try:
        return probe(connection) if order["asked"] == TEST else True
    finally:
        connection.close()


def answer(order: dict[str, Any], registry: Registry) -> bytes:
    """Return the line of the answer, whatever comes."""
    asked, name = order["asked"], order["address"]["name"]
    try:
        found = find_out(order, registry)
    except BorgCubeError as error:
        found = error
    except Exception as error:
        if not memory.is_shortage(error):
            raise
        found = JobFailed(
            "host-flood", Problem.CLIENT,
            f"{name} sends more than the {MEMORY_BYTES >> 20} MiB that the server reads into.",
            next_step="Stock software does not do this: look at the machine before you trust it.",
        )  # fmt: skip
    return hostanswers.encode(asked, found)


def main() -> int:
    """Read the order, ask, answer."""
    order = json.loads(sys.stdin.buffer.read())
    sys.stdin.close()

    def end(*_: object) -> None:
        raise _Ended

    signal.signal(signal.SIGTERM, end)
    logging.basicConfig(level=logging.CRITICAL)  # a host can make paramiko warn without end
    try:
        registry = Registry.load(only=order["plugins"], hooks=HOOKS)
        _limit(order["deadline_s"])
        line = answer(order, registry)
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
    except _Ended:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
