"""The host keys of clients: shown to people, accepted by them, kept with the client.

They are records in the store (``Client.host_keys``). The file ``known_hosts`` of the home is what
releases up to 0.1.0 kept; it is read here once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from borgcube.core import home as places
from borgcube.core.errors import InvalidInput
from borgcube.core.hostkeys import MAX_KEYS, HostKey, from_texts, name_of, parse_line
from borgcube.core.store import Store

LOG = logging.getLogger(__name__)
TAKEN_OVER = "host_keys"  # the setting that says that the old file was read
MAX_FILE = 16 << 20


def shown(keys: Iterable[HostKey], *, host: str, port: int) -> list[dict[str, str]]:
    """Return keys for a person: ``type``, ``fingerprint_sha256``, and the ``line`` by which
    they are accepted."""
    return [
        {"line": f"{name_of(host, port)} {key.text}", "type": key.algorithm,
         "fingerprint_sha256": key.fingerprint}
        for key in keys
    ]  # fmt: skip


def accepted(lines: Sequence[str], *, host: str, port: int) -> list[HostKey]:
    """Return the keys of lines that a person accepts; raises InvalidInput for one that is not
    of this host alone."""
    found = []
    for line in lines:
        name, key = parse_line(line)
        if name != name_of(host, port):
            raise InvalidInput(f"The key of {name[:80]!r} is not one of this client's host.")
        found.append(key)
    if not 0 < len(found) <= MAX_KEYS:
        raise InvalidInput(f"One to {MAX_KEYS} host keys can be accepted at once.")
    return found


def merged(before: Sequence[str], keys: Sequence[HostKey]) -> tuple[str, ...]:
    """Return what a client keeps when keys are accepted: an older key of a type goes."""
    replaced = {key.algorithm for key in keys}
    kept = [key.text for key in from_texts(before) if key.algorithm not in replaced]
    return tuple(dict.fromkeys([*kept, *(key.text for key in keys)]))[-MAX_KEYS:]


def take_over(store: Store, home: Path) -> None:
    """Give each client its keys of the old file, once; what is no plain line is left behind."""
    with store.reading() as root:
        if root.settings.get(TAKEN_OVER):
            return
    found, left = _of_old_file(places.known_hosts_file(home))

    def work(root: Any) -> None:
        for client in list(root.clients.rows.values()):
            keys = found.get(name_of(client.host, client.port), [])
            if client.host and keys and not client.host_keys:
                root.clients.change(client, host_keys=tuple(k.text for k in keys[:MAX_KEYS]))
        root.settings[TAKEN_OVER] = 1

    store.run(work)
    if left:
        LOG.warning("known_hosts has %d lines that are not of one host and its key: clients whose "
                    "key stood there are to be trusted again", left)  # fmt: skip


def _of_old_file(path: Path) -> tuple[dict[str, list[HostKey]], int]:
    try:
        with path.open("rb") as file:
            lines = file.read(MAX_FILE).decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return {}, 0
    found: dict[str, list[HostKey]] = {}
    left = 0
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        try:
            names, key = parse_line(line)
        except InvalidInput:
            left += 1
            continue
        if any(char in names for char in "*?!"):
            left += 1
            continue
        for name in names.split(","):
            found.setdefault(name, []).append(key)
    return found, left
