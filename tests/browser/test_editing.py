"""In a browser: two people edit one plan, a dry run is read, a server goes and comes back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from borgcube.testing.consolerig import ConsoleRig
from tests.functional.console.conftest import FAKE, REAL, add_fleet


@pytest.mark.timeout(240)
def test_a_clash_is_settled_a_dry_run_is_read_and_a_silent_server_is_noticed(
    watch: Any, tmp_path: Path
) -> None:
    expect.set_options(timeout=60_000)
    with ConsoleRig(tmp_path, python_path=(str(FAKE),), disabled=REAL) as rig:
        add_fleet(rig)
        seen, other = watch(rig), watch(rig, kind="phone")
        seen.log_in("ada")
        other.log_in("olga")
        page, theirs = seen.open("/plans/web-etc/edit"), other.open("/plans/web-etc/edit")
        theirs.fill("#f-excludes", "*.theirs")
        theirs.get_by_role("button", name="Save", exact=True).click()
        expect(theirs.locator("h1")).to_have_text("web-etc")

        page.fill("#f-excludes", "*.mine\n*/cache")
        page.fill("#f-paths", "/etc\n/srv")
        page.get_by_role("button", name="Save", exact=True).click()
        clash = page.locator("#clash")
        expect(clash).to_contain_text("Somebody else changed this")
        expect(clash).to_contain_text("*.theirs")
        assert page.input_value("#f-excludes") == "*.mine\n*/cache"
        assert page.input_value("#f-paths") == "/etc\n/srv"
        faults = seen.faults()
        seen.shot("clash-wide")
        page.get_by_label("As it is now").check()
        page.get_by_role("button", name="Save", exact=True).click()
        expect(page.locator("h1")).to_have_text("web-etc")
        plan = rig.call("plan.show", name="web-etc")
        assert (plan["excludes"], plan["paths"]) == (["*.theirs"], ["/etc", "/srv"])

        seen.open("/plans/web-etc/edit")
        page.fill("#f-paths", "/opt/typed")
        with page.expect_popup() as opened:
            page.get_by_role("button", name="See what it would save").click()
        expect(opened.value.locator("#details")).to_contain_text("not saved")
        opened.value.close()
        assert page.input_value("#f-paths") == "/opt/typed"
        assert rig.call("plan.show", name="web-etc")["paths"] == ["/etc", "/srv"]
        seen.open("/plans/web-etc")
        page.get_by_role("button", name="Dry run").click()
        page.wait_for_url(re.compile(r"/jobs/\d+$"))
        # The list appears by itself when the job has ended.
        expect(page.locator("#dry-run")).to_contain_text("250 KiB")
        expect(page.locator("#dry-run table.files tr")).to_have_count(101)
        faults += seen.faults()
        seen.shot("dry-run-wide")
        page.get_by_label("Find in paths").fill("script")
        page.locator("#dry-run").get_by_role("button", name="Find").click()
        expect(page.locator("#dry-run table.files tbody tr")).to_have_count(1)
        expect(page.locator("#dry-run")).to_contain_text("<script>alert(1)</script>")

        page.wait_for_selector('html[data-live="on"]')
        # The browser notes the status of the page with the clash, and nothing else.
        assert [error for error in seen.errors if "409 (Conflict)" not in error] == []
        assert other.errors == []
        rig.stop()
        expect(page.locator("[data-away]")).to_be_visible()
        expect(page.locator("[data-away]")).to_contain_text("borgcube serve")
        faults += seen.faults()
        seen.shot("away-wide")
        rig.start()
        expect(page.locator("[data-away]")).to_be_hidden()
    assert faults == []
