"""The files of an archive in the console: browsed, searched, chosen to restore."""

from __future__ import annotations

import re
from html import unescape

from borgcube.testing.consolerig import ConsoleRig


def test_an_archive_is_browsed_and_what_is_chosen_is_restored(console: ConsoleRig) -> None:
    archive = console.call("archive.list", client="web")[0]
    path = f"/archives/main/{archive['id']}"
    visitor = console.visitor("owen")
    top = visitor.get(f"{path}/files").text
    assert "\\x1b[2J&lt;b&gt;\\n/" in top and "\x1b" not in top and "<b>" not in top
    odd = unescape(re.findall(r'name="key" value="([^"]+)"', top)[1])
    inside = visitor.get(f"{path}/files?key=etc").text
    assert "f000" in inside and "f199" in inside and "f200" not in inside
    last = visitor.get(f"{path}/files?key=etc&start=400").text
    assert "f449" in last and "401 \N{EN DASH} 450" in last
    found = visitor.get(f"{path}/files?find=f44").text
    assert found.count('name="key"') == 10
    form = visitor.post(f"{path}/restore", {"choose": "yes", "key": ["etc/f001", odd, "%FF"]})
    assert form.status == 200 and ">etc/f001</textarea>" in form.text
    assert "names that cannot be typed" in form.text
    keys = [unescape(key) for key in re.findall(r'name="key" value="([^"]+)"', form.text)]
    assert keys == [odd, "%FF"]
    done = visitor.post(f"{path}/restore", {
        "paths": "etc/f001", "key": keys, "target": "client:web", "directory": "/tmp/x",
    })  # fmt: skip
    job = console.ended(done.location.rsplit("/", 1)[-1])
    assert job["parameters"]["paths"] == ["etc/f001", "\x1b[2J<b>\n", "\udcff"]
    assert "\x1b" not in visitor.get(done.location).text


def test_choosing_nothing_does_not_quietly_mean_everything(console: ConsoleRig) -> None:
    archive = console.call("archive.list", client="web")[0]
    path = f"/archives/main/{archive['id']}/restore"
    page = console.visitor("owen").post(path, {"choose": "yes"}).text
    assert "Nothing was chosen" in page


def test_a_list_that_was_not_read_yet_is_read_by_a_job(console: ConsoleRig) -> None:
    console.call("repository.import", name="taken", path=str(console.place), passphrase="right")
    visitor = console.visitor("olga")
    page = visitor.get("/archives/taken/e1/files").text
    assert "was not read yet" in page
    done = visitor.post("/archives/taken/e1/read")
    assert console.ended(done.location.rsplit("/", 1)[-1])["result"]["archive_id"] == "e1"
    console.call("repository.remove", name="taken")


def test_files_of_other_clients_and_odd_addresses_are_refused(console: ConsoleRig) -> None:
    mail = console.call("archive.list", client="mail")[0]
    owner, viewer = console.visitor("owen"), console.visitor("vera")
    assert owner.get(f"/archives/main/{mail['id']}/files").status == 404
    page = viewer.get(f"/archives/main/{mail['id']}/files")
    assert page.status == 200 and 'name="key"' not in page.text
    assert viewer.post(f"/archives/main/{mail['id']}/read").status == 403
    for odd in ("?key=%ff%00", "?start=99999999999", "?key=" + "a/" * 3000, "?find=%ff"):
        assert viewer.get(f"/archives/main/{mail['id']}/files{odd}").status in (200, 400), odd
