"""The console's settings, checked: where it listens, who it believes, what people call it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from borgcube.core.config import ConsoleConfig
from borgcube.core.errors import ConfigurationError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _refuse(key: str, what: str) -> ConfigurationError:
    return ConfigurationError(f"console.{key} in borgcube.toml: {what}.")


@dataclass(frozen=True)
class WebSettings:
    """What the configuration means."""

    host: str
    port: int
    certificate: str = ""
    key: str = ""
    origin: str = ""  # scheme and host of console.url
    prefix: str = ""  # path of console.url
    proxies: tuple[Network, ...] = ()
    idle_minutes: int = 720
    translations: str = ""  # a directory with further catalogs

    @classmethod
    def of(cls, config: ConsoleConfig) -> WebSettings:
        """Check the configuration; raises ConfigurationError naming the key."""
        host, _, port = config.listen.rpartition(":")
        if not host or not port.isdigit() or not 0 <= int(port) <= 65535:
            raise _refuse("listen", "must be ADDRESS:PORT, such as 127.0.0.1:8420")
        if bool(config.certificate) != bool(config.key):
            raise _refuse("certificate", "needs console.key as well, and the other way round")
        for key, name in (("certificate", config.certificate), ("key", config.key)):
            if name and not Path(name).is_file():
                raise _refuse(key, f"there is no file {name}")
        origin, prefix = _address(config.url)
        return cls(
            host=host.strip("[]"), port=int(port), certificate=config.certificate,
            key=config.key, origin=origin, prefix=prefix, idle_minutes=config.idle_minutes,
            translations=config.translations,
            proxies=tuple(_network(text) for text in config.trusted_proxies),
        )  # fmt: skip

    @property
    def scheme(self) -> str:
        """Return the scheme that is spoken here, before any proxy."""
        return "https" if self.certificate else "http"

    def public_url(self, port: int | None = None) -> str:
        """Return the address to give to people, without a slash at its end."""
        if self.origin:
            return self.origin + self.prefix
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host
        shown = f"[{host}]" if ":" in host else host
        return f"{self.scheme}://{shown}:{port or self.port}"

    def trusts(self, address: str) -> bool:
        """Return whether X-Forwarded headers from this peer count."""
        try:
            peer = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(peer, ipaddress.IPv6Address) and peer.ipv4_mapped is not None:
            peer = peer.ipv4_mapped  # as a socket for both kinds shows it
        return any(peer in network for network in self.proxies)

    def cookie_name(self, name: str, *, secure: bool) -> str:
        """Return what a cookie is called. Over HTTPS its name has the browser see to it that
        only this very host has set it (RFC 6265bis, 4.1.3); below a prefix, that it came over
        HTTPS. Plain HTTP, as on the loopback, has no such names."""
        if not secure:
            return name
        return f"__Secure-{name}" if self.prefix else f"__Host-{name}"


def _address(url: str) -> tuple[str, str]:
    if not url:
        return "", ""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
        raise _refuse("url", "must be an address such as https://backup.example.org")
    return f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise _refuse("trusted_proxies", f"{text!r} is no address or network") from error
