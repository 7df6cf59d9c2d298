"""The API over real sockets: who may what, pages, versions, errors, and its description."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from borgcube.core.access import GRANTS, Permission, Role
from borgcube.core.api import Endpoint
from borgcube.core.registry import Registry
from borgcube.testing.apiclient import Api
from borgcube.testing.consolerig import ConsoleRig

ROLES = {"ada": Role.ADMINISTRATOR, "olga": Role.OPERATOR, "vera": Role.VIEWER, "owen": Role.OWNER}


@pytest.fixture(scope="module")
def apis(console: ConsoleRig) -> Iterator[dict[str, Api]]:
    """A client of the API for each role, which checks all answers."""
    made = {}
    for name in ROLES:
        token = console.call("token.add", name="all", user=name)["token"]
        made[name] = Api(console.port, token)
        made[name].document = made[name].get("/openapi.json")
    yield made
    for api in made.values():
        assert api.document is not None


def token(console: ConsoleRig, user: str, name: str, **limits: Any) -> Api:
    return Api(console.port, console.call("token.add", name=name, user=user, **limits)["token"])


def test_smoke(console: ConsoleRig, apis: dict[str, Api]) -> None:
    ada = apis["ada"]
    for path, operations in ada.document["paths"].items():
        if "get" in operations and "{" not in path:
            ada.get(path)
