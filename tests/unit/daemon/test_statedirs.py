"""Which of two repositories with one ID is the copy, and what is found by our record."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from borgcube.core.errors import Duplicate
from borgcube.core.model import Repository
from borgcube.daemon import statedirs

ID = "ab" * 32


def record(name: str, **more: Any) -> Repository:
    return Repository(name=name, path=f"/srv/{name}", **{"repository_id": ID, **more})


def test_the_later_of_two_with_one_id_is_a_copy_of_the_first() -> None:
    first, later = record("first"), record("later")
    other = record("other", engine="another")
    unknown = record("unknown", repository_id="")
    rows = dict(enumerate((first, unknown, other, later)))
    root: Any = SimpleNamespace(repositories=SimpleNamespace(rows=rows))
    for good in (first, other, unknown, record("unknown-too", repository_id="")):
        statedirs.refuse_copy(root, good)
    for copy in (later, record("new")):
        with pytest.raises(Duplicate, match="is a copy of first, which lies at /srv/first") as told:
            statedirs.refuse_copy(root, copy)
        assert "repository remove" in told.value.next_step


def test_records_have_directories_and_sockets_of_their_own(tmp_path: Path) -> None:
    from borgcube.daemon.vaults import Vaults

    vaults = Vaults(tmp_path, idle_s=1, start_s=1, hang_s=1, log_max_bytes=1, log_keep=1)
    assert vaults.socket_for("1") != vaults.socket_for("2")
    assert statedirs.of(tmp_path, "borg", "1") != statedirs.of(tmp_path, "borg", "2")
    assert statedirs.of(tmp_path, "borg", "1").stat().st_mode & 0o777 == 0o700
