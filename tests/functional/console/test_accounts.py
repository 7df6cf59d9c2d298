"""What a login alone does not do: a person is asked again, a link does not stand for the second
factor, a token may what was ticked, and what cannot be undone asks first."""

from __future__ import annotations

import json
import re
import time

import pyotp
import pytest

from borgcube.core import credentials
from borgcube.testing.consolerig import PASSWORD, ConsoleRig, Visitor

API = "/api/v1"
JSON = {"Content-Type": "application/json"}


def by_link(console: ConsoleRig, name: str, code: str = "", **more: bool) -> Visitor:
    """Return somebody who is logged in without having typed a password."""
    token = console.call("link.make", user=name, **more)["token"]
    visitor = console.visitor()
    values = {"token": token, **({"code": code} if code else {})}
    answer = visitor.post("/link", values, form=f"/link?token={token}")
    assert answer.status == 303, answer.text
    return visitor


def asks(visitor: Visitor, path: str, *, form: str, **values: str) -> bool:
    """Return whether an action shows the page that asks, and nothing else."""
    answer = visitor.post(path, values, form=form)
    return answer.status == 403 and "Is it you?" in answer.text


@pytest.fixture(scope="module")
def people(console: ConsoleRig) -> ConsoleRig:
    console.user("anna")
    console.user("zoe", "viewer")
    return console


SENSITIVE = {
    "/account/factor": "/account", "/account/token": "/account", "/users/+add": "/account",
    "/users/zoe": "/users/zoe", "/users/zoe/link": "/users/zoe",
    "/users/zoe/disable": "/users/zoe", "/users/zoe/enable": "/users/zoe",
    "/users/zoe/no-code": "/users/zoe", "/users/zoe/remove": "/users/zoe",
    "/repositories/main/passphrase": "/repositories/main",
}  # fmt: skip
FILLED = {"name": "robot", "scope": "view", "days": "3", "role": "operator"}


def test_what_makes_more_of_an_open_browser_asks_for_the_password_again(
    people: ConsoleRig,
) -> None:
    anna = by_link(people, "anna")
    before = (people.call("user.list"), people.call("token.list"))
    found = {path: asks(anna, path, form=form, **FILLED) for path, form in SENSITIVE.items()}
    assert found == dict.fromkeys(SENSITIVE, True)
    assert (people.call("user.list"), people.call("token.list")) == before
    assert people.call("repository.passphrase", name="main")["passphrase"] not in anna.post(
        "/repositories/main/passphrase", form="/repositories/main").text  # fmt: skip
    # Other things go on without it.
    assert anna.post("/plans/web-etc/backup").status == 303

    wrong = anna.post("/confirm", {"password": "not mine", "next": "/users/zoe"}, form="/account")
    assert wrong.status == 403 and "This is not right" in wrong.text
    assert asks(anna, "/users/zoe/disable", form="/users/zoe")
    right = anna.post("/confirm", {"password": PASSWORD, "next": "/users/zoe"}, form="/account")
    assert (right.status, right.location) == (303, "/users/zoe")
    assert anna.post("/users/zoe/disable", form="/users/zoe").status == 303
    assert anna.post("/users/zoe/enable", form="/users/zoe").status == 303
    # It counts for this login alone, and a login with a password is such a proof itself.
    assert asks(by_link(people, "anna"), "/users/zoe/disable", form="/users/zoe")
    assert people.visitor("anna").post("/users/zoe/link", form="/users/zoe").status == 200
    away = anna.post("/confirm", {"password": PASSWORD, "next": "//evil.example"}, form="/account")
    assert away.headers["location"] in ("/", f"{people.url}/")


def test_the_api_asks_a_person_again_and_no_token(people: ConsoleRig) -> None:
    anna = by_link(people, "anna")
    page = anna.get("/account").text
    found = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert found is not None
    headers = {**JSON, "X-CSRF-Token": found.group(1)}

    def ask(method: str, path: str, **body: object) -> int:
        answer = anna.ask(method, API + path, json.dumps(body).encode() if body else b"", headers)
        if answer.status == 403:
            assert json.loads(answer.body)["kind"] in ("confirmation-needed", "access-denied")
        return answer.status

    asked = [("POST", "/users/zoe/disable"), ("DELETE", "/users/zoe"), ("POST", "/users/zoe/link"),
             ("POST", "/me/second-factor"), ("POST", "/repositories/main/passphrase")]  # fmt: skip
    assert {one: ask(*one) for one in asked} == dict.fromkeys(asked, 403)
    assert ask("POST", "/tokens", name="x", scope=["view"]) == 403
    assert ask("POST", "/me/confirm", password="wrong one") == 403
    assert ask("POST", "/me/confirm", password=PASSWORD) == 204
    assert ask("POST", "/users/zoe/disable") == 200 and ask("POST", "/users/zoe/enable") == 200
    token = people.call("token.add", name="admin", user="anna", scope=["all"])["token"]
    used = people.visitor().ask(
        "POST", f"{API}/users/zoe/enable", headers={"Authorization": f"Bearer {token}"}
    )
    assert used.status == 200


def test_somebody_without_a_password_chooses_one_before_all_else(people: ConsoleRig) -> None:
    link = people.call("user.add", name="nell", role="administrator")["link"]
    nell = people.visitor()
    assert nell.post("/link", {"token": link}, form=f"/link?token={link}").status == 303
    answer = nell.post("/users/zoe/disable", form="/account")
    assert answer.status == 403 and "You have no password yet" in answer.text
    chosen = {"password": "seven horse battery", "again": "seven horse battery"}
    assert nell.post("/account/password", chosen, form="/account").status == 200
    assert nell.post("/users/zoe/enable", form="/account").status == 303


def factor_of(console: ConsoleRig, name: str) -> str:
    secret = str(console.call("factor.begin", user=name)["secret"])
    step = int(time.time()) // credentials.STEP_S
    console.call("factor.confirm", user=name, code=pyotp.TOTP(secret).at((step - 1) * 30))
    return secret


def test_a_link_stands_for_the_password_and_not_for_the_second_factor(people: ConsoleRig) -> None:
    people.user("fay")
    secret = factor_of(people, "fay")
    token = people.call("link.make", user="fay")["token"]
    visitor, form = people.visitor(), f"/link?token={token}"
    first = visitor.post("/link", {"token": token}, form=form)
    assert first.status == 200 and 'name="code"' in first.text
    wrong = visitor.post("/link", {"token": token, "code": "000000"}, form=form)
    assert wrong.status == 403 and 'name="code"' in wrong.text
    assert visitor.get("/clients").status == 303
    code = pyotp.TOTP(secret).now()
    assert visitor.post("/link", {"token": token, "code": code}, form=form).status == 303
    assert visitor.get("/clients").status == 200
    # The code was a proof; and each link works once.
    assert visitor.post("/users/zoe/enable", form="/users/zoe").status == 303
    again = people.visitor().post("/link", {"token": token, "code": code}, form=form)
    assert again.status == 403 and "used already" in again.text

    without = by_link(people, "fay", without_code=True)
    assert without.get("/clients").status == 200
    assert asks(without, "/users/zoe/enable", form="/users/zoe")
    later = pyotp.TOTP(secret).at(time.time() + 30)
    assert without.post("/confirm", {"code": later, "next": "/"}, form="/account").status == 303
    assert without.post("/users/zoe/enable", form="/users/zoe").status == 303
    ada = people.visitor("ada")
    made = ada.post("/users/fay/link", {"without_code": "yes"}, form="/users/fay").text
    assert "stands for the second factor" in made
    shown = people.cli("console", "link", "--user", "fay", "--without-code")
    given = re.search(r"token=([\w-]+)", shown)
    assert given is not None
    guest = people.visitor()
    assert guest.post("/link", {"token": given.group(1)},
                      form=f"/link?token={given.group(1)}").status == 303  # fmt: skip


def test_a_token_with_nothing_ticked_can_do_nothing(people: ConsoleRig) -> None:
    ada = people.visitor("ada")
    page = ada.post("/account/token", {"name": "bare", "days": "3"}, form="/account").text
    found = re.search(r"bcu_[\w-]{43}", page)
    assert found is not None
    bearer = {"Authorization": f"Bearer {found.group(0)}"}
    bare = people.visitor()
    assert [bare.ask("GET", f"{API}{path}", headers=bearer).status
            for path in ("/clients", "/jobs", "/users", "/repositories", "/me", "/server")
            ].count(200) == 0  # fmt: skip
    assert "nothing at all" in ada.get("/account").text
    for scope, may in ((None, False), ([], False), (["all"], True)):
        limits = {} if scope is None else {"scope": scope}
        made = people.call("token.add", name=f"t{len(str(scope))}", user="ada", **limits)
        told = people.visitor().ask(
            "GET", f"{API}/clients", headers={"Authorization": f"Bearer {made['token']}"}
        )
        assert (told.status == 200) is may, scope


def test_removing_a_user_asks_first(people: ConsoleRig) -> None:
    people.user("gone", "viewer")
    ada = people.visitor("ada")
    asked = ada.post("/users/gone/remove", form="/users/gone")
    assert asked.status == 200 and "Remove the user gone?" in asked.text
    assert "gone" in {user["name"] for user in people.call("user.list")}
    assert ada.post("/users/gone/remove", {"sure": "yes"}, form="/users/gone").status == 303
    assert "gone" not in {user["name"] for user in people.call("user.list")}


def test_what_was_typed_as_a_name_is_not_kept_when_it_fits_no_user(people: ConsoleRig) -> None:
    slip, visitor = "my secret pass phrase", people.visitor()
    visitor.source = "127.0.0.73"
    assert visitor.log_in(slip, "x" * 12).status == 403
    assert visitor.log_in("zoe", "x" * 12).status == 403
    visitor.post("/setup", {"token": "none", "name": slip, "password": slip, "again": slip},
                 form="/setup?token=none")  # fmt: skip
    audit = people.visitor("ada").get("/audit").text
    assert "127.0.0.73" in audit and slip not in audit and "zoe" in audit
    kept = b"".join(p.read_bytes() for p in people.home.rglob("*") if p.is_file())
    assert slip.encode() not in kept and b"127.0.0.73" in kept
