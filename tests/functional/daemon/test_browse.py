"""An archive's files are listed without the repository, and what is chosen comes back."""

from __future__ import annotations

import os
import shutil
from typing import Any

from borgcube.plugins.borg.catalog import path_of


def test_files_are_browsed_chosen_and_restored_and_those_of_an_import_are_read_first(
    cube: Any,
) -> None:
    root = cube.place / "tree"
    odd = os.fsencode(root) + b"/sub/odd\xff\n"
    (root / "sub").mkdir(parents=True)
    (root / "plain").write_bytes(b"p" * 1000)
    with open(odd, "wb") as file:
        file.write(b"o" * 500)
    cube.local_client("here")
    cube.plan("p", root, client="here")
    archive = cube.call("archive.show", name=cube.backup("p")["result"]["archive"])

    def look(repository: str = "main", **asked: Any) -> dict[str, Any]:
        return dict(cube.call("archive.browse", repository=repository, id=archive["id"], **asked))

    key = str(root).lstrip("/")
    page = look(key=key)
    assert [(e["name"], e["kind"], e["size"], e["files"]) for e in page["entries"]] == [
        ("sub", "d", 500, 1), ("plain", "-", 1000, 1),
    ]  # fmt: skip
    (found,) = look(find="odd")["entries"]
    assert path_of(found["key"]) == odd.lstrip(b"/") and found["name"].isprintable()
    restored = cube.place / "back"
    job = cube.ended(cube.call(
        "restore.start", archive=archive["name"], to_dir=str(restored),
        paths=[path_of(found["key"]).decode("utf-8", "surrogateescape")],
    )["job_id"])  # fmt: skip
    assert (job["state"], job["result"]["files"]) == ("done", 1), job
    with open(os.fsencode(restored) + b"/" + odd.lstrip(b"/"), "rb") as file:
        assert file.read() == b"o" * 500

    # The same repository, forgotten and taken in again by another name: its lists are lost.
    cube.call("repository.remove", name="main", with_plans=True)
    for state in (cube.home / "engines" / "borg").rglob("catalog"):
        shutil.rmtree(state)
    cube.call("repository.import", name="again", path=str(cube.repository),
              passphrase="correct horse")  # fmt: skip
    assert look("again") == {"known": False}
    sizes = cube.call("repository.sizes", name="again")
    assert (sizes["held_bytes"], sizes["unsized"]) == (archive["stats"]["size"], 0)
    job = cube.ended(cube.call("archive.read", repository="again", id=archive["id"])["job_id"])
    assert job["state"] == "done" and job["result"]["files"] > 3
    again = look("again", key=key)
    assert [e["name"] for e in again["entries"]] == ["sub", "plain"]
    assert again["entries"][1] == page["entries"][1]
