"""Who may use the console: users, their logins, links and tokens, and the audit trail.

Secrets are kept only as digests: a copy of the store logs nobody in. As in
:mod:`borgcube.core.model.records`, every field is a class-level default.
"""

from __future__ import annotations

from borgcube.core.model.records import Record


class User(Record):
    """A person. ``password`` is an Argon2 hash; empty means that none can be used.

    ``totp`` is the sealed secret of the second factor and ``totp_pending`` one that is not
    confirmed yet; ``totp_step`` is the last time step used, so that no code counts twice.
    ``recovery`` holds digests of unused recovery codes.
    """

    PRIVATE = frozenset({"password", "totp", "totp_pending", "totp_step", "recovery"})
    name: str = ""
    role: str = "viewer"
    clients: tuple[str, ...] = ()
    disabled: bool = False
    last_login_at: str = ""
    password: str = ""
    totp: bytes = b""
    totp_pending: bytes = b""
    totp_step: int = 0
    recovery: tuple[str, ...] = ()

    @property
    def second_factor(self) -> bool:
        """Whether a login needs a code."""
        return bool(self.totp)


class Session(Record):
    """A login. ``id`` is the digest of the cookie, ``csrf`` what its forms must carry;
    ``confirmed_at`` is when the password or a code was last given."""

    PRIVATE = frozenset({"csrf", "confirmed_at"})
    user: str = ""
    address: str = ""
    agent: str = ""
    last_seen_at: str = ""
    expires_at: str = ""
    csrf: str = ""
    confirmed_at: str = ""


class Link(Record):
    """A link that logs in once, or sets a password once; ``id`` is its token's digest. With
    ``without_code`` it does so without the second factor."""

    user: str = ""
    purpose: str = "login"
    expires_at: str = ""
    without_code: bool = False


class Token(Record):
    """An API token of a user; ``scope`` are the permissions that it has, never more than its
    user, and ``clients`` those it is limited to, without any all that its user sees.

    ``whole`` means all that its user may: so it was for tokens without a scope when they were
    made by a release that did not know the field."""

    PRIVATE = frozenset({"digest"})
    name: str = ""
    user: str = ""
    scope: tuple[str, ...] = ()
    whole: bool = True
    digest: str = ""
    hint: str = ""
    expires_at: str = ""
    clients: tuple[str, ...] = ()
    last_used_at: str = ""
    last_used_from: str = ""

    @property
    def permissions(self) -> frozenset[str] | None:
        """Return what it is limited to; None for all that its user may."""
        return None if self.whole and not self.scope else frozenset(self.scope)


class AuditEntry(Record):
    """Who asked for what, from where, and what came of it.

    ``outcome`` is ``begun`` until it is known, then ``done`` or ``refused``.
    """

    user: str = ""
    via: str = ""
    address: str = ""
    action: str = ""
    subject: str = ""
    outcome: str = "begun"
    message: str = ""
