"""Look for a cipher nonce that was used twice, with nothing of BorgCube and nothing of Borg.

``python -m borgcube.testing.nonces REPOSITORY...`` reads every segment file, superseded and
uncommitted entries included. It needs no key: the nonce stands in front of the ciphertext.

Formats, from the Borg 1.4 documentation, "Internals, Data structures and file formats",
Segments and Key files, and "Internals, Security", Encryption:

- A segment is ``BORG_SEG`` and entries of crc32 (4 bytes), size of the entry (4, both
  little-endian), tag (1). PUT (0) and DELETE (1) go on with the object ID (32), COMMIT (2)
  ends there. PUT2 (3) has an 8-byte hash between the ID and the object.
- An encrypted object is type (1), MAC (32), nonce (8, big-endian) and the AES-256-CTR
  ciphertext. The counter block is the nonce, one further for each 16 bytes.

Copies of a repository have the same ID and key, and so are looked at together.
"""

from __future__ import annotations

import argparse
import configparser
import hashlib
import struct
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MAGIC = b"BORG_SEG"
HEADER = struct.Struct("<IIB")
PUT, DELETE, COMMIT, PUT2 = range(4)
ID_BYTES, HASH_BYTES = 32, 8
MAX_ENTRY = 21 << 20  # more than Borg's largest object
ENCRYPTED = (0x00, 0x03, 0x04, 0x05)  # keyfile, repokey and their BLAKE2b variants
NONCE_AT, CIPHERTEXT_AT = 33, 41
BLOCK_BYTES = 16


@dataclass(frozen=True)
class Use:
    """One encryption: ``blocks`` counter blocks from ``start``, as it lies on disk.

    ``envelope`` is where its bytes are, from offset ``at``, ``length`` bytes of them;
    fewer than the entry promised when the write was ``torn`` by a crash.
    """

    start: int
    blocks: int
    segment: Path
    at: int
    length: int
    digest: bytes
    torn: bool = False

    @property
    def end(self) -> int:
        """The first block after it."""
        return self.start + self.blocks

    def __str__(self) -> str:
        return f"blocks {self.start} to {self.end - 1} in {self.segment} at {self.at}"


@dataclass
class Findings:
    """What was read, and what is wrong with it."""

    uses: list[Use] = field(default_factory=list)
    plain: int = 0
    torn: int = 0
    unreadable: list[str] = field(default_factory=list)
    overlaps: list[tuple[Use, Use]] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether everything could be read and no block was used twice."""
        return not self.unreadable and not self.overlaps


def segment_files(repository: Path) -> list[Path]:
    """Return the segment files of a repository in ascending order."""
    found = [path for path in (repository / "data").glob("*/*") if path.name.isdigit()]
    return sorted(found, key=lambda path: int(path.name))


def read_segment(path: Path, findings: Findings) -> None:
    """Add every encrypted object of a segment file to ``findings``.

    A last entry that a crash cut short counts with the length it was to have: its whole
    text was encrypted before the write began.
    """
    data = path.read_bytes()
    if len(data) < len(MAGIC):
        findings.torn += 1
        return
    if data[: len(MAGIC)] != MAGIC:
        findings.unreadable.append(f"{path}: is not a segment")
        return
    offset = len(MAGIC)
    while offset < len(data):
        if len(data) - offset < HEADER.size:
            findings.torn += 1
            return
        crc, size, tag = HEADER.unpack_from(data, offset)
        if not HEADER.size <= size <= MAX_ENTRY or tag not in (PUT, DELETE, COMMIT, PUT2):
            findings.unreadable.append(f"{path}: no entry at {offset}")
            return
        torn = offset + size > len(data)
        # PUT2's checksum covers the fixed part only.
        fixed = HEADER.size + ID_BYTES + (HASH_BYTES if tag == PUT2 else 0)
        covered = data[offset + 4 : offset + (fixed if tag == PUT2 else size)]
        if not torn and zlib.crc32(covered) != crc:
            findings.unreadable.append(f"{path}: wrong checksum at {offset}")
            return
        if tag in (PUT, PUT2):
            _add(path, data, offset + fixed, offset + size, findings)
        findings.torn += torn
        offset += size


def _add(path: Path, data: bytes, begin: int, end: int, findings: Findings) -> None:
    envelope = data[begin:end]
    if not envelope:
        return
    if envelope[0] not in ENCRYPTED:
        findings.plain += 1
        return
    if len(envelope) < CIPHERTEXT_AT:
        return  # cut before the ciphertext
    (start,) = struct.unpack_from(">Q", envelope, NONCE_AT)
    blocks = (end - begin - CIPHERTEXT_AT + BLOCK_BYTES - 1) // BLOCK_BYTES
    findings.uses.append(
        Use(
            start, blocks, path, begin, len(envelope),
            hashlib.sha256(envelope).digest(), torn=end > len(data),
        )
    )  # fmt: skip


def _same_encryption(one: Use, other: Use) -> bool:
    """Tell whether both are copies of the same bytes, as compaction makes them."""
    if (one.start, one.blocks) != (other.start, other.blocks):
        return False
    if not one.torn and not other.torn:
        return one.digest == other.digest
    length = min(one.length, other.length)
    pieces = []
    for use in (one, other):
        with use.segment.open("rb") as file:
            file.seek(use.at)
            pieces.append(file.read(length))
    return pieces[0] == pieces[1]


def find_overlaps(uses: Iterable[Use]) -> Iterator[tuple[Use, Use]]:
    """Yield pairs of encryptions that share a counter block; none means there are none."""
    reach: Use | None = None  # what reaches furthest so far
    for use in sorted(uses, key=lambda use: (use.start, use.blocks)):
        if not use.blocks:
            continue
        if reach is not None and use.start < reach.end:
            if _same_encryption(reach, use):
                # The longer copy stands for both.
                reach = use if reach.torn else reach
                continue
            yield reach, use
        if reach is None or use.end > reach.end:
            reach = use


def examine(repositories: Sequence[Path]) -> Findings:
    """Read repositories that share a key and compare all their nonces."""
    findings = Findings()
    for repository in repositories:
        for path in segment_files(repository):
            read_segment(path, findings)
    findings.overlaps = list(find_overlaps(findings.uses))
    return findings


def repository_id(repository: Path) -> str:
    """Return the ID in a repository's ``config``; raises ValueError when it has none."""
    config = configparser.ConfigParser(interpolation=None)
    try:
        config.read_string((repository / "config").read_text(encoding="utf-8"))
        return config["repository"]["id"].strip()
    except (OSError, KeyError, configparser.Error) as error:
        raise ValueError(f"{repository} is not a Borg repository") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; 0 when no nonce was used twice, 1 when one was, 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m borgcube.testing.nonces", description=__doc__)
    parser.add_argument("repository", nargs="+", type=Path)
    options = parser.parse_args(arguments)
    groups: dict[str, list[Path]] = {}
    try:
        for path in options.repository:
            groups.setdefault(repository_id(path), []).append(path)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    clean = True
    for identity, paths in groups.items():
        found = examine(paths)
        clean = clean and found.clean
        blocks = sum(use.blocks for use in found.uses)
        print(
            f"{identity[:16]}: {len(found.uses)} encryptions of {blocks} blocks, "
            f"{found.plain} objects without encryption, {found.torn} torn writes, "
            f"{len(found.overlaps)} overlaps"
        )
        for one, other in found.overlaps[:20]:
            print(f"  used twice: {one}\n         and: {other}")
        for text in found.unreadable[:20]:
            print(f"  {text}")
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
