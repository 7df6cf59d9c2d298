"""Do two readers see the same references? For archives that we did not encode.

The strict decoder and Borg's own C reader (``CacheSynchronizer``) read the same bytes; an archive
whose references they count differently, or that Borg could not restore, is not to be counted by
anybody. Runs in the reader process.
"""

from __future__ import annotations

from typing import Any

from borg.hashindex import CacheSynchronizer, ChunkIndex

from borgcube.plugins.borg.metadata import form
from borgcube.plugins.borg.metadata.decode import ItemDecoder
from borgcube.plugins.borg.metadata.form import ENTRY
from borgcube.plugins.borg.metadata.rules import ArchiveRefused, StoredLinks, check_stored


class Comparison:
    """Counts the references of one archive twice."""

    def __init__(self) -> None:
        self._ours: Any = ChunkIndex()
        self._borgs: Any = ChunkIndex()
        self._synchronizer = CacheSynchronizer(self._borgs)
        self._links = StoredLinks()
        self.items = 0

    def take(self, chunk: bytes, decoder: ItemDecoder) -> None:
        """Read the next chunk with both readers. Raises ArchiveRefused."""
        count = self._ours.add
        for record in form.read_block(form.pack_block(list(decoder.read(chunk)))):
            check_stored(record, self._links)
            self.items += 1
            for chunk_id, size in ENTRY.iter_unpack(record.chunks):
                count(chunk_id, 1, size, 0)
        try:
            self._synchronizer.feed(chunk)
        except ValueError as error:
            raise ArchiveRefused(f"Borg does not read its list of files: {error}") from None

    def figures(self) -> dict[str, int]:
        """Return figures of both, at the end. Raises ArchiveRefused when they differ."""
        check_equal(self._ours, self._borgs)
        return {"items": self.items, "chunks": len(self._ours)}


def check_equal(ours: Any, borgs: Any, *, sizes: bool = True) -> None:
    """Raise ArchiveRefused unless two indexes count the same references, of the same sizes."""
    if len(ours) != len(borgs):
        raise ArchiveRefused("Borg counts other references of this archive than BorgCube does")
    for chunk_id, entry in ours.iteritems():
        other = borgs.get(chunk_id)
        if other is None or other[0] != entry[0] or (sizes and other[1] != entry[1]):
            raise ArchiveRefused("Borg counts other references of this archive than BorgCube does")
