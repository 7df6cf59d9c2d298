"""Lists of a million records, page by page, as the person who asks may see them.

Pages go through indexes only: nothing here looks at more records than it returns, but for
a few to find a time.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from borgcube.core.access import Identity
from borgcube.core.model.table import Found, Table, Where

MAX_LOOKED_AT = 20_000


def visible(
    me: Identity, table: Table, limit: int, where: Where | None = None, /, *,
    before: int | None = None, **equal: str,
) -> list[Any]:  # fmt: skip
    """Return the newest records of a table with an index of clients that ``me`` may see, and
    of which ``where`` is true."""
    if not me.limited:
        return table.newest(limit, where, before=before, **equal)
    return _page(me, table, limit, where, before, None, equal).records


def page(
    me: Identity, table: Table, limit: int, where: Where | None = None, /, *,
    before: int | None = None, above: int | None = None, **equal: Any,
) -> Found:  # fmt: skip
    """Return a page of the newest records of a table that ``me`` may see, and of which
    ``where`` is true."""
    fields: dict[str, Any] = dict(equal)
    if not me.limited:
        return table.page(limit, where, before=before, above=above, **fields)
    return _page(me, table, limit, where, before, above, fields)


def _page(
    me: Identity, table: Table, limit: int, where: Where | None, before: int | None,
    above: int | None, equal: dict[str, Any],
) -> Found:  # fmt: skip
    """Return a page for somebody who sees some clients only: their numbers are merged, and no
    record is read but those that are shown or that ``where`` looks at."""
    fields = dict(equal)
    wanted = fields.pop("client", None)
    clients = me.clients if wanted is None else me.clients & {wanted}
    walks = [table.walk(before=before, client=client, **fields) for client in clients]
    records: list[Any] = []
    for looked_at, number in enumerate(heapq.merge(*walks, reverse=True)):
        if above is not None and number <= above:
            break
        if len(records) == limit or looked_at == MAX_LOOKED_AT:
            return Found(records, number + 1)
        record = table.rows[number]
        if where is None or where(record):
            records.append(record)
    return Found(records)


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
