"""Authority follows everything that a request names: the declarations, and a walk over them.

The walk takes every command of the control socket, every field of it that names something, and
every kind of identity, and asks with the name of something foreign. The refusal has to be that
of a thing that does not exist, wherever the identity does not see it.
"""

from __future__ import annotations

import inspect
import itertools
import typing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from borgcube.core import authority
from borgcube.core.access import GRANTS, Identity, Permission, Role
from borgcube.core.authority import COMMANDS, Kind, Server, serverside, table
from borgcube.core.authority.besides import is_stricter
from borgcube.core.authority.commands import PLAIN
from borgcube.core.authority.naming import OF_CLIENTS, SERVERSIDE
from borgcube.core.errors import AccessDenied, BorgCubeError, NotFound
from borgcube.core.model import (
    Archive,
    Channel,
    Client,
    Delivery,
    Drill,
    Incident,
    Job,
    Plan,
    Repository,
    RetentionPolicy,
    Rule,
    Schedule,
    Session,
    Task,
    Token,
    Trigger,
    User,
)
from borgcube.core.store import Store
from borgcube.daemon.control import methods_of
from borgcube.daemon.main import METHODS
from borgcube.daemon.methods_system import SystemMethods

P = Permission
HERE = SimpleNamespace(runs_here=True)


def functions() -> dict[str, Any]:
    """Return the methods of the control socket as the daemon has them."""
    found: dict[str, Any] = {}
    for kind in (SystemMethods, *METHODS):
        found.update(methods_of(kind))
    return found


def names_of(own: str) -> dict[Kind, str]:
    """Return one thing of each kind, those of the client ``own``."""
    return {
        Kind.CLIENT: own, Kind.PLAN: f"{own}-etc", Kind.ARCHIVE: f"{own}-1",
        Kind.ARCHIVE_ID: f"{own}-id", Kind.JOB: f"{own}-job", Kind.DRILL: f"{own}-drill",
        Kind.REPOSITORY: f"{own}-repo", Kind.SCHEDULE: f"{own}-nightly",
        Kind.POLICY: f"{own}-keep", Kind.TASK: f"{own}-task", Kind.TRIGGER: f"{own}-ci",
        Kind.CHANNEL: f"{own}-desk", Kind.RULE: f"{own}-rule", Kind.INCIDENT: f"{own}-trouble",
        Kind.DELIVERY: f"{own}-letter", Kind.DOMAIN: f"{own}-domain",
        Kind.NETWORK: f"{own}-network", Kind.USER: f"{own}-user",
        Kind.SESSION: f"{own}-session", Kind.TOKEN: f"{own}-token", Kind.PAUSED: own,
    }  # fmt: skip


@pytest.fixture(scope="module")
def store():
    store = Store.open("memory://")
    with store.transact() as root:
        for own, transport in (("web", "ssh"), ("mail", "ssh"), ("self", "here")):
            n = names_of(own)
            root.clients.add(Client(name=own, transport=transport, domain=n[Kind.DOMAIN],
                                    network=n[Kind.NETWORK]))  # fmt: skip
            root.repositories.add(Repository(name=n[Kind.REPOSITORY], path=f"/srv/{own}"))
            root.schedules.add(Schedule(name=n[Kind.SCHEDULE]))
            root.policies.add(RetentionPolicy(name=n[Kind.POLICY], daily=7))
            root.plans.add(Plan(
                name=n[Kind.PLAN], client=own, repository=n[Kind.REPOSITORY], paths=("/etc",),
                schedule=n[Kind.SCHEDULE], retention=n[Kind.POLICY],
            ))  # fmt: skip
            root.archives.add(Archive(
                name=n[Kind.ARCHIVE], id=n[Kind.ARCHIVE_ID], client=own, plan=n[Kind.PLAN],
                repository=n[Kind.REPOSITORY],
            ))  # fmt: skip
            root.jobs.add(Job(id=n[Kind.JOB], type="backup", client=own, plan=n[Kind.PLAN]))
            root.drills.add(Drill(id=n[Kind.DRILL], client=own, plan=n[Kind.PLAN]))
            root.tasks.add(Task(name=n[Kind.TASK], type="prune", plan=n[Kind.PLAN]))
            root.triggers.add(Trigger(name=n[Kind.TRIGGER], plan=n[Kind.PLAN], digest=own))
            root.channels.add(Channel(name=n[Kind.CHANNEL]))
            root.rules.add(Rule(name=n[Kind.RULE]))
            root.incidents.add(Incident(id=n[Kind.INCIDENT], client=own))
            root.deliveries.add(Delivery(id=n[Kind.DELIVERY]))
            root.users.add(User(name=n[Kind.USER], role="operator"))
            root.sessions.add(Session(id=n[Kind.SESSION], user=n[Kind.USER]))
            root.tokens.add(Token(id=n[Kind.TOKEN], user=n[Kind.USER], digest=f"{own}-digest"))
    yield store
    store.close()


SERVER = Server(
    home=Path("/var/lib/borgcube"), roots=("/srv",),
    transports={"here": HERE, "ssh": SimpleNamespace(), "openssh": SimpleNamespace()},
)  # fmt: skip


def person(role: Role, **more: Any) -> Identity:
    return Identity(user="web-user", role=role, session="s", **more)


WEB = frozenset({"web"})
LIMITED = {
    "owner": person(Role.OWNER, clients=WEB),
    "owner's token": replace(person(Role.OWNER, clients=WEB), session="", token="t"),
    **{f"{role} limited to web": replace(
        person(role, clients=WEB, restricted=True), session="", token="t"
    ) for role in (Role.ADMINISTRATOR, Role.OPERATOR, Role.VIEWER)},
}  # fmt: skip
EVERYWHERE = {str(role): person(role) for role in (Role.ADMINISTRATOR, Role.OPERATOR, Role.VIEWER)}
SCOPED = {
    f"operator's token for {permission}": replace(
        person(Role.OPERATOR, scope=frozenset({permission})), session="", token="t"
    )
    for permission in Permission
}


def put(params: dict[str, Any], path: str, value: Any, hint: Any) -> dict[str, Any]:
    """Return a request with a field set, in a list where the field takes one."""
    name, _, inner = path.partition(".")
    if inner:
        return {**params, name: {**params.get(name, {}), inner: value}}
    return {**params, name: [value] if "list" in str(hint) else value}


def asked(store: Store, me: Identity | None, method: str, params: dict[str, Any]) -> Any:
    """Return the refusal of a request, None when it is let through."""
    with store.reading() as root:
        try:
            authority.judge(me, method, params, root=root, server=SERVER)
        except BorgCubeError as error:
            return error
    return None


def honest(method: str, *, own: str = "web") -> dict[str, Any]:
    """Return a request that names only things of one client."""
    names, hints = names_of(own), typing.get_type_hints(functions()[method])
    params: dict[str, Any] = {}
    for path, reference in COMMANDS[method].references.items():
        if reference.kind in SERVERSIDE:
            continue
        name = path.partition(".")[0]
        params = put(params, path, names[reference.kind], hints[name])
    if "scope" in hints and method.startswith("pause."):
        params["scope"] = "client"
    return params


def fields() -> list[tuple[str, str]]:
    """Return every command with every field of it that names something."""
    return [
        (method, path) for method, command in COMMANDS.items()
        for path, reference in command.references.items() if reference.kind not in SERVERSIDE
    ]  # fmt: skip


# The declarations ------------------------------------------------------------------------


def undeclared(method: str, function: Any) -> list[str]:
    """Return the fields of a command that take a name, or could, and declare nothing."""
    command = COMMANDS[method]
    known = {path.partition(".")[0] for path in command.references} | command.plain
    return [
        name for name, hint in typing.get_type_hints(function).items()
        if name != "return" and hint not in (int, bool, int | None, bool | None)
        and name not in known and name not in PLAIN
    ]  # fmt: skip


def test_every_command_is_declared() -> None:
    assert set(functions()) == set(COMMANDS)


def test_every_field_says_what_it_names_or_that_it_names_nothing() -> None:
    missing = {method: undeclared(method, f) for method, f in functions().items()}
    assert {method: names for method, names in missing.items() if names} == {}


def test_a_field_that_declares_nothing_is_found() -> None:
    def backup(*, plan: str, executor: str = "", reread: bool = False) -> None: ...

    assert undeclared("backup.start", backup) == ["executor"]


def test_no_declared_field_is_gone() -> None:
    for method, function in functions().items():
        known = set(inspect.signature(function).parameters)
        named = {path.partition(".")[0] for path in COMMANDS[method].references}
        assert named | COMMANDS[method].plain <= known, method


def test_no_word_for_a_thing_is_plain() -> None:
    things = {"archive", "channel", "client", "clients", "domain", "id", "identity", "names",
              "network", "path", "plan", "plans", "policy", "repositories", "repository", "rule",
              "schedule", "target", "to_client", "to_dir", "transport"}  # fmt: skip
    assert not PLAIN & (things | {"name", "user", "token", "options"})
    for method, command in COMMANDS.items():
        assert not command.plain & things, method


# The walk --------------------------------------------------------------------------------


def test_what_is_foreign_is_refused_as_if_it_were_not_there(store: Store) -> None:
    count, hints = 0, {method: typing.get_type_hints(f) for method, f in functions().items()}
    for (method, path), (who, me) in itertools.product(fields(), LIMITED.items()):
        command, reference = COMMANDS[method], COMMANDS[method].references[path]
        hint = hints[method][path.partition(".")[0]]
        answers = []
        for name in (names_of("mail")[reference.kind], "no-such-thing"):
            refused = asked(store, me, method, put(honest(method), path, name, hint))
            count += 1
            assert refused is not None, (who, method, path, name)
            said = refused.message.replace(repr(name), "NAME")
            answers.append((type(refused), said, refused.next_step, refused.field))
        if command.needs is not None and answers[0][0] is NotFound:
            assert answers[0] == answers[1], (who, method, path)
        else:
            # Only what says nothing of the thing itself, such as a missing permission.
            assert answers[0] == answers[1], (who, method, path)
    assert count > 1200, count


def test_a_foreign_thing_beside_own_ones_is_refused_too(store: Store) -> None:
    """A list may have one foreign name among many."""
    for method, path in fields():
        hint = typing.get_type_hints(functions()[method])[path.partition(".")[0]]
        if "list" not in str(hint):
            continue
        kind = COMMANDS[method].references[path].kind
        params = {**honest(method), path: [names_of("web")[kind], names_of("mail")[kind]]}
        for who, me in LIMITED.items():
            assert asked(store, me, method, params) is not None, (who, method, path)


def test_a_role_may_do_what_it_was_given_and_nothing_else(store: Store) -> None:
    for method, command in COMMANDS.items():
        if command.needs is None:
            assert asked(store, None, method, {}) is None
            continue
        assert isinstance(asked(store, None, method, honest(method)), AccessDenied), method
        for who, me in {**EVERYWHERE, **SCOPED}.items():
            granted = GRANTS[me.role] & (me.scope if me.scope is not None else GRANTS[me.role])
            allowed = asked(store, me, method, honest(method)) is None
            mine = any(one.own for one in command.references.values())
            if command.needs not in granted and not mine:
                assert not allowed, (who, method)
            elif command.needs in granted and command.more is None and not (
                command.person and not me.session
            ):  # fmt: skip
                assert allowed, (who, method, asked(store, me, method, honest(method)))


def test_an_operator_for_one_client_may_do_what_concerns_it(store: Store) -> None:
    """The walk would prove nothing if everything were refused."""
    me = LIMITED[f"{Role.OPERATOR} limited to web"]
    allowed = {method for method in COMMANDS if asked(store, me, method, honest(method)) is None}
    assert {
        "backup.start",
        "client.set",
        "client.show",
        "plan.set",
        "plan.dry_run",
        "job.cancel",
        "restore.start",
        "archive.browse",
        "retention.preview",
        "client.trust",
    } <= allowed
    assert (
        not {
            "client.add",
            "plan.add",
            "repository.set",
            "task.run",
            "job.start",
            "doctor",
            "repository.passphrase",
            "archive.delete",
            "slots.set",
        }
        & allowed
    )


def test_the_table_says_what_the_judge_does(store: Store) -> None:
    """docs/guarantees.md has it; each cell is tried with requests that name one thing."""
    identities = {
        **EVERYWHERE,
        "owner": LIMITED["owner"],
        "operator's token for clients": LIMITED[f"{Role.OPERATOR} limited to web"],
    }
    assert identities.keys() == table.COLUMNS.keys()
    for method, command in COMMANDS.items():
        if command.needs is None or command.person:
            continue
        whole = honest(method)
        alone = [{key: value, **({"scope": "client"} if key == "target" else {})}
                 for key, value in whole.items() if key != "scope"]  # fmt: skip
        if method == "prune.start":
            alone = [{**one, "dry_run": True} for one in alone]
        for who, me in identities.items():
            said = table.cell(table.COLUMNS[who], command.needs, table.reach_of(command))
            if said == "own":
                continue  # test_nobody_changes_their_own_role_or_clients
            allowed = [one for one in (whole, *alone) if asked(store, me, method, one) is None]
            if said == "-":
                assert allowed == [], (who, method)
            elif command.more is None or method == "prune.start":
                assert allowed, (who, method)


def test_every_permission_says_what_it_is_good_for_at_worst() -> None:
    assert table.WORST.keys() == set(Permission)


OPERATOR, ADMIN = EVERYWHERE["operator"], EVERYWHERE["administrator"]

# What the two reviews did ------------------------------------------------------------------


@pytest.fixture
def limited() -> Identity:
    return LIMITED[f"{Role.OPERATOR} limited to web"]


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("plan.set", {"name": "web-etc", "client": "mail", "before_command": "id"}),
        ("plan.set", {"name": "web-etc", "repository": "mail-repo"}),
        ("client.set", {"name": "web", "domain": "mail-domain"}),
        ("client.set", {"name": "web", "network": "mail-network"}),
        ("backup.start", {"plan": "mail-etc"}),
        ("restore.start", {"archive": "mail-1", "to_client": {"client": "web", "directory": "/r"}}),
        ("restore.start", {"archive": "web-1", "to_client": {"client": "mail", "directory": "/r"}}),
        ("restore.start", {"archive": "mail-id", "to_client": {"client": "web", "directory": "/"}}),
        ("plan.dry_run", {"options": {"client": "mail", "repository": "web-repo"}}),
        ("archive.browse", {"repository": "mail-repo", "id": "mail-id"}),
        ("pause.set", {"scope": "client", "target": "mail"}),
        ("pause.end", {"scope": "everything"}),
        ("archive.hide", {"names": ["web-1", "mail-1"]}),
        ("retention.preview", {"plan": "web-etc", "policy": "mail-keep"}),
    ],
)
def test_a_token_for_one_client_reaches_no_other(
    store: Store, limited: Identity, method: str, params: dict[str, Any]
) -> None:
    assert asked(store, limited, method, params) is not None


def test_a_task_asks_what_its_job_would(store: Store) -> None:
    deleter = replace(ADMIN, scope=frozenset({P.DELETE}), session="", token="t")
    own = {"name": "n", "schedule": "web-nightly", "repository": "web-repo"}
    assert asked(store, deleter, "task.add", {**own, "type": "check"}) is None
    assert isinstance(asked(store, deleter, "task.add", {**own, "type": "plugged"}), AccessDenied)
    assert asked(store, ADMIN, "task.add", {**own, "type": "plugged"}) is None
    with store.transact() as root:
        root.tasks.add(Task(name="plugged-task", type="plugged", repository="web-repo"))
    for method in ("task.run", "task.set"):
        refused = asked(store, deleter, method, {"name": "plugged-task"})
        assert isinstance(refused, AccessDenied)
    assert asked(store, deleter, "task.run", {"name": "web-task"}) is None


def test_trying_out_a_plan_that_is_not_saved_is_for_who_could_save_it(store: Store) -> None:
    owner = LIMITED["owner"]
    assert asked(store, owner, "plan.dry_run", {"plan": "web-etc"}) is None
    unsaved = {"options": {"client": "web", "repository": "web-repo", "paths": ["/root"]}}
    assert isinstance(asked(store, owner, "plan.dry_run", unsaved), AccessDenied)
    limited = LIMITED[f"{Role.OPERATOR} limited to web"]
    assert asked(store, limited, "plan.dry_run", unsaved) is None


@pytest.mark.parametrize("value", [["/a", "/b"], {"x": 1}, 7, "/srv/\0"])
def test_what_is_no_path_is_refused_and_no_mistake_of_ours(store: Store, value: Any) -> None:
    for me in (OPERATOR, ADMIN, LIMITED["owner"]):
        for client in ("self", "web", "mail", ["web"], 3):
            to = {"to_client": {"client": client, "directory": value}}
            asked(store, me, "restore.start", {"archive": "web-1", **to})
        asked(store, me, "restore.start", {"archive": "web-1", "to_client": "web"})
        asked(store, me, "plan.dry_run", {"options": {"client": value}})


def test_what_a_form_sends_back_unchanged_is_no_move(store: Store, limited: Identity) -> None:
    same = {"name": "web-etc", "repository": "web-repo", "schedule": "web-nightly",
            "client": "web", "comment": "new"}  # fmt: skip
    assert asked(store, limited, "plan.set", same) is None
    same = {"name": "web", "domain": "web-domain", "network": "web-network", "user": "root"}
    assert asked(store, limited, "client.set", same) is None


def test_a_command_that_nobody_declared_is_nobodys(store: Store) -> None:
    assert asked(store, EVERYWHERE["administrator"], "client.explode", {}) is not None


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.VIEWER, Role.OWNER])
def test_nobody_changes_their_own_role_or_clients(store: Store, role: Role) -> None:
    me = person(role, clients=WEB if role is Role.OWNER else frozenset())
    for method, more in (("user.change", {"role": "administrator"}), ("user.enable", {}),
                         ("link.make", {}), ("user.remove", {})):  # fmt: skip
        key = "user" if method == "link.make" else "name"
        assert asked(store, me, method, {key: "web-user", **more}) is not None, method
    assert asked(store, me, "user.password", {"name": "web-user", "password": "x"}) is None
    assert asked(store, me, "user.password", {"name": "mail-user", "password": "x"}) is not None
    token = replace(me, session="", token="t")
    assert asked(store, token, "user.password", {"name": "web-user", "password": "x"}) is not None
    assert asked(store, token, "factor.remove", {"user": "web-user"}) is not None


# What reaches the server -------------------------------------------------------------------


def test_what_a_client_on_the_server_saved_is_the_administrators(store: Store) -> None:
    for method, command in COMMANDS.items():
        of_it = {one.kind for one in command.references.values() if not one.seen}
        if command.looks or command.needs is None or not of_it & (OF_CLIENTS | {Kind.DOMAIN}):
            continue
        assert isinstance(asked(store, OPERATOR, method, honest(method, own="self")),
                          AccessDenied), method  # fmt: skip
        assert asked(store, ADMIN, method, honest(method, own="self")) is None, method
    assert asked(store, OPERATOR, "client.show", {"name": "self"}) is None
    for method in ("archive.browse", "archive.download"):
        asks = {"repository": "self-repo", "id": "self-id", "key": "etc/shadow"}
        assert isinstance(asked(store, OPERATOR, method, asks), AccessDenied)


@pytest.mark.parametrize("method", ["client.add", "client.enrol", "client.set"])
@pytest.mark.parametrize(
    "given",
    [{"transport": "here"}, {"options": {"ssh_config": "/tmp/x"}}, {"identity": "/root/.ssh/id"}],
)
def test_keys_options_and_transports_of_the_server_are_the_administrators(
    store: Store, method: str, given: dict[str, Any]
) -> None:
    if not given.keys() <= set(inspect.signature(functions()[method]).parameters):
        return
    params = {"name": "web" if method == "client.set" else "new", "transport": "ssh", **given}
    assert isinstance(asked(store, OPERATOR, method, params), AccessDenied)
    assert asked(store, ADMIN, method, params) is None
    assert asked(store, OPERATOR, method, {**params, "transport": "ssh", "options": {},
                 **({"identity": ""} if "identity" in given else {})}) is None  # fmt: skip


def test_an_operator_neither_sets_nor_clears_a_key_or_an_option(store: Store) -> None:
    with store.transact() as root:
        root.clients.add(Client(name="keyed", transport="ssh", identity="/k", options={"a": "b"}))
    for cleared in ({"identity": ""}, {"options": {}}):
        refused = asked(store, OPERATOR, "client.set", {"name": "keyed", **cleared})
        assert isinstance(refused, AccessDenied)
    same = {"name": "keyed", "identity": "/k", "options": {"a": "b"}}
    assert asked(store, OPERATOR, "client.set", same) is None


def test_what_was_saved_here_stays_the_servers_when_the_client_is_gone(store: Store) -> None:
    with store.transact() as root:
        root.archives.add(Archive(name="old-1", id="old-id", client="old", repository="web-repo"))
    asks = {"archive": "old-1", "to_client": {"client": "web", "directory": "/r"}}
    assert asked(store, OPERATOR, "restore.start", asks) is None
    with store.transact() as root:
        serverside.remember(root, "old", HERE, at="2026-01-01T00:00:00+00:00")
    assert isinstance(asked(store, OPERATOR, "restore.start", asks), AccessDenied)
    assert asked(store, ADMIN, "restore.start", asks) is None


def test_repositories_are_below_the_roots_and_never_in_the_home(tmp_path, store: Store) -> None:
    home, roots = tmp_path / "home", tmp_path / "srv"
    home.mkdir()
    roots.mkdir()
    (roots / "out").symlink_to(home)
    bounded = Server(home=home, roots=(str(roots),))
    free = Server(home=home)

    def may(me: Identity, path: Any, server: Server, method: str = "repository.import") -> bool:
        with store.reading() as root:
            try:
                authority.judge(me, method, {"name": "n", "path": str(path)}, root=root,
                                server=server)  # fmt: skip
            except AccessDenied:
                return False
        return True

    for me in (OPERATOR, ADMIN):
        assert may(me, roots / "main", bounded) and may(me, roots / "a/b", bounded)
        for bad in (roots, tmp_path / "elsewhere", roots / "../elsewhere", roots / "out/x", home,
                    home / "repos", tmp_path, "/"):  # fmt: skip
            assert not may(me, bad, bounded), bad
            assert not may(me, bad, bounded, "repository.create"), bad
    assert may(ADMIN, tmp_path / "elsewhere", free) and not may(ADMIN, home / "x", free)
    assert not may(ADMIN, tmp_path, free)
    assert not may(OPERATOR, tmp_path / "elsewhere", free)


def test_a_restore_over_the_console_never_goes_into_the_home(store: Store) -> None:
    into = {"archive": "web-1", "to_dir": "/var/lib/borgcube/store"}
    assert isinstance(asked(store, ADMIN, "restore.start", into), AccessDenied)
    assert asked(store, ADMIN, "restore.start", {**into, "to_dir": "/tmp/restored"}) is None
    assert isinstance(asked(store, OPERATOR, "restore.start", {**into, "to_dir": "/tmp/r"}),
                      AccessDenied)  # fmt: skip
    local = {"archive": "web-1", "to_client": {"client": "self", "directory": "/var/lib/borgcube"}}
    assert isinstance(asked(store, ADMIN, "restore.start", local), AccessDenied)
    remote = {"archive": "web-1", "to_client": {"client": "mail", "directory": "/var/lib/borgcube"}}
    assert asked(store, OPERATOR, "restore.start", remote) is None


# Destroying by policy ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "params", "destroys"),
    [
        ("retention.set", {"name": "web-keep", "daily": 3}, True),
        ("retention.set", {"name": "web-keep", "daily": -1}, False),
        ("retention.set", {"name": "web-keep", "daily": 30}, False),
        ("retention.set", {"name": "web-keep", "weekly": 4}, False),
        ("retention.set", {"name": "web-keep", "undo_hours": 0}, True),
        ("retention.set", {"name": "web-keep", "zone": "Asia/Tokyo"}, True),
        ("retention.set", {"name": "spare", "monthly": 1}, False),
        ("retention.add", {"name": "new", "daily": 1}, False),
        ("retention.add", {"name": "gone", "daily": 1}, True),
        ("retention.attach", {"plan": "bare", "policy": "web-keep"}, True),
        ("retention.attach", {"plan": "web-etc", "policy": "spare"}, True),
        ("retention.attach", {"plan": "web-etc", "policy": "web-keep"}, False),
        ("retention.attach", {"plan": "web-etc", "policy": ""}, False),
        ("archive.unpin", {"name": "web-1"}, True),
        ("plan.release", {"plan": "web-etc"}, True),
        ("prune.start", {"plan": "web-etc"}, True),
        ("prune.start", {"plan": "web-etc", "dry_run": True}, False),
        ("archive.map", {"repository": "web-repo", "pattern": "*", "apply": True}, True),
        ("archive.map", {"repository": "web-repo", "pattern": "*"}, False),
        ("archive.map", {"repository": "empty", "pattern": "*", "apply": True}, False),
    ],
)
def test_what_destroys_by_policy_needs_the_right_to_delete(
    store: Store, method: str, params: dict[str, Any], destroys: bool
) -> None:
    with store.transact() as root:
        if root.policies.find("name", "spare") is None:
            root.policies.add(RetentionPolicy(name="spare", weekly=4))
            root.plans.add(Plan(name="bare", client="web", repository="bare", paths=("/x",)))
            root.plans.add(Plan(name="named", client="web", repository="bare", paths=("/x",),
                                retention="gone"))  # fmt: skip
    refused = asked(store, OPERATOR, method, params)
    assert isinstance(refused, AccessDenied) == destroys, refused
    if destroys:
        assert "delete" in refused.message
    assert asked(store, ADMIN, method, params) is None


def test_within_counts_too() -> None:
    old = RetentionPolicy(name="p", within="2w").as_data()
    assert is_stricter({**old, "within": ""}, old) and is_stricter({**old, "within": "13d"}, old)
    assert not is_stricter({**old, "within": "15d"}, old)
