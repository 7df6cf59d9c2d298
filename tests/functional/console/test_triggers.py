"""A secret address starts its plan and nothing else."""

from __future__ import annotations

import json
import re
from html import unescape

from borgcube.testing.consolerig import ConsoleRig


def test_a_trigger_starts_its_plan_for_whoever_has_its_address(console: ConsoleRig) -> None:
    made = console.call("trigger.add", name="ci", plan="web-etc")
    stranger = console.visitor()
    answer = stranger.ask("POST", made["path"])
    assert answer.status == 202, answer.text
    job = console.ended(json.loads(answer.text)["job_id"])
    assert (job["plan"], job["origin"], job["state"]) == ("web-etc", "trigger", "done")
    assert stranger.cookies == {}

    kept = b"".join(p.read_bytes() for p in console.home.rglob("*") if p.is_file())
    assert made["token"].encode() not in kept, "only its digest is kept, in logs neither"
    (entry,) = [e for e in console.call("events.since", limit=1000) if e["type"] == "trigger.fired"]
    assert entry["data"]["job"] == job["id"] and made["token"] not in json.dumps(entry)
    assert "trigger.fire" in console.visitor("ada").get("/audit").text

    assert stranger.ask("GET", made["path"]).status != 202, "a link that is followed does nothing"
    statuses = [stranger.ask("POST", made["path"]).status for _ in range(12)]
    assert statuses[0] == 202 and statuses[-1] == 429
    console.call("trigger.remove", name="ci")
    assert stranger.ask("POST", made["path"]).status == 404


def test_guessing_addresses_is_slowed_down(console: ConsoleRig) -> None:
    made = console.call("trigger.add", name="guessed", plan="web-etc")
    stranger = console.visitor()
    stranger.source = "127.0.0.72"  # and has to wait for itself alone
    paths = ["/trigger/bct_wrong", "/trigger", "/trigger/", f"{made['path']}/more"]
    assert [stranger.ask("POST", path).status for path in paths] == [404] * 4
    for _ in range(30):
        last = stranger.ask("POST", "/trigger/bct_wrong").status
    assert last == 429


def test_a_trigger_is_made_used_seen_and_removed_in_the_console(console: ConsoleRig) -> None:
    visitor, page, form = console.visitor("olga"), "/schedules/triggers", "/schedules/triggers/+add"
    assert 'value="web-etc" selected' in visitor.get(f"{form}?plan=web-etc").text
    wrong = visitor.post(form, {"name": "a b", "plan": "web-etc", "days": "-1"}, form=form)
    assert wrong.status == 400 and 'value="a b"' in wrong.text and "At least 0" in wrong.text
    typed = {"name": "deploy", "plan": "web-etc", "days": "30"}
    assert "not a valid name" in unescape(
        visitor.post(form, {**typed, "name": "a b"}, form=form).text
    )  # fmt: skip
    made = visitor.post(form, typed, form=form)
    assert made.status == 200 and made.headers["cache-control"] == "no-store"
    (address,) = set(re.findall(r"http://127\.0\.0\.1:\d+/trigger/bct_[\w-]{43}", made.text))
    assert address.startswith(console.url) and (
        f"curl -fsS -X POST {address}" in re.sub(r"</?span[^>]*>", "", made.text)
    )  # fmt: skip
    assert "already" in visitor.post(form, typed, form=form).text, "a reload makes no second one"

    secret = address.rpartition("/")[2]
    ada = console.visitor("ada")
    for place in (page, "/plans/web-etc", f"{page}/deploy/remove", "/audit", "/events"):
        looked = ada.get(place)
        assert looked.status == 200 and secret not in looked.text, place
    answer = console.visitor().ask("POST", address.removeprefix(console.url))
    console.ended(json.loads(answer.text)["job_id"])
    shown = visitor.get(page).text
    row = re.search(r'<tr><td class="lead"><span>deploy.*?</tr>', shown, re.DOTALL)
    assert row is not None, shown
    assert f"…{secret[-4:]}" in row.group(0)
    assert re.search(r'data-label="Uses" class="number">1</td>', row.group(0))
    assert "deploy" in visitor.get("/plans/web-etc").text
    assert re.search(r"[1-9] triggers? of it", visitor.get("/plans/web-etc/remove").text)

    looker = console.visitor("vera").get(page).text
    assert "deploy" in looker and "/remove" not in looker and "+add" not in looker
    owner = console.visitor("owen")
    assert owner.get(page).status == 403 and "deploy" not in owner.get("/plans/web-etc").text

    gone = f"{page}/deploy/remove"
    assert "answered 404" in visitor.get(gone).text
    assert visitor.post(gone, form=gone).location == page
    assert console.visitor().ask("POST", address.removeprefix(console.url)).status == 404
    assert visitor.get(gone).status == 404 and "deploy" not in visitor.get(page).text
    audit = console.visitor("ada").get("/audit").text
    assert "trigger.add" in audit and "trigger.remove" in audit
