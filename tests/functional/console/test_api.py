"""The API over real sockets: who may what, pages, versions, errors, and its description."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from borgcube.core.access import GRANTS, Permission, Role
from borgcube.testing import apifuzz
from borgcube.testing.apiclient import Api
from borgcube.testing.consolerig import PASSWORD, ConsoleRig

ROLES = {"ada": Role.ADMINISTRATOR, "olga": Role.OPERATOR, "vera": Role.VIEWER,
         "owen": Role.OWNER}  # fmt: skip


# What belongs to no client: an owner knows of none.
NOBODYS = (
    "/(repositories|retention-policies|schedules|tasks|triggers|channels|rules|incidents"
    r"|deliveries|users)/\{"
)


@pytest.fixture(scope="module")
def apis(console: ConsoleRig) -> dict[str, Api]:
    """A client of the API for each role, which checks all answers by the description."""
    add_more(console)
    made = {}
    console.call("retention.add", name="spare", daily=7)
    for name in ROLES:
        made[name] = limited(console, name, "all")
        made[name].document = made[name].get("/openapi.json")
    for name in ("web", "mail"):  # they fail, having no real engine, and say so
        console.ended(console.call("drill.start", plan=f"{name}-etc")["job_id"])
    return made


def add_more(console: ConsoleRig) -> None:
    """One thing of each other kind."""
    console.call("schedule.add", name="nightly", spec="daily at 02:00")
    console.call("trigger.add", name="web", plan="web-etc")
    options = {"url": "http://127.0.0.1:9/", "secret": "s" * 40}
    console.call("channel.add", name="ops", notifier="webhook", options=options)
    console.call("rule.add", name="all", channel="ops")
    console.call("channel.set", name="ops", disabled=True)


def limited(console: ConsoleRig, user: str, name: str, **limits: Any) -> Api:
    limits = {"scope": ["all"], **limits}
    return Api(console.port, console.call("token.add", name=name, user=user, **limits)["token"])


def problem(answer: Any) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = json.loads(answer.body)
    assert found["status"] == answer.status and found["detail"]
    return found


def place(console: ConsoleRig, path: str, client: str) -> str:
    """Fill the parameters of a path with what belongs to a client."""
    archive = console.call("archive.list", client=client)[0]
    drill = console.call("drill.list", plan=f"{client}-etc")[0]
    job = next(j for j in console.call("job.list", client=client, limit=1000) if j["plan"])
    words = {"/clients/{name}": f"/clients/{client}", "/plans/{name}": f"/plans/{client}-etc",
             "/repositories/{name}": "/repositories/main", "/users/{name}": "/users/vera",
             "/retention-policies/{name}": "/retention-policies/spare",
             "/schedules/{name}": "/schedules/nightly", "/triggers/{name}": "/triggers/web",
             "/channels/{name}": "/channels/ops", "/rules/{name}": "/rules/all",
             "/jobs/{id}": f"/jobs/{job['id']}",
             "/drills/{id}": f"/drills/{drill['id']}",
             "/archives/{repository}/{id}": f"/archives/main/{archive['id']}"}  # fmt: skip
    for template, real in words.items():
        path = path.replace(template, real)
    return path


def operations(api: Api) -> list[tuple[str, str, dict[str, Any]]]:
    return [(method.upper(), path, operation) for path, found in api.document["paths"].items()
            for method, operation in found.items()]  # fmt: skip


def needs_something(api: Api, operation: dict[str, Any]) -> bool:
    reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    schema = api.document["components"]["schemas"][reference.rpartition("/")[2]]
    return bool(schema.get("required") or schema.get("minProperties"))


@pytest.mark.parametrize("user", ROLES)
def test_a_role_is_refused_what_it_may_not_and_sees_what_it_may(
    console: ConsoleRig, apis: dict[str, Api], user: str
) -> None:
    api, wrong, tried = apis[user], {}, 0
    for method, path, operation in operations(api):
        if "/tokens/{id}" in path or "/sessions/{id}" in path or path.startswith("/me/"):
            continue  # one's own only: see below
        may = Permission(operation["x-permission"]) in GRANTS[ROLES[user]]
        if user == "owen" and "{" not in path and operation["x-permission"] != "view":
            may = False  # it is about no client of theirs
        if user == "owen" and re.match(NOBODYS, path):
            expected = {404}
        elif not may:
            expected = {403}
        elif method == "GET":
            expected = {200, 400}  # 400: there is no enrolment of a local client
        elif "requestBody" in operation and needs_something(api, operation):
            expected = {400}  # the empty one
        else:
            continue
        tried += 1
        if "{" in place(console, path, "web"):
            expected |= {404}  # there is none here
        body = {} if "requestBody" in operation else None
        answer = api.ask(method, place(console, path, "web"), body)
        if answer.status not in expected:
            wrong[f"{method} {path}"] = (answer.status, answer.text)
    assert wrong == {} and tried > 30


def test_what_an_owner_may_not_see_is_not_there(console: ConsoleRig, apis: dict[str, Api]) -> None:
    owen = apis["owen"]
    for method, path, _ in operations(owen):
        if re.match(r"/(clients|plans|jobs|archives|drills)/\{", path):
            answer = owen.ask(method, place(console, path, "mail"))
            assert answer.status == 404 and problem(answer)["kind"] == "not-found", path
    for path in ("/clients", "/plans", "/jobs", "/archives", "/events?limit=500", "/fleet/plans",
                 "/jobs?client=mail", "/archives?repository=main"):  # fmt: skip
        assert "mail" not in json.dumps(owen.get(path)), path
    assert owen.get("/me")["clients"] == ["web"]
    seen = apis["vera"].get("/events?limit=500")["items"]
    assert any("mail" in json.dumps(event) for event in seen)
    assert owen.get("/events?limit=500")["items"]


def test_an_owner_restores_to_own_clients_only(console: ConsoleRig, apis: dict[str, Api]) -> None:
    path = place(console, "/archives/{repository}/{id}", "web") + "/restore"
    for body, status, field in (
        ({"directory": "/tmp/x"}, 403, "directory"),
        ({"directory": "/tmp/x", "client": "mail"}, 400, "client"),
        ({"directory": "/tmp/x", "client": "no-such"}, 400, "client"),
    ):
        answer = apis["owen"].ask("POST", path, body)
        assert answer.status == status and problem(answer)["field"] == field
    mine = apis["owen"].ask("POST", path, {"directory": "/tmp/x", "client": "web"})
    assert mine.status == 202
    job = console.call("job.show", id=json.loads(mine.body)["job"])
    assert job["type"] == "restore" and job["client"] == "web"


def test_a_token_does_no_more_than_its_scope_and_its_clients(console: ConsoleRig) -> None:
    runner = limited(console, "ada", "runner", scope=["view", "operate"], clients=["web"])
    me = runner.get("/me")
    assert me["permissions"] == ["operate", "view"] and me["clients"] == ["web"]
    assert runner.ask("POST", "/plans/web-etc/backup").status == 202
    assert runner.ask("POST", "/plans/mail-etc/backup").status == 404
    assert runner.ask("DELETE", "/plans/web-etc").status == 403
    assert runner.ask("GET", "/repositories").status == 403
    assert runner.ask("GET", "/clients/mail").status == 404
    assert [c["name"] for c in runner.get("/clients")["items"]] == ["web"]
    looker = limited(console, "ada", "looker", scope=["view"])
    kinds = {event["type"] for event in looker.get("/events?limit=500")["items"]}
    assert {"client.added", "job.started"} <= kinds
    assert not {kind for kind in kinds if kind.startswith(("repository.", "daemon."))}
    blind = limited(console, "ada", "blind", scope=["operate"])
    assert blind.ask("GET", "/events").status == 403
    keeper = limited(console, "ada", "keeper", clients=["mail"])
    assert keeper.ask("PATCH", "/clients/mail", {"user": "backup"}).status == 200
    for method, path, body in (("POST", "/clients", {"name": "new", "transport": "local"}),
                               ("GET", "/users", None), ("GET", "/audit", None)):  # fmt: skip
        assert keeper.ask(method, path, body).status == 403, path


def test_a_token_ends_with_its_time_its_user_and_its_removal(console: ConsoleRig) -> None:
    console.user("tess", "viewer")
    api = limited(console, "tess", "one")
    assert api.ask("GET", "/me").status == 200
    console.call("user.disable", name="tess")
    assert api.ask("GET", "/me").status == 401
    console.call("user.enable", name="tess")
    assert api.ask("GET", "/me").status == 200
    console.cli("token", "remove", "one", "--user", "tess")
    answer = api.ask("GET", "/me")
    assert answer.status == 401 and problem(answer)["kind"] == "not-logged-in"
    assert answer.headers["www-authenticate"].startswith("Bearer")
    console.call("user.remove", name="tess")


def test_a_token_made_on_the_command_line_is_shown_once_and_its_use_is_noted(
    console: ConsoleRig,
) -> None:
    secret = console.cli("token", "add", "cron", "--user", "vera", "--scope", "view",
                         "--client", "web", "--days", "9").strip()  # fmt: skip
    assert re.fullmatch(r"bcu_[\w-]{43}", secret)
    (before,) = [t for t in json.loads(console.cli("token", "list", "--json"))
                 if t["name"] == "cron"]  # fmt: skip
    assert before["last_used_at"] == "" and secret not in json.dumps(before)
    Api(console.port, secret, source="127.0.0.7").get("/me")
    (after,) = [t for t in console.call("token.list", user="vera") if t["name"] == "cron"]
    assert after["last_used_at"] and after["last_used_from"] == "127.0.0.7"
    assert "127.0.0.7" in console.cli("token", "list")
    store = b"".join(p.read_bytes() for p in (console.home / "store").iterdir() if p.is_file())
    assert secret.encode() not in store


def test_a_token_makes_no_token_but_a_login_does(console: ConsoleRig, apis: dict[str, Api]) -> None:
    assert apis["olga"].ask("POST", "/tokens", {"name": "more"}).status == 403
    assert limited(console, "ada", "half", scope=["view"]).ask(
        "POST", "/tokens", {"name": "more"}).status == 403  # fmt: skip
    made = apis["ada"].ask(
        "POST", "/tokens", {"name": "for-vera", "user": "vera", "scope": ["view"]}
    )
    assert made.status == 201
    assert Api(console.port, json.loads(made.body)["token"]).get("/me")["user"] == "vera"
    visitor = console.visitor("olga")
    form = {"X-CSRF-Token": visitor.token("/"), "Content-Type": "application/json"}
    answer = visitor.ask("POST", "/api/v1/tokens", b'{"name": "mine"}', form)
    assert answer.status == 201
    for_others = visitor.ask("POST", "/api/v1/tokens", b'{"name": "x", "user": "ada"}', form)
    assert for_others.status == 403


def test_a_token_for_one_client_reaches_no_other_by_what_it_names(console: ConsoleRig) -> None:
    """Fields of the body and stored records are asked about like the path."""
    api = limited(console, "olga", "only-web", clients=["web"])
    archive = console.call("archive.list", client="mail")[0]
    own = console.call("archive.list", client="web")[0]
    old = console.ended(console.call(
        "restore.start", archive=f"main::{archive['name']}",
        to_client={"client": "web", "directory": "/tmp/r"},
    )["job_id"])["id"]  # fmt: skip
    restore = f"/archives/main/{own['id']}/restore"
    for method, path, body in (
        ("PATCH", "/plans/web-etc", {"client": "NAME", "before_command": "id"}),
        ("POST", restore, {"client": "NAME", "directory": "/tmp/x"}),
        ("PATCH", "/plans/web-etc", {"repository": "other"}),
        ("PATCH", "/clients/web", {"domain": "shared"}),
        ("PATCH", "/clients/web", {"network": "branch"}),
        ("PUT", "/plans/web-etc/retention", {"policy": "spare"}),
    ):
        said = []
        for name in ("mail", "no-such"):
            sent = {k: name if v == "NAME" else v for k, v in body.items()}
            refused = problem(api.ask(method, path, sent))
            said.append((refused["status"], refused["kind"], refused["detail"].replace(name, "")))
        assert said[0] == said[1] and said[0][0] in (400, 403), (path, body, said)
    assert api.ask("PATCH", "/plans/web-etc", {"client": "web", "comment": "mine"}).status == 200
    console.call("plan.set", name="web-etc", comment="")
    visitor = console.visitor("owen")
    assert visitor.post(f"/jobs/{old}/again", form="/account").status == 404
    assert console.call("job.list", client="web", type="restore")[0]["id"] == old
    (entry,) = [e for e in api_audit(console) if e["action"] == "plan.set"
                and e["via"] == "API token only-web" and "no-such" in e["message"]]  # fmt: skip
    assert entry["outcome"] == "refused"


def api_audit(console: ConsoleRig) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = limited(console, "ada", "auditor").get("/audit?limit=200")[
        "items"
    ]
    return found


def test_a_password_is_changed_by_a_login_that_knows_the_old_one(
    console: ConsoleRig, apis: dict[str, Api]
) -> None:
    console.user("paul", "viewer")
    new = "another fine passphrase"
    body = {"old": PASSWORD, "password": new}
    refused = limited(console, "paul", "all").ask("PUT", "/me/password", body)
    assert refused.status == 403 and problem(refused)["kind"] == "no-person"
    visitor = console.visitor("paul")
    form = {"X-CSRF-Token": visitor.token("/"), "Content-Type": "application/json"}

    def change(old: str) -> int:
        sent = json.dumps({"old": old, "password": new}).encode()
        return visitor.ask("PUT", "/api/v1/me/password", sent, form).status

    assert [change("not this one"), change(PASSWORD)] == [403, 204]
    assert console.visitor().log_in("paul", new).status == 303
    console.call("user.remove", name="paul")


def test_tokens_and_logins_of_others_are_not_there(
    console: ConsoleRig, apis: dict[str, Api]
) -> None:
    console.visitor("ada")
    assert {t["user"] for t in apis["vera"].get("/tokens")["items"]} == {"vera"}
    assert apis["vera"].ask("GET", "/tokens?user=ada").status == 403
    everything = apis["ada"].get("/tokens?limit=500")["items"]
    assert {"ada", "vera"} <= {t["user"] for t in everything}
    assert all("digest" not in t for t in everything)
    theirs = next(t["id"] for t in everything if t["user"] == "ada" and t["name"] == "all")
    assert apis["vera"].ask("DELETE", f"/tokens/{theirs}").status == 404
    session = apis["ada"].get("/sessions?user=ada")["items"][0]
    assert "csrf" not in session
    assert apis["vera"].ask("DELETE", f"/sessions/{session['id']}").status == 404
    assert apis["ada"].ask("DELETE", f"/sessions/{session['id']}").status == 204


def test_wrong_tokens_have_to_wait_and_a_good_one_goes_on(console: ConsoleRig) -> None:
    secret = console.call("token.add", name="busy", user="vera", scope=["all"])["token"]
    good = Api(console.port, secret, source="127.0.0.66")
    good.get("/me")
    guesser = Api(console.port, "bcu_" + "x" * 43, source="127.0.0.66")
    statuses = [guesser.ask("GET", "/me").status for _ in range(8)]
    assert statuses == [401] * 5 + [429] * 3
    answer = guesser.ask("GET", "/me")
    assert int(answer.headers["retry-after"]) >= 1 and problem(answer)["kind"] == "too-many"
    good.get("/me")
    # One that was never seen from there has to wait; elsewhere it works at once.
    other = console.call("token.add", name="fresh", user="vera", scope=["all"])["token"]
    assert Api(console.port, other, source="127.0.0.66").ask("GET", "/me").status == 429
    assert Api(console.port, other, source="127.0.0.67").ask("GET", "/me").status == 200


def test_a_browser_looks_with_its_login_and_changes_with_its_form_token_only(
    console: ConsoleRig,
) -> None:
    visitor = console.visitor("ada")
    path, form = "/api/v1/plans/web-etc/backup", {"X-CSRF-Token": visitor.token("/")}
    assert visitor.get("/api/v1/clients").status == 200
    refused = visitor.ask("POST", path)
    assert refused.status == 403 and problem(refused)["kind"] == "no-form-token"
    foreign = visitor.ask("POST", path, headers={**form, "Origin": "http://evil.example"})
    assert foreign.status == 403 and problem(foreign)["kind"] == "foreign-site"
    assert visitor.ask("POST", path, headers=form).status == 202
    nobody = console.visitor().get("/api/v1/clients")
    assert nobody.status == 401 and problem(nobody)["next_step"]


def test_a_change_of_what_somebody_else_changed_is_refused(
    console: ConsoleRig, apis: dict[str, Api]
) -> None:
    ada, olga = apis["ada"], apis["olga"]
    for path, change in (("/plans/web-etc", {"retries": 2}),
                         ("/clients/web", {"user": "backup"}),
                         ("/repositories/main", {"free_floor_bytes": 7})):  # fmt: skip
        tag = ada.ask("GET", path).headers["etag"]
        assert ada.ask("GET", path, headers={"If-None-Match": tag}).status == 304
        done = olga.ask("PATCH", path, change, {"If-Match": tag})
        assert done.status == 200 and done.headers["etag"] != tag
        other = {name: 9 if isinstance(value, int) else "x" for name, value in change.items()}
        late = ada.ask("PATCH", path, other, {"If-Match": tag})
        assert late.status == 412 and problem(late)["kind"] == "conflict"
        fresh = ada.ask("GET", path)
        assert fresh.headers["etag"] == done.headers["etag"]
        assert {**json.loads(fresh.body), **change} == json.loads(fresh.body)
    console.call("channel.add", name="desk", notifier="webhook",
                 options={"url": "http://127.0.0.1:9/", "secret": "s" * 20})  # fmt: skip
    console.call("rule.add", name="told", channel="desk")
    for other in ("/rules/told", "/channels/desk"):
        tag = ada.ask("GET", other).headers["etag"]
        done = ada.ask("PATCH", other, {"comment": "first"}, {"If-Match": tag})
        assert done.status == 200 and done.headers["etag"] != tag
        assert ada.ask("PATCH", other, {"comment": "x"}, {"If-Match": tag}).status == 412
        assert ada.ask("DELETE", other, headers={"If-Match": tag}).status == 412
        tag = done.headers["etag"]
        assert tag == ada.ask("GET", other).headers["etag"]
        assert ada.ask("DELETE", other, headers={"If-Match": tag}).status == 204
    weak = f"W/{fresh.headers['etag']}"
    assert ada.ask("PATCH", path, {"free_floor_bytes": 8}, {"If-Match": weak}).status == 412
    for place in ("/plans/web-etc", "/clients/web?with_plans=true", f"{path}?with_plans=true"):
        gone = ada.ask("DELETE", place, headers={"If-Match": '"old"'})
        assert gone.status == 412 and problem(gone)["kind"] == "conflict"
    assert ada.ask("PATCH", path, {"free_floor_bytes": 0}, {"If-Match": "*"}).status == 200


def test_the_server_itself_is_for_administrators(console: ConsoleRig, apis: dict[str, Api]) -> None:
    """Who sets up a client there, a plan of it, or restores to it, could read the master key."""
    ada, olga = apis["ada"], apis["olga"]
    here = {"name": "self", "transport": "here", "host": "x"}
    plan = {"name": "self-all", "client": "self", "repository": "main", "paths": ["/srv"]}
    archive = place(console, "/archives/{repository}/{id}", "web")
    tried = [
        ("POST", "/clients", here), ("POST", "/enrolments", here),
        ("PATCH", "/clients/tmp2", {"transport": "here"}),
        ("PATCH", "/clients/self", {"borg": "/tmp/mine"}), ("POST", "/plans", plan),
        ("PATCH", "/plans/self-all", {"before_command": "id"}),
        ("PATCH", "/plans/tmp2-all", {"client": "self"}),
        ("POST", "/plans/dry-run", {key: plan[key] for key in plan if key != "name"}),
        ("POST", f"{archive}/restore", {"directory": "/tmp/x"}),
        ("POST", f"{archive}/restore", {"directory": "/tmp/x", "client": "self"}),
        ("POST", f"{archive}/restore", {"directory": "/x", "client": "web", "unfenced": True}),
    ]  # fmt: skip
    for method, path, body in tried[:2]:
        assert olga.ask(method, path, body).status == 403, path
    assert ada.ask("POST", "/clients", here).status == 201
    assert ada.ask("POST", "/plans", plan).status == 201
    assert olga.ask("POST", "/clients", {"name": "tmp2", "transport": "local"}).status == 201
    assert olga.ask("POST", "/plans", {**plan, "name": "tmp2-all", "client": "tmp2"}).status == 201
    for method, path, body in tried[2:]:
        answer = olga.ask(method, path, body, {"If-Match": "*"} if method == "PATCH" else {})
        assert answer.status == 403, (method, path, answer.body)
        assert "administrators" in problem(answer)["detail"]
    # Its backups, what they saved, its plans' removal; where repositories may be; keys.
    console.ended(console.call("backup.start", plan="self-all")["job_id"])
    saved = f"/archives/main/{console.call('archive.list', client='self')[0]['id']}"
    reached = [
        ("POST", "/plans/self-all/backup", None), ("POST", "/plans/self-all/dry-run", None),
        ("DELETE", "/plans/self-all", None), ("GET", f"{saved}/files", None),
        ("GET", f"{saved}/content?key=etc/f001", None), ("POST", f"{saved}/files", None),
        ("POST", f"{saved}/restore", {"directory": "/tmp/x", "client": "web"}),
        ("POST", "/repositories", {"name": "new", "path": str(console.place / "new")}),
        ("POST", "/repositories/import",
         {"name": "new", "path": str(console.place / "new"), "passphrase": "right"}),
        ("PATCH", "/clients/tmp2", {"identity": __file__}),
        ("PATCH", "/clients/tmp2", {"options": {"ssh_config": "/tmp/x"}}),
    ]  # fmt: skip
    for method, path, body in reached:
        answer = olga.ask(method, path, body, {"If-Match": "*"} if method == "PATCH" else {})
        assert answer.status == 403, (method, path, answer.body)
        assert "administrators" in problem(answer)["detail"]
    inside = {"name": "new", "path": str(console.home / "new")}
    assert "BorgCube itself" in problem(ada.ask("POST", "/repositories", inside))["detail"]
    page = console.visitor("olga").get("/clients/+add").text
    assert 'value="local"' in page and 'value="here"' not in page
    assert 'value="here"' in console.visitor("ada").get("/clients/+add").text
    for path in ("/plans/self-all", "/plans/tmp2-all", "/clients/self", "/clients/tmp2"):
        assert ada.ask("DELETE", path).status == 204
    # What it saved stays the server's, and nothing of it is offered.
    for user, offered in (("ada", True), ("olga", False)):
        page = console.visitor(user).get(saved).text
        assert [f"{saved}/{what}" in page for what in ("files", "restore")] == [offered] * 2
    assert olga.ask("GET", f"{saved}/files").status == 403
    assert ada.ask("GET", f"{saved}/files").status == 200


def test_a_thing_is_made_shown_changed_and_removed(apis: dict[str, Api]) -> None:
    olga = apis["olga"]
    made = olga.ask("POST", "/clients", {"name": "tmp", "transport": "local"})
    assert made.status == 201 and made.location == "/api/v1/clients/tmp"
    plan = {"name": "tmp-all", "client": "tmp", "repository": "main", "paths": ["/srv"]}
    made = olga.ask("POST", "/plans", plan)
    assert made.status == 201
    tag = olga.ask("GET", "/plans/tmp-all").headers["etag"]
    assert made.headers["etag"] == tag
    changed = olga.ask("PATCH", "/plans/tmp-all", {"paths": ["/srv", "/etc"], "sparse": True})
    assert json.loads(changed.body)["paths"] == ["/srv", "/etc"]
    again = olga.ask("POST", "/plans", plan)
    assert again.status == 409 and problem(again)["field"] == "name"
    kept = olga.ask("DELETE", "/clients/tmp")
    assert kept.status == 400 and "backs up" in problem(kept)["detail"]
    for path in ("/plans/tmp-all", "/clients/tmp"):
        assert olga.ask("DELETE", path).status == 204
        assert olga.ask("GET", path).status == 404


def test_files_of_the_server_are_named_by_administrators_only(apis: dict[str, Api]) -> None:
    for field, value in (("identity", "/etc/passwd"), ("options", {"ssh_config": "/tmp/x"})):
        answer = apis["olga"].ask("PATCH", "/clients/web", {field: value})
        assert answer.status == 403 and problem(answer)["field"] == field
    enrolled = {"name": "sly", "host": "127.0.0.1", "options": {"ssh_config": "/tmp/x"}}
    answer = apis["olga"].ask("POST", "/enrolments", enrolled)
    assert answer.status == 403 and problem(answer)["field"] == "options"
    assert apis["ada"].ask("PATCH", "/clients/web", {"options": {}}).status == 200


def test_a_backup_is_begun_followed_and_found(console: ConsoleRig, apis: dict[str, Api]) -> None:
    owen = apis["owen"]
    begun = owen.ask("POST", "/plans/web-etc/backup")
    where = begun.location
    assert begun.status == 202 and json.loads(begun.body)["href"] == where
    console.ended(where.rpartition("/")[2])
    job = owen.get(where)
    assert job["state"] == "done" and job["plan"] == "web-etc"
    whole = owen.get(f"{where}/log?limit=10000")["lines"]
    pieces: list[str] = []
    offset = 0
    while True:
        part = owen.get(f"{where}/log?offset={offset}&limit=1")
        if not part["lines"]:
            break
        pieces, offset = pieces + part["lines"], part["next_offset"]
    assert pieces == whole and len(whole) > 1 and part["ended"] is True
    assert "reread" not in job["parameters"]
    # Who may start a backup may have all files read again.
    begun = owen.ask("POST", "/plans/web-etc/backup", {"reread": True})
    reread = console.ended(begun.location.rpartition("/")[2])
    assert begun.status == 202 and reread["parameters"]["reread"] is True
    assert reread["parameters"]["files_cache"] == "disabled"
    assert apis["vera"].ask("POST", "/plans/web-etc/backup", {"reread": True}).status == 403
    cancelled = owen.ask("POST", f"{where}/cancel")
    assert cancelled.status == 409 and problem(cancelled)["kind"] == "illegal-transition"
    assert owen.ask("POST", f"{where}/again").status == 202
    archive = owen.get("/archives?plan=web-etc&limit=1")["items"][0]
    assert owen.get(f"/archives/main/{archive['id']}") == archive


def test_how_things_stand_is_told_of_what_is_seen(apis: dict[str, Api]) -> None:
    ada, owen = apis["ada"], apis["owen"]
    whole = ada.get("/fleet")
    assert sum(whole[level] for level in ("good", "warn", "bad")) == 2
    assert sum(owen.get("/fleet")[level] for level in ("good", "warn", "bad")) == 1
    plans = [one["plan"] for one in ada.get("/fleet/plans")["items"]]
    first = ada.get("/fleet/plans?limit=1")
    rest = ada.get(f"/fleet/plans?limit=1&after={first['after']}")
    assert [first["items"][0]["plan"], rest["items"][0]["plan"]] == plans and rest["after"] == ""
    status = owen.get("/plans/web-etc/status")
    assert status["archive"] and status["days"][-1]["well"] >= 1


def test_a_plan_is_put_on_a_schedule_and_paused(apis: dict[str, Api]) -> None:
    olga = apis["olga"]
    preview = olga.ask("POST", "/schedules/preview", {"spec": "daily at 02:30", "count": 3})
    assert len(json.loads(preview.body)["runs"]) == 3
    assert olga.ask("PATCH", "/plans/mail-etc", {"schedule": "nightly"}).status == 200
    assert olga.get("/schedules/nightly")["plans"] == ["mail-etc"]
    assert len(olga.get("/plans/mail-etc/runs?count=2")["runs"]) == 2
    paused = olga.ask("POST", "/pauses", {"scope": "plan", "target": "mail-etc", "reason": "move"})
    assert json.loads(paused.body)["by"] == "olga"
    assert [one["target"] for one in olga.get("/pauses")["pauses"]] == ["mail-etc"]
    ended = {"scope": "plan", "target": "mail-etc"}
    assert olga.ask("POST", "/pauses/end", ended).status == 204
    assert olga.ask("DELETE", "/schedules/nightly").status == 400
    assert olga.ask("PATCH", "/plans/mail-etc", {"schedule": ""}).status == 200


def test_pages_of_a_list_have_everything_once(console: ConsoleRig, apis: dict[str, Api]) -> None:
    for _ in range(5):
        console.call("backup.start", plan="mail-etc")
    for api, query in ((apis["ada"], ""), (apis["ada"], "&plan=mail-etc&type=backup"),
                       (apis["owen"], "")):  # fmt: skip
        whole = [job["id"] for job in api.get(f"/jobs?limit=500{query}")["items"]]
        found, path = [], f"/jobs?limit=2{query}"
        while path:
            answer = api.ask("GET", path)
            page = json.loads(answer.body)
            assert (f'<{page["next"]}>; rel="next"' == answer.headers.get("link")) is bool(
                page["next"])  # fmt: skip
            found += [job["id"] for job in page["items"]]
            path = page["next"]
        assert found == whole and len(set(found)) == len(found) > 3


def test_jobs_and_archives_are_found_by_their_time(
    console: ConsoleRig, apis: dict[str, Api]
) -> None:
    ada = apis["ada"]
    jobs = ada.get("/jobs?limit=500")["items"]
    middle = jobs[len(jobs) // 2]["created_at"]
    asked = middle.replace("+", "%2B")
    newer = ada.get(f"/jobs?limit=500&since={asked}")["items"]
    older = ada.get(f"/jobs?limit=500&until={asked}")["items"]
    assert [j["id"] for j in newer] == [j["id"] for j in jobs if j["created_at"] >= middle]
    assert [j["id"] for j in older] == [j["id"] for j in jobs if j["created_at"] < middle]
    assert newer and older
    assert ada.get("/archives?since=2999-01-01T00:00:00Z")["items"] == []
    assert ada.get("/archives?until=2999-01-01T00:00:00Z")["items"] != []
    assert ada.ask("GET", "/jobs?since=2026-02-31T00:00:00Z").status == 400


PLAN = {"name": "x", "client": "web", "repository": "main", "paths": ["/a"]}
BAD = [
    ("POST", "/plans", {"name": "x"}, "is missing"),
    ("POST", "/plans", PLAN | {"paths": []}, "too few"),
    ("POST", "/plans", PLAN | {"paths": ["/a\n"]}, "must match"),
    ("PATCH", "/plans/web-etc", {"name": "other"}, "no 'name'"),
    ("PATCH", "/plans/web-etc", {"retries": "3"}, "of the type integer"),
    ("PATCH", "/plans/web-etc", {"retries": True}, "of the type integer"),
    ("PATCH", "/plans/web-etc", {"client": "nobody"}, "no client"),
    ("PATCH", "/plans/web-etc", {}, "nothing in it"),
    ("PATCH", "/plans/web-etc", [], "of the type object"),
    ("PATCH", "/plans/web-etc", b"{", "not valid JSON"),
    ("PATCH", "/plans/web-etc", b'{"comment": "\\ud800"}', "not valid JSON"),
    ("PATCH", "/plans/web-etc", b'{"comment": "a", "comment": "b"}', "twice"),
    ("PATCH", "/plans/web-etc", b'{"retries": NaN}', "not JSON"),
    ("PATCH", "/plans/web-etc", b"[" * 100_000, "not valid JSON"),
    ("PATCH", "/plans/web-etc", b"\xff\xfe{", "not valid JSON"),
    ("POST", "/plans/web-etc/backup", {"now": True}, "no 'now'"),
    ("POST", "/plans/web-etc/backup", {"reread": "yes"}, "of the type boolean"),
    ("POST", "/plans/web-etc/backup", b"reread=yes", "not valid JSON"),
    ("POST", "/plans/web-etc/dry-run", {"now": True}, "has no body"),
    ("GET", "/jobs?colour=red", None, "no parameter"),
    ("GET", "/digest?rule=none", None, "no rule"),
    ("GET", "/jobs?limit=0", None, "at least 1"),
    ("GET", "/jobs?limit=many", None, "of the type integer"),
    ("GET", "/jobs?limit=1&limit=2", None, "twice"),
    ("GET", "/jobs?state=asleep", None, "one of"),
    ("GET", "/jobs?state=%ff", None, "cannot be read"),
    ("GET", "/jobs?cursor=x", None, "must match"),
    ("GET", f"/jobs?cursor={10**30}", None, "must match"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body", "said"), BAD)
def test_what_does_not_fit_is_refused_in_words(
    apis: dict[str, Api], method: str, path: str, body: Any, said: str
) -> None:
    answer = apis["ada"].ask(method, path, body)
    assert answer.status == 400 and said in problem(answer)["detail"], answer.text
    assert problem(answer)["kind"] in ("invalid-input", "not-found")


def test_other_requests_that_cannot_be_served_say_why(apis: dict[str, Api]) -> None:
    ada = Api(apis["ada"].visitor.port, apis["ada"].token)
    text = ada.ask("PATCH", "/plans/web-etc", b"{}", {"Content-Type": "text/plain"})
    assert text.status == 415 and problem(text)["kind"] == "not-json"
    large = ada.ask("PATCH", "/plans/web-etc", {"comment": "x" * 300_000})
    assert large.status == 413 and problem(large)["kind"] == "too-large"
    method = ada.ask("DELETE", "/jobs/1")
    assert method.status == 405 and method.headers["allow"] == "GET, HEAD"
    for path in (
        "/nothing",
        "/jobs/%0A%C2%9B",
        "/jobs/1/nothing",
        "/clients/no%ff",
        "/",
    ):
        assert problem(ada.ask("GET", path))["kind"] == "not-found", path
    assert ada.ask("GET", "/clients/").body == ada.ask("GET", "/clients").body
    head = ada.ask("HEAD", "/clients")
    assert head.status == 200 and head.body == b"" and head.headers["etag"]


def test_every_answer_is_private_and_has_the_security_headers(apis: dict[str, Api]) -> None:
    for path in ("/clients", "/nothing"):
        answer = apis["ada"].ask("GET", path)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] in ("private, no-cache", "no-store")


def test_what_the_api_does_is_in_the_audit_trail_with_the_token(
    console: ConsoleRig, apis: dict[str, Api]
) -> None:
    apis["olga"].ask("PATCH", "/plans/mail-etc", {"comment": "audited"})
    entry = apis["ada"].get("/audit?user=olga&limit=1")["items"][0]
    assert entry["action"] == "plan.set" and entry["via"] == "API token all"
    assert entry["address"] == "127.0.0.1" and entry["outcome"] == "done"


def test_the_page_about_the_api_has_every_operation_and_every_kind_of_problem(
    console: ConsoleRig, apis: dict[str, Api]
) -> None:
    page = console.visitor("owen").get("/api")
    assert page.status == 200
    for _, path, operation in operations(apis["ada"]):
        assert f'id="{operation["operationId"]}"' in page.text and path in page.text
    for kind in ("not-found", "conflict", "too-many"):
        assert f'id="{kind}"' in page.text
    assert problem(apis["ada"].ask("GET", "/nothing"))["type"] == "/api#not-found"
    assert not re.search(r"<style|\sstyle=|<script(?! type=\"module\" src)|\son\w+=", page.text)


def test_the_examples_of_the_documentation_work(console: ConsoleRig) -> None:
    text = (Path(__file__).parents[3] / "docs" / "api.md").read_text("utf-8")
    examples = re.findall(r"^```sh\n(.+?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(examples) == 6
    secret = console.call("token.add", name="docs", user="ada", scope=["all"])["token"]
    environment = {**os.environ, "CUBE": f"{console.url}/api/v1", "TOKEN": secret}
    said = []
    for example in examples:
        done = subprocess.run(
            ["bash", "-eu", "-o", "pipefail", "-c", example], env=environment, text=True,
            capture_output=True, timeout=60, check=True,
        )  # fmt: skip
        said.append(json.loads(done.stdout))
    me, begun, reread, failed, plan, log = said
    assert reread["job"] != begun["job"]
    assert me["token"] == "docs" and begun["href"].endswith(begun["job"])
    assert failed["next"] is None and plan["retries"] == 3 and log["lines"]


@pytest.mark.timeout(400)
def test_requests_made_from_the_description_break_nothing(console: ConsoleRig) -> None:
    """The last of this file: it changes the fleet. Longer: ``borgcube.testing.apifuzz``."""
    secret = console.call("token.add", name="fuzz", user="ada", scope=["all"])["token"]
    # A repository would be made anywhere on this disk.
    done = apifuzz.fuzz(console, secret, examples=1, number=1, leave_out=("repositories.create",))
    assert done.returncode == 0, done.stdout
    assert re.search(r"[1-9][0-9]+ generated", done.stdout), done.stdout
    assert apifuzz.mistakes(console) == []
