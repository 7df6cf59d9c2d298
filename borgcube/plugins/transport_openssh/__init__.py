"""The OpenSSH transport: the system's ssh, one multiplexed login for each connection."""

from __future__ import annotations

from collections.abc import Sequence

from borgcube.core.forms import Field
from borgcube.core.hookspecs import hookimpl
from borgcube.core.hostkeys import HostKey
from borgcube.core.streams import check_address, host_unreachable
from borgcube.core.texts import _
from borgcube.core.transports import ClientAddress, Connection, TransportContext
from borgcube.plugins.transport_openssh.connection import OpenSSHConnection
from borgcube.plugins.transport_openssh.hostkeys import scanned, shown_to_ssh


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

    def scan_host_keys(self, address: ClientAddress, context: TransportContext) -> list[HostKey]:
        """Return the keys that the host offers, unverified: all of them with ssh-keyscan, or the
        one that ssh is shown where an ssh_config says how to get there."""
        check_address(address)
        if address.options.get("ssh_config"):
            keys = shown_to_ssh(address, context)
        else:
            keys = scanned(address, limit_s=context.connect_timeout_s)
        if not keys:
            raise host_unreachable(address, "no host key was offered")
        return keys


@hookimpl
def register_transports() -> list[OpenSSHTransport]:
    """Offer the OpenSSH transport."""
    return [OpenSSHTransport()]
