"""Control methods for logging in and out: passwords, codes, links, sessions.

The console asks these; it never compares a password itself. Slow hashing is done in the
pool. A wrong user and a wrong password get the same answer after the same time.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from borgcube.core import credentials, setup
from borgcube.core.access import Role
from borgcube.core.errors import AccessDenied, CodeNeeded, InvalidInput, TooMany
from borgcube.core.events import now
from borgcube.core.model import Session, User
from borgcube.core.model.names import check_name
from borgcube.core.store import Root
from borgcube.core.throttle import LoginThrottle, network_of
from borgcube.daemon.control import Later, method

if TYPE_CHECKING:
    from borgcube.daemon.main import Daemon

MAX_SESSIONS = 50  # of one user; the oldest ends
MAX_AGENT = 200
WRONG = "Name, password or code is wrong."
NOTES_AT_ONCE, NOTES_EACH_S = 60, 0.5  # wrong logins in the audit trail


def totp_context(user: str) -> str:
    """Return what a user's sealed second factor is tied to."""
    return f"second factor of {user}"


def end_sessions(root: Root, user: str) -> None:
    """End all logins and links of a user."""
    for table in (root.sessions, root.links):
        for record in table.oldest("user", user):
            table.remove(record)


class LoginMethods:
    """login.* and session.*"""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._throttle = LoginThrottle()
        self._confirms = LoginThrottle()
        self._notes, self._notes_at, self._unwritten = float(NOTES_AT_ONCE), time.monotonic(), 0

    def _note(self, action: str, name: str, address: str, *, refused: str = "") -> None:
        """Write into the audit trail; strangers who have to wait write nothing, and those who
        come from everywhere only some of it, or they could fill the store."""
        if refused:
            now_s = time.monotonic()
            since, self._notes_at = now_s - self._notes_at, now_s
            self._notes = min(NOTES_AT_ONCE, self._notes + since * NOTES_EACH_S)
            if self._notes < 1:
                self._unwritten += 1
                return
            self._notes -= 1
            if self._unwritten:
                refused += f" {self._unwritten} more before this are not written down."
                self._unwritten = 0
        if refused:
            # A password that was typed as a name is not kept.
            with self._daemon.store.transact() as root:
                name = name if root.users.find("name", name) is not None else ""
        actor = {"user": "" if refused else name, "via": "console", "address": address[:100]}
        self._daemon.audit.note(actor, action, name, refused=refused)

    def _open(
        self, root: Root, user: User, *, address: str, agent: str, confirmed: bool = True
    ) -> dict[str, str]:
        """Begin a session; ``confirmed`` says that the password or a code was given for it."""
        token, settings = credentials.new_token(), self._daemon.config.console
        root.sessions.add(Session(
            id=credentials.digest(token), user=user.name, created_at=now(), last_seen_at=now(),
            address=address[:100], agent=agent[:MAX_AGENT], csrf=credentials.new_token(),
            expires_at=credentials.in_the_future(days=settings.session_days),
            confirmed_at=now() if confirmed else "",
        ))  # fmt: skip
        user.last_login_at = now()
        mine = list(root.sessions.oldest("user", user.name))
        for session in mine:
            if credentials.is_past(session.expires_at) or len(mine) > MAX_SESSIONS:
                root.sessions.remove(session)
                mine.remove(session)
        return {"session": token, "user": user.name}

    @method("login.password", audited=False)
    def password(
        self, *, name: str, password: str, code: str = "", address: str = "", agent: str = ""
    ) -> Later:
        """Log in. Raises CodeNeeded when the password is right and a code is wanted."""
        with self._daemon.store.transact() as root:
            user = root.users.find("name", name)
            usable = user is not None and not user.disabled
            stored = user.password if usable else ""
            known = bool(address) and any(
                network_of(session.address) == network_of(address)
                for session in root.sessions.oldest("user", name)
            )
        wait = self._throttle.wait_s(address=address, user=name, known=known)
        if wait > 0:
            raise TooMany(
                "There were too many wrong tries.",
                next_step=f"Try again in {max(1, round(wait))} seconds.",
            )
        # Counted before the slow part, so that many tries at once gain nothing.
        self._throttle.failed(address=address, user=name)

        def finish(right: bool) -> dict[str, str]:
            try:
                with self._daemon.store.transact() as root:
                    user = root.users.find("name", name)
                    if not right or user is None or user.disabled or user.password != stored:
                        raise AccessDenied(WRONG)
                    self._check_code(user, code)
                    opened = self._open(root, user, address=address, agent=agent)
            except AccessDenied as error:
                self._note("login.password", name, address, refused=error.message)
                raise
            self._throttle.succeeded(address=address, user=name)
            self._note("login.password", name, address)
            return opened

        return Later(lambda: credentials.password_matches(stored, password), finish, hashes=True)

    def _check_code(self, user: User, code: str) -> None:
        if not user.second_factor:
            return
        if not code:
            raise CodeNeeded("A code is needed.", field="code",
                             next_step="Your authenticator shows it.")  # fmt: skip
        secret = self._daemon.keys.unseal(user.totp, context=totp_context(user.name))
        step = credentials.totp_step(secret, code, after=user.totp_step)
        if step is not None:
            user.totp_step = step
            return
        used = credentials.digest(code.strip().lower())
        if used not in user.recovery:
            raise AccessDenied(WRONG, field="code")
        user.recovery = tuple(kept for kept in user.recovery if kept != used)

    def _refuse_while_waiting(self, address: str, *, user: str = "") -> None:
        if self._throttle.wait_s(address=address, user=user) > 0:
            raise TooMany("There were too many wrong tries.", next_step="Try again later.")

    @method("login.link", audited=False)
    def link(
        self, *, token: str, code: str = "", address: str = "", agent: str = ""
    ) -> dict[str, str]:
        """Log in with a link, which is used up. It stands for the password: raises CodeNeeded
        when the user has a second factor, unless who made the link said otherwise."""
        self._refuse_while_waiting(address)
        name, opened = "", None
        try:
            with self._daemon.store.transact() as root:
                link = root.links.find("id", credentials.digest(token))
                user = root.users.find("name", link.user) if link else None
                good = user is not None and not user.disabled and not credentials.is_past(
                    link.expires_at
                )  # fmt: skip
                if user is not None and good:
                    name, asked = user.name, user.second_factor and not link.without_code
                    if asked:
                        if code:
                            self._refuse_while_waiting(address, user=name)
                        self._check_code(user, code)
                    opened = self._open(root, user, address=address, agent=agent, confirmed=asked)
                if link is not None:
                    root.links.remove(link)
            if opened is None:
                raise AccessDenied(
                    "This link is not valid, or was used already.",
                    next_step="Make a new one on the server: borgcube console link",
                )
        except AccessDenied as error:
            self._throttle.failed(address=address, user=name)
            self._note("login.link", name, address, refused=error.message)
            raise
        self._note("login.link", name, address)
        return opened

    @method("login.set_up", audited=False)
    def set_up(
        self, *, token: str, name: str, password: str, address: str = "", agent: str = ""
    ) -> Later:
        """Make an administrator with the home's set-up link, and log in."""
        self._refuse_while_waiting(address)
        try:
            setup.check_setup_token(self._daemon.home, token)
        except AccessDenied as error:
            self._throttle.failed(address=address)
            self._note("login.set_up", name, address, refused=error.message)
            raise
        check_name(name, what="user")
        credentials.check_new_password(password, user=name)

        def finish(hashed: str) -> dict[str, str]:
            setup.check_setup_token(self._daemon.home, token)
            with self._daemon.store.transact() as root:
                if root.users.find("name", name) is not None:
                    raise InvalidInput(f"There is a user {name!r} already.", field="name")
                user = User(name=name, role=Role.ADMINISTRATOR, password=hashed, created_at=now())
                root.users.add(user)
                setup.end_setup_token(self._daemon.home)
                opened = self._open(root, user, address=address, agent=agent)
            self._note("login.set_up", name, address)
            return opened

        return Later(lambda: credentials.hash_password(password), finish, hashes=True)

    @method("session.confirm", subject=lambda params: str(params["user"]))
    def confirm(self, *, user: str, id: str, password: str = "", code: str = "") -> Later:
        """Note that whoever has this session knows the password, or has the second factor.
        Who has somebody's open browser cannot guess with it: wrong tries have to wait."""
        wait = self._confirms.wait_s(user=user)
        if wait > 0:
            raise TooMany("There were too many wrong tries.", field="password",
                          next_step=f"Try again in {max(1, round(wait))} seconds.")  # fmt: skip
        with self._daemon.store.transact() as root:
            found = root.users.find("name", user)
            stored = found.password if found is not None else ""
        # Counted before the slow part, so that many tries at once gain nothing.
        self._confirms.failed(user=user)

        def finish(right: bool) -> None:
            with self._daemon.store.transact() as root:
                found, session = root.users.find("name", user), root.sessions.find("id", id)
                if found is None or session is None or session.user != user:
                    raise AccessDenied("Your login has ended.")
                if not right:
                    if not code or not found.second_factor:
                        raise AccessDenied("This is not your password.", field="password")
                    self._check_code(found, code)
                session.confirmed_at = now()
            self._confirms.succeeded(user=user)

        if not password:
            return Later(lambda: False, finish)
        return Later(lambda: credentials.password_matches(stored, password), finish, hashes=True)

    @method("session.touch")
    def touch(self, *, id: str) -> None:
        """Note that a session is in use."""
        with self._daemon.store.transact() as root:
            session = root.sessions.find("id", id)
            if session is not None:
                session.last_seen_at = now()

    @method("session.end")
    def end(self, *, id: str, user: str = "") -> None:
        """End a session; with ``user``, only if it is one of theirs."""
        with self._daemon.store.transact() as root:
            session = root.sessions.find("id", id)
            if session is not None and user in ("", session.user):
                root.sessions.remove(session)
