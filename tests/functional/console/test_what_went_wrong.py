"""A stale page, an ended session, a deleted thing: each has a page that says what to do."""

from __future__ import annotations

from borgcube.testing.consolerig import ConsoleRig


def test_a_form_of_an_ended_session_changes_nothing_and_says_to_log_in(
    console: ConsoleRig,
) -> None:
    visitor = console.visitor("olga")
    page = visitor.get("/plans/web-etc/edit")
    assert page.status == 200
    again = console.visitor("olga")
    console.call("user.disable", name="olga")
    console.call("user.enable", name="olga")
    before = console.call("plan.show", name="web-etc")
    for one in (visitor, again):
        answer = one.ask("POST", "/plans/web-etc/edit", b"comment=x")
        assert answer.status in (400, 403), answer.text
        assert "Nothing was changed" in answer.text and "Log in" in answer.text
        moved = one.get("/plans/web-etc/edit")
        assert moved.status == 303 and moved.location == "/login?next=/plans/web-etc/edit"
    assert console.call("plan.show", name="web-etc") == before


def test_a_stale_form_says_to_load_the_page_again(console: ConsoleRig) -> None:
    visitor = console.visitor("olga")
    answer = visitor.post("/plans/web-etc/edit", {"csrf_token": "x" * 43, "comment": "x"})
    assert answer.status == 400 and "This page was out of date" in answer.text
    assert "load the page again" in answer.text


def test_what_was_removed_meanwhile_is_said_to_be_gone(console: ConsoleRig) -> None:
    console.call("plan.add", name="gone", client="web", repository="main", paths=["/etc"])
    visitor = console.visitor("olga")
    token = visitor.token("/plans/gone/edit")
    console.call("plan.remove", name="gone")
    for path in ("/plans/gone", "/plans/gone/edit", "/plans/gone/remove"):
        answer = visitor.get(path)
        assert answer.status == 404 and "was deleted, or never was" in answer.text
    for path in ("/plans/gone/edit", "/plans/gone/backup", "/plans/gone/dry-run"):
        answer = visitor.post(path, {"csrf_token": token, "paths": "/etc"})
        assert answer.status == 404 and "was deleted, or never was" in answer.text, path
