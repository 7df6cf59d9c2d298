"""What is kept beside a repository: moved from where 0.1.0 had it, and its counter of nonces."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from borgcube.core.errors import JobFailed
from borgcube.plugins.borg import layout
from borgcube.plugins.borg.statedirs import CACHE, SECURITY, adopt, carry_over, fingerprint

ONE, OTHER = "ab" * 32, "cd" * 32


def counted(state: Path, repository_id: str, nonce: int) -> Path:
    place = state / SECURITY / repository_id
    place.mkdir(parents=True)
    (place / "nonce").write_text(f"{nonce:016x}")
    return place / "nonce"


def test_only_what_is_of_the_repository_moves_and_moving_goes_on_after_a_crash(
    tmp_path: Path,
) -> None:
    own = tmp_path / "repositories" / "1"
    for repository_id in (ONE, OTHER):
        counted(tmp_path, repository_id, 77)
        cache = tmp_path / CACHE / repository_id
        cache.mkdir(parents=True)
        (cache / "chunks").write_bytes(b"counts")
        (tmp_path / repository_id).mkdir()
        (tmp_path / "holders").mkdir(exist_ok=True)
        note = {"pid": 1, "directories": ["/r/lock.exclusive", str(cache / "lock.exclusive")]}
        (tmp_path / "holders" / f"%{repository_id}.json").write_text(json.dumps(note))
    adopt(tmp_path, own, ONE)
    assert (own / SECURITY / ONE / "nonce").read_text() == f"{77:016x}"
    assert (own / CACHE / ONE / "chunks").exists() and (own / ONE).is_dir()
    (note_file,) = (own / "holders").iterdir()
    assert json.loads(note_file.read_text())["directories"] == [
        "/r/lock.exclusive", str(own / CACHE / ONE / "lock.exclusive")
    ]  # fmt: skip
    for left in (SECURITY, CACHE, Path()):
        assert not (tmp_path / left / ONE).exists() and (tmp_path / left / OTHER).exists()
    # As if a crash had come in between: the rest follows, and nothing is put over what is there.
    shutil.move(own / ONE, tmp_path / ONE)
    counted(tmp_path, ONE, 5)
    adopt(tmp_path, own, ONE)
    assert (own / ONE).is_dir()
    assert (own / SECURITY / ONE / "nonce").read_text() == f"{77:016x}"
    adopt(tmp_path, own, "../escape")
    assert not (own / "escape").exists()


def test_a_counter_goes_on_behind_that_of_the_same_key_and_of_no_other(tmp_path: Path) -> None:
    def state(name: str) -> Path:
        place = tmp_path / "repositories" / name
        place.mkdir(parents=True, exist_ok=True)
        return place

    key, foreign = fingerprint(b"k" * 32), fingerprint(b"f" * 32)
    for name, mark, nonce in (
        ("gone", key, 900),
        ("older", key, 300),
        ("forger", foreign, 1 << 62),
    ):
        counted(state(name), ONE, nonce)
        carry_over(state(name), ONE, mark)
    carry_over(state("back"), ONE, key)
    assert (state("back") / SECURITY / ONE / "nonce").read_text() == f"{900:016x}"
    assert (state("older") / SECURITY / ONE / "nonce").read_text() == f"{900:016x}"
    counted(state("ahead"), ONE, 5000)
    carry_over(state("ahead"), ONE, key)
    assert (state("ahead") / SECURITY / ONE / "nonce").read_text() == f"{5000:016x}"
    # What 0.1.0 left of a repository that was removed counts too.
    counted(tmp_path, OTHER, 40)
    carry_over(state("again"), OTHER, key)
    assert int((state("again") / SECURITY / OTHER / "nonce").read_text(), 16) >= 40


def make(place: Path) -> Path:
    (place / "data" / "0").mkdir(parents=True)
    (place / "data" / "0" / "1").write_bytes(b"BORG_SEG")
    (place / "config").write_text("[repository]\n")
    return place


def test_a_repository_of_files_and_directories_passes(tmp_path: Path) -> None:
    layout.check(make(tmp_path / "r"))


@pytest.mark.parametrize("name", ["config", "data", "data/0", "data/0/1", "index.1", "nonce"])
@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_a_link_or_a_fifo_in_a_repository_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    place, elsewhere = make(tmp_path / "r"), make(tmp_path / "elsewhere")
    path = place / name
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if kind == "link":
        path.symlink_to(elsewhere / name)
    else:
        os.mkfifo(path)
    with pytest.raises(JobFailed, match=name) as caught:
        layout.check(place)
    assert caught.value.cause.kind == "repository-unusable"
