"""Credentials, roles, forms, and the evolution of a store that has no accounts yet."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyotp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from borgcube.core import credentials
from borgcube.core.access import GRANTS, Identity, Permission, Role
from borgcube.core.errors import AccessDenied, InvalidInput
from borgcube.core.forms import Field, Form
from borgcube.core.model import User
from borgcube.core.setup import check_setup_token, end_setup_token, make_setup_token
from borgcube.core.store import DONE_STEPS, Store

STORES = Path(__file__).parents[2] / "data" / "stores"


def test_a_store_of_the_first_schema_gains_accounts_and_keeps_everything(tmp_path: Path) -> None:
    path = tmp_path / "borgcube.fs"
    shutil.copy(STORES / "core-0001.fs", path)
    before = path.read_bytes()
    store = Store.open(f"file://{path}")
    with store.transact() as root:
        assert root.users.newest(5) == [] and root.audit.newest(5) == []
        root.users.add(User(name="ada", role="administrator"))
        assert [job.state for job in root.jobs.newest(5)] == ["failed", "done"]
        assert root.clients.find("name", "web").host == "web.example.org"
        assert root.archives.newest(5)[0].stats == {"files": 3, "size": 1000}
        assert root.journal.last == 7 and root.settings["server_id"] == "5e" * 16
    with store._mapping(commit=False) as mapping:
        assert mapping[DONE_STEPS][:2] == ("core:0001", "core:0002")
    store.close()
    assert (tmp_path / "borgcube.fs.before-core-0002").read_bytes() == before
    store = Store.open(f"file://{path}")
    with store.reading() as root:
        assert root.users.find("name", "ada").role == "administrator"
    store.close()


def test_reading_sees_one_state_and_changes_nothing() -> None:
    store = Store.open("memory://")
    with store.reading() as root:
        with store.transact() as other:
            other.users.add(User(name="later"))
        assert root.users.newest(5) == []
        root.users.add(User(name="lost"))
    with store.reading() as root:
        assert [user.name for user in root.users.newest(5)] == ["later"]
    store.close()


def test_the_next_page_of_a_table_begins_below_the_last() -> None:
    store = Store.open("memory://")
    with store.transact() as root:
        for number in range(7):
            root.users.add(User(name=f"u{number}"))
        first = root.users.newest(3)
        second = root.users.newest(3, before=root.users.number_of(first[-1]))
        assert [user.name for user in first + second] == ["u6", "u5", "u4", "u3", "u2", "u1"]
    store.close()


def test_a_password_matches_only_itself_and_its_hash_shows_nothing() -> None:
    stored = credentials.hash_password("correct horse battery")
    assert credentials.password_matches(stored, "correct horse battery")
    assert not credentials.password_matches(stored, "correct horse batterx")
    assert not credentials.password_matches("", "")
    assert not credentials.password_matches("no hash", "x")
    assert "correct" not in stored and stored.startswith("$argon2id$")


@pytest.mark.parametrize("password", ["short", "aaaaaaaaaaaaaaa", "my-name-is-ada", "x" * 2000])
def test_passwords_that_are_easy_to_guess_are_refused(password: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        credentials.check_new_password(password, user="ada")
    assert refused.value.field == "password" and password not in refused.value.message


def test_a_code_counts_once() -> None:
    secret = credentials.new_totp_secret()
    code = pyotp.TOTP(secret).now()
    step = credentials.totp_step(secret, f" {code[:3]} {code[3:]}")
    assert step is not None
    assert credentials.totp_step(secret, code, after=step) is None
    assert credentials.totp_step(secret, "12345\u0666") is None


def test_a_set_up_token_is_for_one_home_one_time(tmp_path: Path) -> None:
    first = make_setup_token(tmp_path)
    token = make_setup_token(tmp_path)
    check_setup_token(tmp_path, token)
    for wrong in (first, "", "x"):
        with pytest.raises(AccessDenied):
            check_setup_token(tmp_path, wrong)
    assert token not in (tmp_path / "console-setup.json").read_text()
    assert (tmp_path / "console-setup.json").stat().st_mode & 0o777 == 0o600
    end_setup_token(tmp_path)
    with pytest.raises(AccessDenied):
        check_setup_token(tmp_path, token)


@given(st.sampled_from(Role), st.sampled_from(Permission), st.sampled_from([None, "", "a", "b"]))
def test_nobody_may_more_than_their_role_and_owners_only_their_own(
    role: Role, permission: Permission, client: str | None
) -> None:
    identity = Identity("x", role, frozenset({"a"}))
    allowed = identity.may(permission, client=client)
    assert not allowed or permission in GRANTS[role]
    if role is Role.OWNER and allowed:
        assert client == "a" or (client is None and permission is Permission.VIEW)
    limited = Identity("x", role, frozenset({"a"}), scope=frozenset({Permission.VIEW}))
    assert not limited.may(permission, client=client) or permission is Permission.VIEW
    assert allowed or not limited.may(permission, client=client)


def test_an_owner_is_told_of_own_events_only() -> None:
    owner = Identity("x", Role.OWNER, frozenset({"a"}))
    assert owner.sees_event("client.changed", {"client": "a"})
    assert owner.sees_event("job.phase", {"job": "1"}, clients=frozenset({"a"}))
    both = frozenset({"a", "b"})
    assert not owner.sees_event("job.phase", {"job": "1"}, clients=both)
    assert not owner.sees_event("job.queued", {"job": "1", "client": "a"}, clients=both)
    assert not owner.sees_event("job.queued", {"job": "1", "client": "a"}, clients=None)
    assert owner.sees_event("drill.finished", {"job": "1", "client": "a"}, clients=frozenset({""}))
    assert not owner.sees_event("client.changed", {"client": "b"})
    assert not owner.sees_event("job.phase", {"job": "1"})
    assert not owner.sees_event("plan.changed", {"plan": "p"})
    assert Identity("x", Role.VIEWER).sees_event("repository.changed", {"repository": "main"})


@pytest.mark.parametrize("kind", ["check.damage_found", "incident.opened", "trigger.fired",
                                  "notification.failed", "repository.compacted"])  # fmt: skip
def test_events_whose_pages_show_the_server_are_not_an_owners(kind: str) -> None:
    owner = Identity("x", Role.OWNER, frozenset({"a"}))
    assert not owner.sees_event(kind, {"client": "a", "job": "1"}, clients=frozenset({"a"}))
    for role in (Role.ADMINISTRATOR, Role.OPERATOR, Role.VIEWER):
        assert Identity("x", role).sees_event(kind, {"client": "a"})


def test_a_token_that_may_not_see_the_server_is_told_of_clients_only() -> None:
    scope = frozenset({Permission.VIEW})
    token = Identity("x", Role.ADMINISTRATOR, scope=scope, token="t")
    assert token.sees_event("job.started", {"client": "a"})
    assert not token.sees_event("repository.created", {"repository": "main"})
    assert not token.sees_event("daemon.started", {"pid": 1})
    nothing = Identity("x", Role.ADMINISTRATOR, scope=frozenset({Permission.OPERATE}), token="t")
    assert not nothing.sees_event("job.started", {"client": "a"})


class Posted(dict):
    def getall(self, name):
        return list(self.get(name, ()))


FIELDS = (
    Field("name", "Name", required=True), Field("port", "Port", "number", least=1, most=9),
    Field("mode", "Mode", "choice", choices=(("a", "A"),), default="a"),
    Field("paths", "Paths", "lines"), Field("secret", "Secret", "password"),
    Field("more", "More", "checkboxes", choices=(("x", "X"),), default=()),
    Field("flag", "Flag", "checkbox", default=False),
)  # fmt: skip


@given(st.dictionaries(st.sampled_from([f.name for f in FIELDS]), st.text(max_size=50)))
def test_a_form_loses_nothing_but_secrets_and_never_fails(posted: dict[str, str]) -> None:
    form = Form(FIELDS)
    values = form.read(Posted(posted))
    assert (values is None) == bool(form.errors)
    assert form.values["secret"] == ""
    assert form.values["name"] == posted.get("name", "").replace("\r\n", "\n")
    if values is not None:
        assert values["mode"] in ("a", "") and values["name"] == values["name"].strip() != ""


def test_what_the_daemon_refuses_lands_beside_its_field() -> None:
    form = Form(FIELDS)
    form.refuse(InvalidInput("Taken.", field="name"))
    assert form.errors == {"name": "Taken."} and form.problem == ""
    form.refuse(InvalidInput("Other.", field="unknown", next_step="Do."))
    assert (form.problem, form.next_step) == ("Other.", "Do.")
