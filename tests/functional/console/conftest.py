"""A console over the fake plugin: real daemon, real sockets, no borg, so it is quick."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from borgcube.testing.consolerig import ConsoleRig

FAKE = Path(__file__).parents[2] / "unit" / "daemon" / "fakeplugin"
REAL = ("borg", "backup", "restore", "prune", "transport_openssh", "transport_paramiko",
        "transport_local")  # fmt: skip


def add_fleet(rig: ConsoleRig) -> None:
    """Two clients with a plan each, in one repository, and an owner of the first."""
    rig.call("repository.create", name="main", path=str(rig.place / "repo"), passphrase="right")
    for name in ("web", "mail"):
        rig.call("client.add", name=name, transport="local")
        rig.call("plan.add", name=f"{name}-etc", client=name, repository="main", paths=["/etc"])
    rig.user("ada")
    rig.user("olga", "operator")
    rig.user("vera", "viewer")
    rig.user("owen", "owner", "web")
    for name in ("web", "mail"):
        rig.ended(rig.call("backup.start", plan=f"{name}-etc")["job_id"])


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsoleRig]:
    place = tmp_path_factory.mktemp("console")
    with ConsoleRig(place, python_path=(str(FAKE),), disabled=REAL) as rig:
        add_fleet(rig)
        yield rig
