"""The OpenSSH transport: the system's ssh, one multiplexed login for each connection."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from borgcube.core.forms import Field
from borgcube.core.hookspecs import hookimpl
from borgcube.core.streams import check_address, host_unreachable
from borgcube.core.texts import _
from borgcube.core.transports import ClientAddress, Connection, TransportContext
from borgcube.plugins.transport_openssh.connection import OpenSSHConnection


class OpenSSHTransport:
    """Reaches clients with the system's ssh."""

    name = "openssh"

    def option_fields(self) -> Sequence[Field]:
        """Return the one option: a file for ``ssh -F``."""
        return (
            Field("ssh_config", _("Configuration for ssh"),
                  placeholder="/etc/borgcube/ssh_config",
                  help=_("A file on this server, in the format of ssh_config(5), for a jump host or"
                         " a proxy. Whoever may edit a client may name it, and ssh does what it"
                         " says. Leave it empty for none.")),
        )  # fmt: skip

    def connect(self, address: ClientAddress, context: TransportContext) -> Connection:
        """Log in; raises JobFailed as the contract says, InvalidInput for a bad address."""
        check_address(address)
        return OpenSSHConnection(address, context)

    def scan_host_keys(self, address: ClientAddress, context: TransportContext) -> list[str]:
        """Return the known_hosts lines ssh-keyscan sees, unverified."""
        check_address(address)
        limit = max(1, int(context.connect_timeout_s))
        try:
            result = subprocess.run(
                ["ssh-keyscan", "-T", str(limit), "-p", str(address.port), "--", address.host],
                stdin=subprocess.DEVNULL, capture_output=True, timeout=limit * 4, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise host_unreachable(address, "no answer to ssh-keyscan") from None
        text = result.stdout.decode("ascii", "replace")
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        if not lines:
            raise host_unreachable(address, "no host key was offered")
        return sorted(lines)


@hookimpl
def register_transports() -> list[OpenSSHTransport]:
    """Offer the OpenSSH transport."""
    return [OpenSSHTransport()]
