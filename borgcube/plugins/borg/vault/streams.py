"""The metadata of a plan's last archive in the form in which its client wrote it.

What a client writes is not what we store. So that a client which changed little need not send all
its metadata again, the chunks of its last stream are kept beside the plan's files cache and
offered to its next session, and to nobody else. They are the client's own words, read again by
the same strict reader when they are used. A lost file costs an upload, nothing else.

The file: for each chunk its ID (32 bytes), its length and its length when compressed (4 bytes
each, little-endian), the chunk compressed with zstd. A chunk counts only if its ID is that of its
content.
"""

from __future__ import annotations

import contextlib
import logging
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import zstandard

log = logging.getLogger("borgcube.vault")
HEAD = struct.Struct("<32sII")
# Of a larger stream only the beginning is kept; this is a plan of some 20 million files.
MAX_BYTES = 1 << 30
MAX_CHUNK = 20 << 20
LEVEL = 1


class StreamWriter:
    """Writes the next stream of a plan; it counts once :meth:`commit` ran."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._temporary = path.with_name(f"{path.name}.new")
        self._file = self._temporary.open("wb", buffering=1 << 18)
        self._compress = zstandard.ZstdCompressor(level=LEVEL).compress
        self._room = MAX_BYTES
        self._seen: set[bytes] = set()

    def add(self, chunk_id: bytes, chunk: bytes) -> None:
        """Remember a chunk of the stream."""
        if chunk_id not in self._seen and self._room > 0:
            self.add_packed(chunk_id, len(chunk), self._compress(chunk))

    def add_packed(self, chunk_id: bytes, length: int, packed: bytes) -> None:
        """Remember a chunk of ``length`` bytes that is compressed already."""
        if chunk_id in self._seen:
            return
        self._room -= HEAD.size + len(packed)
        if self._room > 0:
            self._seen.add(chunk_id)
            self._file.write(HEAD.pack(chunk_id, length, len(packed)))
            self._file.write(packed)

    def commit(self) -> None:
        """Make it the plan's stream."""
        self._file.close()
        os.replace(self._temporary, self.path)

    def discard(self) -> None:
        """Forget it; safe to repeat."""
        with contextlib.suppress(OSError):  # a full disk does not take the last buffer
            self._file.close()
        self._temporary.unlink(missing_ok=True)


class StoredStream:
    """A plan's stream as a session finds it: which chunks there are, and their content."""

    def __init__(self, path: Path, id_hash: Callable[[bytes], bytes]) -> None:
        self._path, self._id_hash = path, id_hash
        self._places: dict[bytes, tuple[int, int, int]] = {}
        self._file = None
        try:
            self._file = path.open("rb")
            self._scan(os.fstat(self._file.fileno()).st_size)
        except FileNotFoundError:
            pass
        except OSError as error:
            log.warning("the last stream of a plan is not used: %s", error)

    def _scan(self, size: int) -> None:
        assert self._file is not None
        at = 0
        while at + HEAD.size <= size:
            self._file.seek(at)
            chunk_id, length, packed = HEAD.unpack(self._file.read(HEAD.size))
            at += HEAD.size + packed
            if at > size or not 0 < length <= MAX_CHUNK:
                return  # torn by a crash: what is before it is good
            self._places[chunk_id] = (at - packed, packed, length)

    def sizes(self) -> Iterator[tuple[bytes, int]]:
        """Yield the ID and the size in bytes of each chunk."""
        for chunk_id, (_, _, length) in self._places.items():
            yield chunk_id, length

    def get(self, chunk_id: bytes) -> bytes | None:
        """Return a chunk, None when it is not there or not what its ID says."""
        place = self._places.get(chunk_id)
        if place is None or self._file is None:
            return None
        start, packed, length = place
        try:
            data = os.pread(self._file.fileno(), packed, start)
            if zstandard.frame_content_size(data) != length:
                return None  # what it says it comes to is what room is made for
            chunk = zstandard.ZstdDecompressor().decompress(data, max_output_size=length)
        except (OSError, zstandard.ZstdError) as error:
            log.warning("a chunk of a plan's last stream cannot be read: %s", error)
            return None
        return chunk if self._id_hash(chunk) == chunk_id else None

    def copy(self, chunk_id: bytes, target: StreamWriter) -> None:
        """Remember a chunk for the next time as well."""
        place = self._places.get(chunk_id)
        if place is not None and self._file is not None:
            with contextlib.suppress(OSError):  # then it is sent again, the next time
                data = os.pread(self._file.fileno(), place[1], place[0])
                target.add_packed(chunk_id, place[2], data)

    def chunks(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield each chunk with its ID, in the order of the stream."""
        for chunk_id in self._places:
            chunk = self.get(chunk_id)
            if chunk is None:
                return
            yield chunk_id, chunk

    def __contains__(self, chunk_id: bytes) -> bool:
        return chunk_id in self._places

    def forget(self) -> None:
        """Remove the file, which is not as it was written: nothing of it is offered again."""
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file; safe to repeat."""
        if self._file is not None:
            self._file.close()
            self._file = None
