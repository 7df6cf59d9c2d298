"""Editing and removing in the console: prefilled, checked, nobody's change overwritten."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import pytest

from borgcube.testing.consolerig import Answer, ConsoleRig, Visitor


def filled(page: str) -> dict[str, Any]:
    """Return what a browser would send of the edit form on a page, unchanged."""
    form = re.search(r'<form class="form" method="post">.*?</form>', page, re.DOTALL)
    assert form is not None
    found: dict[str, Any] = {}
    for tag in re.findall(r"<input [^>]*>", form.group(0)):
        said = dict(re.findall(r'(\S+?)="([^"]*)"', tag))
        if said.get("type") in ("checkbox", "radio") and " checked" not in tag:
            continue
        if "name" in said:
            found[unescape(said["name"])] = unescape(said.get("value", ""))
    for name, text in re.findall(
        r'<textarea [^>]*name="([^"]+)"[^>]*>(.*?)</textarea>', form.group(0), re.DOTALL
    ):
        found[name] = unescape(text)
    for name, options in re.findall(
        r'<select [^>]*name="([^"]+)"[^>]*>(.*?)</select>', form.group(0), re.DOTALL
    ):
        (found[name],) = re.findall(r'value="([^"]*)" selected', options)
    return found


def send(visitor: Visitor, path: str, values: dict[str, Any]) -> Answer:
    return visitor.post(path, values, form=path)


@pytest.fixture
def plan(console: ConsoleRig, request: Any) -> str:
    """A plan of its own for a test."""
    name = re.sub(r"\W", "-", request.node.name)[:60]
    console.call("plan.add", name=name, client="web", repository="main", paths=["/etc", "/srv"],
                 compression="zstd,11", retries=2)  # fmt: skip
    return name


def test_a_form_that_is_saved_as_it_came_changes_nothing(console: ConsoleRig, plan: str) -> None:
    console.call("client.set", name="mail", max_job_bytes=5 << 30, options={"ssh_config": "/x"})
    visitor = console.visitor("olga")
    for kind, path, name in (("plan", "plans", plan), ("client", "clients", "mail"),
                             ("repository", "repositories", "main")):  # fmt: skip
        before = console.call(f"{kind}.show", name=name)
        page = visitor.get(f"/{path}/{name}/edit")
        values = filled(page.text)
        assert values.pop("csrf_token") and len(values) > 2
        assert send(visitor, f"/{path}/{name}/edit", values).status == 303
        assert console.call(f"{kind}.show", name=name) == before


def test_what_is_typed_is_saved_and_nothing_else(console: ConsoleRig, plan: str) -> None:
    visitor, path = console.visitor("olga"), f"/plans/{plan}/edit"
    before = console.call("plan.show", name=plan)
    values = {**filled(visitor.get(path).text), "excludes": "*.tmp\n*/cache", "sparse": "yes"}
    assert send(visitor, path, values).location == f"/plans/{plan}"
    assert console.call("plan.show", name=plan) == {
        **before, "excludes": ["*.tmp", "*/cache"], "sparse": True,
    }  # fmt: skip


def test_a_size_is_typed_as_people_write_it(console: ConsoleRig) -> None:
    visitor, path = console.visitor("ada"), "/clients/mail/edit"
    values = {**filled(visitor.get(path).text), "max_total_bytes": "1.5 TiB"}
    assert send(visitor, path, values).status == 303
    assert console.call("client.show", name="mail")["max_total_bytes"] == 3 << 39
    assert 'value="1536G"' in visitor.get(path).text
    bad = send(visitor, path, {**values, "max_total_bytes": "lots", "options": "no pair"})
    assert bad.status == 400 and "must be a size" in bad.text and "no pair" in bad.text
    bad = send(visitor, path, {**values, "options": "no pair"})
    assert re.search(r'id="f-options-error">.*is not NAME=VALUE', bad.text)


def test_a_refused_edit_keeps_what_was_typed(console: ConsoleRig, plan: str) -> None:
    visitor, path = console.visitor("olga"), f"/plans/{plan}/edit"
    values = {**filled(visitor.get(path).text), "paths": "/<i>\nrelative", "comment": "typed"}
    answer = send(visitor, path, values)
    assert answer.status == 400 and 'value="typed"' in answer.text
    assert "/&lt;i&gt;\nrelative" in answer.text
    assert re.search(r'id="f-paths-error">.*is not an absolute path', answer.text)


def test_an_edit_that_clashes_shows_both_values_and_overwrites_nothing(
    console: ConsoleRig, plan: str
) -> None:
    visitor, path = console.visitor("olga"), f"/plans/{plan}/edit"
    values = filled(visitor.get(path).text)
    console.call("plan.set", name=plan, comment="theirs <b>", retries=9)
    mine = {**values, "comment": "mine", "excludes": "*.bak"}
    answer = send(visitor, path, mine)
    assert answer.status == 409 and "Somebody else changed this" in answer.text
    assert "theirs &lt;b&gt;" in answer.text and "mine" in answer.text
    assert console.call("plan.show", name=plan)["comment"] == "theirs <b>"
    # What was typed is still there; a field that was not touched keeps the other's value.
    again = filled(answer.text)
    assert again["comment"] == "mine" and again["excludes"] == "*.bak"
    assert again["keep-comment"] == "mine" and again["keep-retries"] == "theirs"
    assert "keep-excludes" not in again
    assert send(visitor, path, again).status == 303
    after = console.call("plan.show", name=plan)
    assert (after["comment"], after["retries"], after["excludes"]) == ("mine", 9, ["*.bak"])


def test_the_other_value_can_be_kept(console: ConsoleRig, plan: str) -> None:
    visitor, path = console.visitor("olga"), f"/plans/{plan}/edit"
    values = {**filled(visitor.get(path).text), "comment": "mine"}
    console.call("plan.set", name=plan, comment="theirs")
    again = {**filled(send(visitor, path, values).text), "keep-comment": "theirs"}
    assert send(visitor, path, again).status == 303
    assert console.call("plan.show", name=plan)["comment"] == "theirs"


def test_a_mistake_in_between_does_not_hide_a_clash(console: ConsoleRig, plan: str) -> None:
    visitor, path = console.visitor("olga"), f"/plans/{plan}/edit"
    values = {**filled(visitor.get(path).text), "comment": "mine"}
    console.call("plan.set", name=plan, comment="theirs")
    wrong = send(visitor, path, {**values, "retries": "many"})
    assert wrong.status == 400
    looked = send(visitor, path, {**filled(wrong.text), "retries": "2", "preview": "yes"})
    assert looked.status == 200
    assert send(visitor, path, filled(looked.text)).status == 409
    assert console.call("plan.show", name=plan)["comment"] == "theirs"


def test_a_change_elsewhere_in_the_record_is_no_clash(console: ConsoleRig, plan: str) -> None:
    visitor, path = console.visitor("olga"), f"/plans/{plan}/edit"
    values = {**filled(visitor.get(path).text), "comment": "same"}
    console.call("plan.set", name=plan, comment="same")
    assert send(visitor, path, values).status == 303


def test_a_plan_shows_its_commands_and_what_their_failure_means(
    console: ConsoleRig, plan: str
) -> None:
    looker, path = console.visitor("vera"), f"/plans/{plan}"
    assert looker.get(path).text.count("<dd>none</dd>") == 2
    visitor, edit = console.visitor("olga"), f"/plans/{plan}/edit"
    typed = {**filled(visitor.get(edit).text), "before_command": "dump '<b>' && true",
             "before_failure": "warn", "after_command": "rm -f /dump",
             "command_timeout_s": "60"}  # fmt: skip
    assert send(visitor, edit, typed).status == 303
    page = unescape(looker.get(path).text)
    assert "dump '<b>' && true</code>" in page and "rm -f /dump</code>" in page
    assert "<b>' && true" not in looker.get(path).text
    assert "goes on and ends with a warning" in page and "60 s, then it is ended" in page
    console.call("plan.set", name=plan, before_failure="fail")
    assert "nothing is backed up and the job fails" in looker.get(path).text


def test_removing_wants_the_name_and_says_what_is_lost(console: ConsoleRig) -> None:
    console.call("client.add", name="old", transport="local")
    console.call("plan.add", name="old-etc", client="old", repository="main", paths=["/etc"])
    console.ended(console.call("backup.start", plan="old-etc")["job_id"])
    visitor, path = console.visitor("olga"), "/clients/old/remove"
    page = visitor.get(path).text
    assert "These plans:" in page and "old-etc" in page and "They can still be restored" in page
    wrong = send(visitor, path, {"confirm": "od"})
    assert wrong.status == 400 and "Nothing was removed" in wrong.text
    assert console.call("client.show", name="old")
    assert send(visitor, path, {"confirm": "old"}).location == "/clients"
    assert visitor.get("/clients/old").status == visitor.get("/plans/old-etc").status == 404
    assert len(console.call("archive.list", client="old")) == 1


def test_a_repository_is_forgotten_by_an_administrator_only(console: ConsoleRig) -> None:
    place = console.place / "spare"
    console.call("repository.create", name="spare", path=str(place), passphrase="right")
    path = "/repositories/spare/remove"
    assert console.visitor("olga").get(path).status == 403
    visitor = console.visitor("ada")
    assert "Copy the passphrase first" in visitor.get(path).text
    assert send(visitor, path, {"confirm": "spare"}).status == 303
    assert place.is_dir() and visitor.get("/repositories/spare").status == 404


def test_what_a_job_uses_is_not_removed_and_the_page_says_which(console: ConsoleRig) -> None:
    console.call("plan.add", name="slow", client="mail", repository="main", paths=["/x"],
                 comment="long")  # fmt: skip
    job = console.call("backup.start", plan="slow")["job_id"]
    try:
        visitor, path = console.visitor("olga"), "/plans/slow/remove"
        assert f"/jobs/{job}" in visitor.get(path).text
        answer = send(visitor, path, {"confirm": "slow"})
        assert answer.status == 400 and f"Job {job} of plan slow" in answer.text
    finally:
        console.call("job.cancel", id=job)
        console.ended(job)
