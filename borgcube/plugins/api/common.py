"""What the rooms of the API share: pages of tables, and answers about records and jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from borgcube.core import listing
from borgcube.core.api import Answer, Call, Listing
from borgcube.core.errors import InvalidInput
from borgcube.core.listing import number_at
from borgcube.core.model import Record
from borgcube.core.model.table import Found, Table, Where
from borgcube.core.schemas import Schema, given
from borgcube.core.versions import version_of

PAGE = 50
JOB_BEGUN: Schema = given({
    "job": {"type": "string", "description": "The job's ID."},
    "href": {"type": "string", "description": "The job's path in the API."},
}, title="JobBegun")  # fmt: skip
Shown = Callable[[Call, Any], Mapping[str, Any]]


def plain(_call: Call, record: Any) -> Mapping[str, Any]:
    """Return a record as data."""
    data: Mapping[str, Any] = record.as_data()
    return data


def limit_of(call: Call) -> int:
    """Return how many records the caller wants at once."""
    return int(call.query.get("limit", PAGE))


def before_of(call: Call) -> int | None:
    """Return where the page begins, None at the newest record."""
    return int(call.query["cursor"]) if "cursor" in call.query else None


def page(
    call: Call, table: Table, filters: Sequence[str] = (), *, shown: Shown = plain,
    when: Callable[[Any], str] | None = None, where: Where | None = None,
) -> Listing:  # fmt: skip
    """Return one page of a table with an index of clients, newest first, of what the caller
    may see.

    ``filters`` are indexed fields that the query may name. With ``when``, which tells a
    record's time, the query may bound it by ``since`` and ``until``. ``where`` leaves out
    what it is false of. A page can be short and yet have a next one: what filters let
    through is looked for only so far at a time.
    """
    equal = {name: str(call.query[name]) for name in filters if name in call.query}
    before, above = before_of(call), None
    if when is not None:
        if "until" in call.query:
            bound = number_at(table, moment(call, "until"), when=when)
            before = bound if before is None else min(before, bound)
        if "since" in call.query:
            above = number_at(table, moment(call, "since"), when=when) - 1
    found = listing.page(call.me, table, limit_of(call), where, before=before, above=above, **equal)
    return _listed(call, found, shown)


def every(
    call: Call, table: Table, filters: Sequence[str] = (), *, shown: Shown = plain, **equal: str
) -> Listing:  # fmt: skip
    """Return one page of a table that belongs to no client, newest first."""
    asked: dict[str, Any] = {**equal}
    asked |= {name: str(call.query[name]) for name in filters if name in call.query}
    found = table.page(limit_of(call), before=before_of(call), **asked)
    return _listed(call, found, shown)


def _listed(call: Call, found: Found, shown: Shown) -> Listing:
    cursor = "" if found.before is None else str(found.before)
    return Listing([shown(call, record) for record in found.records], cursor)


def moment(call: Call, name: str) -> datetime:
    """Return a time of the query; raises InvalidInput when there is no such day."""
    try:
        return datetime.fromisoformat(call.query[name]).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(f"{name} is no time.", field=name) from error


def record(call: Call) -> Answer:
    """Return the record that the path names, with its version."""
    return versioned(call.record.as_data())


def versioned(
    data: Mapping[str, Any], *, location: str = "", kind: type[Record] | None = None
) -> Answer:
    """Return a record's data with its version: that of its settings, where ``kind`` is given
    and has more in it than these."""
    seen = data if kind is None else kind.settings_of(data)
    return Answer(data, version=version_of(seen), location=location)


def begun(call: Call, started: Mapping[str, Any]) -> Answer:
    """Return the answer to what takes its time: the job that does it."""
    job = str(started["job_id"])
    where = call.address("jobs", job)
    return Answer({"job": job, "href": where}, location=where)
