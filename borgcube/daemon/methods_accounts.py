"""Control methods for users, their second factor, their links and their API tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from borgcube.core import credentials
from borgcube.core.access import Permission, Role
from borgcube.core.errors import Duplicate, InvalidInput, NotFound
from borgcube.core.events import now
from borgcube.core.model import Link, Token, User
from borgcube.core.model.names import check_name
from borgcube.core.store import Root
from borgcube.daemon.control import Later, method
from borgcube.daemon.methods_logins import end_sessions, totp_context

if TYPE_CHECKING:
    from borgcube.daemon.main import Daemon

MAX_LISTED = 10_000
LINK_MINUTES = {"login": 15, "password": 24 * 60}
MAX_TOKENS = 100
WHOLE = "all"  # instead of a scope: all that the user may, then and later


def find_user(root: Root, name: str) -> User:
    """Return the user of that name; raises NotFound."""
    user: User | None = root.users.find("name", name)
    if user is None:
        raise NotFound(f"There is no user {name!r}.", next_step="See: borgcube user list")
    return user


def shown(user: User) -> dict[str, Any]:
    """Return what may be shown of a user."""
    return user.as_data() | {
        "second_factor": user.second_factor, "has_password": bool(user.password),
        "recovery_codes_left": len(user.recovery),
    }  # fmt: skip


def administrators(root: Root) -> list[User]:
    """Return the administrators that can log in."""
    return [user for user in root.users.newest(MAX_LISTED)
            if user.role == Role.ADMINISTRATOR and not user.disabled]  # fmt: skip


class AccountMethods:
    """user.*, link.*, token.* and factor.*"""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    @staticmethod
    def _check_role(root: Root, role: str, clients: list[str]) -> None:
        if role not in set(Role):
            raise InvalidInput(f"There is no role {role!r}.", field="role",
                               next_step=f"One of: {', '.join(Role)}.")  # fmt: skip
        if bool(clients) != (role == Role.OWNER):
            raise InvalidInput("An owner needs clients, and no other role has any.",
                               field="clients")  # fmt: skip
        for client in clients:
            if root.clients.find("name", client) is None:
                raise NotFound(f"There is no client {client!r}.", field="clients")

    def _keep_one_administrator(self, root: Root, user: User) -> None:
        if administrators(root) == [user]:
            raise InvalidInput(
                "This is the only administrator.", next_step="Make another one first."
            )

    @method("user.add")
    def add(
        self, *, name: str, role: str = "viewer", clients: list[str] | None = None,
        password: str | None = None,
    ) -> Later:  # fmt: skip
        """Add a user. Without a password they get a link to choose one."""
        check_name(name, what="user")
        if password is not None:
            credentials.check_new_password(password, user=name)

        def finish(hashed: str) -> dict[str, Any]:
            with self._daemon.store.transact() as root:
                if root.users.find("name", name) is not None:
                    raise Duplicate(f"There is a user {name!r} already.", field="name")
                self._check_role(root, role, clients or [])
                user = User(name=name, role=role, clients=tuple(clients or ()),
                            password=hashed, created_at=now())  # fmt: skip
                root.users.add(user)
                link = "" if hashed else self._link(root, name, "password")
                return shown(user) | {"link": link}

        with self._daemon.store.transact() as root:
            self._check_role(root, role, clients or [])
        if password is None:
            return Later(lambda: "", finish)
        return Later(lambda: credentials.hash_password(password), finish, hashes=True)

    @method("user.list")
    def every(self) -> list[dict[str, Any]]:
        """Return all users."""
        with self._daemon.store.transact() as root:
            users = [shown(user) for user in root.users.newest(MAX_LISTED)]
        return sorted(users, key=lambda user: str(user["name"]))

    @method("user.change")
    def change(self, *, name: str, role: str, clients: list[str] | None = None) -> dict[str, Any]:
        """Give a user another role."""
        with self._daemon.store.transact() as root:
            user = find_user(root, name)
            self._check_role(root, role, clients or [])
            if role != Role.ADMINISTRATOR:
                self._keep_one_administrator(root, user)
            user.role, user.clients = role, tuple(clients or ())
            return shown(user)

    @method("user.password")
    def password(self, *, name: str, password: str, keep_session: str = "") -> Later:
        """Set a password; all logins of the user end, except ``keep_session``."""
        credentials.check_new_password(password, user=name)
        with self._daemon.store.transact() as root:
            find_user(root, name)

        def finish(hashed: str) -> None:
            with self._daemon.store.transact() as root:
                find_user(root, name).password = hashed
                kept = root.sessions.find("id", keep_session) if keep_session else None
                if kept is not None and kept.user == name:
                    kept.confirmed_at = now()
                for table in (root.sessions, root.links):
                    for record in table.oldest("user", name):
                        if record is not kept:
                            table.remove(record)

        return Later(lambda: credentials.hash_password(password), finish, hashes=True)

    @method("user.disable")
    def disable(self, *, name: str) -> dict[str, Any]:
        """End all logins of a user and allow no more."""
        with self._daemon.store.transact() as root:
            user = find_user(root, name)
            self._keep_one_administrator(root, user)
            user.disabled = True
            end_sessions(root, name)
            return shown(user)

    @method("user.enable")
    def enable(self, *, name: str) -> dict[str, Any]:
        """Let a disabled user log in again."""
        with self._daemon.store.transact() as root:
            user = find_user(root, name)
            user.disabled = False
            return shown(user)

    @method("user.remove")
    def remove(self, *, name: str) -> None:
        """Forget a user with their logins and tokens."""
        with self._daemon.store.transact() as root:
            user = find_user(root, name)
            self._keep_one_administrator(root, user)
            end_sessions(root, name)
            for token in root.tokens.oldest("user", name):
                root.tokens.remove(token)
            root.users.remove(user)

    # Links

    @staticmethod
    def _link(root: Root, user: str, purpose: str, *, without_code: bool = False) -> str:
        token = credentials.new_token()
        root.links.add(Link(
            id=credentials.digest(token), user=user, purpose=purpose, created_at=now(),
            without_code=without_code,
            expires_at=credentials.in_the_future(minutes=LINK_MINUTES[purpose]),
        ))  # fmt: skip
        return token

    @method("link.make")
    def make_link(
        self, *, user: str = "", purpose: str = "login", without_code: bool = False
    ) -> dict[str, str]:
        """Make a link that works once. Without a name it is for an administrator; the answer
        has an empty ``user`` when there is none, and then needs a set-up link. It stands for
        the password only, unless ``without_code`` says that it does for the code as well."""
        if purpose not in LINK_MINUTES:
            raise InvalidInput(f"There is no link for {purpose!r}.")
        with self._daemon.store.transact() as root:
            if user:
                found: User | None = find_user(root, user)
            else:
                known = sorted(administrators(root), key=lambda one: str(one.name))
                found = known[0] if known else None
            if found is None:
                return {"user": "", "token": "", "minutes": ""}
            token = self._link(root, found.name, purpose, without_code=without_code)
            return {"user": found.name, "token": token, "minutes": str(LINK_MINUTES[purpose])}

    # API tokens

    @method("token.list")
    def token_list(self, *, user: str = "") -> list[dict[str, Any]]:
        """Return tokens of a user, or of all; never what they are."""
        with self._daemon.store.transact() as root:
            found = root.tokens.oldest("user", user) if user else root.tokens.newest(MAX_LISTED)
            tokens = [token.as_data() for token in found]
        return sorted(tokens, key=lambda token: (str(token["user"]), str(token["name"])))

    @method("token.touch")
    def token_touch(self, *, id: str, address: str = "") -> None:
        """Note that a token is in use."""
        with self._daemon.store.transact() as root:
            token = root.tokens.find("id", id)
            if token is not None:
                token.last_used_at, token.last_used_from = now(), address[:100]

    @method("token.add")
    def token_add(
        self, *, name: str, user: str, scope: list[str] | None = None, days: int = 365,
        clients: list[str] | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Make an API token; it is shown only in this answer. ``scope`` is what it may: nothing
        if empty, ``["all"]`` for all that the user may. No clients means all that they see."""
        check_name(name, what="token")
        whole = scope == [WHOLE]
        unknown = [word for word in scope or [] if not whole and word not in set(Permission)]
        if unknown:
            raise InvalidInput(f"There is no permission {unknown[0]!r}.", field="scope")
        if not 1 <= days <= 3650:
            raise InvalidInput("A token is good for 1 to 3650 days.", field="days")
        with self._daemon.store.transact() as root:
            owner = find_user(root, user)
            for client in clients or []:
                if root.clients.find("name", client) is None:
                    raise NotFound(f"There is no client {client!r}.", field="clients")
                if owner.role == Role.OWNER and client not in owner.clients:
                    raise InvalidInput(f"{client} is no client of {user}.", field="clients")
            mine = list(root.tokens.oldest("user", user))
            if len(mine) >= MAX_TOKENS or any(token.name == name for token in mine):
                raise Duplicate(f"{user} has a token {name!r} already, or too many.",
                                field="name")  # fmt: skip
            token = credentials.new_token(credentials.TOKEN_MARK)
            record = Token(
                name=name, user=user, scope=() if whole else tuple(scope or ()), whole=whole,
                created_at=now(),
                clients=tuple(sorted(set(clients or ()))),
                digest=credentials.digest(token), hint=token[:8],
                expires_at=credentials.in_the_future(days=days),
            )  # fmt: skip
            root.tokens.add(record)
            return record.as_data() | {"token": token}

    @method("token.remove")
    def token_remove(self, *, id: str, user: str = "") -> None:
        """End a token; with ``user``, only if it is one of theirs."""
        with self._daemon.store.transact() as root:
            token = root.tokens.find("id", id)
            if token is None or user not in ("", token.user):
                raise NotFound("There is no such token.")
            root.tokens.remove(token)

    # Second factor

    @method("factor.begin")
    def factor_begin(self, *, user: str, keep: bool = False) -> dict[str, str]:
        """Make a secret for an authenticator; it counts after :meth:`factor_confirm`. With
        ``keep``, the one that waits is returned again: a wrong code means no new picture."""
        keys, context = self._daemon.keys, totp_context(user)
        with self._daemon.store.transact() as root:
            found = find_user(root, user)
            if keep and found.totp_pending:
                secret = keys.unseal(found.totp_pending, context=context)
            else:
                secret = credentials.new_totp_secret()
                found.totp_pending = keys.seal(secret, context=context)
        return {"secret": secret, "address": credentials.totp_address(secret, user=user)}

    @method("factor.confirm")
    def factor_confirm(self, *, user: str, code: str) -> dict[str, Any]:
        """Turn the second factor on; the recovery codes are shown only in this answer."""
        with self._daemon.store.transact() as root:
            found = find_user(root, user)
            if not found.totp_pending:
                raise InvalidInput("There is nothing to confirm.", next_step="Begin again.")
            secret = self._daemon.keys.unseal(found.totp_pending, context=totp_context(user))
            step = credentials.totp_step(secret, code)
            if step is None:
                raise InvalidInput("This code is not right.", field="code",
                                   next_step="Is the clock of the device right?")  # fmt: skip
            codes = credentials.new_recovery_codes()
            found.totp, found.totp_pending, found.totp_step = found.totp_pending, b"", step
            found.recovery = tuple(credentials.digest(code) for code in codes)
            return {"recovery_codes": codes}

    @method("factor.remove")
    def factor_remove(self, *, user: str) -> None:
        """Turn the second factor off."""
        with self._daemon.store.transact() as root:
            found = find_user(root, user)
            found.totp, found.totp_pending, found.recovery = b"", b"", ()
