"""An archive that is judged ahead comes to exactly what it comes to otherwise."""

from __future__ import annotations

import hashlib
import tracemalloc
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgpack
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from borgcube.plugins.borg.metadata import form
from borgcube.plugins.borg.metadata.decode import ItemDecoder
from borgcube.plugins.borg.metadata.process import BLOCK_BYTES, MAX_REST
from borgcube.plugins.borg.metadata.rules import ArchiveRefused
from borgcube.plugins.borg.vault.admission import Admission, Outputs, path_hash_of
from borgcube.plugins.borg.vault.audit import Ahead, Budget, Judge
from borgcube.plugins.borg.vault.filescache import FilesCacheWriter
from borgcube.plugins.borg.vault.fresh import Roots
from borgcube.plugins.borg.vault.streams import StoredStream, StreamWriter

KEY = b"k" * 32
# Contents that a session may reference, with their sizes.
CONTENTS = {bytes([number]) * 32: number * 1000 for number in range(1, 20)}
PATHS = ["/srv", "/srv/data", "/home"]


def hashed(plain: bytes) -> bytes:
    return hashlib.sha256(plain).digest()


class Store:
    """Chunks by their hash: as much of a ledger as an audit reads."""

    def __init__(self) -> None:
        self.chunks: dict[bytes, bytes] = {}
        self.opened = SimpleNamespace(blake2=False)
        self.key = SimpleNamespace(id_key=KEY, chunk_seed=3)

    def read(self, chunk_id: bytes) -> bytes:
        return self.chunks[chunk_id]

    def put(self, stream: bytes) -> tuple[bytes, ...]:
        """Cut a stream where its content says, as Borg does, and store the pieces."""
        pieces, begin = [], 0
        for at in range(8, len(stream)):
            if at - begin >= 200 and zlib.crc32(stream[at - 8 : at]) % 43 == 0:
                pieces.append(stream[begin:at])
                begin = at
        pieces.append(stream[begin:])
        ids = []
        for piece in pieces:
            self.chunks[hashed(piece)] = piece
            ids.append(hashed(piece))
        return tuple(ids)


class InProcess:
    """What a reader does, without a process of its own."""

    def __init__(self) -> None:
        self.decoder = ItemDecoder()
        self.rest: bytes | None = b""
        self.reads = 0

    def begin(self, rest: bytes) -> None:
        self.decoder.reader.skip_to(rest)
        self.rest = rest

    def read(self, chunk: bytes) -> Iterator[bytes]:
        self.reads += 1
        block: list[tuple[bytes, bytes]] = []
        size = 0
        for record in self.decoder.read(chunk):
            block.append(record)
            size += len(record[0]) + len(record[1])
            if size >= BLOCK_BYTES:
                yield form.pack_block(block)
                block, size = [], 0
        if block:
            yield form.pack_block(block)
        reader = self.decoder.reader
        known = reader.is_plain and len(reader.rest) <= MAX_REST
        self.rest = bytes(reader.rest) if known else None

    def finish(self) -> None:
        self.decoder.reader.finish()

    def close(self) -> None:
        pass


def item(path: str, *contents: int, mode: int = 0o100644, mtime: int = 1) -> dict[str, Any]:
    """Return the item of a file of contents that a session may reference, or of a directory."""
    made: dict[str, Any] = {
        "path": path, "mode": mode, "mtime": mtime, "ctime": mtime + 1, "uid": 0, "gid": 0,
        "user": "u", "group": None,
    }  # fmt: skip
    if mode == 0o100644:
        chunks = [(bytes([n]) * 32, CONTENTS[bytes([n]) * 32], 5) for n in contents]
        made |= {"chunks": chunks, "size": sum(one[1] for one in chunks)}
    return made


def packed(items: Sequence[dict[str, Any]]) -> bytes:
    return b"".join(msgpack.packb(dict(sorted(one.items())), use_bin_type=False) for one in items)


def kept(store: Store, place: Path, ids: Sequence[bytes]) -> StoredStream:
    """Keep a stream as that of the plan's last archive."""
    writer = StreamWriter(place / "plan.stream")
    for chunk_id in ids:
        writer.add(chunk_id, store.chunks[chunk_id])
    writer.commit()
    return StoredStream(place / "plan.stream", hashed)


def audited(
    store: Store, place: Path, ids: Sequence[bytes], *, earlier: Sequence[bytes] | None,
    uploaded: frozenset[bytes] = frozenset(), budget: Budget | None = None,
) -> Any:  # fmt: skip
    """What an archive comes to, with all that it leaves; ``earlier`` is judged ahead."""

    def lookup(chunk_id: bytes) -> tuple[int, int]:
        if chunk_id not in CONTENTS:
            raise ArchiveRefused("an item references a chunk outside the session")
        return CONTENTS[chunk_id], 77

    stream = kept(store, place, earlier or ())
    ahead = None
    if earlier is not None:
        judge = Judge(path_hash_of(store), lookup, roots=Roots(PATHS))  # type: ignore[arg-type]
        ahead = Ahead(judge, stream.chunks, InProcess, budget or Budget())  # type: ignore[arg-type]
        ahead.start()
        ahead._thread.join()
    cache = FilesCacheWriter(place / "plan.files", started_ns=10)
    outputs = Outputs(cache, place / "catalog", StreamWriter(place / "next.stream"))
    roots, fresh, reader = Roots(PATHS), uploaded.__contains__, InProcess()
    stored: list[bytes] = []
    admission = Admission(
        store, Judge(path_hash_of(store), lookup, fresh=fresh, roots=roots),  # type: ignore[arg-type]
        reader, outputs, store=lambda plain: (stored.append(plain), hashed(plain))[1],  # type: ignore[arg-type]
        step=lambda: None, limits=None, fresh=fresh, roots=roots,
    )  # fmt: skip
    try:
        found = admission.walk(ids, stream, ahead)
    except ArchiveRefused as error:
        outputs.discard()
        return str(error), 0
    finally:
        stream.close()
        if ahead is not None:
            ahead.close()
    outputs.close()
    cache.commit()
    outputs.stream.commit()
    store.reads = reader.reads  # type: ignore[attr-defined]
    names = zstandard.decompress((place / "catalog").read_bytes(), max_output_size=1 << 21)
    references = sorted((key, tuple(entry)) for key, entry in found.references.iteritems())
    told = {key: value for key, value in vars(found).items() if key not in ("references", "ahead")}
    again = StoredStream(place / "next.stream", hashed)
    assert dict(again.chunks()) == {one: store.chunks[one] for one in ids}, "the next has it all"
    again.close()
    return (told, references, names, (place / "plan.files").read_bytes(), stored), found.ahead


items_of = st.lists(
    st.builds(
        item, st.sampled_from(["srv/a", "srv/data/b", "home/c", "etc/d", "srv/" + "e" * 90]),
        st.integers(1, 19), st.integers(1, 19), mode=st.sampled_from([0o100644, 0o040755]),
        mtime=st.integers(1, 1 << 40),
    ),
    min_size=1, max_size=40,
)  # fmt: skip


@settings(max_examples=60, deadline=None,
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
    assert ahead == 2000 and store.reads == 0  # type: ignore[attr-defined]
    # One changed file in the middle costs the chunks around it.
    new = [*old[:1000], item("srv/1000", 3, mtime=1 << 50), *old[1001:]]
    ids = store.put(packed(new))
    _, ahead = audited(store, tmp_path, ids, earlier=earlier)
    assert 1900 < ahead < 2000 and 0 < store.reads < len(ids) / 10  # type: ignore[attr-defined]


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


@pytest.mark.parametrize("most", [0, 5_000, 100_000])
def test_no_more_is_judged_ahead_than_there_is_room_for(tmp_path: Path, most: int) -> None:
    """Room is counted in bytes: of names, of records, and of lists of chunks."""
    store = Store()
    short = [item(f"srv/{n}", n % 19 + 1) for n in range(2000)]
    long = [item(f"srv/{n}", *[n % 19 + 1] * 999) for n in range(20)]
    for items in (short, long):
        budget = Budget(most)
        earlier = store.put(packed(items))
        plain, _ = audited(store, tmp_path, earlier, earlier=None)
        ahead, count = audited(store, tmp_path, earlier, earlier=earlier, budget=budget)
        assert ahead == plain
        # An item takes more here than it does in the stream.
        assert count * len(packed(items)) / len(items) <= most
        assert budget.take(most) and not budget.take(1), "all room is given back"


def test_what_links_take_is_counted(tmp_path: Path) -> None:
    store, items = Store(), []
    for n in range(300):
        first = {**item(f"srv/{n}", 1), "hardlink_master": True}
        second = {**item(f"home/{n}", mode=0o040755), "mode": 0o100644, "source": f"srv/{n}"}
        items += [first, second]
    earlier = store.put(packed(items))
    plain, _ = audited(store, tmp_path, earlier, earlier=None)
    ahead, count = audited(store, tmp_path, earlier, earlier=earlier)
    assert ahead == plain and count == 600
    _, count = audited(store, tmp_path, earlier, earlier=earlier, budget=Budget(600 * 200))
    assert 0 < count < 600 * 2 / 3


def test_a_link_whose_first_name_is_not_in_the_archive_is_refused_ahead_or_not(
    tmp_path: Path,
) -> None:
    store = Store()
    first = {**item("srv/a", 1), "hardlink_master": True}
    second = {**item("home/a", mode=0o040755), "mode": 0o100644, "source": "srv/a"}
    others = [item(f"srv/{n}", n % 19 + 1) for n in range(100)]
    earlier = store.put(packed([first, *others, second]))
    assert audited(store, tmp_path, earlier, earlier=earlier)[1] == 102
    ids = store.put(packed([item("srv/b", 1), *others, second]))
    said, _ = audited(store, tmp_path, ids, earlier=earlier)
    assert said == "a hard link's source is no earlier item that can be one"


def test_an_audit_holds_one_item_at_a_time(tmp_path: Path) -> None:
    """Items of a hostile archive take many times their length in memory."""
    store = Store()
    xattrs = {f"{n:04x}": b"" for n in range(9000)}
    stream = packed([{**item(f"srv/{n}"), "xattrs": xattrs} for n in range(60)])
    ids = []
    for begin in range(0, len(stream), 1 << 20):
        ids.append(hashed(stream[begin : begin + (1 << 20)]))
        store.chunks[ids[-1]] = stream[begin : begin + (1 << 20)]
    for earlier in (None, ids):
        tracemalloc.start()
        try:
            (told, *_), _ahead = audited(store, tmp_path, ids, earlier=earlier)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert told["items"] == 60 and peak < 20 << 20
