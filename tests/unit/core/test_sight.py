"""Whose a job is, and how the server's words are put."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from BTrees.OOBTree import OOBTree

from borgcube.core import sight, trash
from borgcube.core.access import Identity, Role
from borgcube.core.model import Archive, Job, Repository, Table

OWNER = Identity("owen", Role.OWNER, frozenset({"web"}))
BOTH = Identity("both", Role.OWNER, frozenset({"web", "mail"}))
VIEWER = Identity("vera", Role.VIEWER)


def root() -> Any:
    archives, repositories = Table("id", "name", "client", "repository"), Table("id", "name")
    for name, client in (("mail-1", "mail"), ("web-1", "web")):
        archives.add(Archive(name=name, client=client, repository="main"))
    for name, path in (("main", "/srv/backup"), ("inner", "/srv/backup/inner"), ("odd", "/")):
        repositories.add(Repository(name=name, path=path))
    return SimpleNamespace(archives=archives, repositories=repositories)


@pytest.mark.parametrize(
    ("job", "owner", "both"),
    [
        ({"client": "web", "plan": "p", "parameters": {"archive": "not-yet"}}, True, True),
        ({"client": "mail"}, False, True),
        ({"client": ""}, False, False),
        ({"client": "web", "parameters": {"of_client": "mail"}}, False, True),
        ({"client": "web", "parameters": {"of_client": "web"}}, True, True),
        # Of older releases, which noted the archive's name alone.
        ({"client": "web", "parameters": {"archive": "mail-1", "target": "/"}}, False, True),
        ({"client": "web", "parameters": {"archive": "web-1", "target": "/"}}, True, True),
        ({"client": "web", "parameters": {"archive": "gone", "target": "/"}}, False, False),
    ],
)
def test_a_job_is_seen_by_who_sees_all_clients_that_it_concerns(
    job: dict[str, Any], owner: bool, both: bool
) -> None:
    made = Job(repository="main", **job)
    assert sight.sees_job(OWNER, root(), made) is owner
    assert sight.sees_job(BOTH, root(), made) is both
    assert sight.sees_job(VIEWER, root(), made)


def test_places_of_repositories_are_put_by_their_names() -> None:
    words, all_of_it = sight.Words(OWNER, root()), sight.Words(VIEWER, root())
    said = {"a": ["no room at /srv/backup.", {"b": "/srv/backup/inner is gone"}], "n": 3}
    assert words.data(said) == {
        "a": ["no room at [repository main].", {"b": "[repository inner] is gone"}], "n": 3
    }  # fmt: skip
    assert words.text("/srv/backup-of-mine /srv/backups /") == "/srv/backup-of-mine /srv/backups /"
    assert all_of_it.data(said) is said
    # What is put otherwise is not found by looking for it.
    assert words.found(["at /srv/backup now"], "/srv/backup") == []
    assert words.found(["at /srv/backup now"], "NOW") == ["at [repository main] now"]
    assert all_of_it.found(["at /srv/backup now"], "/srv") == ["at /srv/backup now"]


def test_a_report_of_an_older_release_is_shown_without_place_and_kernel() -> None:
    report = {"versions": {"system": "Linux 6.1.0-13 x86_64"}}
    text = "<p>/srv/backup</p><p>Linux 6.1.0-13 x86_64</p>"
    assert sight.Words(OWNER, root()).report(text, report) == "<p>[repository main]</p><p>-</p>"
    assert sight.Words(VIEWER, root()).report(text, report) == text


def test_what_others_deleted_takes_no_place_in_ones_own_list() -> None:
    table = root()
    numbers = {}
    for number, name in enumerate(["mail-1", "mail-2", "mail-3", "web-2"]):
        archive = Archive(name=name, client=name.partition("-")[0], deleted_at="2026-01-01")
        table.archives.add(archive)
        numbers[f"2026-01-0{number + 2}", "main", name] = table.archives.number_of(archive)
    table.trash = OOBTree(numbers)
    mine = trash.waiting(table, limit=1, where=lambda one: OWNER.sees(one.client))
    assert [one.name for one in mine] == ["web-2"]
    assert [one.name for one in trash.waiting(table, limit=1)] == ["mail-1"]
