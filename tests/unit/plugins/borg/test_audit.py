"""An archive that is judged ahead comes to exactly what it comes to otherwise."""

from __future__ import annotations

import hashlib
import tracemalloc
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgpack
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from borgcube.plugins.borg.vault.admission import path_hash_of, walk
from borgcube.plugins.borg.vault.audit import Ahead, Budget, Judge
from borgcube.plugins.borg.vault.filescache import FilesCacheWriter
from borgcube.plugins.borg.vault.fresh import Roots
from borgcube.plugins.borg.vault.items import ArchiveRefused

KEY = b"k" * 32
# Contents that a session may reference, with their sizes.
CONTENTS = {bytes([number]) * 32: number * 1000 for number in range(1, 20)}
PATHS = ["/srv", "/srv/data", "/home"]


class Store:
    """Chunks by their hash: as much of a ledger as an audit reads."""

    def __init__(self) -> None:
        self.chunks: dict[bytes, bytes] = {}
        self.opened = SimpleNamespace(blake2=False)
        self.key = SimpleNamespace(id_key=KEY)
        self.reads = 0

    def read(self, chunk_id: bytes) -> bytes:
        self.reads += 1
        return self.chunks[chunk_id]

    def put(self, stream: bytes) -> tuple[bytes, ...]:
        """Cut a stream where its content says, as Borg does, and store the pieces."""
        pieces, begin = [], 0
        for at in range(8, len(stream)):
            if at - begin >= 40 and zlib.crc32(stream[at - 8 : at]) % 43 == 0:
                pieces.append(stream[begin:at])
                begin = at
        pieces.append(stream[begin:])
        ids = []
        for piece in pieces:
            chunk_id = hashlib.sha256(piece).digest()
            self.chunks[chunk_id] = piece
            ids.append(chunk_id)
        return tuple(ids)


def item(path: str, *contents: int, mode: int = 0o100644, mtime: int = 1) -> dict[str, Any]:
    chunks = [(bytes([n]) * 32, CONTENTS[bytes([n]) * 32], 5) for n in contents]
    made: dict[str, Any] = {"path": path, "mode": mode, "mtime": mtime, "ctime": mtime + 1}
    return made | {"chunks": chunks} if mode == 0o100644 else made


def packed(items: Sequence[dict[str, Any]]) -> bytes:
    return b"".join(msgpack.packb(one, use_bin_type=False) for one in items)


def audited(
    store: Store, place: Path, ids: Sequence[bytes], *, earlier: Sequence[bytes] | None,
    uploaded: frozenset[bytes] = frozenset(), budget: Budget | None = None,
) -> Any:  # fmt: skip
    """What an archive comes to, with the files it leaves; ``earlier`` is judged ahead."""
    offered = {**CONTENTS, **{chunk_id: len(plain) for chunk_id, plain in store.chunks.items()}}

    def size(chunk_id: bytes) -> int:
        if chunk_id not in offered:
            raise ArchiveRefused("an item references a chunk outside the session")
        return offered[chunk_id]

    ahead = None
    if earlier is not None:
        judge = Judge(path_hash_of(store), size, roots=Roots(PATHS))  # type: ignore[arg-type]
        ahead = Ahead(judge, lambda: earlier, store.read, budget or Budget())
        ahead.start()
        ahead._thread.join()
        store.reads = 0
    cache = FilesCacheWriter(place / "plan.files", started_ns=10)
    try:
        found = walk(
            store, {b"items": ids}, reference_size=size, cache=cache,  # type: ignore[arg-type]
            catalog=place / "catalog", step=lambda: None, fresh=uploaded.__contains__,
            roots=Roots(PATHS), ahead=ahead,
        )  # fmt: skip
    except ArchiveRefused as error:
        cache.discard()
        return str(error), 0
    finally:
        if ahead is not None:
            ahead.close()
    cache.commit()
    names = zstandard.decompress((place / "catalog").read_bytes(), max_output_size=1 << 21)
    references = sorted((key, tuple(entry)) for key, entry in found.references.iteritems())
    told = {key: value for key, value in vars(found).items() if key not in ("references", "ahead")}
    return (told, references, names, (place / "plan.files").read_bytes()), found.ahead


items_of = st.lists(
    st.builds(
        item, st.sampled_from(["srv/a", "srv/data/b", "home/c", "etc/d", "srv/" + "e" * 90]),
        st.integers(1, 19), st.integers(1, 19), mode=st.sampled_from([0o100644, 0o040755]),
        mtime=st.integers(1, 1 << 40),
    ),
    min_size=1, max_size=40,
)  # fmt: skip


@settings(max_examples=150, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(items_of, items_of, st.integers(0, 40), st.integers(0, 40), st.booleans(), st.data())
def test_an_audit_ahead_changes_no_result(
    tmp_path: Path, old: Any, new: Any, begin: int, end: int, broken: bool, data: Any
) -> None:
    store = Store()
    earlier = store.put(packed(old))
    changed = [*old[:begin], *new, *old[end:]]
    stream = packed(changed)
    if broken:
        cut = data.draw(st.integers(0, len(stream) - 1))
        stream = stream[:cut] + b"\xc1" + stream[cut + 1 :]
    ids = store.put(stream)
    uploaded = frozenset(data.draw(st.sets(st.sampled_from(sorted(CONTENTS)), max_size=2)))
    plain, _ = audited(store, tmp_path, ids, earlier=None, uploaded=uploaded)
    ahead, _ = audited(store, tmp_path, ids, earlier=earlier, uploaded=uploaded)
    assert ahead == plain


def test_what_is_unchanged_is_not_read_again(tmp_path: Path) -> None:
    store = Store()
    old = [item(f"srv/{number}", number % 19 + 1, mtime=number + 1) for number in range(2000)]
    earlier = store.put(packed(old))
    _, ahead = audited(store, tmp_path, earlier, earlier=earlier)
    assert ahead == 2000 and store.reads == 0
    # One changed file in the middle costs the chunks around it.
    new = [*old[:1000], item("srv/1000", 3, mtime=1 << 50), *old[1001:]]
    ids = store.put(packed(new))
    _, ahead = audited(store, tmp_path, ids, earlier=earlier)
    assert 1900 < ahead < 2000 and 0 < store.reads < len(ids) / 10


def test_a_block_with_what_came_with_this_backup_is_judged_anew(tmp_path: Path) -> None:
    store = Store()
    earlier = store.put(packed([item(f"srv/{n}", n % 19 + 1) for n in range(200)]))
    uploaded = frozenset([bytes([1]) * 32])
    (told, *_), ahead = audited(store, tmp_path, earlier, earlier=earlier, uploaded=uploaded)
    assert told["changed_files"] == len([n for n in range(200) if n % 19 == 0])
    assert 0 < ahead < 200


def test_what_the_session_may_not_use_is_never_taken_over(tmp_path: Path) -> None:
    store = Store()
    earlier = store.put(packed([item(f"srv/{n}", n % 19 + 1) for n in range(200)]))
    del CONTENTS[bytes([7]) * 32]
    try:
        said, _ = audited(store, tmp_path, earlier, earlier=earlier)
    finally:
        CONTENTS[bytes([7]) * 32] = 7000
    assert said == "an item references a chunk outside the session"


@pytest.mark.parametrize("most", [0, 500, 1200])
def test_no_more_is_judged_ahead_than_there_is_room_for(tmp_path: Path, most: int) -> None:
    store = Store()
    earlier = store.put(packed([item(f"srv/{n}", n % 19 + 1) for n in range(2000)]))
    budget = Budget(most)
    plain, _ = audited(store, tmp_path, earlier, earlier=None)
    ahead, count = audited(store, tmp_path, earlier, earlier=earlier, budget=budget)
    assert ahead == plain and count <= most
    assert budget.take(most) and not budget.take(1), "all room is given back"


def test_what_is_judged_ahead_is_counted_by_its_references_too(tmp_path: Path) -> None:
    store, budget = Store(), Budget(5000)
    old = [item(f"srv/{n}", *[n % 19 + 1] * 999) for n in range(20)]
    earlier = store.put(packed(old))
    plain, _ = audited(store, tmp_path, earlier, earlier=None)
    ahead, count = audited(store, tmp_path, earlier, earlier=earlier, budget=budget)
    assert ahead == plain and count <= 5
    assert budget.take(5000), "all room is given back"


def test_an_audit_holds_one_item_at_a_time(tmp_path: Path) -> None:
    """Items of a hostile archive take many times their length in memory."""
    store = Store()
    xattrs = {f"{n:x}": b"" for n in range(9000)}
    stream = packed([{**item(f"srv/{n}"), "xattrs": xattrs} for n in range(60)])
    ids = []
    for begin in range(0, len(stream), 1 << 20):
        ids.append(begin.to_bytes(32, "big"))
        store.chunks[ids[-1]] = stream[begin : begin + (1 << 20)]
    for earlier in (None, ids):
        tracemalloc.start()
        try:
            (told, *_), _ahead = audited(store, tmp_path, ids, earlier=earlier)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert told["items"] == 60 and peak < 12 << 20
