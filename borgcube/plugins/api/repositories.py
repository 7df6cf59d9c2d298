"""The API about repositories on the server's storage."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from typing import Any

from borgcube.core import deduplication
from borgcube.core.access import Permission
from borgcube.core.api import Answer, Call, Endpoint, named
from borgcube.core.model import Repository
from borgcube.core.openapi import page_query
from borgcube.core.schemas import NAME, given, of_record, text, thing, whole, yes_or_no
from borgcube.core.standing import STORAGE_DAYS
from borgcube.plugins.api import common

REPOSITORY = of_record(Repository)
# A passphrase may be of any characters but those that end a line.
PASSPHRASE = text(longest=1024, shortest=1)
PATH = {**text(shortest=1), "pattern": "^/[^\\u0000-\\u001f\\u007f]*$",
        "description": "A directory of the server."}  # fmt: skip
FLOOR = whole(description="The free space that it leaves on its disk, in bytes.")
ENGINE = text(longest=64, shortest=1)


def _whose(_record: Any) -> str:
    return ""


find = named("repositories", client=_whose)


def _create(call: Call) -> Answer:
    made = call.act("repository.create", **call.body)
    return common.versioned(made, location=call.address("repositories", made["name"]))


def _import(call: Call) -> Answer:
    made = call.act("repository.import", **call.body)
    return common.versioned(made, location=call.address("repositories", made["name"]))


def _change(call: Call) -> Answer:
    return common.versioned(
        call.act("repository.set", name=call.record.name, version=call.version, **call.body)
    )


def _remove(call: Call) -> None:
    call.act("repository.remove", name=call.record.name, version=call.version,
             with_plans=call.query.get("with_plans", False))  # fmt: skip


def _passphrase(call: Call) -> Any:
    return call.act("repository.passphrase", name=call.record.name)


def _space(call: Call) -> dict[str, Any]:
    path = str(call.record.path)
    if not os.path.isdir(path):
        return {"there": False, "disk_bytes": 0, "free_bytes": 0}
    usage = shutil.disk_usage(path)
    return {"there": True, "disk_bytes": usage.total, "free_bytes": usage.free}


def _sizes(call: Call) -> Any:
    status = call.db.fleet.repository(call.record.name)
    return deduplication.describe(status, now=datetime.now(UTC), days=call.query.get("days", 90))


_MAYBE = {"type": ["integer", "null"]}
_RATIO = {"type": ["number", "null"], "description": "Held bytes for each stored one."}
SIZES = given({
    "held_bytes": whole(description="The original size of all archives that are in it."),
    "unsized": whole(description="Archives that do not say how large they are: not counted."),
    "stored_bytes": {**_MAYBE, "description": "What its directory takes, as last measured."},
    "ratio": _RATIO,
    "days": {"type": "array", "items": given({
        "day": {"type": "string"}, "archives": whole(description="Added on that day."),
        "new_bytes": whole(description="Stored by them anew."),
        "held_bytes": _MAYBE, "stored_bytes": _MAYBE, "ratio": _RATIO,
    }, title="DayOfSizes")},
}, title="Sizes")  # fmt: skip

_ONE, _VIEW, _CONFIGURE = "/repositories/{name}", Permission.VIEW_SERVER, Permission.CONFIGURE
ENDPOINTS = [
    Endpoint(
        name="repositories.list", method="GET", path="/repositories", paged=True,
        handler=lambda call: common.every(call, call.db.repositories), permission=_VIEW,
        summary="List repositories, newest first", query=page_query(), returns=REPOSITORY,
    ),
    Endpoint(
        name="repositories.create", method="POST", path="/repositories", handler=_create,
        status=201, summary="Create a repository", permission=_CONFIGURE, returns=REPOSITORY,
        description="Takes some seconds: the encryption `auto` is measured. A passphrase is"
        " generated when none is given.",
        body=thing({"name": NAME, "path": PATH, "encryption": text(longest=40, shortest=1),
                    "passphrase": PASSPHRASE, "engine": ENGINE, "free_floor_bytes": FLOOR},
                   required=("name", "path"), title="NewRepository"),
    ),
    Endpoint(
        name="repositories.import", method="POST", path="/repositories/import", handler=_import,
        status=201, summary="Take in a repository that exists, with its archives",
        permission=_CONFIGURE, returns=REPOSITORY,
        body=thing({"name": NAME, "path": PATH, "passphrase": PASSPHRASE, "engine": ENGINE},
                   required=("name", "path", "passphrase"), title="ImportedRepository"),
    ),
    Endpoint(
        name="repositories.show", method="GET", path=_ONE, handler=common.record, find=find,
        summary="Show a repository", permission=_VIEW, returns=REPOSITORY, versioned=True,
    ),
    Endpoint(
        name="repositories.change", method="PATCH", path=_ONE, handler=_change, find=find,
        summary="Change what is given of a repository", permission=_CONFIGURE, versioned=True,
        body=thing({"free_floor_bytes": FLOOR}, least=1, title="RepositoryChange"),
        returns=REPOSITORY,
    ),
    Endpoint(
        name="repositories.forget", method="DELETE", path=_ONE, handler=_remove, find=find,
        summary="Forget a repository; its data stays where it is",
        permission=Permission.DELETE, status=204, versioned=True,
        query={"with_plans": yes_or_no("Its plans go as well; else they are in the way.")},
    ),
    Endpoint(
        name="repositories.space", method="GET", path=f"{_ONE}/space", handler=_space,
        find=find, summary="Show the disk of a repository", permission=_VIEW,
        returns=given({"there": yes_or_no("Whether its directory is there."),
                       "disk_bytes": whole(), "free_bytes": whole()}, title="Space"),
    ),
    Endpoint(
        name="repositories.sizes", method="GET", path=f"{_ONE}/sizes", handler=_sizes,
        find=find, summary="Show what a repository holds and takes, day by day",
        permission=_VIEW, returns=SIZES,
        query={"days": whole(1, STORAGE_DAYS, description="How many days back; 90 if not given.")},
    ),
    Endpoint(
        name="repositories.passphrase", method="POST", path=f"{_ONE}/passphrase",
        handler=_passphrase, find=find, permission=Permission.REVEAL,
        summary="Reveal a repository's passphrase; the journal notes it",
        returns=given({key: {"type": "string"} for key in ("name", "path", "passphrase")},
                      title="Passphrase"),
    ),
]  # fmt: skip
