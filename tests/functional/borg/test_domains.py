"""Promise 4: what a client is told of the chunks that the repository holds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from borg.hashindex import ChunkIndex

from borgcube.plugins.borg.vaultclient import VaultSession
from borgcube.testing.rig import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Rig(tmp_path / "rig") as made:
        yield made


def tree(rig: Rig, name: str, *contents: bytes) -> Path:
    directory = rig.root / name
    directory.mkdir(exist_ok=True)
    for number, content in enumerate(contents):
        (directory / f"f{number}").write_bytes(content)
    return directory


def offered(rig: Rig, client: str, domain: str = "") -> dict[bytes, tuple[int, int, int]]:
    """Return what a session of a client would be offered: chunk ID -> index entry."""
    own = f"client:{client}"
    request = {"op": "backup", "archive": f"look-{os.urandom(4).hex()}", "plan": "look"}
    session = VaultSession(rig.socket, {**request, "domain": domain or own, "own_domain": own})
    try:
        index = ChunkIndex.read(session.terms["chunks_file"])
        return {bytes(key): tuple(entry) for key, entry in index.iteritems()}
    finally:
        session.end()  # answered when the vault has forgotten it


def backup(rig: Rig, client: str, archive: str, source: Path, domain: str = "") -> None:
    own = f"client:{client}"
    result = rig.backup(archive, source, plan=client, domain=domain or own, own_domain=own)
    assert result.state == "done", result.warnings


def delete(rig: Rig, *archives: str) -> None:
    rig.engine.delete_archives(rig.context("archive-delete", archives=list(archives)))


ALICE, BOB, BOTH = (os.urandom(300_000) for _ in range(3))


def test_client_is_told_only_what_it_uploaded_itself(rig: Rig) -> None:
    backup(rig, "alice", "alice-1", tree(rig, "a", ALICE, BOTH))
    assert offered(rig, "bob") == {}
    backup(rig, "bob", "bob-1", tree(rig, "b", BOB, BOTH))
    for client, other in (("alice", "bob"), ("bob", "alice")):
        mine, theirs = offered(rig, client), offered(rig, other)
        common = set(mine) & set(theirs)
        assert len(common) == 1 and len(mine) > 1
        # Neither count nor stored size tells that somebody else has the chunk too.
        assert all(count == 1 and size == csize for count, size, csize in mine.values())


def test_joining_and_leaving_a_domain(rig: Rig) -> None:
    backup(rig, "alice", "alice-1", tree(rig, "a", ALICE))
    alone = set(offered(rig, "alice"))
    assert set(offered(rig, "alice", "team")) == alone  # what is its own goes with it
    assert offered(rig, "bob", "team") == {}  # what it stored before is not shared
    backup(rig, "alice", "alice-2", tree(rig, "a", ALICE, BOTH), "team")
    shared = set(offered(rig, "bob", "team"))
    assert len(shared) > 1
    backup(rig, "bob", "bob-1", tree(rig, "b", BOB, BOTH), "team")
    assert len(set(offered(rig, "alice", "team")) - shared - alone) > 0
    left = set(offered(rig, "bob"))
    assert left and left < set(offered(rig, "bob", "team"))
    before = set(offered(rig, "alice", "team"))
    backup(rig, "bob", "bob-2", tree(rig, "b", os.urandom(300_000)))
    assert set(offered(rig, "alice", "team")) == before  # nothing new of who left


@pytest.mark.parametrize("restarted", [False, True], ids=["counted", "made again"])
def test_deletion_keeps_the_index_of_a_domain_right(rig: Rig, restarted: bool) -> None:
    source = tree(rig, "a", ALICE, BOTH)
    backup(rig, "alice", "alice-1", source)
    first = set(offered(rig, "alice"))
    (source / "f0").write_bytes(BOB)
    backup(rig, "alice", "alice-2", source)
    both = set(offered(rig, "alice"))
    backup(rig, "carol", "carol-1", tree(rig, "c", ALICE))  # keeps what alice deletes
    delete(rig, "alice-1")
    if restarted:
        rig.stop_vault()
        for index in rig.state_dir.glob("*/domains/*/chunks"):
            index.unlink()
        rig.start_vault()
    left = set(offered(rig, "alice"))
    gone = both - left
    # The chunk of the first content, and metadata that only the first archive had.
    assert gone and gone <= first and len(left & first) >= 1
    assert gone & set(offered(rig, "carol"))  # stored, but not alice's any more
    delete(rig, "alice-2")
    assert offered(rig, "alice") == {}
    rig.stop_vault()
    try:
        check = rig.plain_borg("check", "--verify-data", str(rig.path))
        assert check.returncode == 0, check.stderr
    finally:
        rig.start_vault()
