"""The Paramiko transport: SSH in pure Python, for servers without an ssh program.

Paramiko is imported when it is used: every worker loads this plugin, few log in with it.
"""

from __future__ import annotations

from borgcube.core.hookspecs import hookimpl
from borgcube.core.streams import (
    check_address,
    host_unreachable,
    known_hosts_name,
)
from borgcube.core.transports import ClientAddress, Connection, TransportContext


class ParamikoTransport:
    """Reaches clients without any program on the server."""

    name = "paramiko"

    def connect(self, address: ClientAddress, context: TransportContext) -> Connection:
        """Log in; raises JobFailed as the contract says, InvalidInput for a bad address."""
        from borgcube.plugins.transport_paramiko.connection import ParamikoConnection

        check_address(address)
        return ParamikoConnection(address, context)

    def scan_host_keys(self, address: ClientAddress, context: TransportContext) -> list[str]:
        """Return the known_hosts line of the key the host prefers, unverified."""
        import paramiko  # type: ignore[import-untyped]

        from borgcube.plugins.transport_paramiko.connection import open_socket

        check_address(address)
        sock = open_socket(address, context.connect_timeout_s)
        try:
            transport = paramiko.Transport(sock)
        except (paramiko.SSHException, OSError, EOFError) as error:
            sock.close()
            raise unreadable(address, error) from error
        try:
            transport.start_client(timeout=context.connect_timeout_s)
            key = transport.get_remote_server_key()
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise unreadable(address, error) from error
        finally:
            transport.close()
        return [f"{known_hosts_name(address)} {key.get_name()} {key.get_base64()}"]


def unreadable(address: ClientAddress, error: Exception) -> Exception:
    """Return the failure for a host whose key cannot be read."""
    return host_unreachable(address, str(error) or type(error).__name__)


@hookimpl
def register_transports() -> list[ParamikoTransport]:
    """Offer the Paramiko transport."""
    return [ParamikoTransport()]
