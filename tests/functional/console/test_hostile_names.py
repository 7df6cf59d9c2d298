"""Archives of a repository from outside have names that nobody here would give them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from borgcube.core.home import runtime_dir
from borgcube.testing.consolerig import ConsoleRig
from tests.functional.borg.outsiders import NAMES
from tests.functional.console.conftest import FAKE, REAL


@pytest.mark.timeout(120)
def test_pages_and_api_show_archives_with_hostile_names(tmp_path: Path) -> None:
    with ConsoleRig(tmp_path, python_path=(str(FAKE),), disabled=REAL) as rig:
        rig.call("repository.create", name="main", path=str(tmp_path / "repo"), passphrase="right")
        rig.user("ada")
        listed = [
            {"id": f"{number:02}", "name": name, "files": 3, "size": 5,
             "start": "2026-01-01T00:00:00+00:00", "quarantined": ""}
            for number, name in enumerate(NAMES)
        ]  # fmt: skip
        (runtime_dir(rig.home) / "archives.json").write_text(json.dumps(listed))
        rig.ended(rig.call("prune.start", repository="main")["job_id"])
        visitor = rig.visitor("ada")
        pages = ["/", "/archives", "/repositories/main", "/api/v1/archives"]
        for number in range(len(NAMES)):
            pages += [f"/archives/main/{number:02}", f"/api/v1/archives/main/{number:02}"]
        for path in pages:
            answer = visitor.get(path)
            assert answer.status == 200, (path, answer.status)
            shown = answer.text
            assert "<script>alert" not in shown or path.startswith("/api"), path
            assert not set(shown) & {"\x1b", "\x07", "\N{RIGHT-TO-LEFT OVERRIDE}"}, path
