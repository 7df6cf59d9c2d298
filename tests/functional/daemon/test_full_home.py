"""A home without room says so, whatever is asked of it: init, serve, doctor."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

from tests.functional.daemon.conftest import Cube
from tests.functional.daemon.test_faults import MIB, Disk, mounted


def test_init_on_a_full_disk_says_so_and_leaves_nothing_half_written(bare: Cube) -> None:
    with mounted(bare.place / "disk", 4 * MIB) as disk:
        bare.home = disk.path / "home"
        disk.fill()
        line = bare.refused("init")
        assert f"{bare.home} cannot be written: No space left on device. Make room" in line
        left = [path for path in bare.home.rglob("*") if path.is_file() and path.suffix != ".new"]
        assert left == []
        disk.empty()
        bare.ok("init")
        assert (bare.home / "master.key").stat().st_size > 64
        assert "[vault]" in (bare.home / "borgcube.toml").read_text()


def use_all_inodes(directory: Path) -> None:
    with contextlib.suppress(OSError):
        for number in range(10_000):
            (directory / f"file{number}").touch()


def test_serve_without_an_inode_left_says_so(bare: Cube) -> None:
    disk = Disk(bare.home, 16 * MIB)
    try:
        assert disk.mount("-o", "remount,nr_inodes=200").returncode == 0
        bare.ok("init")
        bare.start()
        bare.stop()
        use_all_inodes(bare.home / "jobs")
        done = bare.cli("serve")
        lines = done.stderr.strip().splitlines()
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        assert "cannot be written: No space left on device. Make room" in lines[-1], lines
    finally:
        subprocess.run(["umount", "-l", str(bare.home)], check=False)


def test_doctor_calls_a_full_home_full_with_and_without_a_daemon(bare: Cube) -> None:
    with mounted(bare.home, 16 * MIB) as disk:
        bare.ok("init")
        bare.start()
        disk.fill()
        assert any("is full" in one["message"] for one in bare.call("doctor"))
        bare.stop()
        disk.fill()
        done = bare.cli("doctor")
        assert done.returncode == 2 and f"The disk of {bare.home} is full" in done.stdout, done
