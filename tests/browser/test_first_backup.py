"""The whole way in a browser: link, repository, client by a pasted line, plan, live backup,
archive, restore. Every page on it is looked at by axe: wide, in the dark and on a phone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from borgcube.testing.consolerig import PASSWORD, ConsoleRig

# Steps whose pages no other test has in this state.
ONLY_HERE = {"02-empty-dashboard", "05-compare", "07-plan-form", "09-running"}
STOCK_BORG = str(Path(sys.executable).with_name("borg"))


@pytest.mark.timeout(300)
def test_from_the_link_to_a_restored_file(watch: Any, machine: Any, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for number in range(200):
        file = tree / f"d{number % 10}" / f"f{number}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.urandom(200_000))
    expect.set_options(timeout=40_000)
    faults: list[str] = []
    place = tmp_path / "server"
    place.mkdir()
    with ConsoleRig(place) as rig:
        seen = watch(rig)
        page = seen.page

        def look(name: str) -> None:
            # The others are looked at closely in test_every_page, as they are here.
            faults.extend(seen.look(f"way-{name}", closely=name in ONLY_HERE))

        page.goto(rig.cli("console", "link").split()[-1])
        page.fill("#f-name", "ada")
        page.fill("#f-password", PASSWORD)
        page.fill("#f-again", PASSWORD)
        look("01-first-user")
        page.click("button.main")
        expect(page.locator("h1").first).to_have_text("Nothing is backed up yet")
        look("02-empty-dashboard")

        page.get_by_role("link", name="Create a repository").click()
        page.fill("#f-name", "main")
        page.fill("#f-path", str(place / "repository"))
        look("03-repository-form")
        page.get_by_role("button", name="Create").click()
        expect(page.locator("h1")).to_have_text("main")

        page.get_by_role("link", name="Dashboard").click()
        page.get_by_role("link", name="Add a client").click()
        page.fill("#f-name", "web1")
        page.fill("#f-host", "127.0.0.1")
        page.fill("#f-user", machine.sshd.user)
        page.locator("summary", has_text="More").click()
        page.fill("#f-port", str(machine.sshd.port))
        page.fill("#f-borg", STOCK_BORG)
        look("04-client-form")
        page.get_by_role("button", name="Add and go on").click()

        # The page waits; the line is pasted on the machine; the keys are compared.
        line = page.locator("#copy-line").text_content()
        machine.paste(line)
        machine.paste(line)
        keys = (machine.sshd.directory / "authorized_keys").read_text().split("\n")
        assert len([key for key in keys if key.startswith("restrict ssh-ed25519 ")]) == 1
        # The page goes on by itself, from one state to the next; here it waits for a person.
        page.wait_for_url("**/connect?state=compare")
        expect(page.locator("[data-wait-for] .strong")).to_contain_text("compare the host keys")
        public = machine.sshd.host_key.with_suffix(".pub")
        told = subprocess.run(["ssh-keygen", "-lf", str(public)], capture_output=True, text=True,
                              check=True)  # fmt: skip
        said = told.stdout.split()[1]
        assert said in page.locator("dl.facts").text_content()
        look("05-compare")
        page.get_by_role("button", name="trust this machine").click()
        expect(page.locator(".hero.good h1")).to_have_text("web1 is connected")
        look("06-connected")

        page.get_by_role("link", name="Make a plan").click()
        page.fill("#f-name", "web1-data")
        page.fill("#f-paths", str(tree))
        page.get_by_role("button", name="Show the command").click()
        command = page.locator("#copy-command").text_content()
        assert command.startswith(f"{STOCK_BORG} create ") and str(tree) in command
        look("07-plan-form")
        page.get_by_role("button", name="Make the plan").click()
        expect(page.locator("h1")).to_have_text("web1-data")
        look("08-plan")

        # From here nothing is loaded again by hand: the page moves by itself.
        page.get_by_role("button", name="Back up now").click()
        page.wait_for_url(re.compile(r"/jobs/\d+$"))
        page.evaluate("window.notReloaded = true")
        # Its first lines are there; whether it still runs when all is looked at does not matter.
        expect(page.locator("#log")).to_contain_text("phase: connecting")
        look("09-running")
        expect(page.locator("#top .badge")).to_have_text("Done")
        expect(page.locator("#progress")).to_contain_text("stored anew")
        expect(page.locator("#log")).to_contain_text("ended: done")
        assert page.evaluate("window.notReloaded") is True
        look("10-done")
        page.get_by_role("link", name="The archive").click()
        expect(page.locator("h1")).to_contain_text("web1-data-2")
        look("11-archive")
        archive = page.url.removeprefix(rig.url)
        one = str(tree / "d3" / "f3").lstrip("/")
        page.get_by_role("link", name="Files", exact=True).click()
        page.fill('input[name="find"]', "f3")
        page.get_by_role("button", name="Find").click()
        look("11-files")
        with page.expect_download() as download:
            page.get_by_role("link", name=one, exact=True).click()
        assert download.value.suggested_filename == "f3"
        assert Path(download.value.path()).read_bytes() == (tree / "d3" / "f3").read_bytes()
        seen.open(archive)

        page.get_by_role("link", name="Restore", exact=True).click()
        page.fill("#f-paths", str(tree / "d3" / "f3").lstrip("/"))
        page.fill("#f-directory", str(tmp_path / "restored"))
        look("12-restore-form")
        page.get_by_role("button", name="Restore", exact=True).click()
        expect(page.locator("#top .badge")).to_have_text("Done")
        look("13-restored")
        back = tmp_path / "restored" / str(tree).lstrip("/") / "d3" / "f3"
        assert back.read_bytes() == (tree / "d3" / "f3").read_bytes()

        seen.open("/")
        expect(page.locator("h1").first).to_have_text("Everything is backed up")
        look("14-dashboard")
        assert seen.errors == []
    assert not faults, "\n".join(faults)
