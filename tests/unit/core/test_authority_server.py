"""What reaches the server itself is an administrator's; destroying by a policy is destroying."""

from __future__ import annotations

import inspect
import typing
from typing import Any

import pytest

from borgcube.core import authority
from borgcube.core.access import Identity
from borgcube.core.authority import COMMANDS, Kind, Server, serverside
from borgcube.core.authority.besides import is_stricter
from borgcube.core.authority.naming import OF_CLIENTS
from borgcube.core.errors import AccessDenied
from borgcube.core.model import (
    Archive,
    Client,
    Plan,
    RetentionPolicy,
)
from borgcube.core.store import Store

from .authorityrig import (
    ADMIN,
    HERE,
    OPERATOR,
    SERVER,
    asked,
    fields,
    functions,
    honest,
    names_of,
    put,
    store,
)  # fmt: skip

__all__ = ["store"]


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


def test_a_client_whose_transport_is_not_loaded_counts_as_one_on_the_server(store: Store) -> None:
    without = Server(home=SERVER.home, transports={})
    asks = {"archive": "self-1", "to_client": {"client": "web", "directory": "/r"}}
    with store.reading() as root, pytest.raises(AccessDenied):
        authority.judge(OPERATOR, "restore.start", asks, root=root, server=without)


def test_one_field_that_names_a_client_on_the_server_is_enough(store: Store) -> None:
    """Whatever else a request names, it reaches the server by that field."""
    tried = 0
    for method, path in fields():
        command, reference = COMMANDS[method], COMMANDS[method].references[path]
        reached = OF_CLIENTS | {Kind.DOMAIN, Kind.TASK, Kind.TRIGGER}
        if command.looks or reference.seen or reference.kind not in reached:
            continue
        hint = typing.get_type_hints(functions()[method])[path.partition(".")[0]]
        params = put(honest(method), path, names_of("self")[reference.kind], hint)
        if reference.kind is Kind.ARCHIVE_ID:
            params["repository"] = "self-repo"
        refused = asked(store, OPERATOR, method, params)
        assert isinstance(refused, AccessDenied), (method, path)
        assert asked(store, ADMIN, method, params) is None, (method, path)
        tried += 1
    assert tried > 40


def test_where_seeing_a_thing_is_enough() -> None:
    """Of commands that change something: each of these only writes the name down, or uses what
    all share."""
    seen = {(method, path) for method, path in fields()
            if COMMANDS[method].references[path].seen and not COMMANDS[method].looks}  # fmt: skip
    assert seen == {
        ("archive.browse", "repository"), ("archive.download", "repository"),
        ("archive.read", "repository"), ("incident.acknowledge", "user"),
        ("incident.close", "user"), ("plan.add", "schedule"),
        ("plan.dry_run", "options.repository"), ("plan.dry_run", "options.schedule"),
        ("plan.set", "schedule"),
        ("retention.attach", "policy"), ("rule.add", "clients"), ("rule.add", "plans"),
        ("rule.add", "repositories"), ("rule.set", "clients"), ("rule.set", "plans"),
        ("rule.set", "repositories"), ("task.add", "schedule"), ("task.set", "schedule"),
        ("token.add", "clients"), ("user.add", "clients"), ("user.change", "clients"),
    }  # fmt: skip


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
