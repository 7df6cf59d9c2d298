"""What a request says of itself, through the real console: who it is from, for which host, and
which page it means."""

from __future__ import annotations

import re

from borgcube.testing.consolerig import ConsoleRig
from tests.functional.console.test_live import Socket

LIES = {"X-Forwarded-For": "203.0.113.9", "X_Forwarded_For": "203.0.113.9",
        "Forwarded": "for=203.0.113.9;host=evil.example", "X-Real-IP": "203.0.113.9",
        "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}  # fmt: skip


def test_no_header_changes_where_a_login_a_token_or_a_trigger_comes_from(
    console: ConsoleRig,
) -> None:
    """Each wrong try of its own address would get round the throttle, and into the audit trail."""
    console.user("liane", "viewer")
    liar = console.visitor()
    liar.source = "127.0.0.71"
    wrong = []
    for number in range(8):
        liar.extra = {name: value.replace("203.0.113.9", f"203.0.113.{number}")
                      for name, value in LIES.items()}  # fmt: skip
        wrong.append(liar.log_in("liane", f"guess number {number}").status)
    assert wrong[0] == 403 and wrong[-1] == 429
    tokens = [liar.ask("GET", "/api/v1/me", headers={
        "Authorization": "Bearer bcu_wrong", "X-Forwarded-For": f"203.0.113.{number}"}).status
        for number in range(12)]  # fmt: skip
    assert tokens[0] == 401 and tokens[-1] == 429
    told = console.visitor("liane")
    told.extra = LIES
    fresh = console.visitor()
    fresh.extra = LIES
    assert fresh.log_in("liane").status == 303
    page = console.visitor("ada").get("/audit").text
    assert "127.0.0.71" in page and "203.0.113." not in page
    assert "203.0.113." not in told.get("/account").text
    token = console.call("token.add", name="liar", user="liane", scope=["view"])["token"]
    used = fresh.ask("GET", "/api/v1/me", headers={"Authorization": f"Bearer {token}"})
    assert used.status == 200
    assert {one["last_used_from"] for one in console.call("token.list", user="liane")} \
        == {"127.0.0.1"}  # fmt: skip
    made = console.call("trigger.add", name="liar", plan="web-etc")
    assert fresh.ask("POST", made["path"]).status == 202
    fired = [e for e in console.call("events.since", limit=1000) if e["type"] == "trigger.fired"]
    assert "203.0.113." not in str(fired) and fired


def test_another_site_s_name_opens_nothing(console: ConsoleRig) -> None:
    """A name of another site that leads to this machine (DNS rebinding)."""
    person = console.visitor("ada")
    for path in ("/", "/login", "/api/v1/me", "/metrics"):
        assert person.get(path, Host="evil.example").status == 421, path
    assert person.get("/", Host=f"localhost:{console.port}").status == 200
    feed = Socket(person, headers=(("x-forwarded-host", "evil.example"),))
    feed.until(lambda: feed.messages)
    feed.socket.close()


def test_links_that_leave_the_console_have_the_configured_address(console: ConsoleRig) -> None:
    """Whoever asks for a link by another name of ours does not send that name on."""
    ada = console.visitor("ada")
    ada.extra = {"Host": "odd.localhost:1"}
    page = ada.post("/users/vera/link", form="/users/vera").text
    (link,) = set(re.findall(r"https?://[^\s<\"]+/link\?token=[\w-]+", page))
    assert link.startswith(f"{console.url}/link?")
    made = ada.post("/schedules/triggers/+add", {"name": "odd", "plan": "web-etc", "days": "1"},
                    form="/schedules/triggers/+add").text  # fmt: skip
    assert f"{console.url}/trigger/bct_" in made and "odd.localhost" not in made
    assert "odd.localhost" not in ada.get("/api").text


BELOW = ["/login/x", "/setup/x/y", "/link/x", "/logout/x", "/account/x", "/clients/web/x",
         "/clients/web/edit/x", "/jobs/1/log/x", "/@@login", "/clients/@@+add",
         "/clients/web/@@edit"]  # fmt: skip


def test_a_view_answers_its_own_path_and_nothing_below(console: ConsoleRig) -> None:
    ada = console.visitor("ada")
    answers = {path: (ada.get(path).status, ada.post(path, {"csrf_token": "x"}).status)
               for path in BELOW}  # fmt: skip
    assert answers == dict.fromkeys(BELOW, (404, 404))


def test_a_header_chooses_no_other_page(console: ConsoleRig) -> None:
    ada = console.visitor("ada")
    assert ada.get("/x", **{"X-Vhm-Root": "/clients"}).status == 404
    assert ada.get("/clients/").text.count("<h1>") == ada.get("/clients").text.count("<h1>") == 1
