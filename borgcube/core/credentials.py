"""Passwords, one-time codes and random tokens: how they are made, kept and compared.

Passwords are hashed with Argon2id (RFC 9106), codes are TOTP (RFC 6238, 30 s, 6 digits),
tokens are 256 random bits of which only the SHA-256 is stored: they cannot be guessed, so
a slow hash would gain nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from datetime import UTC, datetime, timedelta

import argon2
import pyotp

from borgcube.core.errors import InvalidInput

MIN_PASSWORD, MAX_PASSWORD = 10, 1024
RECOVERY_CODES = 10
TOKEN_MARK = "bcu_"
STEP_S = 30
# 32 MiB and three passes take about 50 ms. The daemon does two at a time at most.
_HASHER = argon2.PasswordHasher(time_cost=3, memory_cost=32 * 1024, parallelism=1)
# Verified when there is no such user, so that the answer takes the same time.
_NOBODY = ""


def hash_password(password: str) -> str:
    """Return the Argon2id hash with its parameters; slow on purpose."""
    return _HASHER.hash(password)


def password_matches(stored: str, password: str) -> bool:
    """Compare slowly; an empty ``stored`` takes as long and never matches."""
    global _NOBODY
    if not stored and not _NOBODY:
        _NOBODY = hash_password(secrets.token_hex(16))
    try:
        return _HASHER.verify(stored or _NOBODY, password) and bool(stored)
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        return False


def check_new_password(password: str, *, user: str = "") -> str:
    """Return the password if it may be used; raises InvalidInput.

    Length is what counts; a name or one repeated character is refused as well.
    """
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise InvalidInput(
            f"A password has {MIN_PASSWORD} to {MAX_PASSWORD} characters.", field="password",
            next_step="Four or five random words are easy to remember.",
        )  # fmt: skip
    if len(set(password)) < 4 or (user and user.lower() in password.lower()):
        raise InvalidInput("This password is easy to guess.", field="password")
    return password


def new_token(mark: str = "") -> str:
    """Return a fresh secret for a cookie, a link or an API token."""
    return mark + secrets.token_urlsafe(32)


def digest(token: str) -> str:
    """Return what is stored of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def same(one: str, other: str) -> bool:
    """Compare two secrets in constant time."""
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))


def in_the_future(**span: float) -> str:
    """Return the ISO time a span (as of ``timedelta``) from now."""
    return (datetime.now(UTC) + timedelta(**span)).isoformat(timespec="seconds")


def is_past(moment: str) -> bool:
    """Return whether an ISO time is over; an empty one never is."""
    return bool(moment) and datetime.fromisoformat(moment) <= datetime.now(UTC)


def new_totp_secret() -> str:
    """Return a fresh base32 secret for an authenticator."""
    return pyotp.random_base32()


def totp_address(secret: str, *, user: str) -> str:
    """Return the otpauth address that authenticators read from a QR code."""
    return pyotp.TOTP(secret).provisioning_uri(name=user, issuer_name="BorgCube")


def totp_step(secret: str, code: str, *, after: int = 0) -> int | None:
    """Return the time step a code belongs to, or None when it is wrong or was used.

    One step to either side is allowed for clocks that differ; only steps above ``after``
    count, so that a code works once.
    """
    wanted = code.replace(" ", "")
    current = int(time.time()) // STEP_S
    totp = pyotp.TOTP(secret)
    for step in (current - 1, current, current + 1):
        if step > after and same(totp.at(step * STEP_S), wanted):
            return step
    return None


def new_recovery_codes() -> list[str]:
    """Return fresh recovery codes, to be shown once."""
    return [f"{secrets.token_hex(3)}-{secrets.token_hex(3)}" for _ in range(RECOVERY_CODES)]
