"""The host keys that a machine offers, asked for with the system's ssh-keyscan or ssh.

Both print lines; of a line, only one key of the host that was asked for becomes a record.
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets

from borgcube.core.errors import InvalidInput
from borgcube.core.hostkeys import MAX_KEYS, HostKey, name_of, parse_line
from borgcube.core.streams import output_of
from borgcube.core.transports import ClientAddress, TransportContext
from borgcube.plugins.transport_openssh.connection import ssh_command

MAX_OUTPUT = 256 << 10


def scanned(address: ClientAddress, *, limit_s: float) -> list[HostKey]:
    """Return what ssh-keyscan is offered; nothing when it is over time."""
    wait = max(1, int(limit_s / 4))
    argv = ["ssh-keyscan", "-T", str(wait), "-p", str(address.port), "--", address.host]
    return _keys(output_of(argv, timeout_s=limit_s, max_output=MAX_OUTPUT), address)


def shown_to_ssh(address: ClientAddress, context: TransportContext) -> list[HostKey]:
    """Return the key that ssh is shown on the way that the ssh_config says; it logs in nowhere."""
    seen = context.runtime_dir / f"seen-{secrets.token_hex(4)}"
    looking = dataclasses.replace(context, known_hosts=seen)
    base = ssh_command(dataclasses.replace(address, identity=""), looking, None, alias=True)
    # What stands first counts.
    first = ["-o", "StrictHostKeyChecking=accept-new", "-o", "HashKnownHosts=no",
             "-o", "PreferredAuthentications=none", "-o", "LogLevel=QUIET"]  # fmt: skip
    argv = [base[0], *first, *base[1:], "-N", "--", address.host]
    try:
        output_of(argv, timeout_s=context.connect_timeout_s, max_output=MAX_OUTPUT)
        with contextlib.suppress(FileNotFoundError), seen.open("rb") as file:
            return _keys(file.read(MAX_OUTPUT), address)
    finally:
        seen.unlink(missing_ok=True)
    return []


def _keys(listing: bytes, address: ClientAddress) -> list[HostKey]:
    found = set()
    for line in listing.decode("ascii", "replace").splitlines():
        with contextlib.suppress(InvalidInput):
            name, key = parse_line(line)
            if name == name_of(address.host, address.port):
                found.add(key)
    return sorted(found, key=lambda key: (key.algorithm, key.blob))[:MAX_KEYS]
