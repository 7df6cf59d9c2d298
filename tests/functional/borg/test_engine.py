"""Backups and restores with the real borg, gate and vault: promises 5 to 8."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from borgcube.core.errors import JobCancelled, JobFailed
from borgcube.testing.rig import Rig, stock_borg
from borgcube.testing.trees import compare_trees, make_nasty_tree

DEBIAN_BORG = "/usr/bin/borg"


def check_is_clean(rig: Rig) -> None:
    """Stop the vault; plain borg must find nothing wrong and nothing to synchronise."""
    rig.stop_vault()
    try:
        check = rig.plain_borg("check", "--verify-data", str(rig.path))
        assert check.returncode == 0, check.stderr
        info = rig.plain_borg("--debug", "info", str(rig.path), same_caches=True)
        assert info.returncode == 0, info.stderr
        assert "Synchronizing" not in info.stderr
    finally:
        rig.start_vault()


def archive_names(rig: Rig) -> set[str]:
    """Return what plain borg lists; the vault must be stopped."""
    listing = json.loads(rig.plain_borg("list", "--json", str(rig.path)).stdout)
    return {archive["name"] for archive in listing["archives"]}


def random_files(directory: Path, *, count: int, each: int = 2 << 20) -> Path:
    directory.mkdir()
    for number in range(count):
        (directory / f"f{number}").write_bytes(os.urandom(each))
    return directory


@pytest.mark.parametrize("encryption", ["repokey", "repokey-blake2", "authenticated"])
@pytest.mark.parametrize("borg", [stock_borg(), DEBIAN_BORG], ids=["bundled", "debian"])
def test_nasty_tree_comes_back_identical(tmp_path: Path, encryption: str, borg: str) -> None:
    source = tmp_path / "source"
    make_nasty_tree(source, big_bytes=12 << 20, small_files=200)
    with Rig(tmp_path / "rig", encryption=encryption) as rig:
        first = rig.backup("t-1", source, borg=borg, sparse=True)
        assert first.state == "done", first.warnings
        time.sleep(1.1)  # the newest files are never trusted; all are older than that now
        again = rig.backup("t-2", source, borg=borg, sparse=True)
        assert again.state == "done"
        assert again.archives_added[0]["bytes_received"] < 1 << 20
        rig.restore("t-2", tmp_path / "out", borg=borg, names=True)
        assert compare_trees(source, tmp_path / "out" / str(source).lstrip("/")) == []
        check_is_clean(rig)


def test_unchanged_files_are_not_read_again(tmp_path: Path) -> None:
    source = random_files(tmp_path / "source", count=20)
    with Rig(tmp_path / "rig") as rig:
        rig.backup("t-1", source)
        (source / "newer").write_bytes(b"makes all others older than the newest")
        rig.backup("t-2", source)
        context = rig.context("backup")
        rig.backup("t-3", source, context=context)
        assert any("20 files are known" in line for line in context.lines)
        strace = next(figure for figure in [context.figures.get("bytes_new", 0)])
        assert strace < 100_000


def test_changed_file_with_same_size_and_mtime_is_read_again(tmp_path: Path) -> None:
    source = random_files(tmp_path / "source", count=3)
    with Rig(tmp_path / "rig") as rig:
        rig.backup("t-1", source)
        target = source / "f1"
        stat = target.stat()
        content = os.urandom(2 << 20)
        target.write_bytes(content)
        os.utime(target, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        rig.backup("t-2", source)
        rig.restore("t-2", tmp_path / "out")
        assert (tmp_path / "out" / str(target).lstrip("/")).read_bytes() == content


def test_two_clients_overlap_in_one_repository(tmp_path: Path) -> None:
    sources = [random_files(tmp_path / name, count=12) for name in ("a", "b")]
    with Rig(tmp_path / "rig") as rig:
        spans: dict[str, tuple[float, float]] = {}

        def run(name: str, source: Path) -> None:
            begin = time.monotonic()
            rig.backup(
                f"{name}-1", source, plan=name, domain=f"client:{name}", upload_ratelimit_kib=8000
            )
            spans[name] = (begin, time.monotonic())

        threads = [threading.Thread(target=run, args=(source.name, source)) for source in sources]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert spans["a"][0] < spans["b"][1] and spans["b"][0] < spans["a"][1]
        for source in sources:
            rig.restore(f"{source.name}-1", tmp_path / "out")
            assert compare_trees(source, tmp_path / "out" / str(source).lstrip("/")) == []
        check_is_clean(rig)


def test_interrupted_backup_is_kept_as_partial_and_reused(tmp_path: Path) -> None:
    source = random_files(tmp_path / "source", count=20)
    with Rig(tmp_path / "rig") as rig:
        context = rig.context("backup")
        threading.Timer(1.8, context.stop.set).start()
        with pytest.raises(JobCancelled):
            rig.backup("t-1", source, upload_ratelimit_kib=15_000, context=context)
        check_is_clean(rig)
        result = rig.backup("t-2", source).archives_added[0]
        assert result["bytes_received"] < 36 << 20
        rig.stop_vault()
        assert archive_names(rig) == {"t-2"}
        rig.start_vault()
        check_is_clean(rig)


def test_sigkill_of_the_vault_fails_the_job_and_nothing_else(tmp_path: Path) -> None:
    source = random_files(tmp_path / "source", count=20)
    with Rig(tmp_path / "rig") as rig:
        rig.backup("t-0", source / "f0")
        assert rig.vault is not None
        threading.Timer(1.5, rig.vault.send_signal, args=(signal.SIGKILL,)).start()
        with pytest.raises(JobFailed) as failure:
            rig.backup("t-1", source, upload_ratelimit_kib=10_000)
        assert failure.value.cause.kind in ("vault-lost", "connection-lost", "borg-failed")
        rig.vault.wait(10)
        rig.start_vault()
        assert rig.backup("t-2", source).state == "done"
        check_is_clean(rig)


def test_deleting_an_archive_keeps_what_others_use(tmp_path: Path) -> None:
    source = random_files(tmp_path / "source", count=5)
    with Rig(tmp_path / "rig") as rig:
        rig.backup("t-1", source)
        rig.backup("t-2", source)
        rig.engine.delete_archives(rig.context("archive-delete", archives=["t-1", "gone"]))
        rig.restore("t-2", tmp_path / "out")
        assert compare_trees(source, tmp_path / "out" / str(source).lstrip("/")) == []
        check_is_clean(rig)


def test_selected_hard_link_is_restored_without_its_first_name(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "a").mkdir(parents=True)
    (source / "b").mkdir()
    (source / "a" / "first").write_bytes(b"content" * 100)
    (source / "b" / "second").hardlink_to(source / "a" / "first")
    (source / "b" / "third").hardlink_to(source / "a" / "first")
    with Rig(tmp_path / "rig") as rig:
        rig.backup("t-1", source)
        rig.restore("t-1", tmp_path / "out", str(source / "b"))
        restored = tmp_path / "out" / str(source).lstrip("/")
        assert (restored / "b" / "third").read_bytes() == b"content" * 100
        assert (restored / "b" / "third").samefile(restored / "b" / "second")
        assert not (restored / "a").exists()


def test_set_id_bits_are_not_restored_onto_the_server(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "tool").write_bytes(b"#!/bin/sh\n")
    (source / "tool").chmod(0o6755)
    with Rig(tmp_path / "rig") as rig:
        rig.backup("t-1", source)
        rig.restore("t-1", tmp_path / "out", server_side=True)
        mode = (tmp_path / "out" / str(source).lstrip("/") / "tool").stat().st_mode
        assert mode & 0o7777 == 0o755


def test_nothing_is_left_on_the_client_and_nothing_secret_was_there(tmp_path: Path) -> None:
    source = random_files(tmp_path / "source", count=8)
    with Rig(tmp_path / "rig") as rig:
        seen: list[bytes] = []
        stop = threading.Event()

        def spy() -> None:
            while not stop.is_set():
                for directory in Path("/tmp").glob(f"borgcube-{rig.server}-*"):
                    for file in directory.rglob("*"):
                        if file.is_file():
                            seen.append(file.read_bytes())
                listing = subprocess.run(
                    ["pgrep", "-f", "borg create.*ssh://borgcube/r"],
                    capture_output=True,
                    check=False,
                )
                for pid in listing.stdout.split():
                    for name in (b"cmdline", b"environ"):
                        try:
                            seen.append(Path(f"/proc/{pid.decode()}/{name.decode()}").read_bytes())
                        except OSError:
                            continue
                time.sleep(0.1)

        thread = threading.Thread(target=spy)
        thread.start()
        rig.backup("t-1", source, upload_ratelimit_kib=8000)
        stop.set()
        thread.join()
        assert len(seen) > 10
        blob = b"\n".join(seen)
        assert b"ssh://borgcube/r" in blob
        for secret in (str(rig.path).encode(), b"correct horse"):
            assert secret not in blob
        assert list(Path("/tmp").glob(f"borgcube-{rig.server}-*")) == []
        left = subprocess.run(
            ["pgrep", "-f", f"borgcube-{rig.server}"], capture_output=True, check=False
        )
        assert left.stdout == b""


def test_a_path_that_is_a_symbolic_link_is_a_warning_that_names_what_it_leads_to(
    tmp_path: Path,
) -> None:
    real, link, other = tmp_path / "re al", tmp_path / "link", tmp_path / "other"
    for directory in (real, other):
        directory.mkdir()
        (directory / "file").write_text("x")
    link.symlink_to("re al")
    with Rig(tmp_path / "rig") as rig:
        for number, path in enumerate((link, Path(f"{link}/"), f"{link}//")):
            done = rig.backup(f"l-{number}", path, other)  # type: ignore[arg-type]
            (said,) = done.warnings
            assert done.state == "warning" and said.startswith(
                f"{link}: it is a symbolic link to {real}, and the link alone is saved"
            )
        dry = rig.engine.dry_run(rig.context("dry-run", paths=[str(link)], borg=stock_borg()))
        assert [text.partition(",")[0] for text in dry.warnings] == [
            f"{link}: it is a symbolic link to {real}"
        ]
        done = rig.backup("both", link, real)
        assert done.state == "done" and not done.warnings


def test_a_directory_with_a_blank_where_no_program_may_run_is_good_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, barred = tmp_path / "tree", tmp_path / "no exec"
    tree.mkdir()
    (tree / "file").write_text("x")
    barred.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "noexec,size=20m", "none", barred], check=True)
    try:
        with Rig(tmp_path / "rig") as rig:
            monkeypatch.setenv("TMPDIR", str(barred))
            assert rig.backup("one", tree).state == "done"
            assert rig.restore("one", tmp_path / "out").state == "done"
        assert not list(barred.iterdir())
    finally:
        subprocess.run(["umount", "-l", barred], check=True)


def test_names_that_are_no_utf8_and_variables_of_another_borg(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in (b"in\xdf", b"out\xff"):
        (tree / os.fsdecode(name)).write_text("x")
    for name, value in {
        "BORG_FILES_CACHE_SUFFIX": "web", "BORG_LOGGING_CONF": "/nowhere", "BORG_REPO": "/srv/x",
        "BORG_PASSCOMMAND": "false", "PYTHONWARNINGS": "always", "PYTHONPATH": "/nowhere",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    with Rig(tmp_path / "rig") as rig:
        exclude = "*/out?"
        done = rig.backup("one", tree, excludes=[exclude])
        assert done.state == "done" and done.data["files"] == 1, done.warnings
        assert rig.backup("two", tree, excludes=[exclude]).state == "done"
        rig.restore("one", tmp_path / "out")
        assert (tmp_path / "out" / tree.relative_to("/") / os.fsdecode(b"in\xdf")).is_file()


def test_missing_paths_are_one_clear_error(tmp_path: Path) -> None:
    with Rig(tmp_path / "rig") as rig:
        with pytest.raises(JobFailed) as failure:
            rig.backup("t-1", tmp_path / "nowhere")
        assert failure.value.cause.kind == "path-missing"
        with pytest.raises(JobFailed) as failure:
            rig.backup("t-1", tmp_path, borg="/no/such/borg")
        assert failure.value.cause.kind == "borg-missing"
