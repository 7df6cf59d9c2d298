"""Pages about retention: made, tried out and followed in the console, by who may."""

from __future__ import annotations

import re
from html import unescape

import pytest

from borgcube.testing.consolerig import ConsoleRig


def archive_of(console: ConsoleRig, plan: str) -> dict[str, str]:
    return console.call("archive.list", plan=plan)[0]


def test_a_policy_is_made_given_to_a_plan_and_tried_out(console: ConsoleRig) -> None:
    visitor = console.visitor("ada")
    page = visitor.get("/policies").text
    assert "nothing is ever pruned" in page
    typed = {"name": "standard", "within": "2d", "hourly": "0", "daily": "7", "weekly": "4",
             "monthly": "6", "yearly": "0", "undo_days": "3", "last": "0", "minutely": "0",
             "quarterly_13weekly": "0", "quarterly_3monthly": "0", "zone": ""}  # fmt: skip
    wrong = visitor.post("/policies/+add", {**typed, "within": "soon", "daily": "-5"},
                         form="/policies/+add")  # fmt: skip
    assert wrong.status == 400 and "At least -1" in wrong.text and 'value="soon"' in wrong.text
    wrong = visitor.post("/policies/+add", {**typed, "within": "soon"}, form="/policies/+add")
    assert re.search(r'id="f-within-error">.*not a span of time', unescape(wrong.text))
    made = visitor.post("/policies/+add", typed, form="/policies/+add")
    assert made.location == "/policies/standard", made.text
    assert "within 2d, daily 7, weekly 4, monthly 6" in visitor.get("/policies/standard").text
    assert console.call("retention.show", name="standard")["undo_hours"] == 72
    form = visitor.get("/policies/standard/edit").text
    assert re.search(r'name="undo_days"[^>]*value="3"', form)
    visitor.post("/policies/standard/edit", {**typed, "daily": "9"}, form="/policies/standard/edit")
    assert "daily 9" in visitor.get("/policies").text
    given = visitor.post("/plans/mail-etc/policy", {"policy": "standard"})
    assert given.location == "/plans/mail-etc/retention"
    page = visitor.get("/plans/mail-etc/retention").text
    assert "within #1" in page and archive_of(console, "mail-etc")["name"] in page
    assert "daily 9" in visitor.get("/plans/mail-etc").text
    assert visitor.post("/policies/standard/remove").status == 400, "a plan has it"
    visitor.post("/plans/mail-etc/policy", {"policy": ""})
    assert visitor.post("/policies/standard/remove").location == "/policies"


def test_an_archive_is_pinned_deleted_and_brought_back(console: ConsoleRig) -> None:
    visitor = console.visitor("ada")
    archive = archive_of(console, "web-etc")
    path = f"/archives/main/{archive['id']}"
    visitor.post(f"{path}/pin", {"comment": "audit <2026>"})
    assert "audit &lt;2026&gt;" in visitor.get(path).text
    assert "pinned" in visitor.get("/archives").text
    refused = visitor.post(f"{path}/delete", {"undo": "yes"}, form=f"{path}/delete")
    assert refused.status == 400 and "is pinned" in unescape(refused.text)
    visitor.post(f"{path}/unpin")
    gone = visitor.post(f"{path}/delete", {"undo": "yes"}, form=f"{path}/delete")
    assert gone.location == "/archives/+deleted"
    assert archive["name"] in visitor.get("/archives/+deleted").text
    assert archive["name"] not in visitor.get("/archives").text
    assert "This archive is deleted" in visitor.get(path).text
    visitor.post(f"{path}/undelete")
    assert archive["name"] in visitor.get("/archives").text


@pytest.mark.parametrize(("user", "pages", "actions"), [
    ("ada", {"policies", "deleted", "mine", "other", "add", "adopt"},
     {"prune", "measure", "policy", "pin"}),
    ("olga", {"policies", "deleted", "mine", "other", "add", "adopt"},
     {"measure", "policy", "pin"}),
    ("vera", {"policies", "deleted", "mine", "other"}, set()),
    ("owen", {"deleted", "mine"}, {"measure"}),
])  # fmt: skip
def test_each_role_sees_and_does_what_it_may(console, user, pages, actions) -> None:
    visitor = console.visitor(user)
    archive = archive_of(console, "web-etc")
    paths = {
        "policies": "/policies", "deleted": "/archives/+deleted", "add": "/policies/+add",
        "mine": "/plans/web-etc/retention", "other": "/plans/mail-etc/retention",
        "adopt": "/repositories/main/adopt",
    }  # fmt: skip
    assert {name for name, path in paths.items() if visitor.get(path).status == 200} == pages
    posts = {
        "prune": "/plans/web-etc/prune", "measure": "/plans/web-etc/measure",
        "policy": "/plans/web-etc/policy", "pin": f"/archives/main/{archive['id']}/pin",
    }  # fmt: skip
    assert {name for name, path in posts.items() if visitor.post(path).status != 403} == actions


def test_archives_of_strangers_are_given_to_a_plan(console: ConsoleRig) -> None:
    console.call("repository.import", name="old", path=str(console.place / "old"), passphrase="x")
    console.call("plan.add", name="web-old", client="web", repository="old", paths=["/etc"])
    visitor = console.visitor("olga")
    assert "Archives without a plan" in visitor.get("/repositories/old").text
    path = "/repositories/old/adopt"
    shown = visitor.post(path, {"pattern": "{plan}-x", "plan": "", "client": ""}, form=path)
    assert "the name does not fit" in shown.text and "would be given to anybody" in shown.text
    typed = {"pattern": "*", "plan": "web-old", "client": ""}
    assert "Assign 1 archive" in visitor.post(path, typed, form=path).text
    assert console.call("archive.list", repository="old")[0]["plan"] == ""
    visitor.post(path, {**typed, "apply": "yes"}, form=path)
    assert console.call("archive.list", repository="old")[0]["plan"] == "web-old"
    bad = visitor.post(path, {**typed, "pattern": "{hostname"}, form=path)
    assert bad.status == 400 and "brace" in bad.text
