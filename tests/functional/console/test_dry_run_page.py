"""A dry run's page: what a backup would take, searched and in pages, harmless."""

from __future__ import annotations

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
    assert console.visitor("owen").post("/plans/mail-etc/dry-run").status == 403
    assert console.visitor("vera").post("/plans/web-etc/dry-run").status == 403
    job = console.ended(console.call("plan.dry_run", plan="mail-etc")["job_id"])
    assert console.visitor("owen").get(f"/jobs/{job['id']}").status == 403


def test_a_dry_run_counts_for_nothing_in_what_is_said_of_its_plan(console: ConsoleRig) -> None:
    before = console.visitor("vera").get("/plans/mail-etc").text.count("Backed up")
    console.ended(console.call("plan.dry_run", plan="mail-etc")["job_id"])
    assert console.visitor("vera").get("/plans/mail-etc").text.count("Backed up") == before > 0
