"""The judge is content with an honest repository, and finds each kind of harm."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest

from borgcube.testing.judge import Judge
from borgcube.testing.rig import PASSPHRASE, Rig
from borgcube.testing.stockborg import StockBorg
from borgcube.testing.trees import make_nasty_tree

CONTENT = b"planted"


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with Rig(tmp_path_factory.mktemp("rig")) as rig:
        make_nasty_tree(rig.root / "tree", big_bytes=3 << 20, small_files=30)
        assert rig.backup("honest-1", rig.root / "tree").state == "done"
        (rig.root / "tree" / "more").write_bytes(b"more" * 1000)
        assert rig.backup("honest-2", rig.root / "tree").state == "done"
        yield rig


@pytest.fixture
def judge(rig: Rig, tmp_path: Path) -> Iterator[Judge]:
    with judge_of(rig, tmp_path / "judge") as judge:
        yield judge


def judge_of(rig: Rig, work: Path, repository: Path | None = None) -> Judge:
    cache = rig.cache if repository is None else None
    return Judge(repository or rig.path, PASSPHRASE, cache=cache, work=work)


@pytest.fixture
def planted(rig: Rig, tmp_path: Path) -> Iterator[tuple[Path, StockBorg]]:
    """A copy of the repository, and who can plant archives in it."""
    place = tmp_path / "planted"
    shutil.copytree(rig.path, place, ignore=shutil.ignore_patterns("lock.*"))
    (tmp_path / "base").mkdir()
    with StockBorg(PASSPHRASE) as borg:
        yield place, borg


def item(path: str, mode: int = 0o100644, **more: object) -> bytes:
    fields = {"path": path, "mode": mode, "mtime": 1, "uid": 0, "gid": 0, "user": "u",
              "group": "g", **more}  # fmt: skip
    packed: bytes = msgpack.packb(fields, use_bin_type=False)
    return packed


def test_an_honest_repository_is_sound_while_its_vault_runs(rig: Rig, judge: Judge) -> None:
    before = judge.snapshot()
    verdict = judge.judge(unchanged=before).require()
    assert verdict.archives == 2 and set(before) == {"honest-1", "honest-2"}
    again = judge.judge()
    assert again.content and again.archives == 0 and again.seconds < 1


def test_a_count_that_is_wrong_is_found(rig: Rig, tmp_path: Path) -> None:
    from borg.hashindex import ChunkIndex

    cache = tmp_path / "cache"
    shutil.copytree(rig.cache, cache)
    index = ChunkIndex.read(str(cache / "chunks"))
    key, entry = next(iter(index.iteritems()))
    index[key] = (entry[0] + 1, entry[1], entry[2])
    index.write(str(cache / "chunks"))
    with Judge(rig.path, PASSPHRASE, cache=cache, work=tmp_path / "judge") as judge:
        (found,) = judge.judge().findings
    assert key.hex()[:16] in found and "the vault counts" in found


def test_damage_is_found(rig: Rig, tmp_path: Path) -> None:
    place = tmp_path / "damaged"
    shutil.copytree(rig.path, place, ignore=shutil.ignore_patterns("lock.*"))
    segment = max((place / "data").glob("*/*"), key=lambda path: path.stat().st_size)
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    with judge_of(rig, tmp_path / "judge", place) as judge:
        assert any("borg check is not clean" in found for found in judge.judge().findings)


def test_an_archive_that_changed_or_is_gone_is_found(
    rig: Rig, tmp_path: Path, planted: tuple[Path, StockBorg]
) -> None:
    place, borg = planted
    with judge_of(rig, tmp_path / "judge", place) as judge:
        before = judge.snapshot()
        borg.plant(place, "honest-1", [item("f", chunks=[], size=0)], base=tmp_path / "base")
        assert borg.run(
            "delete", f"{place}::honest-2", base=tmp_path / "base", cwd=tmp_path, writable=[place]
        ).code == 0  # fmt: skip
        found = judge.judge(unchanged=before).findings
        assert "the archive honest-2 is gone" in found
        assert "the archive honest-1 is not what it was" in found


def poisons(judge: Judge) -> dict[str, tuple[list[bytes], str]]:
    """Return item streams that harm, and what the judge says."""
    way = item("way", 0o120777, source=str(judge.witness))
    return {
        "of what does not extract": ([item("f")], "does not extract"),
        "of a link that leads nowhere": ([item("f", source="absent")], "with warnings"),
        "of an owner that no system has": ([item("f", chunks=[], uid=1 << 60)], "does not extract"),
        "that changes what is outside": (
            [item("d/x", source="absent"), item("./d", 0o120777, source=str(judge.witness)),
             item("d/file", chunks=[], size=0)],
            "changed the witness outside its target",
        ),
        "that links to what is outside": ([way, item("way/file", chunks=[], size=0)], "warnings"),
    }  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["of what does not extract", "of a link that leads nowhere", "of an owner that no system has",
     "that changes what is outside", "that links to what is outside"],
)  # fmt: skip
def test_an_archive_is_found(
    name: str, rig: Rig, tmp_path: Path, planted: tuple[Path, StockBorg]
) -> None:
    place, borg = planted
    with judge_of(rig, tmp_path / "judge", place) as judge:
        streams, words = poisons(judge)[name]
        borg.plant(place, "bad", [b"".join(streams)], base=tmp_path / "base")
        findings = judge.judge().findings
        assert any("bad" in found and words in found for found in findings), findings
