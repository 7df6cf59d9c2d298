"""Host keys as records, and the one host that a client's address is. Pure but for one file.

What a host offers, what a person accepts and what is kept with a client goes through here and
comes out as an algorithm and the bytes of a key, or not at all. A known_hosts file is written
from such records alone, for one connection to one host: no line of anybody else's making gets
into it, so none can hold a pattern, a marker or a second host.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from borgcube.core.errors import InvalidInput
from borgcube.core.home import known_hosts_file

if TYPE_CHECKING:
    from borgcube.core.transports import ClientAddress

MAX_KEYS = 20  # that one host may offer, or one client keep
MAX_KEY_BYTES = 4096  # an RSA key of 16,384 bits has 2 KiB
MAX_HOST = 253
_ALGORITHM = re.compile(r"[a-z0-9][a-z0-9@.-]{2,60}")
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


@dataclass(frozen=True)
class HostKey:
    """A public host key: the name of its algorithm, and the key as SSH encodes it."""

    algorithm: str
    blob: bytes

    @classmethod
    def parse(cls, text: str) -> HostKey:
        """Return the key of ``ALGORITHM BASE64``; raises InvalidInput.

        The key's own bytes begin with the name of its algorithm (RFC 4253, section 6.6), which
        must be the one in front. Certificates are no keys.
        """
        if not text.isascii() or len(text) > 2 * MAX_KEY_BYTES:
            raise _no_key(text)
        parts = text.split(" ")
        if len(parts) != 2 or not _ALGORITHM.fullmatch(parts[0]) or "-cert-" in parts[0]:
            raise _no_key(text)
        try:
            blob = base64.b64decode(parts[1], validate=True)
        except (binascii.Error, ValueError) as error:
            raise _no_key(text) from error
        name = parts[0].encode()
        starts = len(name).to_bytes(4, "big") + name
        if not starts < blob or not blob.startswith(starts) or len(blob) > MAX_KEY_BYTES:
            raise _no_key(text)
        key = cls(parts[0], blob)
        if key.text != text:  # the same bytes in other words
            raise _no_key(text)
        return key

    @property
    def text(self) -> str:
        """Return ``ALGORITHM BASE64``, as it is kept and sent."""
        return f"{self.algorithm} {base64.b64encode(self.blob).decode()}"

    @property
    def fingerprint(self) -> str:
        """Return ``SHA256:...`` as ssh-keygen prints it."""
        digest = hashlib.sha256(self.blob).digest()
        return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def _no_key(text: str) -> InvalidInput:
    return InvalidInput(f"{text[:80]!r} is not a host key.")


def name_of(host: str, port: int) -> str:
    """Return the name under which known_hosts lists a host."""
    return host if port == 22 else f"[{host}]:{port}"


def parse_line(line: str) -> tuple[str, HostKey]:
    """Return the one host name of a known_hosts line, and the key; raises InvalidInput.

    A comment behind the key is left out. The name is not judged: it is compared.
    """
    parts = line.split()
    one = len(line) <= 4 * MAX_KEY_BYTES and line.strip().replace("\t", " ").isprintable()
    if not one or len(parts) < 3 or parts[0].startswith(("@", "#", "|")):
        raise InvalidInput(f"{line[:80]!r} is not a line with one host and its key.")
    return parts[0], HostKey.parse(f"{parts[1]} {parts[2]}")


def from_texts(texts: Iterable[str]) -> list[HostKey]:
    """Return kept keys."""
    return [HostKey.parse(text) for text in texts]


def write_known_hosts(path: Path, *, host: str, port: int, keys: Sequence[HostKey]) -> None:
    """Write the known_hosts file of one connection; there may be one already."""
    name = name_of(host, port)
    if keys:
        check_host(host)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "w", encoding="ascii") as out:
        out.write("".join(f"{name} {key.text}\n" for key in keys))


def known_hosts_for(address: ClientAddress, home: Path, runtime_dir: Path) -> Path:
    """Write and return the known_hosts file of one connection, in its own directory.

    Only for a client with an ssh_config whose key was never trusted here it is the home's own
    file, of releases up to 0.1.0: an administrator may have written lines into it for the names
    that the ssh_config leads to.
    """
    old = known_hosts_file(home)
    if not address.host_keys and address.options.get("ssh_config") and old.is_file():
        return old
    path = runtime_dir / "known_hosts"
    write_known_hosts(
        path, host=address.host, port=address.port, keys=from_texts(address.host_keys)
    )
    return path


def check_host(host: str) -> str:
    """Return a host that is one name or one address; raises InvalidInput for anything else.

    No user, no port, no list, no pattern: whoever reads it later (ssh, known_hosts, a resolver)
    has nothing to interpret.
    """
    try:
        ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        zone = host.partition("%")[2]
        if zone and not re.fullmatch(r"[A-Za-z0-9_.-]{1,15}", zone):
            raise _no_host(host)
        return host
    labels = host.removesuffix(".").split(".")
    if not 0 < len(host) <= MAX_HOST or not all(_LABEL.fullmatch(label) for label in labels):
        raise _no_host(host)
    return host


def _no_host(host: str) -> InvalidInput:
    return InvalidInput(
        f"{host[:80]!r} is not one host name or address.", field="host",
        next_step="Give the host alone; user and port have places of their own.",
    )  # fmt: skip
