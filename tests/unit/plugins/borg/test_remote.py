"""The scripts that run on a client: what they sweep, and that they never wait for the dead."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from borgcube.plugins.borg import remote

SERVER = "server"
REPOSITORY = "ab" * 32


def token(time_ns: int, *, repository: str = REPOSITORY, tail: str = "0" * 32) -> str:
    return f"{repository[:8]}{time_ns:016x}{tail}"


def prepare(tmp: Path, own: str, *, others: tuple[str, ...] = (), borg: str = "true") -> Path:
    run = remote.run_script(command=["true"], environment=remote.borg_environment())
    seed = {"rsh": remote.RSH.encode(), "run": run.encode()}
    script = remote.prepare_script(
        server=SERVER, token=own, repository_id=REPOSITORY, manifest_id="cd" * 32, key_type=7,
        sizes=[(name, len(data)) for name, data in seed.items()], others=others,
    )  # fmt: skip
    done = subprocess.run(
        ["sh", "-c", script, "sh", borg], input=b"".join(seed.values()), capture_output=True,
        timeout=60, check=False, env={**os.environ, "TMPDIR": str(tmp)},
    )  # fmt: skip
    directory = remote.ready_directory(done.stdout, server=SERVER, token=own)
    assert done.returncode == 0 and directory is not None, done.stderr
    return Path(directory)


def left(tmp: Path, name: str, *, pid: int | None = None) -> Path:
    directory = tmp / f"borgcube-{SERVER}-{name}"
    directory.mkdir()
    if pid is not None:
        (directory / "pid").write_text(f"{pid}\n")
    return directory


def test_what_dead_runs_left_is_swept_and_what_lives_stays(tmp_path: Path) -> None:
    ended, zombie = subprocess.Popen(["true"]), subprocess.Popen(["true"])
    ended.wait()
    swept = [
        left(tmp_path, token(1)),
        left(tmp_path, token(2), pid=ended.pid),
        left(tmp_path, token(5), pid=zombie.pid),
        left(tmp_path, token(6), pid=os.getpid()),  # a number that somebody else has now
    ]
    alive = token(3)
    running = tmp_path / f"borgcube-{SERVER}-{token(4)}"
    run = subprocess.Popen(["sh", "-c", "read -r line; :", f"{running}/run"], stdin=subprocess.PIPE)
    kept = [
        left(tmp_path, alive),
        left(tmp_path, token(4), pid=run.pid),
        left(tmp_path, token(1 << 60)),  # of a session that began after this one
        left(tmp_path, token(1, repository="ef" * 32)),  # of another repository's vault
    ]
    own = prepare(tmp_path, token(1000), others=(alive,))
    assert not any(path.exists() for path in swept)
    assert all(path.is_dir() for path in kept)
    assert own.is_dir()
    run.communicate(b"\n", timeout=30)
    zombie.wait()


def test_a_directory_of_another_repository_is_swept_after_half_an_hour(tmp_path: Path) -> None:
    old = left(tmp_path, token(1, repository="ef" * 32))
    long_ago = time.time() - 3600
    os.utime(old, (long_ago, long_ago))
    prepare(tmp_path, token(1000))
    assert not old.exists()


def test_a_borg_goes_along_to_a_place_where_programs_may_run(tmp_path: Path) -> None:
    barred = tmp_path / "no exec"
    barred.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "noexec,size=1m", "none", barred], check=True)
    try:
        assert prepare(barred, token(1000)).parent == barred  # the client's own borg
        sent = prepare(barred, token(1001), borg="deploy")
        assert sent.parent == Path("/tmp")
        shutil.rmtree(sent)
        script = remote.prepare_script(
            server=SERVER, token=token(1002), repository_id=REPOSITORY, manifest_id="cd" * 32,
            key_type=7, sizes=[],
        ).replace("/tmp /var/tmp", "/nowhere")  # fmt: skip
        done = subprocess.run(
            ["sh", "-c", script, "sh", "deploy"], env={"TMPDIR": str(barred), "HOME": str(barred)},
            stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 126 and not list(barred.glob("*.x"))
    finally:
        subprocess.run(["umount", "-l", barred], check=True)


@pytest.mark.parametrize("missing", ["nothing", "the outer script"])
def test_the_stand_in_for_ssh_ends_when_the_outer_script_is_dead(
    tmp_path: Path, missing: str
) -> None:
    directory = prepare(tmp_path, token(1000))
    ends = "eg" if missing == "nothing" else ""
    holders = [os.open(directory / name, os.O_RDWR) for name in ends]
    # Open before anybody writes: what is in a FIFO goes when its last end is closed.
    call = (directory / "c").open("r+b", buffering=0)
    stand_in = subprocess.Popen(
        [str(directory / "rsh"), "borgcube", "borg", "serve"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "D": str(directory)},
    )  # fmt: skip
    if missing == "nothing":
        # The outer script is there, answers, and is killed later.
        assert int(call.readline()) == stand_in.pid
        os.write(holders[1], b"direct\n")
        time.sleep(0.5)
        assert stand_in.poll() is None, "it lends its pipes until the outer script ends"
        for holder in holders:
            os.close(holder)
    assert stand_in.wait(30) is not None
    call.close()
