"""``doctor`` is not content after a failure that will repeat, until the thing was seen to work."""

from __future__ import annotations

from pathlib import Path

import pytest

from borgcube.core.errors import FailureCause, Problem
from borgcube.core.model import Client, Job, Repository
from borgcube.core.store import Root, Store
from borgcube.daemon import troubles


@pytest.fixture
def root(tmp_path: Path) -> object:
    store = Store.open(f"file://{tmp_path / 'store.fs'}")
    with store.transact() as root:
        root.repositories.add(Repository(name="main", path="/r", engine="borg"))
        root.clients.add(Client(name="web1"))
        yield root
    store.close()


def ends(
    root: Root, state: str, kind: str = "", *, job_type: str = "backup", changed: bool = False
) -> list[str]:
    cause = FailureCause(kind, Problem.REPOSITORY, f"{kind} it is.", "Mend it.") if kind else None
    job = Job(type=job_type, repository="main", client="web1", id="7")
    troubles.note(root, job, state=state, cause=cause, changed=changed)
    return [one["message"] for one in troubles.findings(root)]


@pytest.mark.parametrize("kind", sorted(troubles.OPENING))
def test_a_repository_that_cannot_be_opened_is_named_until_it_was(root: Root, kind: str) -> None:
    (said,) = ends(root, "failed", kind)
    assert "Repository main" in said and kind in said and "job 7" in said
    assert ends(root, "cancelled") == [said]
    assert ends(root, "failed", "client-silent") == [said]
    troubles.opened(root, "main")
    assert troubles.findings(root) == []


@pytest.mark.parametrize("kind", sorted(troubles.WRITING))
def test_what_cannot_be_written_is_named_until_something_was(root: Root, kind: str) -> None:
    (said,) = ends(root, "failed", kind)
    troubles.opened(root, "main")  # it can be read
    assert ends(root, "done", job_type="restore") == [said]
    assert ends(root, "done", job_type="prune", changed=True) == []
    ends(root, "failed", kind, job_type="compact")
    assert ends(root, "done", job_type="compact") == []


@pytest.mark.parametrize("kind", sorted(troubles.CLIENT))
def test_a_client_that_cannot_be_backed_up_is_named_until_it_was(root: Root, kind: str) -> None:
    (said,) = ends(root, "failed", kind)
    assert "Client web1" in said and "Mend it." in troubles.findings(root)[0]["next_step"]
    assert ends(root, "warning") == []


def test_what_is_gone_or_said_already_is_not_named(root: Root) -> None:
    ends(root, "failed", "repository-locked")
    cause = FailureCause("vault-hung", Problem.REPOSITORY, "It hangs.")
    assert len(troubles.findings(root, problems={"main": cause, "other": cause})) == 1
    assert troubles.findings(root, said={"main"}, problems={"main": cause}) == []
    root.repositories.remove(root.repositories.find("name", "main"))
    assert troubles.findings(root, problems={"main": cause}) == []
