"""Lists of a million records, page by page, as the person who asks may see them.

Pages go through indexes only: nothing here looks at more records than it returns, but for
a few to find a time.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from borgcube.core.access import Identity
from borgcube.core.model.table import Found, Table, Where


def visible(
    me: Identity, table: Table, limit: int, where: Where | None = None, /, *,
    before: int | None = None, **equal: str,
) -> list[Any]:  # fmt: skip
    """Return the newest records of a table with an index of clients that ``me`` may see, and
    of which ``where`` is true."""
    if not me.limited:
        return table.newest(limit, where, before=before, **equal)
    wanted = equal.pop("client", None)
    merged: list[tuple[int, Any]] = []
    for client in me.clients if wanted is None else me.clients & {wanted}:
        mine = table.newest(limit, where, before=before, client=client, **equal)
        merged += [(table.number_of(record), record) for record in mine]
    merged.sort(key=lambda pair: -pair[0])
    return [record for _, record in merged[:limit]]


def page(
    me: Identity, table: Table, limit: int, where: Where | None = None, /, *,
    before: int | None = None, above: int | None = None, **equal: Any,
) -> Found:  # fmt: skip
    """Return a page of the newest records of a table that ``me`` may see, and of which
    ``where`` is true."""
    fields: dict[str, Any] = dict(equal)
    if not me.limited:
        return table.page(limit, where, before=before, above=above, **fields)
    wanted = fields.pop("client", None)
    pages = [table.page(limit, where, before=before, above=above, client=client, **fields)
             for client in (me.clients if wanted is None else me.clients & {wanted})]  # fmt: skip
    # Below this number, one of the pages does not know its records yet.
    floor = max((one.before for one in pages if one.before is not None), default=None)
    merged = [(table.number_of(record), record) for one in pages for record in one.records]
    merged = sorted((pair for pair in merged if floor is None or pair[0] >= floor),
                    key=lambda pair: -pair[0])  # fmt: skip
    if len(merged) > limit:
        return Found([record for _, record in merged[:limit]], merged[limit - 1][0])
    return Found([record for _, record in merged], floor)


def number_at(table: Table, moment: datetime, *, when: Callable[[Any], str]) -> int:
    """Return the number of the first record that is not older than ``moment``.

    ``when`` tells a record's time; numbers are given in the order of time, so that halving
    finds it.
    """
    rows = table.rows
    if not rows:
        return 1
    low, high = rows.minKey(), rows.maxKey() + 1
    while low < high:
        number = rows.minKey((low + high) // 2)
        if _aware(when(rows[number])) < moment:
            low = number + 1
        else:
            high = (low + high) // 2
    return int(low)


def _aware(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return datetime.fromtimestamp(0, UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
