"""Where a request comes from and where it goes, read once, before anything looks at it.

Forwarding headers count only from a trusted proxy and are dropped in any case, so that nothing
behind can read them again; the host must be one that this server goes by; the path is brought
into one form. What comes out is the only scope that pages, the live feed and the API get.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import urlsplit

from borgcube.web.settings import WebSettings

Scope = MutableMapping[str, Any]

# With which a request could say where it comes from, or what it is about instead of its path.
# WebOb takes X-Forwarded-For for the client, Pyramid X-Vhm-Root for a part of the path.
DROPPED = frozenset({b"forwarded", b"x-real-ip", b"x-client-ip", b"true-client-ip", b"x-vhm-root"})
DROPPED_FAMILY = b"x-forwarded-"
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::([0-9]{1,5}))?")
_PORTS = {"http": 80, "https": 443}


class Misdirected(Exception):
    """Raised when a request is not for this server; ``kind`` is a word for programs."""

    def __init__(self, status: int, kind: str, text: str) -> None:
        super().__init__(text)
        self.status, self.kind, self.text = status, kind, text


def header(scope: Scope, name: str) -> str:
    """Return a request header, all lines of it joined as HTTP says (RFC 9110, 5.2)."""
    wanted = name.lower().encode()
    return ", ".join(bytes(v).decode("latin-1") for k, v in scope["headers"] if k == wanted)


def inner_path(scope: Scope) -> str:
    """Return the path without the prefix of a proxy."""
    return str(scope["path"]).removeprefix(scope.get("root_path", "")) or "/"


def plain_path(path: str) -> str:
    """Return the one form of a decoded path: no empty words, no dots, no slash at its end.
    Raises Misdirected when it is none or leads upwards."""
    words = [word for word in path.split("/") if word not in ("", ".")]
    if not path.startswith("/") or ".." in words:
        raise Misdirected(400, "bad-path", "This address cannot be used here.")
    return "/" + "/".join(words)


def as_seen_outside(given: Scope, settings: WebSettings) -> Scope:
    """Return the scope as the person sees the address: scheme, host, client, prefix and path.
    Raises Misdirected when it is not for this server."""
    scope = dict(given)
    secure = {"http": "https", "websocket": "wss"}[scope["type"]]
    peer = (scope.get("client") or ("", 0))[0]
    trusted = settings.trusts(peer)
    host, forwarded = header(scope, "host"), ""
    if trusted:
        outside = _outside(header(scope, "x-forwarded-for"), settings)
        if outside:
            scope["client"] = (outside, 0)
        forwarded = header(scope, "x-forwarded-host")
        scheme = urlsplit(settings.origin).scheme if settings.origin else header(
            scope, "x-forwarded-proto").lower()  # fmt: skip
        if scheme == "https":
            scope["scheme"] = secure
    # Names with an underscore would become the same variable as those with a hyphen (WSGI).
    kept = [
        (name, value) for name, value in scope["headers"]
        if name != b"host" and name not in DROPPED and b"_" not in name
        and not name.startswith(DROPPED_FAMILY)
    ]  # fmt: skip
    shown = _checked_host(scope, settings, host=host, forwarded=forwarded, trusted=trusted)
    scope["headers"] = [*kept, (b"host", shown.encode("latin-1"))]
    path, prefix = plain_path(scope["path"]), settings.prefix
    if prefix:
        # With or without the prefix: some proxies take it off, some do not.
        if not (path == prefix or path.startswith(f"{prefix}/")):
            path = (prefix + path).rstrip("/")
        scope["root_path"] = prefix
    scope["path"] = path
    return scope


def _outside(hops: str, settings: WebSettings) -> str:
    """Return the nearest address that is no proxy of ours; what is left of it anybody may write.
    Empty when there is none, or what stands there is no address."""
    for hop in reversed([hop.strip() for hop in hops.split(",")]):
        if not settings.trusts(hop):
            try:
                return str(ipaddress.ip_address(hop))
            except ValueError:
                return ""
    return ""


def _checked_host(
    scope: Scope, settings: WebSettings, *, host: str, forwarded: str, trusted: bool
) -> str:
    """Return the host to go on with; raises Misdirected when this server does not go by it."""
    wanted = forwarded or host
    name, port = parse_host(wanted)
    if settings.origin:
        outer = urlsplit(settings.origin)
        default = _PORTS[outer.scheme]
        if (name, port or default) == (_same(outer.hostname or ""), outer.port or default):
            return outer.netloc
        # A proxy that passes no host on names us as it reaches us.
        if trusted and not forwarded and _is_here(name, scope, settings):
            return outer.netloc
    elif _is_here(name, scope, settings):
        return wanted
    raise Misdirected(
        421, "wrong-host", "This server does not go by the name in this request. Its address is"
        " console.url in borgcube.toml; a proxy passes on Host, or sends X-Forwarded-Host.",
    )  # fmt: skip


def parse_host(text: str) -> tuple[str, int]:
    """Return name and port (0 for none) of a Host header; raises Misdirected."""
    found = _HOST.fullmatch(text)
    if found is None:
        raise Misdirected(400, "bad-host", "A request names the host that it is for, once.")
    return _same(found[1].strip("[]")), int(found[2] or 0)


def _same(name: str) -> str:
    """Return the one form of a name or an address."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.lower().rstrip(".")


def _is_here(name: str, scope: Scope, settings: WebSettings) -> bool:
    """Return whether a name is this machine's loopback, or the address it was reached by. Other
    sites can have their names lead here, but not have these as theirs."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    here = {_same(settings.host), _same(str((scope.get("server") or ("",))[0]))} - {""}
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name in here
    return address.is_loopback or (name in here and not address.is_unspecified)
