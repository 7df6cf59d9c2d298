"""Reading all files again, and clocks that are off: where the console says so, and to whom."""

from __future__ import annotations

import re
from typing import Any

from borgcube.testing.consolerig import ConsoleRig

OFFER = "Files may have been changed on it unseen."


def run(console: ConsoleRig, plan: str, **more: Any) -> dict[str, Any]:
    return console.ended(console.call("backup.start", plan=plan, **more)["job_id"])


def form_for(page: str, plan: str) -> list[str]:
    """Return the buttons of forms that start a reread of a plan."""
    found = re.findall(r'<form method="post" action="([^"]+)">(.*?)</form>', page, re.DOTALL)
    return [body for action, body in found
            if action.endswith(f"/plans/{plan}/backup") and 'name="reread"' in body]  # fmt: skip


def test_after_a_violation_plan_client_and_job_offer_to_read_all_again_until_it_is_done(
    console: ConsoleRig,
) -> None:
    console.call("client.add", name="bad", transport="local")
    for name in ("bad-etc", "bad-home"):
        console.call("plan.add", name=name, client="bad", repository="main", paths=["/etc"],
                     comment="violation")  # fmt: skip
    job = run(console, "bad-etc")
    assert job["state"] == "failed"
    assert job["cause"]["next_step"].endswith("borgcube backup bad-etc --reread")
    olga, vera = console.visitor("olga"), console.visitor("vera")
    pages = ("/plans/bad-etc", "/clients/bad", f"/jobs/{job['id']}")
    for path in pages:
        page = olga.get(path).text
        assert OFFER in page and form_for(page, "bad-etc"), path
        page = vera.get(path).text
        assert OFFER in page and not form_for(page, "bad-etc"), path
    assert form_for(olga.get("/clients/bad").text, "bad-home")
    # Who may not start a backup may not start this either.
    assert vera.post("/plans/bad-etc/backup", {"reread": "yes"}).status == 403
    assert console.visitor("owen").post("/plans/bad-etc/backup", {"reread": "yes"}).status == 404
    begun = olga.post("/plans/bad-etc/backup", {"reread": "yes"}, form="/clients/bad")
    done = console.ended(begun.location.rpartition("/")[2])
    assert done["state"] == "done" and done["parameters"]["reread"] is True
    assert "all files, whatever is known of them" in olga.get(begun.location).text
    for path in (*pages, begun.location):
        page = olga.get(path).text
        assert (OFFER in page) is (path == "/clients/bad"), path  # of its other plan
    assert form_for(olga.get("/clients/bad").text, "bad-home")
    # "Run again" is a run as any other.
    again = console.ended(olga.post(f"{begun.location}/again").location.rpartition("/")[2])
    assert "reread" not in again["parameters"]


def test_a_button_of_a_plan_reads_all_again_whenever_one_wants(console: ConsoleRig) -> None:
    olga = console.visitor("olga")
    assert len(form_for(olga.get("/plans/web-etc").text, "web-etc")) == 1
    begun = olga.post("/plans/web-etc/backup", {"reread": "yes"}, form="/plans/web-etc")
    assert console.ended(begun.location.rpartition("/")[2])["parameters"]["reread"] is True
    begun = olga.post("/plans/web-etc/backup", form="/plans/web-etc")
    assert "reread" not in console.ended(begun.location.rpartition("/")[2])["parameters"]


def test_a_clock_that_is_off_is_said_of_its_job_archive_and_client(console: ConsoleRig) -> None:
    console.call("client.add", name="late", transport="local")
    console.call("plan.add", name="late-etc", client="late", repository="main", paths=["/etc"],
                 comment="ahead")  # fmt: skip
    job = run(console, "late-etc")
    archive = console.call("archive.list", plan="late-etc")[0]
    vera = console.visitor("vera")
    paths = ("/clients/late", f"/jobs/{job['id']}", f"/archives/main/{archive['id']}")
    words = "The clock of late is 23 hours ahead of this server's."
    then = "The clock of late was 23 hours ahead of this server's then."
    assert [words in vera.get(path).text for path in paths] == [True, False, False]
    assert [then in vera.get(path).text for path in paths] == [False, True, True]
    assert archive["begun_at"] == job["started_at"]
    assert "Client late has a clock that is 23 h ahead" in str(console.call("doctor"))
    console.call("plan.set", name="late-etc", comment="on time")
    run(console, "late-etc")
    assert words not in vera.get("/clients/late").text
    assert then in vera.get(f"/jobs/{job['id']}").text  # of that run it stays true
    assert "Client late" not in str(console.call("doctor"))
