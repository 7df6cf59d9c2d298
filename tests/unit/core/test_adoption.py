"""Whose archives of plain borg are: nothing is guessed, because a prune of the wrong one loses."""

from __future__ import annotations

from typing import Any

import pytest

from borgcube.core.adoption import propose
from borgcube.core.model import Archive, Client
from borgcube.core.store import Store

DATED = "{hostname}-{now:%Y-%m-%d}"


@pytest.fixture
def root():
    store = Store.open("memory://")
    with store.transact() as root:
        yield root
    store.close()


def given(root: Any, pattern: str, *names: str, clients: str, **more: str) -> dict[str, str]:
    """Return archive -> client, or the reason why nobody gets it."""
    for client in clients.split():
        if root.clients.find("name", client) is None:
            root.clients.add(Client(name=client, transport="openssh", host=f"{client}.lan"))
    for name in names:
        root.archives.add(Archive(id=name, name=name, repository="old", start="2026-11-01"))
    found = propose(root, "old", pattern, **more)
    assert len(found.assignments) + len(found.unknown) + len(found.unmatched) == len(names)
    return {one.archive: one.client for one in found.assignments} | dict(found.unknown)


def test_a_name_of_a_longer_host_does_not_go_to_the_shorter_one(root):
    names = ("server-1-2026-11-01", "server-1-extra-2026-11-01")
    loose = given(root, "{hostname}-*", *names, clients="server-1 server-1-extra")
    assert loose[names[0]] == "server-1"
    assert loose[names[1]] == (
        "it can be read as of server-1 or server-1-extra: use a pattern that fits once"
    )
    strict = propose(root, "old", DATED).assignments
    assert {one.archive: one.client for one in strict} == {
        names[0]: "server-1", names[1]: "server-1-extra"
    }  # fmt: skip


def test_neither_when_the_longer_host_is_no_client_yet(root):
    names = ("server-1-2026-11-01", "server-1-extra-2026-11-01")
    loose = given(root, "{hostname}-*", *names, clients="server-1")
    assert loose[names[0]] == "server-1"
    assert loose[names[1]].startswith("it may be of another host than server-1: 'extra-2026")
    # Where the host is said in a word, `*` stands for anything.
    found = propose(root, "old", "server-1-extra-*", client="server-1").assignments
    assert [(one.archive, one.client) for one in found] == [(names[1], "server-1")]


def test_two_hosts_become_one_client_only_by_a_word(root):
    names = ("web.prod.org-2026-11-01", "web.test.org-2026-11-02")
    found = given(root, DATED, *names, clients="web")
    assert found[names[0]].startswith("web.prod.org and web.test.org would both become client web")
    assert found[names[1]].startswith("web.test.org and web.prod.org would both become client web")
    (one,) = propose(root, "old", "web.prod.org-{now:%Y-%m-%d}", client="web").assignments
    assert (one.archive, one.client) == (names[0], "web")


@pytest.mark.parametrize("host", ["web.prod.org", "web.lan", "web"])
def test_one_host_is_found_by_name_by_address_and_by_its_first_word(root, host):
    assert given(root, DATED, f"{host}-2026-11-01", clients="web") == {
        f"{host}-2026-11-01": "web"
    }  # fmt: skip


def test_a_name_that_fits_in_very_many_ways_stays_with_nobody(root):
    name = "web" + "-" * 250 + "1"
    found = given(root, "{hostname}-*", name, clients="web")
    assert found[name] == "it can be read in too many ways: use a pattern that fits once"
