"""The page Notifications: forms from the notifier's options, secrets that never come back,
a test that arrives, and who may do what."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from borgcube.testing.consolerig import ConsoleRig, Visitor
from tests.functional.console.conftest import FAKE, REAL, add_fleet
from tests.functional.console.test_edit_pages import filled
from tests.unit.daemon.receivers import Web, web_server

SECRET = "never shown again, to anybody"


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with web_server() as server:
        yield server


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory, web: Web) -> Iterator[ConsoleRig]:
    place = tmp_path_factory.mktemp("notifications")
    notify = "[notify]\nlook_seconds = 1\nretry_seconds = 1\n"
    with ConsoleRig(place, python_path=(str(FAKE),), disabled=REAL, config=notify) as made:
        add_fleet(made)
        yield made


@pytest.fixture
def ada(rig: ConsoleRig, web: Web) -> Visitor:
    """An administrator; there is a channel ``hook`` and a rule ``all`` over it."""
    visitor = rig.visitor("ada")
    if visitor.get("/notifications/channels/hook").status == 404:
        form = "/notifications/+channel?kind=webhook"
        values = {"name": "hook", "url": web.url, "secret": SECRET, "reach": "anywhere"}
        made = visitor.post(form, values, form=form)
        assert made.location == "/notifications/channels/hook", made.text
        kinds = ["plan-failed"]
        made = visitor.post("/notifications/+rule", {
            "name": "all", "channel": "hook", "severity": "warning", "kinds": kinds,
            "zone": "Europe/Berlin", "quiet_lets": "error", "group_s": "0", "all_clear": "yes",
            "remind_hours": "24", "digest": "", "digest_at": "07:00", "digest_day": "monday",
        })  # fmt: skip
        assert made.location == "/notifications", made.text
    return visitor


def eventually(look: Any, *, timeout_s: float = 60) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.1)
    return found


def test_a_secret_is_kept_and_never_comes_back(rig: ConsoleRig, ada: Visitor) -> None:
    page = ada.get("/notifications/channels/hook")
    assert page.status == 200 and SECRET not in page.text
    assert SECRET not in json.dumps(rig.call("channel.list"))
    assert SECRET.encode() not in (rig.home / "store" / "borgcube.fs").read_bytes()
    url = rig.call("channel.show", name="hook")["options"]["url"]
    values = filled(page.text)
    assert values["url"] == url and values["secret"] == ""
    given = {**values, "comment": "kept"}
    saved = ada.post("/notifications/channels/hook", given)
    assert saved.status == 303, saved.text
    shown = rig.call("channel.show", name="hook")
    assert shown["secrets_set"] == ["secret"] and shown["comment"] == "kept"


def test_the_test_button_sends_a_real_message(rig: ConsoleRig, ada: Visitor, web: Web) -> None:
    before = len(web.asked)
    page = ada.post("/notifications/channels/hook/test").location
    assert page.startswith("/notifications/messages/")
    # Letters like these can be in a time or an ID as well.
    eventually(lambda: len(web.asked) > before and "204" in ada.get(page).text)
    _, _, _, body = web.asked[before]
    assert json.loads(body)["kind"] == "test"


def test_a_failure_is_told_shown_and_acknowledged(
    rig: ConsoleRig, ada: Visitor, web: Web
) -> None:  # fmt: skip
    rig.call("plan.add", name="broken", client="web", repository="main", paths=["/etc"],
             comment="cause")  # fmt: skip
    before = len(web.asked)
    rig.ended(rig.call("backup.start", plan="broken")["job_id"])
    eventually(lambda: len(web.asked) > before)
    (item,) = json.loads(web.asked[-1][3])["items"]
    assert item["kind"] == "plan-failed" and item["plan"] == "broken"
    assert "Plan broken: the backup failed" in rig.visitor("vera").get("/notifications").text
    rig.visitor("olga").post(f"/notifications/incidents/{item['id']}/acknowledge")
    assert rig.call("incident.show", id=item["id"])["acknowledged_by"] == "olga"
    rig.call("plan.remove", name="broken")
    eventually(lambda: [one for one in rig.call("incident.list", state="closed")
                        if one["id"] == item["id"]])  # fmt: skip
    told = eventually(lambda: [json.loads(body)["items"][0] for *_, body in web.asked
                               if b'"what":"over"' in body])  # fmt: skip
    assert told[0]["id"] == item["id"]


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        ("mail", {"host": "x", "sender": "nobody", "recipients": "a@b.example"}, "no mail address"),
        ("mail", {"host": "mail.example", "sender": "a@b.example", "recipients": "a@b.example",
                  "security": "none", "user": "u", "password": "p"}, "not sent without encryption"),
        ("webhook", {"url": "file:///etc/passwd", "secret": SECRET}, "must be an address"),
        ("webhook", {"url": "https://u:p@x.example/", "secret": SECRET}, "seen in logs"),
        ("webhook", {"url": "https://x.example/", "secret": "short"}, "at least 16 characters"),
        ("heartbeat", {"url": "gopher://x/", "every_minutes": "5"}, "must be an address"),
        ("apprise", {"addresses": "syslog://"}, "not a service that can be used"),
        ("apprise", {"addresses": "nonsense://x"}, "does not know"),
    ],
)  # fmt: skip
def test_a_channel_that_cannot_work_is_refused_beside_its_field(
    ada: Visitor, kind: str, values: dict[str, str], said: str
) -> None:
    form = f"/notifications/+channel?kind={kind}"
    page = ada.post(form, {"name": "bad", "reach": "anywhere", "method": "GET", "port": "0",
                           "security": "tls", **values}, form=form)  # fmt: skip
    assert page.status == 400 and said in page.text
    assert 'class="error"' in page.text
    for secret in ("password", "secret"):
        assert f'value="{values.get(secret, SECRET)}"' not in page.text


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"quiet_from": "22:00", "quiet_until": ""}, "a beginning and an end"),
        ({"quiet_from": "22:00", "quiet_until": "22:00"}, "begin when they end"),
        ({"quiet_from": "25:00", "quiet_until": "07:00"}, "a time such as"),
        ({"zone": "Mars/Base"}, "Choose from the list"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_beside_its_field(
    ada: Visitor, values: dict[str, str], said: str
) -> None:
    given = {**filled(ada.get("/notifications/rules/all").text), "kinds": ["plan-failed"]}
    page = ada.post("/notifications/rules/all", {**given, **values})
    assert page.status == 400 and said in page.text and 'class="error"' in page.text


def test_an_edit_of_a_channel_that_clashes_overwrites_nothing(
    rig: ConsoleRig, ada: Visitor
) -> None:
    path = "/notifications/channels/hook"
    before = rig.call("channel.show", name="hook")
    values = filled(ada.get(path).text)
    rig.call("channel.set", name="hook", comment="theirs <b>", disabled=True)
    mine = {**values, "comment": "mine", "reach": "public", "secret": "another one, of mine"}
    answer = ada.post(path, mine, form=path)
    assert answer.status == 409 and "Somebody else changed this" in answer.text
    assert "theirs &lt;b&gt;" in answer.text and "another one" not in answer.text
    assert "Type it again" in answer.text
    changed = rig.call("channel.show", name="hook")
    assert (changed["comment"], changed["options"]) == ("theirs <b>", before["options"])
    # A form that carries nothing of what it was filled from is not trusted, nor is it an echo.
    bare = {name: value for name, value in mine.items() if name not in ("seen", "version")}
    answer_to_bare = ada.post(path, bare, form=path)
    assert answer_to_bare.status == 409 and "another one" not in answer_to_bare.text
    # What was typed is still there; what was not touched keeps the other's value.
    again = filled(answer.text)
    assert (again["comment"], again["reach"]) == ("mine", "public")
    assert again["keep-comment"] == "mine" and again["keep-disabled"] == "theirs"
    assert ada.post(path, {**again, "secret": SECRET}, form=path).status == 303
    after = rig.call("channel.show", name="hook")
    assert (after["comment"], after["disabled"]) == ("mine", True)
    assert after["options"] == {**before["options"], "reach": "public"}
    rig.call("channel.set", name="hook", disabled=False, options={"reach": "anywhere"})


def test_an_edit_of_a_rule_that_clashes_overwrites_nothing(rig: ConsoleRig, ada: Visitor) -> None:
    path = "/notifications/rules/all"
    values = {**filled(ada.get(path).text), "kinds": ["plan-failed"]}
    rig.call("rule.set", name="all", group_s=1, comment="theirs")
    mine = {**values, "comment": "mine", "remind_hours": "48"}
    answer = ada.post(path, mine, form=path)
    assert answer.status == 409 and "As it is now" in answer.text
    assert rig.call("rule.show", name="all")["remind_hours"] == 24
    again = {**filled(answer.text), "kinds": ["plan-failed"], "keep-comment": "theirs"}
    assert again["keep-group_s"] == "theirs" and "keep-kinds" not in again
    assert ada.post(path, again, form=path).status == 303
    after = rig.call("rule.show", name="all")
    assert (after["comment"], after["remind_hours"], after["group_s"]) == ("theirs", 48, 1)
    assert after["kinds"] == ["plan-failed"]
    rig.call("rule.set", name="all", group_s=0, remind_hours=24)


def test_what_a_channel_goes_through_is_no_change_of_it(rig: ConsoleRig, ada: Visitor) -> None:
    path = "/notifications/channels/hook"
    values = filled(ada.get(path).text)
    before = rig.call("channel.show", name="hook")["last_ok_at"]
    rig.call("channel.test", name="hook")
    eventually(lambda: rig.call("channel.show", name="hook")["last_ok_at"] != before)
    again = filled(ada.get(path).text)
    assert again["version"] == values["version"] and len(values["version"]) == 16
    assert ada.post(path, {**values, "comment": "later"}, form=path).status == 303


def test_only_administrators_make_channels_and_rules(rig: ConsoleRig, ada: Visitor) -> None:
    message = ada.post("/notifications/channels/hook/test").location
    seen = {
        name: [visitor.get(path).status for path in
               ("/notifications", "/notifications/log", message,
                "/notifications/+channel", "/notifications/channels/hook",
                "/notifications/rules/all")]
        for name in ("ada", "olga", "vera", "owen") if (visitor := rig.visitor(name))
    }  # fmt: skip
    assert seen == {
        "ada": [200] * 6,
        "olga": [200, 200, 200, 403, 403, 403],
        "vera": [200, 200, 200, 403, 403, 403],
        "owen": [403, 403, 404, 403, 404, 404],
    }
    for name in ("olga", "vera"):
        assert rig.visitor(name).post("/notifications/channels/hook/test").status == 403
        assert rig.visitor(name).post("/notifications/rules/all/remove").status == 403
    assert rig.visitor("vera").post("/notifications/incidents/1/close").status == 403


def test_what_is_in_use_cannot_be_removed(rig: ConsoleRig, ada: Visitor) -> None:
    asked = ada.post("/notifications/channels/hook/remove")
    assert asked.status == 200 and "Remove the channel hook?" in asked.text
    refused = ada.post("/notifications/channels/hook/remove", {"sure": "yes"})
    assert refused.status == 400 and "The rule all uses channel hook" in refused.text
