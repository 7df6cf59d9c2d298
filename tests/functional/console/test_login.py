"""Getting in and out: passwords, codes, links, sessions, and what guessing meets."""

from __future__ import annotations

import re
import time
from urllib.parse import parse_qs, urlsplit

import pyotp
import pytest

from borgcube.core import credentials
from borgcube.testing.consolerig import PASSWORD, ConsoleRig, Visitor


def test_a_stranger_is_sent_to_the_login_and_comes_back(console: ConsoleRig) -> None:
    visitor = console.visitor()
    answer = visitor.get("/jobs?state=done")
    assert answer.status == 303 and answer.location == "/login?next=/jobs%3Fstate%3Ddone"
    answer = visitor.post("/login", {"name": "ada", "password": PASSWORD,
                                     "next": "/jobs?state=done"}, form="/login")  # fmt: skip
    assert answer.status == 303 and answer.location == "/jobs?state=done"
    assert visitor.get("/jobs?state=done").status == 200


@pytest.mark.parametrize("path", ["//evil.example/x", "https://evil.example", "/\\evil.example"])
def test_a_login_leads_nowhere_else(console: ConsoleRig, path: str) -> None:
    answer = console.visitor().post(
        "/login", {"name": "ada", "password": PASSWORD, "next": path}, form="/login"
    )
    assert answer.status == 303 and answer.headers["location"] in ("/", f"{console.url}/")


def test_the_cookie_is_kept_from_scripts_and_other_sites(console: ConsoleRig) -> None:
    cookie = console.visitor().log_in("ada").headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and "Path=/" in cookie
    token = cookie.partition("=")[2].partition(";")[0]
    store = b"".join(p.read_bytes() for p in (console.home / "store").iterdir() if p.is_file())
    assert token.encode() not in store and credentials.digest(token).encode() in store


def test_a_wrong_password_and_a_wrong_name_get_the_same_answer(console: ConsoleRig) -> None:
    answers = [console.visitor().log_in(name, "not the password") for name in ("vera", "nobody")]
    assert [answer.status for answer in answers] == [403, 403]
    texts = [re.sub(r'value="[^"]*"', "", answer.text) for answer in answers]
    assert texts[0] == texts[1] and "is wrong" in texts[0]
    assert "not the password" not in answers[0].text


def test_a_session_ends_with_its_logout_and_its_cookie_is_dead(console: ConsoleRig) -> None:
    visitor = console.visitor("ada")
    kept = dict(visitor.cookies)
    assert visitor.post("/logout").status == 303
    assert visitor.get("/clients").status == 303
    assert Visitor(console.port, kept).get("/clients").status == 303


def test_a_disabled_user_is_out_at_once(console: ConsoleRig) -> None:
    console.user("dora", "viewer")
    visitor = console.visitor("dora")
    assert visitor.get("/clients").status == 200
    console.call("user.disable", name="dora")
    assert visitor.get("/clients").status == 303
    assert console.visitor().log_in("dora").status == 403


def test_the_only_administrator_cannot_be_lost(console: ConsoleRig) -> None:
    page = console.visitor("ada").post("/users/ada/disable")
    assert page.status == 400 and "only administrator" in page.text


def test_a_login_link_works_once_and_looking_at_it_spends_nothing(console: ConsoleRig) -> None:
    link = console.cli("console", "link").split()[-1]
    token = parse_qs(urlsplit(link).query)["token"][0]
    visitor = console.visitor()
    for _ in range(3):
        assert visitor.get(f"/link?token={token}").status == 200
    path = f"/link?token={token}"
    assert visitor.post("/link", {"token": token}, form=path).status == 303
    assert visitor.get("/clients").status == 200
    # ada has a password; who has none is asked to choose one at once, and for no old one.
    nina = console.call("user.add", name="nina")["link"]
    fresh = console.visitor()
    came = fresh.post("/link", {"token": nina}, form=f"/link?token={nina}")
    assert (came.status, came.location) == (303, "/account")
    assert 'name="old"' not in fresh.get("/account").text
    chosen = {"password": "seven horse battery", "again": "seven horse battery"}
    done = fresh.post("/account/password", chosen, form="/account")
    assert done.status == 200 and "You have no password yet" not in done.text
    assert 'name="old"' in done.text
    assert fresh.post("/account/password", chosen, form="/account").status == 400
    assert console.visitor().log_in("nina", "seven horse battery").status == 303
    again = console.visitor().post("/link", {"token": token}, form=path)
    assert again.status == 403 and "used already" in again.text


def test_a_second_factor_is_asked_for_and_a_code_works_once(console: ConsoleRig) -> None:
    console.user("tina", "viewer")
    visitor = console.visitor("tina")
    page = visitor.post("/account/factor", form="/account")
    found = re.search(r'<span class="mono break">([A-Z2-7]{32})</span>', page.text)
    assert found is not None and "<svg" in page.text
    secret = found.group(1)
    wrong = visitor.post("/account/factor", {"code": "000000"}, form="/account")
    assert wrong.status == 400 and secret in wrong.text
    done = visitor.post("/account/factor", {"code": pyotp.TOTP(secret).now()}, form="/account")
    recovery = re.findall(r"\b[0-9a-f]{6}-[0-9a-f]{6}\b", done.text)
    assert len(recovery) == credentials.RECOVERY_CODES

    stranger = console.visitor()
    asked = stranger.log_in("tina")
    assert asked.status == 200 and 'name="code"' in asked.text
    assert stranger.get("/clients").status == 303
    # The step that confirmed it is spent; the next one is good, once.
    later = pyotp.TOTP(secret).at(time.time() + 30)
    assert stranger.log_in("tina", code=later).status == 303
    assert console.visitor().log_in("tina", code=later).status == 403
    assert console.visitor().log_in("tina", code=recovery[0]).status == 303
    assert console.visitor().log_in("tina", code=recovery[0]).status == 403


def test_changing_the_password_ends_the_other_logins_only(console: ConsoleRig) -> None:
    console.user("nora", "viewer")
    here, there = console.visitor("nora"), console.visitor("nora")
    new = "another fine passphrase"
    wrong = here.post("/account/password", {"old": "no", "password": new, "again": new},
                      form="/account")  # fmt: skip
    assert wrong.status == 400 and "not your password" in wrong.text
    done = here.post("/account/password", {"old": PASSWORD, "password": new, "again": new},
                     form="/account")  # fmt: skip
    assert done.status == 200 and "is changed" in done.text
    assert here.get("/clients").status == 200 and there.get("/clients").status == 303
    assert console.visitor().log_in("nora", new).status == 303


def test_guessing_is_slowed_down(console: ConsoleRig) -> None:
    console.user("gina", "viewer")
    ada, visitor = console.visitor("ada"), console.visitor()
    answers = [visitor.log_in("gina", f"guess number {n}") for n in range(12)]
    assert "too many wrong tries" in answers[-1].text
    # Who has to wait writes nothing: a stranger cannot fill the store.
    page = ada.get("/audit").text
    assert 5 <= page.count("gina") < 12
    # Even the right password has to wait: a guesser learns nothing.
    assert visitor.log_in("gina").status == 429
