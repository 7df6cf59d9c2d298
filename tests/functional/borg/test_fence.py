"""A fenced program changes its target and nothing else, whatever was planted there.

Each attempt is a line of Python that is run twice: unfenced, where it must succeed (or it would
prove nothing), and in the fence. The tree outside is looked at with a digest that no program can
fool. Three fences: as a restore and a drill have it, with ``--as-root``, and that of a user who is
not root, which needs a user namespace.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from borgcube.core import fence
from borgcube.core.fence import watch
from borgcube.testing import witness

ROOT = Path(__file__).parents[3]
USER = 1000

pytestmark = pytest.mark.skipif(
    "problem" in (found := fence.offered()), reason=f"no fence: {found.get('problem')}"
)

PRELUDE = """
import ctypes, errno, fcntl, json, os, signal, socket, stat, struct, sys
target, outside = sys.argv[1:3]
link, way = target + "/link", target + "/way"
helper, inherited, machine = int(sys.argv[3]), int(sys.argv[4]), os.uname().machine
libc = ctypes.CDLL(None, use_errno=True)
def call(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result
def syscall(number, *given):
    return call(libc.syscall(number, *given))
def opened(path, flags=os.O_RDONLY):
    return os.open(path, flags)
def mounted(source, place, kind, flags):
    return call(libc.mount(source, place.encode(), kind, ctypes.c_ulong(flags), None))
"""
# Each changes something outside when nothing keeps it from it.
CHANGES = {
    "write through a link": "open(link, 'w').write('changed')",
    "append through a link": "open(link, 'a').write('changed')",
    "make a file": "open(way + '/made', 'w')",
    "truncate": "os.truncate(link, 0)",
    "chmod": "os.chmod(link, 0o777)",
    "chmod to set-user-ID": "os.chmod(way + '/program', 0o4755)",
    "chmod of what is open for reading": "os.fchmod(opened(link), 0o777)",
    "chmod of what is open as a path": "os.chmod(f'/proc/self/fd/{opened(link, os.O_PATH)}', 0)",
    "chown": "os.chown(link, os.getuid(), os.getgid())",
    "chown of a directory": "os.chown(way + '/directory', os.getuid(), os.getgid())",
    "chown of a link itself": "os.lchown(way + '/link', os.getuid(), os.getgid())",
    "chown of what is open for reading": "os.fchown(opened(link), os.getuid(), os.getgid())",
    "utime": "os.utime(link, (1, 1))",
    "utime of what is open for reading": "os.utime(opened(link), (1, 1))",
    "utime of a link itself": "os.utime(way + '/link', (1, 1), follow_symlinks=False)",
    "setxattr": "os.setxattr(link, 'user.made', b'x')",
    "setxattr of what is open for reading": "os.setxattr(opened(link), 'user.made', b'x')",
    "removexattr": "os.removexattr(link, 'user.witness')",
    "remove": "os.unlink(way + '/file')",
    "remove a directory's entry": "os.unlink('inner', dir_fd=opened(way + '/directory'))",
    "rename": "os.rename(way + '/file', way + '/made')",
    "rename into it": "os.rename(target + '/own', way + '/made')",
    "rename out of it": "os.rename(way + '/file', target + '/taken')",
    "link into it": "os.link(target + '/own', way + '/made')",
    "link out of it": "os.link(way + '/file', target + '/taken')",
    "make a directory": "os.mkdir(way + '/made')",
    "make a link": "os.symlink('x', way + '/made')",
    "make a FIFO": "os.mkfifo(way + '/made')",
    "replace a directory": "os.unlink(way + '/directory/inner') or os.rmdir(way + '/directory')",
    "go up": "open(os.path.relpath(outside, target) + '/made', 'w')",
    "use a descriptor from outside": "open('made', 'w', opener=lambda name, flags: "
    "os.open(name, flags, dir_fd=inherited))",
    "bind a socket": "socket.socket(socket.AF_UNIX).bind(way + '/made')",
    # With the flags that it has: without that of extents, ext4 would have to move its blocks.
    "set a file's flags": "fcntl.ioctl(opened(link), 0x40086602, struct.pack('l', 0x40 | "
    "struct.unpack('l', fcntl.ioctl(opened(link), 0x80086601, bytes(8)))[0]))",
}
# Nothing of these leaves a mark in the tree; they must fail by themselves.
REACHES = {
    "signal a process outside": "os.kill(helper, signal.SIGUSR1)",
    "trace a process outside": "call(libc.ptrace(16, helper, 0, 0))",
    "trace its first process": "call(libc.ptrace(16, 1, 0, 0))",
    "enter another's root": "os.listdir(f'/proc/{helper}/root')",
    "enter the first process's root": "os.listdir('/proc/1/root/')",
    "read another's memory": "open(f'/proc/{helper}/mem', 'rb')",
    "write the first process's memory": "open('/proc/1/mem', 'r+b')",
    "connect to a unix socket": "socket.socket(socket.AF_UNIX).connect(outside + '.sock')",
    "connect to an abstract socket": "socket.socket(socket.AF_UNIX).connect('\\0' + outside)",
    "connect over TCP": "socket.create_connection(('127.0.0.1', PORT), 2)",
    "write into a FIFO": "os.write(opened(way + '/fifo', os.O_RDWR | os.O_NONBLOCK), b'x')",
    "mount": "mounted(b'tmpfs', way, b'tmpfs', 0)",
    "mount in the target": "mounted(b'tmpfs', target, b'tmpfs', 0)",
    "make the root writable again": "mounted(None, '/', None, 32 | 4096)",
    "take a cover off": "call(libc.umount2(b'/tmp', 2))",
    "make namespaces": "call(libc.unshare(0x20000))",
    "make a user namespace": "call(libc.unshare(0x10000000))",
    "enter namespaces": "call(libc.setns(opened('/proc/1/ns/mnt'), 0))",
    "clone into a namespace": "syscall({'x86_64': 56}.get(machine, 220), 0x10000011, *[0] * 4)",
    "open a handle": "syscall({'x86_64': 304}.get(machine, 265), inherited, 0, 0)",
    "take a file system by its tree": "syscall(428, -100, b'/', 1)",
    "change mounts": "syscall(442, -100, b'/', 0x8000, struct.pack('4Q', 0, 1, 0, 0), 32)",
    "use io_uring": "syscall(425, 1, 0)",
    "use the keyring": "syscall({'x86_64': 250}.get(machine, 219), 0, -3, 1)",
    "load a program into the kernel": "syscall({'x86_64': 321}.get(machine, 280), 0, 0, 0)",
    "open a process": "syscall(434, 1, 0)",
    "change the root": "os.chroot(target)",
    "read a device of the disk": "opened(DISK)",
    "set the kernel": "open('/proc/sys/kernel/core_pattern', 'w')",
    "see other users' processes": "open(f'/proc/{helper}/status')",
    "see what is hidden": "open(outside + '.hidden/key')",
    "change what is hidden": "open(outside + '.hidden/made', 'w')",
    "run what is in the target": "os.execv(target + '/own', ['own'])",
}
# Refused to a restore that is not as root.
PRIVILEGED = {
    "make a set-user-ID program": "os.chmod(target + '/own', 0o4755)",
    "make a set-group-ID program": "os.close(os.open(target + '/set', os.O_CREAT, 0o2755))",
    "make a device": "os.mknod(target + '/device', stat.S_IFBLK | 0o600, os.makedev(254, 0))",
    "make a character device": "os.mknod(target + '/character', stat.S_IFCHR | 0o600, 0)",
    "give a program capabilities": "os.setxattr(target + '/own', 'security.capability', "
    "bytes.fromhex('0100000200040000000000000000000000000000'))",
}
HONEST = {
    "write a file": "open(target + '/new', 'w').write('new')",
    "make a directory and a link": "os.mkdir(target + '/d') or os.symlink('x', target + '/d/l')",
    "link and rename": "os.link(target + '/own', target + '/d/o') or "
    "os.rename(target + '/d/o', target + '/d/p')",
    "set mode, times and attributes": "os.chmod(target + '/new', 0o640) or "
    "os.utime(target + '/new', (1, 1)) or os.setxattr(target + '/new', 'user.x', b'1')",
    "make holes": "os.truncate(target + '/new', 1 << 20)",
    "make a FIFO there": "os.mkfifo(target + '/d/fifo')",
    "start a process": "os.waitstatus_to_exitcode(os.system('exit 3')) == 3 or 1 / 0",
    "write to the null device": "open('/dev/null', 'w').write('x')",
    "make a temporary file": "__import__('tempfile').TemporaryFile().write(b'x')",
}


class Place:
    """A target with planted links, a witness outside, and a process and sockets outside."""

    def __init__(self, at: Path, *, user: int) -> None:
        self.at, self.user = at, user
        self.target, self.outside = at / "target", at / "outside"
        self.hidden = Path(f"{self.outside}.hidden")
        self.helper = subprocess.Popen(
            ["sh", "-c", "trap 'echo hit' USR1; echo up; while :; do sleep 0.1; done"],
            stdout=subprocess.PIPE, user=user,
        )  # fmt: skip
        assert self.helper.stdout is not None and self.helper.stdout.readline()
        self.unix, self.abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        self.tcp = socket.socket()
        self.unix.bind(f"{self.outside}.sock")
        self.abstract.bind(f"\0{self.outside}")
        self.tcp.bind(("127.0.0.1", 0))
        for one in (self.unix, self.abstract, self.tcp):
            one.listen(50)
        self.anew()

    def anew(self) -> None:
        """Make target and witness as they are to be before an attempt."""
        for place in (self.target, self.outside, self.hidden):
            subprocess.run(["rm", "-rf", str(place)], check=True)
        witness.make(self.outside)
        self.target.mkdir()
        self.hidden.mkdir()
        (self.hidden / "key").write_text("secret")
        (self.target / "own").write_text("#!/bin/sh\n")
        (self.target / "own").chmod(0o755)
        os.symlink(self.outside / "file", self.target / "link")
        os.symlink(self.outside, self.target / "way")
        if os.geteuid() == 0:
            subprocess.run(["chown", "-hR", f"{self.user}:{self.user}", str(self.at)], check=True)
        self.digest = witness.digest(self.outside)

    def code(self, attempts: dict[str, str]) -> str:
        """Return the program that makes attempts and prints what came of them, as JSON."""
        disk = "'/dev/vda'" if os.path.exists("/dev/vda") else "'/dev/sda'"
        lines = [PRELUDE, f"PORT, DISK = {self.tcp.getsockname()[1]}, {disk}", "found = {}"]
        for name, attempt in attempts.items():
            lines += [
                "try:",
                f"    {attempt}",
                f"    found[{name!r}] = 'did'",
                "except OSError as error:",
                f"    found[{name!r}] = errno.errorcode.get(error.errno, str(error))",
            ]
        return "\n".join([*lines, "print(json.dumps(found))"])

    def run(
        self, attempts: dict[str, str], *, fenced: tuple[str, ...] | None, python: list[str],
        launcher: tuple[str, ...] = ("-m", "borgcube.core.fence"),
    ) -> dict[str, str]:  # fmt: skip
        """Make attempts in a fence with these arguments, or without one."""
        handle = os.open(self.outside, os.O_RDONLY | os.O_DIRECTORY)
        try:
            argv = [*python]
            if fenced is not None:
                argv += [*launcher, "--target", str(self.target), *fenced, "--hide",
                         str(self.hidden), "--", python[-1]]  # fmt: skip
            argv += ["-c", self.code(attempts), str(self.target), str(self.outside),
                     str(self.helper.pid), str(handle)]  # fmt: skip
            done = subprocess.run(
                argv, pass_fds=(handle,), capture_output=True, text=True, timeout=60, check=False,
                cwd=self.target if fenced is None else "/",
                env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
            )  # fmt: skip
        finally:
            os.close(handle)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def close(self) -> None:
        self.helper.kill()
        self.helper.wait()
        assert self.helper.stdout is not None
        self.helper.stdout.close()
        for one in (self.unix, self.abstract, self.tcp):
            one.close()
        shutil.rmtree(self.at)


def _python(mode: str) -> list[str]:
    """Return how to start Python as the user of a mode."""
    if mode != "user" or os.geteuid() != 0:
        return [sys.executable]
    as_user = ["setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups"]
    for python in (sys.executable, "/usr/bin/python3"):
        tried = subprocess.run(
            [*as_user, python, "-c", "import os, sys, borgcube.core.fence as fence; "
             "os.execv(sys.argv[1], [sys.argv[1], '-c', ''])", python],
            capture_output=True, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}, cwd="/",
        )  # fmt: skip
        if tried.returncode == 0:
            return [*as_user, python]
    pytest.skip("no other user of this machine can run this source")


ARGUMENTS: dict[str, tuple[str, ...]] = {"restore": (), "as-root": ("--as-root",), "user": ()}


@pytest.fixture(scope="module", params=ARGUMENTS)
def mode(request: pytest.FixtureRequest) -> str:
    if request.param != "user" and os.geteuid() != 0:
        pytest.skip("this fence is root's")
    return str(request.param)


def _places(user: int) -> Iterator[Place]:
    # Not below /tmp, which is not there in a fence: here it has to be seen and yet stay as it is.
    above = "/srv" if os.geteuid() == 0 else os.path.expanduser("~")
    made = Place(Path(tempfile.mkdtemp(prefix="borgcube-fence-", dir=above)), user=user)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def place(mode: str) -> Iterator[Place]:
    yield from _places(USER if mode == "user" and os.geteuid() == 0 else os.geteuid())


def test_nothing_outside_of_the_target_changes(mode: str, place: Place) -> None:
    place.anew()
    # The last word is the digest's, whatever a call said.
    found = place.run({**CHANGES, **REACHES}, fenced=ARGUMENTS[mode], python=_python(mode))
    assert witness.digest(place.outside) == place.digest
    assert {name: how for name, how in found.items() if how == "did"} == {}
    assert set(found) == {*CHANGES, *REACHES}
    allowed = {"EROFS", "EPERM", "EACCES", "ENOSYS", "ENOENT", "ESRCH", "EBADF", "EXDEV", "ENODEV"}
    assert {name: how for name, how in found.items() if how not in allowed} == {}
    # Seen, and yet not changed: it is not that nothing was there.
    assert found["chmod"] == found["utime"] == found["setxattr"] == "EROFS"
    assert found["see what is hidden"] == "ENOENT"


def test_namespaces_alone_keep_everything_outside(mode: str, place: Place) -> None:
    """No layer relies on the others: here there is neither Landlock nor a filter of calls."""
    place.anew()
    bare = (
        "import sys, borgcube.core.fence.__main__ as m\n"
        "m.layers.restrict_with_landlock = m.layers.landlock_version = lambda *_: 0\n"
        "m.layers.call_filter_offered = lambda: False\n"
        "m.calls.prepare = lambda **_: lambda: False\nsys.exit(m.main())"
    )
    found = place.run(CHANGES, fenced=ARGUMENTS[mode], python=_python(mode), launcher=("-c", bare))
    assert witness.digest(place.outside) == place.digest
    assert {name for name, how in found.items() if how == "did"} == set()


def test_landlock_and_the_filter_hold_what_is_theirs_without_mounts(
    mode: str, place: Place
) -> None:
    """Of what changes names and content nothing goes through them either."""
    if mode == "user":
        pytest.skip("its mounts are what makes /proc its own")
    place.anew()
    bare = (
        "import sys, borgcube.core.fence.__main__ as m\n"
        "m.mounts.enter = lambda *_: None\nsys.exit(m.main())"
    )
    attempts = {
        name: attempt for name, attempt in CHANGES.items()
        if not name.startswith(("ch", "utime", "setxattr", "removexattr", "set a file"))
    }  # fmt: skip
    found = place.run(attempts, fenced=ARGUMENTS[mode], python=_python(mode),
                      launcher=("-c", bare))  # fmt: skip
    assert {name for name, how in found.items() if how == "did"} == set()
    assert witness.digest(place.outside) == place.digest


@pytest.fixture(scope="module")
def open_place() -> Iterator[Place]:
    yield from _places(os.geteuid())


@pytest.mark.parametrize("attempt", CHANGES)
def test_without_the_fence_it_would_change(attempt: str, open_place: Place) -> None:
    open_place.anew()
    found = open_place.run({attempt: CHANGES[attempt]}, fenced=None, python=[sys.executable])
    assert found == {attempt: "did"}
    assert witness.digest(open_place.outside) != open_place.digest


def test_only_a_restore_as_root_makes_what_gives_rights(mode: str, place: Place) -> None:
    place.anew()
    found = place.run(PRIVILEGED, fenced=ARGUMENTS[mode], python=_python(mode))
    expected = "did" if mode == "as-root" else "refused"
    assert {
        name: "did" if how == "did" else "refused" for name, how in found.items()
    } == dict.fromkeys(PRIVILEGED, expected), found


def test_what_extracting_takes_is_allowed(mode: str, place: Place) -> None:
    place.anew()
    honest = {**HONEST}
    if mode != "user":
        honest["give away"] = "os.chown(target + '/new', 4242, 4343)"
    if mode == "as-root":
        honest["set an attribute of the system"] = "os.setxattr(target + '/new', 'trusted.x', b'1')"
    found = place.run(honest, fenced=ARGUMENTS[mode], python=_python(mode))
    assert {name: how for name, how in found.items() if how != "did"} == {}
    assert (place.target / "new").stat().st_size == 1 << 20
    assert (place.target / "d" / "p").exists()


def fenced(target: Path, *argv: str, given: tuple[str, ...] = ()) -> tuple[int, str]:
    """Run a program in a fence; return its code and what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "borgcube.core.fence", "--target", str(target), *given, "--", *argv],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


FILL = """
import os, time
for n in range(4000):
    with open(f"{n}", "wb") as file:
        file.write(b"x" * %d)
        file.flush()
time.sleep(60)
"""


def test_more_bytes_than_the_archive_has_end_it(tmp_path: Path) -> None:
    began = time.monotonic()
    code, said = fenced(
        tmp_path, "sh", "-c", f"cd {tmp_path}; exec {sys.executable} -c '{FILL % (1 << 20)}'",
        given=("--bytes", str(20 << 20)),
    )  # fmt: skip
    assert code == watch.TOO_MANY_BYTES, said
    assert time.monotonic() - began < 30
    around = fence.Fence(target=str(tmp_path), bytes=20 << 20)
    failed = fence.failure(code, around)
    assert failed is not None and failed.cause.kind == "fence-limit"
    assert "more bytes than it says it has" in failed.message


def test_more_files_than_the_archive_has_end_it(tmp_path: Path) -> None:
    code, said = fenced(
        tmp_path, "sh", "-c", f"cd {tmp_path}; exec {sys.executable} -c '{FILL % 1}'",
        given=("--files", "1000"),
    )  # fmt: skip
    assert code == watch.TOO_MANY_FILES, said


def test_files_that_were_there_do_not_count(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"old-{number}").write_text("old")
    time.sleep(1.1)
    looking = watch.Watch(str(tmp_path), watch.Bounds(memory=1 << 30, files=100, bytes=1 << 20))
    assert looking.walk() == 0
    for number in range(99):
        (tmp_path / f"new-{number}").write_text("new")
    assert looking.walk() == 0
    for number in range(20):
        (tmp_path / f"newer-{number}").write_text("new")
    assert looking.walk() == watch.TOO_MANY_FILES


def test_one_file_is_bounded_by_the_kernel_itself(tmp_path: Path) -> None:
    code, said = fenced(
        tmp_path, sys.executable, "-c",
        f"open('{tmp_path}/large', 'wb').truncate(21 << 20)", given=("--bytes", str(20 << 20)),
    )  # fmt: skip
    assert code == 1 and "File too large" in said


def test_memory_of_one_and_of_all_together_is_bounded(tmp_path: Path) -> None:
    code, said = fenced(tmp_path, sys.executable, "-c", "bytearray(1 << 30)",
                        given=("--memory", str(500 << 20)))  # fmt: skip
    assert code == 1 and "MemoryError" in said
    many = (
        "import os, time; [os.fork() for _ in range(3)]; kept = b'x' * (100 << 20); time.sleep(60)"
    )
    code, said = fenced(tmp_path, sys.executable, "-c", many, given=("--memory", str(500 << 20)))
    assert code == watch.TOO_MUCH_MEMORY, said


def test_processes_are_bounded_and_all_end(tmp_path: Path) -> None:
    mark = f"borgcube-{os.getpid()}-fork"
    code, said = fenced(
        tmp_path, sys.executable, "-c",
        "import os, time\nfor _ in range(7): os.fork()\ntime.sleep(60)", mark,
    )  # fmt: skip
    assert code == watch.TOO_MANY_PROCESSES, said
    assert running(mark) == []


def running(mark: str) -> list[int]:
    """Return the processes with ``mark`` in their arguments."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                if mark.encode() in Path("/proc", name, "cmdline").read_bytes():
                    found.append(int(name))
            except OSError:
                continue
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_the_supervisor(number: signal.Signals, tmp_path: Path) -> None:
    mark = f"borgcube-{os.getpid()}-outlive-{number}"
    pid_file = tmp_path.parent / f"{tmp_path.name}.pid"
    process = subprocess.Popen(
        [sys.executable, "-m", "borgcube.core.fence", "--target", str(tmp_path), "--pid-file",
         str(pid_file), "--", "sh", "-c", "setsid sleep 600 & echo up; sleep 600", mark],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == b"up\n"
    assert int(pid_file.read_text()) == process.pid
    assert len(running(mark)) >= 2
    process.send_signal(number)
    assert process.wait(10) == -number
    process.stdout.read()  # the end comes when nobody has it open any more
    process.stdout.close()
    deadline = time.monotonic() + 5
    while running(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert running(mark) == []


def test_codes_of_the_fence_are_its_own(tmp_path: Path) -> None:
    assert fenced(tmp_path, "sh", "-c", "exit 7")[0] == 7
    assert fenced(tmp_path, "sh", "-c", "kill -9 $$")[0] == 128 + 9
    for code in (fence.UNAVAILABLE, watch.NO_SPACE):
        assert fenced(tmp_path, "sh", "-c", f"exit {code}")[0] == fence.OTHER_CODE


def test_a_program_has_a_bare_environment_and_three_descriptors(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "borgcube.core.fence", "--target", str(tmp_path), "--", "sh", "-c",
         "env; ls /proc/self/fd"],
        capture_output=True, text=True, timeout=60, check=True,
        env={**os.environ, "BORGCUBE_SECRET": "do not tell"},
    )  # fmt: skip
    assert "do not tell" not in done.stdout
    assert [line for line in done.stdout.split() if line.isdigit()] == ["0", "1", "2", "3"]


@pytest.mark.parametrize("holds", ["/", sys.base_prefix, os.path.dirname(sys.base_prefix)])
def test_a_target_that_holds_what_runs_here_is_refused(holds: str) -> None:
    code, said = fenced(Path(holds), "true")
    assert code == fence.UNAVAILABLE and "the target" in said
