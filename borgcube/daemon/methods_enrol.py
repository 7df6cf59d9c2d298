"""Control methods that take a client in: a key of its own, and the line to paste there.

The private key is made here and stays in the home (``keys/CLIENT/``); what goes to the
client is one line of shell that adds the public half to ``authorized_keys``, with
everything but running commands forbidden, and prints the host keys' fingerprints, which a
person compares with what the server sees.
"""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from borgcube.core import home as places
from borgcube.core.errors import InvalidInput
from borgcube.core.model.names import check_name
from borgcube.daemon import checks
from borgcube.daemon.control import method
from borgcube.daemon.methods_clients import ClientMethods
from borgcube.daemon.orders import find

if TYPE_CHECKING:
    from borgcube.daemon.main import Daemon

KEY_NAME = "id_ed25519"


def make_key(directory: Path, *, comment: str) -> str:
    """Write a new Ed25519 key pair in OpenSSH format and return the public line."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    line = f"{public} {comment}"
    for name, data in ((KEY_NAME, private), (f"{KEY_NAME}.pub", f"{line}\n".encode())):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(directory / name, flags, 0o600), "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
    return line


def line_to_paste(public_line: str) -> str:
    """Return one line of POSIX shell for the client; safe to run again.

    ``restrict`` is OpenSSH's word for a key that may run commands and nothing else: no
    terminal, no forwarding (sshd(8), authorized_keys).
    """
    entry = shlex.quote(f"restrict {public_line}")
    return (
        "umask 077; mkdir -p ~/.ssh && touch ~/.ssh/authorized_keys && "
        f"{{ grep -qxF {entry} ~/.ssh/authorized_keys || "
        # A last line without an end would swallow ours.
        f"printf '\\n%s\\n' {entry} >> ~/.ssh/authorized_keys; }} && "
        'for k in /etc/ssh/ssh_host_*_key.pub; do ssh-keygen -lf "$k"; done'
    )


class EnrolMethods:
    """client.enrol and client.enrolment"""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._clients = ClientMethods(daemon)

    @method("client.enrol")
    def enrol(
        self, *, name: str, host: str, transport: str = "openssh", port: int = 22,
        user: str = "root", borg: str = "borg", domain: str = "",
        options: dict[str, Any] | None = None, max_job_bytes: int = 0, max_total_bytes: int = 0,
        max_files: int = 0, max_duration_s: int = 0, max_sessions: int = 0, network: str = "",
    ) -> dict[str, Any]:  # fmt: skip
        """Add a client with a key of its own and return it with the line to paste there; a
        limit of 0 is none."""
        check_name(name, what="client")
        with self._daemon.store.transact() as root:
            checks.refuse_duplicate(root.clients, name, what="client")
        directory = places.private_directory(self._daemon.home / "keys") / name
        # What an earlier try left has no client: nobody uses it.
        shutil.rmtree(directory, ignore_errors=True)
        places.private_directory(directory)
        public = make_key(directory, comment=f"borgcube:{name}")
        try:
            made: dict[str, Any] = self._clients.add(
                name=name, host=host, transport=transport, port=port, user=user, borg=borg,
                domain=domain, identity=str(directory / KEY_NAME), options=options,
                max_job_bytes=max_job_bytes, max_total_bytes=max_total_bytes,
                max_files=max_files, max_duration_s=max_duration_s, max_sessions=max_sessions,
                network=network,
            )  # fmt: skip
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        return made | {"line": line_to_paste(public)}

    @method("client.enrolment", audited=False)
    def enrolment(self, *, name: str) -> dict[str, Any]:
        """Return the line to paste on a client that was enrolled here."""
        with self._daemon.store.transact() as root:
            identity = str(find(root.clients, name, what="client").identity)
        public = Path(f"{identity}.pub")
        if public.parent != self._daemon.home / "keys" / name:
            raise InvalidInput(f"{name} uses a key of your own.",
                               next_step="Put its public half on the client.")  # fmt: skip
        try:
            return {"line": line_to_paste(public.read_text("utf-8").strip())}
        except OSError as error:
            raise InvalidInput(f"The public key {public} cannot be read.") from error
