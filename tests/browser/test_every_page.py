"""Every page in a real browser: no fault for axe, no error in the console, no page wider
than a phone, in light and dark; and the live dashboard."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from borgcube.testing.consolerig import ConsoleRig
from tests.functional.console.conftest import FAKE, REAL, add_fleet
from tests.functional.console.matrix import make_records, pages


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsoleRig]:
    place = tmp_path_factory.mktemp("fleet")
    with ConsoleRig(place, python_path=(str(FAKE),), disabled=REAL) as rig:
        add_fleet(rig)
        yield rig


def archive_path(rig: ConsoleRig, *more: str) -> str:
    archive = rig.call("archive.list", client="web")[0]
    return "/".join(["/archives/main", archive["id"], *more])


@pytest.mark.timeout(600)
def test_no_page_has_a_fault(fleet: ConsoleRig, watch: Any) -> None:
    """Every page of the matrix, loaded once, then seen in the dark and on a phone."""
    waiting = "/clients/web/connect"
    paths = ["/login", *pages(make_records(fleet))]
    paths.remove(waiting)
    seen = watch(fleet)
    page = seen.page
    faults: list[str] = []
    for path in paths:
        seen.open(path)
        if path != "/login":
            page.wait_for_selector('html[data-live="on"]')
        name = re.sub(r"\W+", "-", path.partition("?")[0]).strip("-")[:70] or "home"
        faults += seen.look(name)
        if path == "/login":
            seen.log_in("ada")
    with seen.standing_still(waiting):
        faults += seen.look("clients-web-connect")
    # It hears that the login works, and goes on by itself.
    page.wait_for_url("**/connect?state=ready")
    page.wait_for_selector('html[data-live="on"]')
    faults += seen.look("clients-web-connected")
    # What is shown once has no address of its own.
    page = seen.open("/schedules/triggers/+add?plan=web-etc")
    page.fill("#f-name", "once")
    page.locator("form.form button.main").click()
    copy = page.locator('[data-copy="copy-curl"]')
    copy.click()
    expect(copy).to_have_text("Copied")
    faults += seen.faults()
    assert not faults, "\n".join(faults)
    assert seen.errors == []
    assert len(paths) > 40


@pytest.mark.timeout(240)
def test_the_dashboard_moves_by_itself_and_survives_a_restart(
    fleet: ConsoleRig, watch: Any
) -> None:
    expect.set_options(timeout=60_000)
    seen = watch(fleet)
    seen.log_in("ada")
    page = seen.page
    page.wait_for_selector('html[data-live="on"]')
    page.evaluate("window.notReloaded = true")
    fleet.call("plan.add", name="slow", client="web", repository="main", paths=["/x"],
               comment="long")  # fmt: skip
    job = fleet.call("backup.start", plan="slow")["job_id"]
    running = page.locator(f'#card-running [data-job="{job}"]')
    expect(running).to_contain_text("Running")
    expect(running.locator('[data-figure="files"]')).to_have_text("1")
    seen.shot("dashboard-running-wide")
    fleet.stop()
    page.wait_for_selector('html[data-live="off"]')
    fleet.start()
    page.wait_for_selector('html[data-live="on"]')
    # What happened while nobody listened is caught up with.
    expect(page.locator("#card-running")).to_be_empty()
    expect(page.locator("#card-recent")).to_contain_text("Backup slow")
    assert page.evaluate("window.notReloaded") is True


@pytest.mark.timeout(240)
def test_what_a_client_prints_is_not_run_in_the_browser(fleet: ConsoleRig, watch: Any) -> None:
    job = fleet.call("job.list", client="web")[-1]["id"]
    log = Path(fleet.home) / "jobs" / job / "log.txt"
    with log.open("a", encoding="utf-8") as out:
        out.write("2026-01-01T00:00:00.000+00:00 info <img src=x onerror='window.pwned=1'>\n")
    seen = watch(fleet)
    seen.log_in("ada")
    page = seen.open(f"/jobs/{job}")
    expect(page.locator("#log")).to_contain_text("<img src=x onerror=")
    # The times of a log are the viewer's too: this browser is in Berlin.
    expect(page.locator("#log time").last).to_have_text("01:00:00")
    assert page.evaluate("window.pwned") is None
    assert page.locator("#log img").count() == 0
    # Even markup that got past the escaping would find no way to run.
    page.evaluate(
        "document.querySelector('#log').innerHTML = '<img src=x onerror=\"window.pwned=1\">'"
    )
    page.wait_for_timeout(500)
    assert page.evaluate("window.pwned") is None
    assert any("Content Security Policy" in error for error in seen.errors)


@pytest.mark.timeout(240)
def test_the_name_must_be_typed_before_the_button_works(fleet: ConsoleRig, watch: Any) -> None:
    seen = watch(fleet)
    seen.log_in("ada")
    page = seen.open(archive_path(fleet, "delete"))
    button = page.locator("[data-confirmed]")
    expect(button).to_be_disabled()
    page.fill("#confirm", "something")
    expect(button).to_be_disabled()
    page.fill("#confirm", str(page.locator("#confirm-name").text_content()))
    expect(button).to_be_enabled()


@pytest.mark.timeout(240)
def test_a_changed_or_ended_session_leaves_the_page(fleet: ConsoleRig, watch: Any) -> None:
    expect.set_options(timeout=60_000)
    fleet.user("mina", "viewer")
    seen = watch(fleet)
    seen.log_in("mina")
    seen.page.wait_for_selector('html[data-live="on"]')
    pages = seen.page.locator("nav[aria-label=Pages]")
    plans = seen.page.locator("main .plans")
    expect(pages).to_contain_text("Repositories")
    expect(plans).to_contain_text("mail-etc")
    # Nobody touches the page: it becomes that of the new role by itself.
    fleet.call("user.change", name="mina", role="owner", clients=["web"])
    expect(pages).not_to_contain_text("Repositories")
    expect(plans).to_contain_text("web-etc")
    expect(plans).not_to_contain_text("mail-etc")
    seen.page.wait_for_selector('html[data-live="on"]')
    fleet.call("user.disable", name="mina")
    seen.page.wait_for_url("**/login**")
    expect(seen.page.locator("h1")).to_have_text("Log in")
