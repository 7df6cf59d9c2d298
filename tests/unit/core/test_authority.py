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
from typing import Any

import pytest

from borgcube.core.access import GRANTS, Identity, Permission, Role
from borgcube.core.authority import COMMANDS, table
from borgcube.core.authority.commands import PLAIN
from borgcube.core.errors import AccessDenied, NotFound
from borgcube.core.model import (
    Task,
)
from borgcube.core.store import Store

from .authorityrig import (
    ADMIN,
    EVERYWHERE,
    LIMITED,
    OPERATOR,
    SCOPED,
    WEB,
    P,
    asked,
    fields,
    functions,
    honest,
    names_of,
    person,
    put,
    store,
)  # fmt: skip

__all__ = ["store"]


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
