"""Who may see and do what: every view of the console, by role, written down by hand.

A view that is not here fails ``test_permissions.py``, so a new page is thought about. The
key is the resource's class and the view's name; a page that is just a page goes by the
name of its function.
"""

from __future__ import annotations

from dataclasses import dataclass

# The users of the test's fleet: administrator, operator, viewer, owner of the client web.
ADMIN = frozenset({"ada"})
STAFF = frozenset({"ada", "olga"})
LOOKERS = frozenset({"ada", "olga", "vera"})
RUNNERS = frozenset({"ada", "olga", "owen"})
ALL = frozenset({"ada", "olga", "vera", "owen"})
NOBODY: frozenset[str] = frozenset()
USERS = sorted(ALL)


@dataclass(frozen=True)
class View:
    """``path`` is of the client web; ``other`` is the same of a client that owen does not
    own. ``see`` may GET it, ``do`` may POST to it; None where there is no such thing."""

    path: str
    see: frozenset[str] | None = None
    do: frozenset[str] | None = None
    other: str = ""


MATRIX = {
    # Backup
    "SiteRoot": View("/", see=ALL),
    "Clients": View("/clients", see=ALL),
    "Clients +add": View("/clients/+add", see=STAFF, do=STAFF),
    "ClientItem": View("/clients/web", see=ALL, other="/clients/mail"),
    "ClientItem connect": View("/clients/web/connect", see=STAFF, do=STAFF),
    "ClientItem state": View("/clients/web/state", do=STAFF),
    "ClientItem trust": View("/clients/web/trust", do=STAFF),
    "Plans": View("/plans", see=ALL),
    "Plans +add": View("/plans/+add", see=STAFF, do=STAFF),
    "PlanItem": View("/plans/web-etc", see=ALL, other="/plans/mail-etc"),
    "PlanItem backup": View("/plans/web-etc/backup", do=RUNNERS, other="/plans/mail-etc/backup"),
    "Jobs": View("/jobs", see=ALL),
    "JobItem": View("/jobs/1", see=ALL, other="/jobs/2"),
    "JobItem log": View("/jobs/1/log", see=ALL, other="/jobs/2/log"),
    "JobItem cancel": View("/jobs/1/cancel", do=RUNNERS, other="/jobs/2/cancel"),
    "JobItem again": View("/jobs/1/again", do=RUNNERS, other="/jobs/2/again"),
    "Archives": View("/archives", see=ALL),
    "ArchiveItem": View("/archives/main/{web}", see=ALL, other="/archives/main/{mail}"),
    "ArchiveItem restore": View(
        "/archives/main/{web}/restore", see=RUNNERS, do=RUNNERS,
        other="/archives/main/{mail}/restore",
    ),
    "ArchiveItem delete": View("/archives/main/{web}/delete", see=ADMIN, do=ADMIN),
    "Repositories": View("/repositories", see=LOOKERS),
    "Repositories +add": View("/repositories/+add", see=STAFF, do=STAFF),
    "Repositories +import": View("/repositories/+import", see=STAFF, do=STAFF),
    "RepositoryItem": View("/repositories/main", see=LOOKERS),
    "RepositoryItem passphrase": View("/repositories/main/passphrase", do=ADMIN),
    # Server
    "server.events": View("/events", see=LOOKERS),
    "server.plugins": View("/plugins", see=LOOKERS),
    "server.about": View("/about", see=LOOKERS),
    "ApiPage": View("/api", see=ALL),
    # Access
    "server.audit": View("/audit", see=ADMIN),
    "Users": View("/users", see=ADMIN),
    "Users +add": View("/users/+add", see=ADMIN, do=ADMIN),
    "UserItem": View("/users/vera", see=ADMIN, do=ADMIN),
    "UserItem link": View("/users/vera/link", do=ADMIN),
    "UserItem disable": View("/users/vera/disable", do=ADMIN),
    "UserItem enable": View("/users/vera/enable", do=ADMIN),
    "UserItem no-code": View("/users/vera/no-code", do=ADMIN),
    "UserItem remove": View("/users/vera/remove", do=ADMIN),
    "account.account": View("/account", see=ALL),
    "account.password": View("/account/password", do=ALL),
    "account.language": View("/account/language", do=ALL),
    "account.token_add": View("/account/token", do=ALL),
    "account.token_remove": View("/account/token-remove", do=ALL),
    "account.session_end": View("/account/session-end", do=ALL),
    "account.factor": View("/account/factor", do=ALL),
    "account.factor_remove": View("/account/factor-remove", do=ALL),
    # For strangers; to those who are logged in they are of no use, and of no harm.
    "ConsoleRoot login": View("/login"),
    "ConsoleRoot link": View("/link", see=ALL, do=ALL),
    "ConsoleRoot setup": View("/setup", see=ALL, do=ALL),
    "ConsoleRoot logout": View("/logout", do=ALL),
    "ConsoleRoot favicon.ico": View("/favicon.ico"),
}  # fmt: skip

# The API's endpoints, alike: an owner's stop at clients of their own, where there is one.
ENDPOINTS = {
    **dict.fromkeys(
        ["clients.list", "clients.show", "plans.list", "plans.show", "jobs.list", "jobs.show",
         "jobs.log", "archives.list", "archives.show", "status", "events.since", "me",
         "tokens.list", "tokens.add", "tokens.remove", "sessions.list", "sessions.end"], ALL),
    **dict.fromkeys(
        ["repositories.list", "repositories.show", "repositories.space", "doctor", "plugins"],
        LOOKERS),
    **dict.fromkeys(
        ["clients.add", "clients.change", "clients.remove", "clients.test", "clients.host-keys",
         "clients.trust", "clients.enrolment", "clients.enrol", "plans.add", "plans.change",
         "plans.remove", "repositories.create", "repositories.import", "repositories.change"],
        STAFF),
    **dict.fromkeys(["plans.backup", "jobs.cancel", "jobs.again", "archives.restore"], RUNNERS),
    **dict.fromkeys(
        ["archives.delete", "repositories.passphrase", "jobs.start", "audit", "users.list",
         "users.add", "users.show", "users.change", "users.remove", "users.disable",
         "users.enable", "users.password", "users.second-factor.remove", "users.link"], ADMIN),
}  # fmt: skip
