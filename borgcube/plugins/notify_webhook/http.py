"""One HTTP request, carefully: bounded, without redirects, to an address that was looked at.

The name is looked up once and the connection goes to that very address, so that an answer
of the name server cannot change between the check and the request.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from borgcube.core.errors import InvalidInput
from borgcube.core.letters import one_line
from borgcube.core.notifiers import DeliveryFailed

MAX_ANSWER = 64 * 1024
MAX_URL = 2000
SCHEMES = ("https", "http")
ANYWHERE, PUBLIC = "anywhere", "public"


def check_url(url: str, *, field: str = "url") -> None:
    """Raise InvalidInput for what is no address of a web server."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in SCHEMES or not parts.hostname or len(url) > MAX_URL or port == 0:
        raise InvalidInput("This must be an address such as https://hooks.example.org/borgcube.",
                           field=field)  # fmt: skip
    if parts.username or parts.password:
        raise InvalidInput("A user or password in the address would be seen in logs.",
                           field=field, next_step="Use the secret of the channel.")  # fmt: skip
    if not url.isascii() or any(char.isspace() or not char.isprintable() for char in url):
        raise InvalidInput("An address has no spaces and only ASCII characters.", field=field)


def _refused(text: str, reach: str) -> str:
    """Return why an address is not connected to, empty when it may be."""
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    if address.is_link_local or address.is_multicast or address.is_unspecified:
        # 169.254.169.254 hands out credentials on many clouds.
        return "link-local, multicast and unspecified addresses are never used"
    if reach == PUBLIC and not address.is_global:
        return "the channel is limited to public addresses"
    return ""


def _connect(host: str, port: int, timeout_s: float, reach: str) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise DeliveryFailed(f"The name {host} cannot be looked up.",
                             next_step="Check the address of the channel.") from error  # fmt: skip
    why: object = "there is no address"
    for family, kind, protocol, _, address in found:
        refused = _refused(str(address[0]), reach)
        if refused:
            why = refused
            continue
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(timeout_s)
            connection.connect(address)
            return connection
        except OSError as error:
            connection.close()
            why = "no answer in time" if isinstance(error, TimeoutError) else error.strerror
    raise DeliveryFailed(f"{host} was not reached: {one_line(why, 200)}.",
                         next_step="Is it up, and is the address right?")  # fmt: skip


def send(
    method: str, url: str, *, body: bytes = b"", headers: Mapping[str, str], timeout_s: float,
    reach: str = ANYWHERE, ca_file: str = "",
) -> tuple[int, str]:  # fmt: skip
    """Send one request and return status and reason; at most 64 KiB of the answer are read.

    Raises DeliveryFailed for anything but a status of 200 to 299, redirects included, and
    when all of it took longer than ``timeout_s``.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    deadline = time.monotonic() + timeout_s
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        raw = _connect(host, port, timeout_s, reach)
        connection.sock = raw
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=ca_file or None)
            connection.sock = context.wrap_socket(raw, server_hostname=host)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request(method, path, body or None, dict(headers))
        answer = connection.getresponse()
        read = 0
        while read < MAX_ANSWER and (data := answer.read1(4096)):
            read += len(data)
            if time.monotonic() > deadline:
                raise TimeoutError
    except ssl.SSLError as error:
        said = getattr(error, "verify_message", "") or error.reason or error
        raise DeliveryFailed(f"No safe connection to {host}: {one_line(said, 200)}.",
                             next_step="Check the certificate.") from error  # fmt: skip
    except TimeoutError as error:
        raise DeliveryFailed(f"{host} did not answer within {timeout_s:.0f} seconds.") from error
    except (OSError, http.client.HTTPException) as error:
        said = getattr(error, "strerror", None) or type(error).__name__
        raise DeliveryFailed(f"{host} broke off: {one_line(said, 200)}.") from error
    finally:
        connection.close()
    if 300 <= answer.status < 400:
        raise DeliveryFailed(f"{host} answered with a redirect ({answer.status}), which is not "
                             "followed.", next_step="Give the channel the final address."
                             )  # fmt: skip
    if not 200 <= answer.status < 300:
        said = one_line(answer.reason, 100)
        raise DeliveryFailed(f"{host} refused: {answer.status} {said}.".replace(" .", "."))
    return answer.status, one_line(answer.reason, 100)
