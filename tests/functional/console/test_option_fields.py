"""Options of transports and parameters of job types have form fields, which plugins bring."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest

from borgcube.testing.consolerig import ConsoleRig
from tests.functional.console.conftest import FAKE
from tests.functional.console.test_edit_pages import filled, send


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsoleRig]:
    """A console with the real SSH transport and upkeep; the fake has the rest."""
    real = ("borg", "backup", "restore", "prune", "transport_local")
    place: Path = tmp_path_factory.mktemp("fields")
    with ConsoleRig(place, python_path=(str(FAKE),), disabled=real) as made:
        made.call("repository.create", name="main", path=str(place / "repo"), passphrase="right")
        made.call("schedule.add", name="nightly", spec="daily at 02:00")
        made.user("ada")
        made.user("olga", "operator")
        yield made


def test_a_transport_brings_the_fields_of_its_options_to_a_new_client(rig: ConsoleRig) -> None:
    visitor, path = rig.visitor("ada"), "/clients/+add"
    page = visitor.get(path).text
    assert "Options: SSH (the system&#39;s ssh)" in page and 'name="openssh.ssh_config"' in page
    typed = {**filled(page), "name": "ssh1", "host": "127.0.0.1", "port": "9",
             "openssh.ssh_config": "/etc/jump", "options": "extra=1"}  # fmt: skip
    assert send(visitor, path, typed).status == 303
    assert rig.call("client.show", name="ssh1")["options"] == {
        "ssh_config": "/etc/jump", "extra": "1",
    }  # fmt: skip


def test_a_new_client_gets_its_limits_with_the_form_that_adds_it(rig: ConsoleRig) -> None:
    visitor, path = rig.visitor("olga"), "/clients/+add"
    page = filled(visitor.get(path).text)
    limits = {"max_job_bytes": 50 << 30, "max_total_bytes": 1 << 40, "max_files": 10**6,
              "max_duration_s": 7200, "max_sessions": 2, "network": "branch"}  # fmt: skip
    shown = {name: str(value) for name, value in limits.items()}
    shown |= {"max_job_bytes": "50G", "max_total_bytes": "1 TiB"}
    for name, more in (("enrolled", {"host": "127.0.0.1", "port": "9"}),
                       ("itself", {"transport": "local"})):  # fmt: skip
        assert send(visitor, path, {**page, **shown, "name": name, **more}).status == 303
        stored = rig.call("client.show", name=name)
        assert {key: stored[key] for key in limits} == limits
        # One list of fields: what the edit form shows is what was typed.
        again = filled(visitor.get(f"/clients/{name}/edit").text)
        assert {key: again[key] for key in limits} == {**shown, "max_total_bytes": "1T"}
        shown_page = visitor.get(f"/clients/{name}").text
        assert "50.0 GiB in one backup, 1.0 TiB in all its archives, 1,000,000 files" in shown_page
        assert "2 jobs at once" in shown_page and "<dd>branch</dd>" in shown_page
    wrong = send(visitor, path, {**page, "name": "x", "host": "h", "max_job_bytes": "lots",
                                 "network": "no name"})  # fmt: skip
    assert wrong.status == 400 and re.search(r'id="f-max_job_bytes-error"', wrong.text)
    assert 'value="lots"' in wrong.text and 'value="no name"' in wrong.text
    wrong = send(visitor, path, {**page, "name": "x", "host": "h", "network": "no name"})
    assert re.search(r'id="f-network-error">[^\n]*not a valid name', unescape(wrong.text))


def test_files_of_the_server_are_named_by_administrators_only(rig: ConsoleRig) -> None:
    """As over the API: see ``test_api.py``."""
    rig.call("client.add", name="ssh0", transport="openssh", host="127.0.0.1",
             options={"ssh_config": "/theirs"}, domain="d")  # fmt: skip
    visitor = rig.visitor("olga")
    for path in ("/clients/+add", "/clients/ssh0/edit"):
        page = visitor.get(path).text
        assert not re.search(r'name="(identity|options|openssh\.ssh_config)"', page), path
    sly = {"identity": "/etc/hostname", "options": "x=1", "openssh.ssh_config": "/tmp/mine"}
    edit = filled(visitor.get("/clients/ssh0/edit").text)
    assert send(visitor, "/clients/ssh0/edit", {**edit, **sly, "user": "me"}).status == 303
    stored = rig.call("client.show", name="ssh0")
    assert (stored["user"], stored["identity"]) == ("me", "")
    assert stored["options"] == {"ssh_config": "/theirs"}, "they are left as they are"
    add = filled(visitor.get("/clients/+add").text)
    made = {**add, **sly, "name": "sly", "host": "127.0.0.1", "port": "9"}
    assert send(visitor, "/clients/+add", made).status == 303
    stored = rig.call("client.show", name="sly")
    assert stored["options"] == {} and stored["identity"].endswith("keys/sly/id_ed25519")


def test_only_the_fields_of_the_chosen_transport_are_taken(rig: ConsoleRig) -> None:
    rig.call("client.add", name="ssh2", transport="openssh", host="127.0.0.1",
             options={"ssh_config": "/a", "other": "b"})  # fmt: skip
    visitor, path = rig.visitor("ada"), "/clients/ssh2/edit"
    values = filled(visitor.get(path).text)
    assert values["openssh.ssh_config"] == "/a" and values["options"] == "other=b"
    assert send(visitor, path, {**values, "openssh.ssh_config": "/c"}).status == 303
    assert rig.call("client.show", name="ssh2")["options"] == {"ssh_config": "/c", "other": "b"}
    values = filled(visitor.get(path).text)
    assert send(visitor, path, {**values, "transport": "paramiko"}).status == 303
    assert rig.call("client.show", name="ssh2")["options"] == {"other": "b"}


def test_a_free_line_for_an_option_with_a_field_is_refused(rig: ConsoleRig) -> None:
    rig.call("client.add", name="ssh3", transport="openssh", host="127.0.0.1")
    visitor, path = rig.visitor("ada"), "/clients/ssh3/edit"
    values = {**filled(visitor.get(path).text), "options": "ssh_config=/x"}
    answer = send(visitor, path, values)
    assert answer.status == 400
    assert re.search(r'id="f-options-error">.*has a field of its own', answer.text)
    assert rig.call("client.show", name="ssh3")["options"] == {}


def test_what_the_daemon_refuses_of_an_option_stands_beside_its_field(rig: ConsoleRig) -> None:
    visitor, path = rig.visitor("ada"), "/clients/ssh3/edit"
    values = {**filled(visitor.get(path).text), "openssh.ssh_config": "/x\x07"}
    answer = send(visitor, path, values)
    assert answer.status == 400
    assert re.search(r'id="f-openssh.ssh_config-error">.*one line of printable', answer.text)


def test_a_task_is_added_changed_run_and_removed_with_fields_of_its_job(rig: ConsoleRig) -> None:
    visitor = rig.visitor("ada")
    assert "+task?type=drill" in visitor.get("/schedules/+task").text
    path = "/schedules/+task?type=check"
    typed = {**filled(visitor.get(path).text), "name": "weekly", "schedule": "nightly",
             "repository": "main", "check.kind": "archives", "check.days": "30"}  # fmt: skip
    wrong = visitor.post(path, {**typed, "check.days": "many"}, form=path)
    assert wrong.status == 400 and 'id="f-check.days-error"' in wrong.text
    assert visitor.post(path, typed, form=path).status == 303
    task = rig.call("task.show", name="weekly")
    assert task["parameters"] == {"kind": "archives", "days": 30}
    assert "/schedules/tasks/weekly/edit" in visitor.get("/schedules").text

    path = "/schedules/tasks/weekly/edit"
    values = filled(visitor.get(path).text)
    assert (values["check.kind"], values["check.days"]) == ("archives", "30")
    assert send(visitor, path, values).status == 303
    assert rig.call("task.show", name="weekly") == task, "saved as it came"
    assert send(visitor, path, {**values, "check.full": "yes", "check.days": "0"}).status == 303
    assert rig.call("task.show", name="weekly")["parameters"] == {"kind": "archives", "full": True}

    assert re.fullmatch(r"/jobs/\w+", visitor.post("/schedules/tasks/weekly/run").location)
    assert rig.visitor("olga").post("/schedules/tasks/weekly/remove").status == 403
    assert visitor.post("/schedules/tasks/weekly/remove").status == 303
    assert rig.call("task.list") == []


def test_parameters_that_do_not_fit_are_refused_by_the_daemon_and_named(rig: ConsoleRig) -> None:
    visitor, path = rig.visitor("ada"), "/schedules/+task?type=drill"
    typed = {**filled(visitor.get(path).text), "name": "proof", "schedule": "nightly",
             "repository": "main", "parameters": "files=0"}  # fmt: skip
    answer = visitor.post(path, typed, form=path)
    assert "has a field of its own" in unescape(answer.text)
    for parameters, words in (({"files": "0"}, "at least 1"), ({"whole": "maybe"}, "choose one")):
        with pytest.raises(Exception, match=words):
            rig.call("task.add", name="proof", type="drill", schedule="nightly",
                     repository="main", parameters=parameters)  # fmt: skip
    made = rig.call("task.add", name="proof", type="drill", schedule="nightly",
                    repository="main", parameters={"files": "7", "odd": "kept"})  # fmt: skip
    assert made["parameters"] == {"files": 7, "odd": "kept"}
