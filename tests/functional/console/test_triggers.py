"""A secret address starts its plan and nothing else."""

from __future__ import annotations

import json

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
    stranger.extra = {"X-Forwarded-For": "192.0.2.1"}  # nobody believes it without a proxy
    paths = ["/trigger/bct_wrong", "/trigger", "/trigger/", f"{made['path']}/more"]
    assert [stranger.ask("POST", path).status for path in paths] == [404] * 4
    for _ in range(30):
        last = stranger.ask("POST", "/trigger/bct_wrong").status
    assert last == 429
