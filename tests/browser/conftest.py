"""Debian's Chromium against a whole BorgCube: real daemon, real borg, real sshd."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from borgcube.testing.consolerig import PASSWORD, ConsoleRig
from borgcube.testing.sshd import PrivateSSHD

AXE = Path(__file__).parents[1] / "data" / "axe-core-4.14.1" / "axe.min.js"
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage",
]  # fmt: skip
PATIENCE_MS = 60_000
# What passed is neither written up by axe, nor sent here: that cost more than the looking.
RUN_AXE = """async rules => {
  const only = rules.length ? { runOnly: rules } : {};
  const { violations } = await axe.run({ resultTypes: ["violations"], ...only });
  return violations.flatMap(({ id, nodes }) => nodes.map(({ html, failureSummary }) =>
    `${id}: ${html.slice(0, 200)} ${failureSummary.slice(0, 300)}`));
}"""
ON_A_PHONE = ("scrollable-region-focusable", "target-size", "region", "list")
KINDS: dict[str, dict[str, Any]] = {
    "wide": {"viewport": {"width": 1400, "height": 900}, "color_scheme": "light"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1400, "height": 900}, "color_scheme": "dark"},
}


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    assert chromium, "bin/prepare installs chromium"
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield made
        made.close()


class Watcher:
    """A page that notes every error of its console, and looks for accessibility faults."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.url = url
        self.context = context
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._console)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def open(self, path: str) -> Page:
        self.page.goto(self.url + path)
        return self.page

    @contextmanager
    def standing_still(self, path: str) -> Iterator[Page]:
        """Open a page that waits for the server and then goes on by itself, and keep it
        waiting: it gets no answer within this context, as from a server that is busy."""
        self.page.route("**/state", lambda _route: None)
        with self.page.expect_request("**/state"):
            self.open(path)
        yield self.page
        self.page.unroute("**/state")

    def log_in(self, name: str) -> None:
        self.open("/login")
        self.page.fill("#f-name", name)
        self.page.fill("#f-password", PASSWORD)
        self.page.click("button.main")
        self.page.wait_for_url(f"{self.url}/")

    def faults(self, *rules: str) -> list[str]:
        """Return axe's violations, of these rules or of all, in words. The page must stay
        what it is meanwhile: see ``standing_still`` for those that do not."""
        # Through the debugger: the page's own policy lets no foreign script in.
        if not self.page.evaluate("'axe' in window"):
            self.page.evaluate(AXE.read_text("utf-8"))
        return [f"{self.page.url}: {fault}" for fault in self.page.evaluate(RUN_AXE, list(rules))]

    def look(self, name: str, *, closely: bool = True) -> list[str]:
        """Return what is wrong with the page as it stands: wide, in the dark and on a phone;
        keep pictures of all three. What differs in the dark is colour, and on a phone the
        layout of tables and menus; ``closely`` has axe look at those too."""
        page = self.page
        found = self.faults()
        self.shot(f"{name}-wide")
        page.emulate_media(color_scheme="dark")
        found += self.faults("color-contrast") if closely else []
        self.shot(f"{name}-dark")
        page.emulate_media(color_scheme="light")
        page.set_viewport_size({"width": 390, "height": 844})
        found += self.faults(*ON_A_PHONE) if closely else []
        if page.evaluate("document.documentElement.scrollWidth > window.innerWidth"):
            found.append(f"{page.url}: wider than a phone")
        self.shot(f"{name}-phone")
        page.set_viewport_size({"width": 1400, "height": 900})
        return found

    def shot(self, name: str) -> None:
        """Keep a picture where BORGCUBE_SHOTS says, for a person to look at."""
        directory = os.environ.get("BORGCUBE_SHOTS")
        if directory:
            Path(directory).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=f"{directory}/{name}.png", full_page=True)


@pytest.fixture
def watch(browser: Browser) -> Iterator[Any]:
    """Return a function that opens a watched page of some kind on a console."""
    contexts: list[BrowserContext] = []

    def make(rig: ConsoleRig, *, kind: str = "wide") -> Watcher:
        context = browser.new_context(**KINDS[kind], locale="en-GB", timezone_id="Europe/Berlin")
        contexts.append(context)
        return Watcher(context, rig.url)

    yield make
    for context in contexts:
        context.close()


class ClientMachine:
    """A machine to back up: an sshd whose authorized_keys a pasted line fills."""

    def __init__(self, place: Path) -> None:
        self.home = place / "home"
        self.sshd = PrivateSSHD(place / "sshd")

    def __enter__(self) -> ClientMachine:
        self.sshd.__enter__()
        (self.sshd.directory / "authorized_keys").write_text("")
        self.home.mkdir()
        (self.home / ".ssh").symlink_to(self.sshd.directory)
        return self

    def __exit__(self, *exc: object) -> None:
        self.sshd.__exit__(*exc)

    def paste(self, line: str) -> None:
        """Run a line as a person at this machine's shell would."""
        environment = {**os.environ, "HOME": str(self.home)}
        subprocess.run(["sh", "-c", line], env=environment, check=False, timeout=30,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[ClientMachine]:
    place = tmp_path / "machine"
    place.mkdir()
    with ClientMachine(place) as made:
        yield made
