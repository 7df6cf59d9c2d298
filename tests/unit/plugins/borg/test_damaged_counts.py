"""What is left of a damaged archive is not deleted with its neighbours."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgpack

from borgcube.core.errors import JobFailed, Problem
from borgcube.plugins.borg.vault.counts import Counting

ONE, TWO, ELSEWHERE = b"1" * 32, b"2" * 32, b"3" * 32
LISTS = (b"a" * 32, b"b" * 32, b"c" * 32)


def test_what_the_readable_lists_mention_is_counted() -> None:
    stream = b"".join(
        msgpack.packb({"path": "x", "chunks": [(chunk, 10, 5)]}, use_bin_type=binary)
        for chunk, binary in ((ONE, True), (TWO, False), (ELSEWHERE, True))
    )
    # The first and the last chunk begin and end inside an item; the middle one is lost.
    plains: dict[bytes, Any] = {LISTS[0]: stream[:60], LISTS[2]: stream[3:]}

    def read(chunk_id: bytes) -> Any:
        if chunk_id not in plains:
            raise JobFailed("repository-damaged", Problem.REPOSITORY, "It is missing.")
        return plains[chunk_id]

    held = {ONE: (10, 5), TWO: (10, 5)}
    ledger = SimpleNamespace(read=read, lookup=held.get)
    counting = Counting(SimpleNamespace(ledger=ledger))  # type: ignore[arg-type]
    found = counting._mentioned(LISTS)
    assert {key for key, _ in found.iteritems()} == {ONE, TWO, LISTS[0], LISTS[2]}
    assert all(entry[0] == 1 for _, entry in found.iteritems())
    assert found[ONE][1] == 10
