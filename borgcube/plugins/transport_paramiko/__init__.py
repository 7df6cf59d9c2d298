"""The Paramiko transport: SSH in pure Python, for servers without an ssh program.

Paramiko is imported when it is used: every worker loads this plugin, few log in with it.
"""

from __future__ import annotations

from borgcube.core.hookspecs import hookimpl
from borgcube.core.hostkeys import HostKey
from borgcube.core.streams import check_address
from borgcube.core.transports import ClientAddress, Connection, TransportContext


class ParamikoTransport:
    """Reaches clients without any program on the server."""

    name = "paramiko"

    def connect(self, address: ClientAddress, context: TransportContext) -> Connection:
        """Log in; raises JobFailed as the contract says, InvalidInput for a bad address."""
        from borgcube.plugins.transport_paramiko.connection import ParamikoConnection

        check_address(address)
        return ParamikoConnection(address, context)

    def scan_host_keys(self, address: ClientAddress, context: TransportContext) -> list[HostKey]:
        """Return the key that the host prefers, unverified."""
        from borgcube.plugins.transport_paramiko.connection import offered_key

        check_address(address)
        return [offered_key(address, context.connect_timeout_s)]


@hookimpl
def register_transports() -> list[ParamikoTransport]:
    """Offer the Paramiko transport."""
    return [ParamikoTransport()]
