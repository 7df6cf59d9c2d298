"""The signature of a webhook: HMAC-SHA256 (RFC 2104) over time and body.

``X-BorgCube-Timestamp`` is the Unix time in seconds, ``X-BorgCube-Signature`` is ``v1=`` and
the hexadecimal HMAC of timestamp, a dot, and the body as sent. A receiver computes the same,
compares in constant time, and refuses timestamps that are more than five minutes off.
"""

from __future__ import annotations

import hashlib
import hmac

VERSION = "v1"
TOLERANCE_S = 300


def signature(secret: str, timestamp: int, body: bytes) -> str:
    """Return the value of the signature's header."""
    signed = str(timestamp).encode() + b"." + body
    digest = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    return f"{VERSION}={digest}"


def verify(secret: str, timestamp: str, body: bytes, given: str, *, now: float) -> bool:
    """Tell whether a request is ours and fresh, as a receiver would."""
    if not timestamp.isdecimal() or len(timestamp) > 12:
        return False
    if abs(now - int(timestamp)) > TOLERANCE_S:
        return False
    return hmac.compare_digest(signature(secret, int(timestamp), body).encode(), given.encode())
