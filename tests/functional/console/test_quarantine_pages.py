"""Archives in quarantine in the console and the API: named, what to do, and what is off."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html import unescape

import pytest

from borgcube.core.home import runtime_dir
from borgcube.testing.consolerig import ConsoleRig
from tests.functional.console.conftest import FAKE, REAL

WHY = "an item has <b>chunks</b> twice"


@pytest.fixture(scope="module")
def quarantine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsoleRig]:
    """A console whose repository has a good archive and a newer one in quarantine."""
    place = tmp_path_factory.mktemp("quarantine")
    now = datetime.now(UTC)
    with ConsoleRig(place, python_path=(str(FAKE),), disabled=REAL) as rig:
        rig.call("repository.create", name="main", path=str(place / "repo"), passphrase="right")
        rig.call("client.add", name="web", transport="local")
        rig.call("plan.add", name="web-etc", client="web", repository="main", paths=["/etc"])
        rig.user("ada")
        rig.user("olga", "operator")
        listed = [
            {"id": key, "name": name, "client": "web", "plan": "web-etc", "files": 3, "size": 5,
             "start": (now - timedelta(hours=hours)).isoformat(), "quarantined": why}
            for key, name, hours, why in (("good", "good-1", 2, ""), ("bad", "bad-1", 1, WHY))
        ]  # fmt: skip
        (runtime_dir(rig.home) / "archives.json").write_text(json.dumps(listed))
        rig.ended(rig.call("prune.start", repository="main")["job_id"])
        yield rig


def test_list_page_doctor_and_api_name_it_with_the_reason(quarantine: ConsoleRig) -> None:
    visitor = quarantine.visitor("ada")
    page = visitor.get("/archives").text
    assert page.count("in quarantine") == 1 and "<b>chunks" not in page
    assert WHY in unescape(page)
    page = visitor.get("/archives/main/bad").text
    assert WHY in unescape(page) and "/archives/main/bad/mend" in page
    assert "in quarantine" not in visitor.get("/archives/main/good").text
    told = [one for one in quarantine.call("doctor") if "archive" in one["message"]]
    found = [one for one in told if "1 archive is in quarantine" in one["message"]]
    assert len(found) == 1 and WHY in found[0]["message"]
    token = visitor.get("/api/v1/archives/main/bad")
    assert json.loads(token.text)["quarantine"] == WHY
    front = visitor.get("/").text
    assert re.search(r"Newest archive\s*(<time[^>]*>)?2 hours ago", front)
    status = json.loads(visitor.get("/api/v1/plans/web-etc/status").text)
    assert status["archive"] == "good"


def test_restore_and_download_are_off(quarantine: ConsoleRig) -> None:
    visitor = quarantine.visitor("ada")
    page = visitor.get("/archives/main/bad").text
    assert "/bad/restore" not in page and ">extract<" not in page
    assert ">extract<" in visitor.get("/archives/main/good").text
    assert "/good/restore" in visitor.get("/archives/main/good").text
    assert "Nothing is restored or downloaded" in visitor.get("/archives/main/bad/restore").text
    files = visitor.get("/archives/main/bad/files?key=etc").text
    assert "Nothing is restored or downloaded" in files
    assert "/content" not in files and "Restore what is chosen" not in files
    refused = visitor.post(
        "/archives/main/bad/restore",
        {"target": "server", "directory": str(quarantine.place / "out"), "paths": ""},
        form="/archives/main/good/restore",
    )
    assert refused.status == 400 and "is in quarantine" in unescape(refused.text)
    answer = visitor.get("/archives/main/bad/content?key=etc/f001")
    assert answer.status >= 400 and b"xxxx" not in answer.body


def test_only_who_may_delete_is_offered_to_mend(quarantine: ConsoleRig) -> None:
    operator = quarantine.visitor("olga")
    assert "/mend" not in operator.get("/archives/main/bad").text
    assert operator.post("/archives/main/bad/mend").status == 403


def test_the_dialog_of_a_deletion_says_that_all_is_counted_anew(quarantine: ConsoleRig) -> None:
    visitor = quarantine.visitor("ada")
    assert "counted anew" in visitor.get("/archives/main/bad/delete").text
    assert "counted anew" not in visitor.get("/archives/main/good/delete").text


def test_it_is_mended_from_its_page(quarantine: ConsoleRig) -> None:
    visitor = quarantine.visitor("ada")
    waits = runtime_dir(quarantine.home) / "mend-waits"
    waits.touch()
    begun = visitor.post("/archives/main/bad/mend", form="/archives/main/bad")
    assert begun.location.startswith("/jobs/"), begun.text
    assert visitor.post("/archives/main/bad/mend").location == begun.location, "one is enough"
    deadline = time.monotonic() + 30
    while "3 of 10 archives looked through" not in visitor.get(begun.location).text:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    waits.unlink()
    quarantine.ended(begun.location.rpartition("/")[2])
    page = visitor.get(begun.location).text
    assert "left out: etc/bad" in unescape(page)
    found = quarantine.call("archive.show", name="bad-1")
    assert (found["id"], found["quarantine"], found["plan"]) == ("mended", "", "web-etc")
    assert "in quarantine" not in visitor.get("/archives").text
