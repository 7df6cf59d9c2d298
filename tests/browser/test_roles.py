"""Each role in a real browser, and the whole console with the keyboard alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from borgcube.testing.consolerig import PASSWORD, ConsoleRig
from tests.functional.console.conftest import FAKE, REAL, add_fleet

# What each role can press on the pages of one client's plan, job and archive.
OFFERED = {
    "olga": {
        "Back up now",
        "Read all again",
        "Dry run",
        "Run again",
        "Restore",
        "Files",
        "Make a plan",
        "Edit",
        "Remove",
        "Test",
        "Connection",
    },
    "vera": {"Files"},
    "owen": {"Back up now", "Read all again", "Dry run", "Run again", "Restore", "Files"},
}
HIDDEN_PAGES = {
    "olga": {"Users", "Audit trail"},
    "vera": {"Users", "Audit trail"},
    "owen": {"Users", "Audit trail", "Repositories", "Events", "Plugins", "About"},
}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsoleRig]:
    place = tmp_path_factory.mktemp("roles")
    with ConsoleRig(place, python_path=(str(FAKE),), disabled=REAL) as rig:
        add_fleet(rig)
        yield rig


@pytest.mark.timeout(240)
@pytest.mark.parametrize("user", OFFERED)
def test_a_role_has_whole_pages_with_what_it_may_do(
    fleet: ConsoleRig, watch: Any, user: str
) -> None:
    archive = fleet.call("archive.list", client="web")[0]["id"]
    seen = watch(fleet)
    seen.log_in(user)
    faults: list[str] = []
    buttons: set[str] = set()
    for path in ("/", "/clients/web", "/plans/web-etc", "/jobs/1", f"/archives/main/{archive}",
                 "/account"):  # fmt: skip
        page = seen.open(path)
        page.wait_for_selector('html[data-live="on"]')
        # What the administrator sees as well is looked at in test_every_page.
        faults += seen.faults() if path in ("/", "/plans/web-etc") else []
        if path != "/account":
            found = page.locator("main .head .button").all_inner_texts()
            buttons |= {text.strip() for text in found if text.strip()}
    assert buttons == OFFERED[user]
    pages = set(page.locator("nav[aria-label=Pages] a").all_inner_texts())
    assert not pages & HIDDEN_PAGES[user] and {"Clients", "Plans", "Jobs"} <= pages
    seen.shot(f"role-{user}")
    refused = seen.open("/users")
    expect(refused.locator("h1")).to_have_text("You may not do this")
    faults += seen.faults()
    assert faults == []
    # The refused page itself is the one thing that Chromium reports.
    assert [error for error in seen.errors if "403" not in error] == []


def on(page: Page) -> str:
    """Return what has the focus, in the words that a screen reader would say."""
    return str(page.evaluate(
        """() => {
          const here = document.activeElement;
          const label = here.id && document.querySelector(`label[for="${here.id}"]`);
          return (here.getAttribute("aria-label") || label?.textContent
            || here.textContent || here.title || "").trim();
        }"""
    ))  # fmt: skip


def tab_to(page: Page, words: str, *, limit: int = 60) -> None:
    """Press Tab until something with these words has the focus, and see that it shows."""
    passed = []
    for _ in range(limit):
        page.keyboard.press("Tab")
        passed.append(on(page))
        if passed[-1].startswith(words):
            outline = page.evaluate(
                "() => { const s = getComputedStyle(document.activeElement);"
                " return s.outlineStyle !== 'none' && s.outlineWidth !== '0px'; }"
            )
            assert outline, f"the focus on {words!r} cannot be seen"
            return
    raise AssertionError(f"the keyboard does not reach {words!r}; it passed {passed}")


@pytest.mark.timeout(240)
def test_the_keyboard_alone_is_enough(fleet: ConsoleRig, watch: Any) -> None:
    """Log in, make a plan, back it up, read its log, restore, log out: no mouse."""
    expect.set_options(timeout=60_000)
    seen = watch(fleet)
    page = seen.open("/login")
    press, write = page.keyboard.press, page.keyboard.type
    tab_to(page, "Name")
    write("ada")
    tab_to(page, "Password")
    write(PASSWORD)
    press("Enter")
    page.wait_for_url(f"{fleet.url}/")

    # The first stop leads past the navigation.
    press("Tab")
    assert on(page) == "Skip to the page"
    press("Enter")
    press("Tab")
    assert page.evaluate("document.querySelector('main').contains(document.activeElement)")

    page.goto(f"{fleet.url}/")
    tab_to(page, "Plans")
    press("Enter")
    page.wait_for_url("**/plans")
    tab_to(page, "Make a plan")
    press("Enter")
    page.wait_for_url("**/plans/+add")
    tab_to(page, "Name")
    write("keys")
    tab_to(page, "Client")
    press("w")
    tab_to(page, "What to back up")
    write("/srv/keys")
    # A folded part opens with the keyboard too, and its fields come next.
    tab_to(page, "More")
    press("Enter")
    tab_to(page, "Stay on one file system")
    press("Space")
    tab_to(page, "Make the plan")
    press("Enter")
    page.wait_for_url("**/plans/keys")
    assert fleet.call("plan.show", name="keys")["one_file_system"] is True

    tab_to(page, "Back up now")
    press("Enter")
    page.wait_for_url(re.compile(r"/jobs/\d+$"))
    expect(page.locator("#top .badge")).to_have_text("Done")
    tab_to(page, "Search the log")
    write("no such line")
    expect(page.locator("#log p:visible")).to_have_count(0)
    # The log scrolls by the arrow keys once it has the focus.
    tab_to(page, "Log")
    tab_to(page, "Archives")
    press("Enter")
    page.wait_for_url("**/archives")
    tab_to(page, "keys-")
    press("Enter")
    page.wait_for_url("**/archives/main/*")
    tab_to(page, "Files")  # the first button of the page; what follows is its own
    tab_to(page, "Restore")
    press("Enter")
    page.wait_for_url("**/restore")
    tab_to(page, "Directory there")
    write("/tmp/keys")
    press("Enter")
    expect(page.locator("#top h1")).to_contain_text("Restore")

    tab_to(page, "Light or dark")
    press("Enter")
    assert page.locator("html").get_attribute("data-theme") == "dark"
    tab_to(page, "Log out")
    press("Enter")
    page.wait_for_url("**/login")
    assert seen.errors == []
