"""What the strict decoder and its rules refuse beyond the lists of attacks, one by one."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from borgcube.plugins.borg.metadata.decode import read_records
from borgcube.plugins.borg.metadata.readers import Reader, Readers
from borgcube.plugins.borg.metadata.rules import ArchiveRefused, Links, check_record
from borgcube.testing.grammar.forge import fields, file
from borgcube.testing.grammar.nodes import FALSE, Array, Int, Map, Node, Other, node_of, packed

PLAIN = fields("d", 0o040755)


def judge(*items: Node) -> None:
    links = Links()
    for record in read_records([b"".join(map(packed, items))]):
        check_record(record, links)


@pytest.mark.parametrize("key", [b"user", b"group"])
@pytest.mark.parametrize(
    "value", [FALSE, Int(0), Array(), Map(), Other(b"\xcb" + bytes(8))],
    ids=["false", "zero", "list", "map", "float"],
)  # fmt: skip
def test_an_owner_that_is_no_text_is_refused(key: bytes, value: Node) -> None:
    item = node_of(PLAIN)
    assert isinstance(item, Map)
    judge(item)
    item.put(key, value)
    with pytest.raises(ArchiveRefused):
        judge(item)


REFUSED: dict[str, dict[str, Any]] = {
    "a user with a zero byte": {**PLAIN, "user": "a\0b"},
    "a group with a zero byte": {**PLAIN, "group": "\0"},
    "an empty user": {**PLAIN, "user": ""},
    "an empty group": {**PLAIN, "group": ""},
    "a root that is a file": file("."),
    "a root that is a link": fields(".", 0o120777, source="/"),
    "a root that is a pipe": fields(".", 0o010644),
}


@pytest.mark.parametrize("item", REFUSED.values(), ids=REFUSED)
def test_what_borg_cannot_extract_is_refused(item: dict[str, Any]) -> None:
    with pytest.raises(ArchiveRefused):
        judge(node_of(item))


def test_a_reader_outlives_the_thread_that_started_its_process() -> None:
    """The first session of a vault starts it; all others go on when that one ends."""
    readers = Readers()
    found: list[Reader] = []
    try:
        thread = threading.Thread(target=lambda: found.append(readers.open()))
        thread.start()
        thread.join()
        for _ in range(20):
            reader = readers.open()
            assert list(reader.read(packed(node_of(PLAIN))))
            reader.close()
        assert list(found[0].read(packed(node_of(PLAIN))))
        found[0].close()
    finally:
        readers.close()
