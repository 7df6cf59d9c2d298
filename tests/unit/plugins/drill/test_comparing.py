"""A restored file that is not the archived one does not pass."""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path
from typing import Any

import pytest

from borgcube.plugins.drill.comparing import Compared, compare

KEY = b"k" * 32
CONTENT = os.urandom(5000)
PIECES = (CONTENT[:3000], CONTENT[3000:])


def content_hash(piece: bytes) -> bytes:
    return hmac.digest(KEY, piece, "sha256")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    place = tmp_path / "restored"
    (place / "etc").mkdir(parents=True)
    file = place / "etc" / "file"
    file.write_bytes(CONTENT)
    file.chmod(0o640)
    os.utime(file, ns=(0, 1_700_000_000_123_456_789))
    return place


def compared(base: Path, **other: Any) -> Compared:
    expected = {
        "path": "etc/file", "size": len(CONTENT), "mode": 0o104640,
        "mtime_ns": 1_700_000_000_123_456_789,
        "pieces": [[content_hash(piece).hex(), len(piece)] for piece in PIECES], **other,
    }  # fmt: skip
    return compare(base, expected, content_hash)


def changed(base: Path, content: bytes) -> Path:
    """Put other content there, with the old time."""
    file = base / "etc" / "file"
    file.write_bytes(content)
    os.utime(file, ns=(0, 1_700_000_000_123_456_789))
    return file


def test_the_archived_file_passes_and_has_its_digest(base: Path) -> None:
    found = compared(base)
    assert found.problems == []
    assert found.sha256 == hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize("at", [0, 2999, 3000, 4999])
def test_one_other_byte_is_found_and_where(base: Path, at: int) -> None:
    spoiled = bytearray(CONTENT)
    spoiled[at] ^= 1
    changed(base, bytes(spoiled))
    (problem,) = compared(base).problems
    assert problem == ("its content differs between bytes 0 and 3,000" if at < 3000 else
                       "its content differs between bytes 3,000 and 5,000")  # fmt: skip
    assert compared(base).sha256 == ""


def test_a_file_that_was_cut_or_goes_on_is_found(base: Path) -> None:
    changed(base, CONTENT[:-1])
    assert "4,999 bytes, should be 5,000" in compared(base).problems[0]
    changed(base, CONTENT + b"x")
    assert compared(base).problems[-1] == "it is longer than the archived file"


def test_other_permissions_and_times_are_found(base: Path) -> None:
    assert compared(base, mode=0o100600).problems == ["its mode is 0640, should be 0600"]
    assert compared(base, mtime_ns=1).problems == ["its time of change is not the archived one"]


def test_a_file_that_is_not_there_is_found(base: Path) -> None:
    (base / "etc" / "file").unlink()
    assert compared(base).problems == ["it was not restored: No such file or directory"]


def test_a_link_out_of_the_restored_tree_is_not_followed(base: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (base / "etc").rename(outside)
    (base / "etc").symlink_to(outside)
    assert "etc on its way is no directory" in compared(base).problems[0]
    (base / "etc").unlink()
    (base / "etc").mkdir()
    (base / "etc" / "file").symlink_to(outside / "file")
    assert "no regular file" in compared(base).problems[0]


def test_a_file_that_its_owner_may_not_read_is_compared_all_the_same(base: Path) -> None:
    (base / "etc" / "file").chmod(0o000)
    assert compared(base, mode=0o100000).problems == []
