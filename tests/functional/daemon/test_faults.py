"""Full disks, read-only storage, silent clients, a jumping clock: named, survived, recovered."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from borgcube.cli.control import Control
from borgcube.core.errors import BorgCubeError
from borgcube.core.home import init_home
from borgcube.testing.sshd import PrivateSSHD
from tests.functional.daemon import clockshift
from tests.functional.daemon.conftest import ENDED, STOCK_BORG, Cube
from tests.functional.daemon.test_resumption import clients_borg, written

MIB = 1 << 20
pytestmark = pytest.mark.timeout(400)


class Disk:
    """A small tmpfs; ``fill`` leaves no room on it."""

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.ballast = path, path / "ballast"
        path.mkdir(parents=True, exist_ok=True)
        done = self.mount("-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs")
        if done.returncode != 0:
            pytest.skip(f"the kernel allows no mount here: {done.stderr.decode().strip()}")

    def mount(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        command = ["mount", *words, str(self.path)]
        return subprocess.run(command, capture_output=True, check=False)

    def read_only(self, yes: bool) -> None:
        done = self.mount("-o", f"remount,{'ro' if yes else 'rw'}")
        assert done.returncode == 0, done.stderr

    def fill(self) -> None:
        with self.ballast.open("ab", buffering=0) as file:
            step = 1 << 16
            while step >= 512:
                try:
                    file.write(bytes(step))
                except OSError:
                    step //= 2

    @contextlib.contextmanager
    def kept_full(self) -> Iterator[None]:
        """Take every byte that becomes free."""
        over = threading.Event()

        def take() -> None:
            while not over.wait(0.005):
                self.fill()

        self.fill()
        thread = threading.Thread(target=take)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def empty(self) -> None:
        self.ballast.unlink()

    @property
    def free(self) -> int:
        facts = os.statvfs(self.path)
        return facts.f_bavail * facts.f_frsize


@contextlib.contextmanager
def mounted(path: Path, size: int) -> Iterator[Disk]:
    disk = Disk(path, size)
    try:
        yield disk
    finally:
        disk.mount("-o", "remount,rw")
        subprocess.run(["umount", "-l", str(path)], check=False)


@contextlib.contextmanager
def running(cube: Cube) -> Iterator[Cube]:
    """A daemon with its repository in a home and place that are prepared already."""
    init_home(cube.home)
    cube.start()
    secret = cube.place / "secret"
    secret.write_text("correct horse\n")
    cube.arrange(
        "repository", "create", "main", "--path", str(cube.repository),
        "--encryption", "repokey", "--passphrase-file", str(secret),
        "--free-floor", "0",  # the disks here are small, and are to become full
    )  # fmt: skip
    # Borg keeps room for one whole segment free; its usual 500 MB are more than these disks.
    config = cube.repository / "config"
    lines = config.read_text().splitlines()
    small = [f"max_segment_size = {4 * MIB}" if "max_segment_size" in x else x for x in lines]
    config.write_text("\n".join(small) + "\n")
    try:
        yield cube
    finally:
        if cube.daemon is not None:
            cube.daemon.terminate()
            cube.daemon.wait(90)
            cube.daemon = None


def files(directory: Path, *, count: int, each: int = MIB) -> Path:
    directory.mkdir(exist_ok=True)
    for number in range(count):
        (directory / f"f{number}").write_bytes(os.urandom(each))
    return directory


def failed(job: dict[str, Any], kind: str, problem: str, *words: str) -> None:
    """The job failed with that cause, in words that fit."""
    cause = job["cause"]
    assert job["state"] == "failed" and (cause["kind"], cause["problem"]) == (kind, problem), job
    for word in words:
        assert word in f"{cause['message']} {cause['next_step']}", cause


def whole(cube: Cube, archives: list[str]) -> None:
    """Plain borg finds all of them, and nothing wrong."""
    cube.check_clean()
    for archive in archives:
        done = cube.plain_borg("extract", "--dry-run", f"{cube.repository}::{archive}")
        assert done.returncode == 0, done.stderr


def test_a_full_repository_disk_fails_the_job_and_gives_its_room_back(bare: Cube) -> None:
    with mounted(bare.place / "disk", 80 * MIB) as disk:
        bare.repository = disk.path / "repository"
        with running(bare) as cube:
            cube.local_client("here")
            cube.plan("small", files(cube.place / "small", count=2), client="here")
            cube.plan("large", files(cube.place / "large", count=90), client="here")
            first = cube.backup("small")["result"]["archive"]
            cube.plan(
                "slow", files(cube.place / "slow", count=8), client="here",
                extra=("--upload-ratelimit", "500"),
            )  # fmt: skip
            free = disk.free
            slow = cube.begin("slow")
            cube.transferring(slow)
            # Both hear why, the one that filled the disk and the one that was there with it.
            for job_id in (cube.begin("large"), slow):
                job = cube.ended(job_id)
                failed(job, "repository-write-failed", "repository", "No space left", "Make room")
            deadline = time.monotonic() + 60
            while disk.free < free - 4 * MIB:
                assert time.monotonic() < deadline, "what was written without a commit stays"
                time.sleep(0.1)
            (cube.place / "small" / "new").write_bytes(os.urandom(MIB))
            second = cube.backup("small")["result"]["archive"]
            whole(cube, [first, second])


def test_a_read_only_repository_is_named_and_works_again_afterwards(bare: Cube) -> None:
    with mounted(bare.place / "disk", 80 * MIB) as disk:
        bare.repository = disk.path / "repository"
        with running(bare) as cube:
            cube.local_client("here")
            tree = files(cube.place / "tree", count=2)
            cube.plan("tree", tree, client="here")
            first = cube.backup("tree")["result"]["archive"]
            disk.read_only(True)  # as the kernel does when a file system has errors
            (tree / "new").write_bytes(os.urandom(MIB))
            failed(
                cube.ended(cube.begin("tree")), "repository-write-failed", "repository",
                "Read-only", "remount",
            )  # fmt: skip
            # The vault could not release its lock; a new one opens it only to be read.
            job = cube.ended(cube.begin("tree"), timeout_s=120)
            failed(job, "repository-read-only", "repository", "read-only")
            disk.read_only(False)
            second = cube.ended(cube.begin("tree"), timeout_s=120)
            assert second["state"] == "done", second["cause"]
            whole(cube, [first, second["result"]["archive"]])


def test_a_full_home_neither_kills_the_daemon_nor_loses_a_job(bare: Cube) -> None:
    with mounted(bare.home, 60 * MIB) as disk, running(bare) as cube:
        cube.local_client("here")
        tree = files(cube.place / "tree", count=12)
        cube.plan("tree", tree, client="here", extra=("--upload-ratelimit", "4000"))
        first = cube.backup("tree")["result"]["archive"]
        (tree / "new").write_bytes(os.urandom(6 * MIB))
        job_id = cube.begin("tree")
        cube.transferring(job_id)
        with disk.kept_full():
            for _ in range(10):  # a loaded machine may be late to fill what became free
                refused = cube.cli("backup", "tree")
                if refused.returncode != 0:
                    break
            assert refused.returncode == 2 and "cannot write its home" in refused.stderr, refused
            deadline = time.monotonic() + 60
            while cube.part_or_none("daemon.worker") is not None:
                assert time.monotonic() < deadline, "the job goes on without an end"
                time.sleep(0.1)
            time.sleep(2)  # the daemon tries to write down how it ended
            waiting = cube.call("job.show", id=job_id)["state"] not in ENDED
        disk.empty()
        job = cube.ended(job_id)
        if job["state"] == "failed":
            assert job["cause"]["kind"] == "home-write-failed", job["cause"]
            assert "home of BorgCube cannot be written" in job["cause"]["message"]
        else:
            assert job["state"] in ("done", "warning"), job
        log = (cube.home / "logs" / "borgcubed.log").read_text()
        assert not waiting or "the store takes changes again" in log
        second = cube.backup("tree")["result"]["archive"]
        archives = [archive["name"] for archive in cube.call("archive.list")]
        assert {first, second} <= set(archives)
        assert cube.call("job.list", limit=50)[0]["state"] in ENDED
        whole(cube, archives)


def test_a_full_temporary_directory_of_the_client_is_named(bare: Cube) -> None:
    with mounted(bare.place / "clienttmp", MIB) as disk:
        lines = [f"SetEnv TMPDIR={disk.path}"]
        with PrivateSSHD(bare.place / "sshd2", extra_lines=lines) as sshd, running(bare) as cube:
            cube.sshd.stop()
            cube.sshd = sshd
            tree = files(cube.place / "tree", count=40, each=3000)
            cube.ssh_client("alpha")
            cube.plan("tree", tree, client="alpha")
            first = cube.backup("tree")["result"]["archive"]
            disk.fill()
            job = cube.ended(cube.begin("tree"))
            failed(job, "seed-failed", "client", "room", "/tmp")
            disk.empty()
            second = cube.backup("tree")["result"]["archive"]
            assert list(disk.path.iterdir()) == []
            whole(cube, [first, second])


def test_a_stopped_client_is_given_up_and_the_next_run_goes_on(cube: Cube) -> None:
    tree = files(cube.place / "tree", count=10)
    cube.ssh_client("alpha")
    extra = ("--upload-ratelimit", "2000", "--idle-timeout", "3")
    cube.plan("tree", tree, client="alpha", extra=extra)
    job_id = cube.begin("tree")
    deadline = time.monotonic() + 60
    while written(cube.repository) < 3 * MIB:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    borg = clients_borg(cube)
    borg.send_signal(signal.SIGSTOP)
    try:
        failed(cube.ended(job_id), "client-silent", "client", "sent nothing for 3 s")
        again = cube.backup("tree")
        assert again["result"]["bytes_received"] < 9 * MIB
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            borg.send_signal(signal.SIGCONT)
    with contextlib.suppress(psutil.NoSuchProcess):
        borg.wait(30)
    cube.backup("tree")
    assert cube.session_directories() == []
    whole(cube, [again["result"]["archive"]])


def test_a_jumping_clock_of_the_server_neither_loses_nor_mixes_anything(bare: Cube) -> None:
    clock, library = bare.place / "clock", clockshift.build(bare.place)

    def jump(hours: int) -> None:
        clock.write_text(str(hours * 3600))

    jump(0)
    bare.more_env = {"LD_PRELOAD": str(library), "SHIFT": str(clock)}
    with running(bare) as cube:
        tree = files(cube.place / "tree", count=4)
        cube.ssh_client("alpha")
        cube.plan("tree", tree, client="alpha")
        cube.plan("gone", tree, client="alpha", extra=("--retries", "1", "--retry-delay", "60"))
        archives = []
        for hours in (0, 20, -20, 0):
            jump(hours)
            (tree / "f0").write_bytes(os.urandom(MIB))
            # Of two clocks that differ, it is the client's that is told of.
            job = cube.backup("tree", state="warning" if hours else "done")
            assert (job["cause"] or {}).get("kind", "") == ("client-clock-off" if hours else "")
            archives.append(job["result"]["archive"])
        assert len(set(archives)) == 4
        assert sorted(archives)[0] == archives[2] and sorted(archives)[-1] == archives[1]
        # More than a day away, an archive's time is not believed; what was sent is kept.
        for hours in (10_000, -10_000):
            jump(hours)
            (tree / "f0").write_bytes(os.urandom(MIB))
            failed(cube.ended(cube.begin("tree")), "client-clock", "client")
        jump(0)
        archives.append(cube.backup("tree")["result"]["archive"])
        # A retry that was to wait in what is the future again does not wait for that.
        jump(10_000)
        cube.sshd.stop()
        job_id = str(int(cube.ended(cube.begin("gone"), timeout_s=100)["id"]) + 1)
        jump(0)
        cube.sshd.start()
        assert cube.ended(job_id, timeout_s=40)["state"] == "done"
        seqs: list[int] = []
        while found := cube.call("events.since", seq=seqs[-1] if seqs else 0):
            seqs += [event["seq"] for event in found]
        assert seqs == list(range(1, len(seqs) + 1))
        cube.more_env = {}
        whole(cube, archives)


class Network:
    """A network namespace with one cable to here, which can be pulled."""

    def __init__(self, number: int) -> None:
        self.name = f"bc{os.getpid() % 100_000}n{number}"
        self.here, self.there = f"{self.name[:12]}a", f"{self.name[:12]}b"
        self.net = f"10.{200 + number}.{os.getpid() % 250}"
        self.address = f"{self.net}.2"

    def ip(self, *words: str) -> None:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"no network namespace can be made here: {done.stderr.strip()}")

    def __enter__(self) -> Network:
        self.ip("netns", "add", self.name)
        try:
            self.ip("link", "add", self.here, "type", "veth", "peer", "name", self.there)
            self.ip("link", "set", self.there, "netns", self.name)
            self.ip("addr", "add", f"{self.net}.1/24", "dev", self.here)
            self.ip("link", "set", self.here, "up")
            inside = ("netns", "exec", self.name, "ip")
            self.ip(*inside, "addr", "add", f"{self.address}/24", "dev", self.there)
            self.ip(*inside, "link", "set", self.there, "up")
            self.ip(*inside, "link", "set", "lo", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["ip", "link", "del", self.here], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True, check=False)

    def plug(self, yes: bool) -> None:
        """Plug the cable in or pull it: packets vanish, nobody is told."""
        self.ip("link", "set", self.here, "up" if yes else "down")

    def delay(self, milliseconds: int) -> bool:
        """Slow the network down; False where this kernel has no netem."""
        words = ["tc", "qdisc", "add", "dev", self.here, "root", "netem", "delay"]
        done = subprocess.run(
            [*words, f"{milliseconds}ms", "20ms", "loss", "1%"], capture_output=True, check=False
        )
        return done.returncode == 0


class SlowRoad:
    """A TCP relay to an address that holds back what it carries, for kernels without netem."""

    def __init__(self, host: str, port: int, *, delay_s: float) -> None:
        self._target, self._delay_s = (host, port), delay_s
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            for ends in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                time.sleep(self._delay_s)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._server.close()


@contextlib.contextmanager
def client_behind_a_cable(cube: Cube, number: int, *, slow: bool = False) -> Iterator[Network]:
    with Network(number) as network:
        prefix = ("ip", "netns", "exec", network.name)
        with (
            tempfile.TemporaryDirectory(prefix="bcn") as place,
            PrivateSSHD(Path(place), address=network.address, prefix=prefix) as sshd,
        ):
            host, port, road = network.address, sshd.port, None
            if slow and not network.delay(150):
                road = SlowRoad(host, port, delay_s=0.06)
                host, port = "127.0.0.1", road.port
            cube.arrange(
                "client", "add", "far", "--transport", "openssh", "--host", host,
                "--port", str(port), "--user", sshd.user, "--identity", str(sshd.identity),
                "--borg", STOCK_BORG, "--accept-host-key",
            )  # fmt: skip
            try:
                yield network
            finally:
                if road is not None:
                    road.close()


def test_a_pulled_cable_is_noticed_and_the_next_run_uploads_the_rest(cube: Cube) -> None:
    tree = files(cube.place / "tree", count=12)
    with client_behind_a_cable(cube, 1) as network:
        extra = ("--upload-ratelimit", "2000", "--idle-timeout", "6")
        cube.plan("far", tree, client="far", extra=extra)
        job_id = cube.begin("far")
        deadline = time.monotonic() + 60
        while written(cube.repository) < 5 * MIB:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        network.plug(False)
        job = cube.ended(job_id, timeout_s=100)
        assert job["state"] == "failed", job
        assert job["cause"]["kind"] in ("client-silent", "connection-lost"), job["cause"]
        # Still unplugged: the next one says so.
        job = cube.ended(cube.begin("far"), timeout_s=100)
        assert job["state"] == "failed" and job["cause"]["problem"] == "network", job["cause"]
        network.plug(True)
        done = cube.backup("far")
        assert done["result"]["bytes_received"] < 10 * MIB
    whole(cube, [done["result"]["archive"]])


def test_a_slow_network_only_takes_longer(cube: Cube) -> None:
    tree = files(cube.place / "tree", count=3)
    with client_behind_a_cable(cube, 2, slow=True):
        cube.plan("far", tree, client="far")
        archive = cube.ended(cube.begin("far"), timeout_s=110)["result"]["archive"]
    whole(cube, [archive])


def test_a_daemon_that_cannot_write_its_store_says_so_at_the_start(bare: Cube) -> None:
    with mounted(bare.home, 8 * MIB) as disk:
        bare.ok("init")
        disk.fill()
        done = bare.cli("serve")
        assert done.returncode == 2, done
        line = done.stderr.strip().splitlines()[-1]
        assert line.startswith("borgcube: ") and "cannot be written: No space left" in line
        disk.empty()
        bare.start()
        with Control(bare.home) as control, contextlib.suppress(BorgCubeError):
            assert control.call("ping")["pid"]
