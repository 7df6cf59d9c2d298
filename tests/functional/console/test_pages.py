"""Pages: who may see and do what, forms that lose nothing, hostile names, headers."""

from __future__ import annotations

import json
import re
from html import unescape

import pytest

from borgcube.testing.consolerig import ConsoleRig

POLICY = "default-src 'none'; script-src 'self'; style-src 'self'"
PAGES = {
    "view": ["/", "/clients", "/clients/web", "/plans", "/plans/web-etc", "/jobs", "/jobs/1",
             "/jobs/1/log", "/archives", "/account"],
    "other": ["/clients/mail", "/plans/mail-etc", "/jobs/2"],
    "server": ["/repositories", "/repositories/main", "/events", "/plugins", "/about"],
    "configure": ["/clients/+add", "/plans/+add", "/repositories/+add",
                  "/repositories/+import", "/clients/web/connect", "/clients/web/edit",
                  "/clients/web/remove", "/plans/web-etc/edit", "/plans/web-etc/remove",
                  "/repositories/main/edit"],
    "administer": ["/repositories/main/remove", "/users", "/users/ada", "/users/+add", "/audit"],
}  # fmt: skip
ACTIONS = {
    # Each with who may. What is named does not exist where doing it would change the fleet.
    "/plans/web-etc/backup": {"ada", "olga", "owen"},
    "/plans/mail-etc/backup": {"ada", "olga"},
    "/plans/mail-etc/dry-run": {"ada", "olga"},
    "/plans/mail-etc/edit": {"ada", "olga"},
    "/plans/mail-etc/remove": {"ada", "olga"},
    "/clients/web/edit": {"ada", "olga"},
    "/clients/web/remove": {"ada", "olga"},
    "/repositories/main/edit": {"ada", "olga"},
    "/repositories/main/remove": {"ada"},
    "/jobs/1/again": {"ada", "olga", "owen"},
    "/jobs/2/cancel": {"ada", "olga"},
    "/clients/web/state": {"ada", "olga"},
    "/clients/web/trust": {"ada", "olga"},
    "/repositories/main/passphrase": {"ada"},
    "/users/vera/enable": {"ada"},
    "/users/vera/link": {"ada"},
}


@pytest.mark.parametrize("user", ["ada", "olga", "vera", "owen"])
def test_an_action_is_done_for_those_who_may(console: ConsoleRig, user: str) -> None:
    """Who may do what at all is in the matrix; here it is really done."""
    visitor = console.visitor(user)
    refused = {path for path in ACTIONS if visitor.post(path).status in (403, 404)}
    assert refused == {path for path, allowed in ACTIONS.items() if user not in allowed}


def test_an_owner_is_shown_nothing_of_other_clients(console: ConsoleRig) -> None:
    visitor = console.visitor("owen")
    for path in ("/", "/clients", "/plans", "/jobs", "/archives", "/jobs?client=mail",
                 "/archives?repository=main"):  # fmt: skip
        page = visitor.get(path)
        assert page.status == 200 and "mail" not in page.text, path
    assert "mail-etc" in console.visitor("vera").get("/jobs").text


def test_every_answer_has_the_security_headers_and_no_inline_code(console: ConsoleRig) -> None:
    visitor = console.visitor("ada")
    for path in [path for paths in PAGES.values() for path in paths] + ["/none", "/login"]:
        answer = visitor.get(path)
        assert answer.headers["content-security-policy"].startswith(POLICY), path
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        if "html" in answer.headers["content-type"]:
            text = answer.text
            assert not re.search(r"<style|\sstyle=|<script(?! type=\"module\" src)|\son\w+=", text)


def test_a_form_of_another_site_changes_nothing(console: ConsoleRig) -> None:
    visitor = console.visitor("ada")
    before = len(console.call("job.list", limit=1000))
    backup = "/plans/web-etc/backup"
    tries = [
        visitor.ask("POST", backup),
        visitor.post(backup, {"csrf_token": "x" * 43}),
        visitor.post(backup, headers={"Origin": "http://evil.example"}),
        visitor.post(backup, headers={"Sec-Fetch-Site": "cross-site"}),
        visitor.post(backup, {"csrf_token": console.visitor("olga").token("/")}),
        visitor.get(backup),
    ]
    assert [answer.status for answer in tries] == [400, 400, 403, 403, 400, 404]
    assert len(console.call("job.list", limit=1000)) == before


def test_a_refused_form_keeps_what_was_typed_and_says_it_beside_the_field(
    console: ConsoleRig,
) -> None:
    visitor = console.visitor("ada")
    typed = {"name": "web-etc", "client": "web", "repository": "main",
             "paths": "/etc\n/srv/<b>", "excludes": "*.tmp", "compression": "zstd,8",
             "retries": "3", "idle_timeout_s": "900", "upload_ratelimit_kib": "0",
             "files_cache": "mtime,size"}  # fmt: skip
    answer = visitor.post("/plans/+add", typed, form="/plans/+add")
    assert answer.status == 400
    assert re.search(
        r'id="f-name-error">.*There is a plan .web-etc. already', unescape(answer.text)
    )
    assert "/srv/&lt;b&gt;" in answer.text and "<b>" not in answer.text
    assert '<option value="zstd,8" selected>' in answer.text and 'value="3"' in answer.text
    bad = visitor.post("/plans/+add", {**typed, "name": "x", "retries": "many", "paths": ""},
                       form="/plans/+add")  # fmt: skip
    assert "must be a whole number" in bad.text and "At least one line" in bad.text


def test_a_reveal_and_a_refusal_are_in_the_audit_trail_without_secrets(
    console: ConsoleRig,
) -> None:
    visitor = console.visitor("ada")
    assert "right" in visitor.post("/repositories/main/passphrase").text
    visitor.post("/clients/+add", {"name": "web", "transport": "local", "borg": "borg"},
                 form="/clients/+add")  # fmt: skip
    page = visitor.get("/audit").text
    assert "repository.passphrase" in page and "127.0.0.1" in page
    assert "refused" in page and "There is a client" in page
    console.visitor().log_in("vera", "a secret mistyped")
    assert "mistyped" not in visitor.get("/audit").text
    store = b"".join(p.read_bytes() for p in (console.home / "store").iterdir() if p.is_file())
    assert b"mistyped" not in store


def test_what_a_client_prints_is_shown_harmlessly(console: ConsoleRig) -> None:
    job = next(j for j in console.call("job.list", client="web") if j["state"] == "done")
    log = console.home / "jobs" / job["id"]
    nasty = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    hostile = f"2026-01-01T00:00:00.000+00:00 warning {nasty} \x1b[2J\x1b]0;x\x07 \u202ereversed\n"
    with (log / "log.txt").open("a", encoding="utf-8") as out:
        out.write(hostile)
        out.write("2026-01-01T00:00:00.000+00:00 info " + "A" * 3_000_000 + "\n")
    answer = console.visitor("ada").get(f"/jobs/{job['id']}")
    assert answer.status == 200 and len(answer.body) < 200_000
    shown = answer.text
    assert "<script>alert" not in shown and "<img src=x" not in shown
    assert "\x1b" not in shown and "\u202e" not in shown and "\x07" not in shown


def test_a_long_hostile_log_line_does_not_hide_the_warning_before_it(
    console: ConsoleRig,
) -> None:
    job = next(j for j in console.call("job.list", client="mail") if j["state"] == "done")
    with (console.home / "jobs" / job["id"] / "log.txt").open("a", encoding="utf-8") as out:
        out.write("2026-01-01T00:00:00.000+00:00 warning <b>seen</b>\n")
        out.write("2026-01-01T00:00:00.000+00:00 info " + "A" * 100_000 + "\n")
    shown = console.visitor("ada").get(f"/jobs/{job['id']}").text
    assert "&lt;b&gt;seen&lt;/b&gt;" in shown and "A" * 5000 not in shown


def test_deleting_an_archive_wants_its_name(console: ConsoleRig) -> None:
    archive = console.call("archive.list", client="mail")[0]
    path = f"/archives/main/{archive['id']}"
    operator = console.visitor("olga")
    assert operator.get(path).status == 200 and operator.get(f"{path}/delete").status == 403
    visitor = console.visitor("ada")
    wrong = visitor.post(f"{path}/delete", {"confirm": "something else"}, form=f"{path}/delete")
    assert wrong.status == 400 and "Nothing was deleted" in wrong.text
    assert console.call("archive.show", name=archive["name"])["id"] == archive["id"]
    done = visitor.post(f"{path}/delete", {"confirm": archive["name"]}, form=f"{path}/delete")
    assert done.status == 303
    console.ended(done.location.rsplit("/", 1)[-1])
    gone = visitor.get(path)
    assert gone.status == 404 and "was deleted, or never was" in gone.text


def test_an_owner_restores_to_an_own_client_only(console: ConsoleRig) -> None:
    archive = console.call("archive.list", client="web")[0]
    path = f"/archives/main/{archive['id']}/restore"
    visitor = console.visitor("owen")
    page = visitor.get(path).text
    assert "client:web" in page and "client:mail" not in page and "this server" not in page
    for target in ("client:mail", "server"):
        answer = visitor.post(path, {"target": target, "directory": "/tmp/x"}, form=path)
        assert answer.status == 400 and "Choose from the list" in answer.text
    done = visitor.post(path, {"target": "client:web", "directory": "/tmp/x"}, form=path)
    assert done.status == 303


def test_a_token_is_shown_once_and_limited_to_its_scope(console: ConsoleRig) -> None:
    visitor = console.visitor("olga")
    page = visitor.post("/account/token", {"name": "monitor", "scope": ["view"], "days": "30"},
                        form="/account")  # fmt: skip
    found = re.search(r"bcu_[\w-]{43}", page.text)
    assert found is not None and found.group(0) not in visitor.get("/account").text
    robot = console.visitor()
    robot.extra = {"Authorization": f"Bearer {found.group(0)}"}
    assert robot.get("/jobs").status == 200
    assert robot.get("/repositories").status == 403
    assert robot.get("/account").status == 403
    assert robot.ask("POST", "/plans/web-etc/backup").status in (400, 403)
    robot.extra = {"Authorization": f"Bearer {found.group(0)}x"}
    assert robot.get("/jobs").status == 303


@pytest.mark.parametrize(
    "path",
    ["/jobs?before=abc", "/jobs?before=99999999999999999999", "/jobs?state=%00", "/jobs/%ff",
     "/archives/main/..", "/clients/%2e%2e%2fetc", "/static/../../etc/passwd", "/audit?before=-1",
     "/clients/web/nothing", "/jobs/1/2/3/4", "/events?before=0", "/%F0%9F%98%80",
     "/jobs?state=%ff", "/archives?client=%80"],
)  # fmt: skip
def test_odd_addresses_are_answered_without_a_mistake(console: ConsoleRig, path: str) -> None:
    assert console.visitor("ada").get(path).status in (200, 400, 404)


def test_large_and_endless_requests_are_refused(console: ConsoleRig) -> None:
    visitor = console.visitor("ada")
    assert visitor.ask("POST", "/login", headers={"Content-Length": str(10**9)}).status == 413
    assert visitor.ask("POST", "/login", headers={"Transfer-Encoding": "chunked"}).status == 411


def test_the_waiting_page_says_how_far_a_client_is(console: ConsoleRig) -> None:
    answer = console.visitor("ada").post("/clients/web/state", form="/clients/web/connect")
    assert json.loads(answer.body) == {"state": "ready", "message": "borg 1.4.5"}
