"""Prune and compact inside a running vault: exact, alongside backups, safe against a kill."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from borgcube.core.errors import JobFailed
from borgcube.core.retention import Entry, Rules, judge
from borgcube.plugins.prune import CompactJob, PruneJob
from borgcube.testing.rig import PASSPHRASE, Rig
from tests.functional.borg.test_crash_points import wait_until
from tests.functional.borg.test_engine import archive_names, check_is_clean, random_files


def on_disk(rig: Rig) -> int:
    return sum(path.stat().st_size for path in (rig.path / "data").glob("*/*"))


def ids_of(rig: Rig) -> dict[str, str]:
    return {one["name"]: one["id"] for one in rig.engine.list_archives(rig.socket, known=())}


def prune(rig: Rig, *names: str, context: Any = None, **parameters: Any) -> Any:
    known = ids_of(rig)
    context = context or rig.context("prune")
    context.order.parameters.update(archives={name: known[name] for name in names}, **parameters)
    return PruneJob().run(context)


def backup_versions(rig: Rig, source: Path, *names: str, **options: Any) -> None:
    """Back up once for each name, with one file of 700 kB that is new each time."""
    for name in names:
        (source / "f0").write_bytes(os.urandom(700_000))
        rig.backup(name, source, **options)


def test_what_a_dry_run_says_is_what_comes_back(tmp_path: Path) -> None:
    source = random_files(tmp_path / "source", count=3, each=300_000)
    with Rig(tmp_path / "rig") as rig:
        backup_versions(rig, source, "t-1", "t-2", "t-3", "t-4")
        before = on_disk(rig)
        said = prune(rig, "t-1", "t-3", dry_run=True)
        assert said.state == "done" and on_disk(rig) == before and not said.archives_deleted
        done = prune(rig, "t-1", "t-3", compact="never")
        assert done.data["unused_bytes"] == said.data["would_free_bytes"] > 1_400_000
        assert sorted(done.archives_deleted) != [] and len(done.archives_deleted) == 2
        assert on_disk(rig) >= before, "the space comes back with a compaction"
        given_back = CompactJob().run(rig.context("compact")).data
        assert given_back["compacted_bytes"] == pytest.approx(
            said.data["would_free_bytes"], abs=20_000
        )
        assert on_disk(rig) == pytest.approx(before - said.data["would_free_bytes"], abs=50_000)
        check_is_clean(rig)
        assert set(ids_of(rig)) == {"t-2", "t-4"}
        rig.restore("t-4", tmp_path / "out")
        for path in source.iterdir():
            assert (tmp_path / "out" / str(path).lstrip("/")).read_bytes() == path.read_bytes()


def test_a_prune_compacts_only_when_it_pays(tmp_path: Path) -> None:
    source = random_files(tmp_path / "source", count=2, each=2_000_000)
    with Rig(tmp_path / "rig") as rig:
        rig.backup("t-1", source)
        (source / "small").write_bytes(os.urandom(1000))
        rig.backup("t-2", source)
        little = prune(rig, "t-1")
        assert little.data["compacted_bytes"] == 0
        backup_versions(rig, source, "t-3", "t-4")
        much = prune(rig, "t-2", "t-3")
        assert much.data["compacted_bytes"] > 1_000_000
        check_is_clean(rig)


def test_an_archive_that_was_made_anew_under_the_name_stays(tmp_path: Path) -> None:
    source = random_files(tmp_path / "source", count=1, each=10_000)
    with Rig(tmp_path / "rig") as rig:
        rig.backup("t-1", source)
        context = rig.context("prune", archives={"t-1": "ab" * 32, "gone": "cd" * 32})
        done = PruneJob().run(context)
        assert done.data["deleted"] == 0 and "t-1" in ids_of(rig)
        assert sorted(done.archives_deleted) == ["ab" * 32, "cd" * 32], "the store forgets them"


def test_backups_go_on_while_archives_are_pruned_and_compacted(tmp_path: Path) -> None:
    slow = random_files(tmp_path / "slow", count=8, each=700_000)
    source = random_files(tmp_path / "source", count=2, each=700_000)
    with Rig(tmp_path / "rig") as rig:
        # The other client sends what only the archives to delete have: it must still be there.
        backup_versions(rig, source, "a-1", "a-2", domain="client:a")
        (slow / "shared").write_bytes((source / "f1").read_bytes())
        ended: list[str] = []
        thread = threading.Thread(target=lambda: ended.append(rig.backup(
            "b-1", slow, plan="b", domain="client:b", upload_ratelimit_kib=700
        ).state))  # fmt: skip
        thread.start()
        wait_until(lambda: len(list((rig.path / "data").glob("*/*"))) and on_disk(rig) > 4_500_000)
        done = prune(rig, "a-1", "a-2", compact="always")
        assert thread.is_alive(), "the two did not overlap"
        assert done.state == "done" and done.data["deleted"] == 2, done
        assert done.data["compacted_bytes"] > 500_000
        rig.backup("c-1", source, plan="c", domain="client:c")
        gone = rig.engine.delete_archives(
            rig.context("archive-delete", archives=["c-1"], ids={"c-1": ids_of(rig)["c-1"]})
        )
        assert gone.state == "done" and gone.data["deleted"] == ["c-1"] and thread.is_alive()
        thread.join()
        assert ended == ["done"]
        check_is_clean(rig)
        rig.restore("b-1", tmp_path / "out")
        for path in slow.iterdir():
            assert (tmp_path / "out" / str(path).lstrip("/")).read_bytes() == path.read_bytes()


def test_an_archive_whose_chunks_a_session_was_offered_waits_for_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = random_files(tmp_path / "source", count=6, each=700_000)
    with Rig(tmp_path / "rig") as rig:
        backup_versions(rig, source, "a-1")
        rig.backup("other-1", random_files(tmp_path / "other", count=1), plan="o", domain="d:o")
        for path in source.iterdir():
            path.write_bytes(os.urandom(700_000))
        ended: list[str] = []
        thread = threading.Thread(target=lambda: ended.append(
            rig.backup("a-2", source, upload_ratelimit_kib=1000).state
        ))  # fmt: skip
        thread.start()
        wait_until(lambda: list(rig.state_dir.glob("*/sessions/*/files")))
        context = rig.context("prune")
        pruning = threading.Thread(
            target=lambda: prune(rig, "a-1", "other-1", context=context, compact="never")
        )
        pruning.start()
        wait_until(lambda: context.figures.get("waiting") or not thread.is_alive())
        assert thread.is_alive() and "info deleted other-1" in context.lines
        assert "info deleted a-1" not in context.lines, "the session may rely on its chunks"
        thread.join()
        pruning.join()
        assert ended == ["done"] and "info deleted a-1" in context.lines
        check_is_clean(rig)


def test_a_kill_during_a_compaction_or_a_prune_loses_nothing(tmp_path: Path) -> None:
    source = random_files(tmp_path / "source", count=8, each=400_000)
    chance = random.Random(5)
    with Rig(tmp_path / "rig") as rig:
        seconds = 0.0
        for attempt in range(3):
            names = [f"{attempt}-{number}" for number in range(2)]
            backup_versions(rig, source, *names)
            for path in list(source.iterdir())[:4]:
                path.write_bytes(os.urandom(400_000))
            rig.backup(f"{attempt}-kept", source)
            began = time.monotonic()
            vault = rig.vault
            assert vault is not None
            if attempt:  # the first one measures how long it takes
                moment_of_death = seconds * (0.2 + 0.6 * chance.random())
                timer = threading.Timer(moment_of_death, vault.send_signal, [signal.SIGKILL])
                timer.start()
            with contextlib.suppress(JobFailed):
                prune(rig, *names, compact="always")
            seconds = seconds or time.monotonic() - began
            if attempt:
                timer.join()
                vault.wait(10)
                rig.start_vault()
                check_is_clean(rig)
            left = set(ids_of(rig))
            assert f"{attempt}-kept" in left
            prune(rig, *(left & set(names)), compact="always")
        rig.stop_vault()
        assert archive_names(rig) == {f"{attempt}-kept" for attempt in range(3)}
        rig.start_vault()
        rig.restore("2-kept", tmp_path / "out")
        for path in source.iterdir():
            assert (tmp_path / "out" / str(path).lstrip("/")).read_bytes() == path.read_bytes()


LISTING = """
import json, sys
from pathlib import Path
from borgcube.plugins.borg import borgenv
borgenv.prepare(Path(sys.argv[2]))
from borgcube.plugins.borg.vault.opened import OpenedRepository
opened = OpenedRepository(Path(sys.argv[1]), sys.argv[3], with_cache=False)
key = opened.key
for name, at in json.load(sys.stdin).items():
    metadata = {
        "version": 1, "name": name, "items": (), "cmdline": ("borg",), "hostname": "h",
        "username": "u", "time": at, "time_end": at, "comment": "",
        "chunker_params": ("buzhash", 19, 23, 21, 4095),
    }
    data = key.pack_and_authenticate_metadata(metadata, context=b"archive")
    archive_id = key.id_hash(data)
    opened.repository.put(archive_id, key.encrypt(data))
    opened.manifest.archives[name] = (archive_id, at)
opened.manifest.write()
opened.repository.commit(compact=False)
opened.close()
"""


def test_the_rules_keep_what_borg_prune_keeps(tmp_path: Path) -> None:
    chance = random.Random(11)
    at = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    entries = []
    for number in range(120):
        at -= timedelta(hours=chance.choice([0, 1, 5, 23, 24, 24, 25, 170, 800]))
        entries.append(Entry(str(number), f"p-{number:03d}", at))
    listed = {e.name: f"{e.time:%Y-%m-%dT%H:%M:%S.%f}" for e in entries}
    rig = Rig(tmp_path / "rig")
    subprocess.run(
        [sys.executable, "-c", LISTING, str(rig.path), str(rig.state_dir), PASSPHRASE],
        input=json.dumps(listed).encode(), check=True, timeout=60,
    )  # fmt: skip
    rules = Rules(within="2d", hourly=5, daily=7, weekly=4, monthly=6, quarterly_13weekly=2,
                  yearly=9)  # fmt: skip
    said = rig.plain_borg(
        "prune", "--dry-run", "--list", "--keep-within", "2d", "--keep-hourly", "5",
        "--keep-daily", "7", "--keep-weekly", "4", "--keep-monthly", "6", "--keep-13weekly", "2",
        "--keep-yearly", "9", str(rig.path),
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    kept = dict(re.findall(r"rule: (\S+ #\d+)\): +(p-\d+)", said.stderr))
    going = set(re.findall(r"Would prune: +(p-\d+)", said.stderr))
    verdicts = judge(entries, rules, now=datetime.now(UTC))
    assert {v.entry.name for v in verdicts if not v.keep} == going
    assert {f"{v.rule} #{v.number}": v.entry.name for v in verdicts if v.keep} == kept
    assert len(kept) > 20 and len(going) > 20
