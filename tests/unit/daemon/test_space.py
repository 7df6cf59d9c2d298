"""What the disks of repositories have free, and what repositories take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from borgcube.core import lifecycle
from borgcube.core.model import Archive, Repository
from borgcube.core.store import Store
from borgcube.daemon import space

TODAY = f"{datetime.now(UTC):%Y-%m-%d}"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    (tmp_path / "repo" / "data").mkdir(parents=True)
    (tmp_path / "repo" / "config").write_bytes(b"x" * 10)
    (tmp_path / "repo" / "data" / "0").write_bytes(b"x" * 1000)
    (tmp_path / "elsewhere").write_bytes(b"x" * 5000)
    (tmp_path / "repo" / "data" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "repo" / "data" / "up").symlink_to(tmp_path)
    made = Store.open("memory://")
    with made.transact() as root:
        root.repositories.add(Repository(name="main", path=str(tmp_path / "repo")))
        root.repositories.add(Repository(name="gone", path=str(tmp_path / "gone")))
    yield made
    made.close()


def look(watch: space.SpaceWatch) -> None:
    """Let it begin a look and note what it saw."""
    watch.step()
    assert watch._look is not None, "it did not look"
    deadline = time.monotonic() + 60
    while watch._look is not None and time.monotonic() < deadline:
        watch.step()
        time.sleep(0.01)


def add_archive(store: Store, size: int) -> None:
    with store.transact() as root:
        lifecycle.add_archive(root, Archive(
            id=f"{size}", name=f"{size}", repository="main", stats={"size": size},
            start=datetime.now(UTC).isoformat(),
        ))  # fmt: skip


def test_what_a_repository_takes_is_kept_beside_what_it_holds(store: Store) -> None:
    watch = space.SpaceWatch(store)
    look(watch)
    with store.reading() as root:
        entry = root.fleet.repository("main").days[TODAY]
        assert (entry["stored"], entry["held"]) == (1010, 0) and entry["free"] > 0
        # One whose disk is not mounted is left alone, and does not keep others from it.
        assert not root.fleet.repository("gone").days


def test_a_repository_that_changed_is_looked_at_soon_and_others_in_an_hour(store: Store) -> None:
    watch = space.SpaceWatch(store)
    look(watch)
    watch.step()
    assert watch._look is None
    add_archive(store, 70)
    watch.step()
    assert watch._look is None, "however often archives come, there is time between"
    watch._not_before["main"] = 0.0
    look(watch)
    with store.reading() as root:
        assert root.fleet.repository("main").days[TODAY]["held"] == 70


def test_a_forgotten_repository_is_not_noted_any_more(store: Store) -> None:
    watch = space.SpaceWatch(store)
    watch.step()
    with store.transact() as root:
        root.repositories.remove(root.repositories.find("name", "main"))
    deadline = time.monotonic() + 60
    while watch._look is not None and time.monotonic() < deadline:
        watch.step()
        time.sleep(0.01)
    with store.reading() as root:
        assert "main" not in root.fleet.repositories
