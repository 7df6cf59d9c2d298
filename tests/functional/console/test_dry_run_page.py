"""A dry run's page: what a backup would take, searched and in pages, harmless."""

from __future__ import annotations

import pytest

from borgcube.core.errors import BorgCubeError
from borgcube.testing.consolerig import ConsoleRig


def test_a_dry_run_is_started_and_read_in_the_console(console: ConsoleRig) -> None:
    visitor = console.visitor("owen")
    path = visitor.post("/plans/web-etc/dry-run").location
    job = console.ended(path.rsplit("/", 1)[-1])
    assert job["state"] == "done"
    page = visitor.get(path).text
    assert "What a backup would take" in page and "250 KiB" in page
    assert "/etc/file000" in page and "/etc/file100" not in page and "1 \N{EN DASH} 100" in page
    second = visitor.get(f"{path}?start=100").text
    assert "/etc/file100" in second and "/etc/file000" not in second
    found = visitor.get(f"{path}?find=FILE24").text
    assert found.count("/etc/file24") == 9 and "/etc/file001" not in found
    assert "/etc/left.tmp" in visitor.get(f"{path}?kind=excluded").text
    last = visitor.get(f"{path}?start=200").text
    assert "&lt;script&gt;alert(1)" in last and "<script>alert" not in last
    for odd in ("?start=999999", "?start=-1", "?kind=nothing", "?find=%00%ff"):
        assert visitor.get(f"{path}{odd}").status == 200, odd


def test_nobody_starts_or_reads_a_dry_run_of_a_client_that_is_not_theirs(
    console: ConsoleRig,
) -> None:
    assert console.visitor("owen").post("/plans/mail-etc/dry-run").status == 404
    assert console.visitor("vera").post("/plans/web-etc/dry-run").status == 403
    job = console.ended(console.call("plan.dry_run", plan="mail-etc")["job_id"])
    assert console.visitor("owen").get(f"/jobs/{job['id']}").status == 404


def test_a_dry_run_counts_for_nothing_in_what_is_said_of_its_plan(console: ConsoleRig) -> None:
    before = console.visitor("vera").get("/plans/mail-etc").text.count("Backed up")
    console.ended(console.call("plan.dry_run", plan="mail-etc")["job_id"])
    assert console.visitor("vera").get("/plans/mail-etc").text.count("Backed up") == before > 0


NEW = {"client": "web", "repository": "main", "paths": "/srv\n/etc", "excludes": "*.bak",
       "compression": "lz4", "files_cache": "ctime,size", "retries": "1", "idle_timeout_s": "900",
       "retry_delay_s": "60", "max_duration_s": "900", "upload_ratelimit_kib": "0",
       "before_failure": "fail", "command_timeout_s": "60", "dry_run": "yes"}  # fmt: skip


def test_a_form_says_what_it_would_save_before_anything_is_saved(console: ConsoleRig) -> None:
    visitor = console.visitor("olga")
    plans = console.call("plan.list")
    begun = visitor.post("/plans/+add", NEW, form="/plans/+add")
    assert begun.status == 303, begun.text
    job = console.ended(begun.location.rsplit("/", 1)[-1])
    assert (job["state"], job["type"], job["plan"], job["client"]) == ("done", "dry-run", "", "web")
    assert job["parameters"]["paths"] == ["/srv", "/etc"]
    assert job["parameters"]["excludes"] == ["*.bak"]
    page = visitor.get(begun.location).text
    assert "/etc/file000" in page and "not saved" in page and "Run again" not in page
    # The edit form does it with what is typed, and changes nothing.
    changed = {**NEW, "paths": "/opt", "client": "web"}
    begun = visitor.post("/plans/web-etc/edit", changed, form="/plans/web-etc/edit")
    job = console.ended(begun.location.rsplit("/", 1)[-1])
    assert job["parameters"]["paths"] == ["/opt"] and job["plan"] == ""
    assert console.call("plan.list") == plans


def test_a_dry_run_of_a_form_that_is_wrong_says_so_beside_the_field(console: ConsoleRig) -> None:
    visitor = console.visitor("olga")
    before = console.call("job.list", limit=1)
    wrong = visitor.post("/plans/+add", {**NEW, "paths": "srv"}, form="/plans/+add")
    assert wrong.status == 400 and 'id="f-paths-error"' in wrong.text
    assert 'value="unsaved"' not in wrong.text and "*.bak" in wrong.text
    missing = visitor.post("/plans/web-etc/edit", {**NEW, "paths": ""}, form="/plans/web-etc/edit")
    assert missing.status == 400 and 'id="f-paths-error"' in missing.text
    assert console.call("job.list", limit=1) == before


def test_options_of_a_dry_run_are_checked_as_those_of_a_plan(console: ConsoleRig) -> None:
    good = {"client": "web", "repository": "main", "paths": ["/etc"]}
    for options, said in (
        ({**good, "paths": "/etc"}, "paths must be"), ({**good, "odd": 1}, "no parameter 'odd'"),
        ({"client": "web"}, "missing"), ({**good, "client": "nobody"}, "no client"),
        ({**good, "compression": "--x"}, "not a compression"),
    ):  # fmt: skip
        with pytest.raises(BorgCubeError, match=said):
            console.call("plan.dry_run", options=options)
    with pytest.raises(BorgCubeError, match="Say which plan"):
        console.call("plan.dry_run")
    job = console.ended(console.call("plan.dry_run", options=good)["job_id"])
    assert job["parameters"]["compression"] == "lz4" and job["state"] == "done"
