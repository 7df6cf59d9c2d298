"""Takes the README's pictures of the console: ``python -m borgcube.testing.screenshots OUT``.

Everything in them is real: a daemon, three clients over SSH, backups by borg, a Chromium.
It needs the packages of the test extra and what ``bin/prepare`` installs.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from borgcube.testing.consolerig import PASSWORD, ConsoleRig
from borgcube.testing.sshd import PrivateSSHD
from borgcube.testing.trees import make_mixed

SIZE: ViewportSize = {"width": 1180, "height": 760}
THEMES = ("light", "dark")
LIVE_BYTES = 48 << 20
PLANS = {"web1": "/etc", "mail": "/usr/share/doc"}
PATIENCE_MS = 60_000


def furnish(rig: ConsoleRig, sshd: PrivateSSHD, tree: Path) -> None:
    """Make a user, a repository, clients and plans, and back each plan up."""
    rig.user("ada")
    rig.call("repository.create", name="main", path=str(rig.place / "main"),
             encryption="auto")  # fmt: skip
    make_mixed(tree, LIVE_BYTES)
    plans = {**PLANS, "files": str(tree)}
    for name, path in plans.items():
        rig.cli(
            "client", "add", name, "--host", sshd.host, "--port", str(sshd.port),
            "--user", sshd.user, "--identity", str(sshd.identity), "--accept-host-key",
        )  # fmt: skip
        plan = f"{name}-{Path(path).name}"
        rig.call("plan.add", name=plan, client=name, repository="main", paths=[path],
                 exclude_caches=True)  # fmt: skip
        ended = rig.ended(rig.call("backup.start", plan=plan)["job_id"], timeout_s=300)
        if ended["state"] not in ("done", "warning"):
            raise SystemExit(f"the backup of {path} ended as {ended['state']}: {ended['cause']}")


def take(out: Path, name: str, page: Page) -> None:
    """Take a picture in each theme."""
    for theme in THEMES:
        page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
        page.screenshot(path=str(out / f"{name}-{theme}.png"))


def waited(look: Callable[[], Any]) -> Any:
    """Return what ``look`` finds, when it finds something."""
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while not (found := look()):
        if time.monotonic() > deadline:
            raise SystemExit("what the picture needs did not happen")
        time.sleep(0.2)
    return found


def walk(rig: ConsoleRig, browser: Browser, out: Path, *, tree: Path) -> None:
    """Open the pages and take the pictures."""
    page = browser.new_page(viewport=SIZE, locale="en-GB")
    page.set_default_timeout(PATIENCE_MS)

    def open_page(path: str) -> None:
        page.goto(rig.url + path)
        page.wait_for_selector('html[data-live="on"]')

    page.goto(f"{rig.url}/login")
    page.fill("#f-name", "ada")
    page.fill("#f-password", PASSWORD)
    page.click("button.main")
    page.wait_for_url(f"{rig.url}/")

    archive = rig.call("archive.list", client="web1")[0]
    open_page(f"/archives/main/{archive['id']}")
    take(out, "archive", page)

    rig.call("client.enrol", name="laptop", transport="openssh", host="laptop.example.org",
             user="root")  # fmt: skip
    open_page("/clients/laptop/connect")
    page.wait_for_selector("#copy-line")
    take(out, "add-a-client", page)
    rig.call("client.remove", name="laptop")

    # Everything in the tree is new, and the limit keeps the job in sight.
    shutil.rmtree(tree)
    make_mixed(tree, LIVE_BYTES, seed=2)
    plan = f"files-{tree.name}"
    rig.call("plan.set", name=plan, upload_ratelimit_kib=2500)
    job = rig.call("backup.start", plan=plan)["job_id"]
    open_page(f"/jobs/{job}")
    page.wait_for_function(
        "() => { const bar = document.querySelector('#progress progress');"
        " return bar && bar.max > 1 && bar.value / bar.max > 0.3; }"
    )
    waited(lambda: page.locator('#progress [data-figure="left"]').text_content())
    take(out, "live-job", page)
    open_page("/")
    page.wait_for_selector(f'#card-running [data-job="{job}"]')
    waited(lambda: page.locator('#card-running [data-figure="left"]').text_content())
    take(out, "dashboard", page)
    rig.call("job.cancel", id=job)


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(prog="python -m borgcube.testing.screenshots")
    parser.add_argument("out", type=Path, help="where the pictures go")
    out: Path = parser.parse_args().out
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("There is no chromium; bin/prepare installs it.")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="borgcube-") as name:
        place = Path(name)
        tree = place / "projects"
        tree.mkdir()
        with PrivateSSHD(place / "sshd") as sshd, ConsoleRig(place) as rig:
            furnish(rig, sshd, tree)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
                )
                walk(rig, browser, out, tree=tree)
                browser.close()
    for path in sorted(out.glob("*.png")):
        print(f"{path} {path.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
