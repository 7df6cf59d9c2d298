"""Promise 9's last line: what the gate's process can do once it is confined, and what not.

The probes run in a process of their own that confines itself exactly as the gate does and
then tries; each is a line of Python. What the kernel of the test machine does not offer is
named in the report and skipped, never passed over in silence.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from borgcube.plugins.borg.gate.confine import MAX_DESCRIPTORS, MEMORY_BYTES
from borgcube.testing.hostile import Peer
from borgcube.testing.rig import Rig
from borgcube.testing.trees import make_mixed

PROBE = """
import ctypes, errno, json, mmap, os, signal, socket, sys, threading
report = int(sys.argv[1])
{before}
from borgcube.plugins.borg.gate.confine import confine
from borgcube.plugins.borg.gate.verify import rehearse
rehearse()
confined = confine(keep=(report,)).as_data()
def attempt():
    {attempt}
try:
    outcome = ["did", repr(attempt())]
except (OSError, ValueError) as error:
    outcome = ["refused", errno.errorcode.get(getattr(error, "errno", 0), str(error))]
except MemoryError:
    outcome = ["refused", "memory"]
os.write(report, json.dumps(dict(confined=confined, outcome=outcome)).encode())
"""
NUMBERS = "libc = ctypes.CDLL(None, use_errno=True)"


def probe(attempt: str, *, before: str = "", **environment: str) -> tuple[str, str, dict[str, Any]]:
    """Run ``attempt`` in a confined process; return what came of it, how, and the report."""
    read, write = os.pipe()
    code = PROBE.format(before=before, attempt=attempt)
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(write)], pass_fds=(write,),
        env={**os.environ, **environment},
    )  # fmt: skip
    os.close(write)
    with os.fdopen(read) as stream:
        text = stream.read()
    returned = process.wait(60)
    assert text, f"the probe ended with {returned}"
    answer = json.loads(text)
    return answer["outcome"][0], answer["outcome"][1], answer["confined"]


FORBIDDEN = {
    "open a file for reading": "return open('/etc/hostname').read()",
    "open its own memory": "return open('/proc/self/mem', 'rb')",
    "list a directory": "return os.listdir('/')",
    "make a file": "return os.open('{tmp}/made', os.O_CREAT | os.O_WRONLY)",
    "make a directory": "return os.mkdir('{tmp}/made')",
    "remove a file": "return os.unlink('{tmp}/there')",
    "rename a file": "return os.rename('{tmp}/there', '{tmp}/made')",
    "link a file": "return os.link('{tmp}/there', '{tmp}/made')",
    "make a symbolic link": "return os.symlink('/etc/passwd', '{tmp}/made')",
    "cut a file short": "return os.truncate('{tmp}/there', 0)",
    "change a mode": "return os.chmod('{tmp}/there', 0o777)",
    "duplicate a descriptor": "return os.dup(report)",
    "make a pipe": "return os.pipe()",
    "make a socket": "return socket.socket()",
    "start a process": "return os.fork()",
    "replace itself": "return os.execv(sys.executable, [sys.executable, '-c', 'print(1)'])",
    "signal its parent": "return os.kill(os.getppid(), signal.SIGUSR1)",
    "become a debuggee of a new process": f"{NUMBERS}; return refused(libc.ptrace(16, 1, 0, 0))",
    "map executable memory": "return mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)",
    "take two GiB of memory": "return len(bytearray(2 << 30))",
    "raise its memory limit": "return resource.setrlimit("
    "resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))",
}
REFUSED = """
def refused(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result
libc = ctypes.CDLL(None, use_errno=True)
import mmap, resource
"""


@pytest.mark.parametrize("attempt", FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_a_confined_process_cannot(attempt: str, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("as it was")
    attempt = attempt.format(tmp=tmp_path)
    outcome, how, _ = probe(attempt, before=REFUSED)
    assert outcome == "refused", how
    assert not (tmp_path / "made").exists()
    assert (tmp_path / "there").read_text() == "as it was"


# What may be lost is lost once: without a free descriptor most attempts fail already. Here
# the process gives up one that it has, as an intruder would, and tries with the slot.
WITH_A_FREE_DESCRIPTOR = {
    "open a file": "return open('/etc/hostname')",
    "connect to a unix socket": "s = socket.socket(socket.AF_UNIX); return s.connect({unix!r})",
    "connect to a TCP port": "s = socket.socket(); return s.connect(('127.0.0.1', {port}))",
    "bind a TCP port": "s = socket.socket(); return s.bind(('127.0.0.1', 0))",
}


@pytest.mark.parametrize(
    "attempt", WITH_A_FREE_DESCRIPTOR.values(), ids=WITH_A_FREE_DESCRIPTOR.keys()
)
def test_a_confined_process_that_frees_a_descriptor_cannot(attempt: str, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as unix, socket.socket() as tcp:
        path = f"/tmp/bc-confined-{os.getpid()}.sock"
        unix.bind(path)
        unix.listen()
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        try:
            attempt = attempt.format(unix=path, port=tcp.getsockname()[1])
            outcome, how, confined = probe(f"os.close(0); {attempt}")
        finally:
            os.unlink(path)
    if "open" in attempt and not (confined["landlock"] or confined["call_filter"]):
        pytest.skip("this kernel has neither Landlock nor a filter of system calls")
    if "socket" in attempt and not confined["call_filter"]:
        pytest.skip("there is no libseccomp here")
    assert outcome == "refused", how
    assert how in ("EPERM", "EACCES"), how


def test_landlock_alone_keeps_the_file_system_closed() -> None:
    """Each layer holds without the others: here there is no filter and no descriptor limit."""
    before = (
        "import borgcube.plugins.borg.gate.confine as c\n"
        "c._prepare_call_filter = lambda: lambda: False\nc.MAX_DESCRIPTORS = 64\n"
    )
    for attempt in ("return open('/etc/hostname')", "return os.listdir('/etc')",
                    "s = socket.socket(); return s.connect(('127.0.0.1', 22))"):  # fmt: skip
        outcome, how, confined = probe(attempt, before=before)
        if not confined["landlock"]:
            pytest.skip("this kernel has no Landlock")
        if "socket" in attempt and confined["landlock"] < 4:
            continue
        assert (outcome, how) == ("refused", "EACCES")


ALLOWED = {
    "write to a descriptor it was left": "return os.write(report, b'')",
    "start a thread": "t = threading.Thread(target=int); t.start(); return t.join(10)",
    "take some memory": "return len(bytearray(200 << 20))",
    "sleep": "import time; return time.sleep(0.01)",
    "get random bytes": "return len(os.urandom(8))",
}


@pytest.mark.parametrize("attempt", ALLOWED.values(), ids=ALLOWED.keys())
def test_a_confined_process_can(attempt: str) -> None:
    outcome, how, _ = probe(attempt, before="import time")
    assert outcome == "did", how


def test_a_confined_process_sees_no_environment_and_no_other_descriptor(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    outcome, how, _ = probe(
        "return (dict(os.environ), ctypes.CDLL(None).getenv(b'SECRET'),"
        " [fd for fd in range(200) if fd != report and still_open(fd)], os.readlink)[:3]",
        before=f"left = os.open({str(secret)!r}, os.O_RDWR)\n"
        "def still_open(fd):\n    try: os.fstat(fd); return True\n"
        "    except OSError: return False\n",
        SECRET="do not tell",
    )
    assert outcome == "did"
    assert how == "({}, 0, [0, 1, 2])"


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with Rig(tmp_path_factory.mktemp("rig")) as made:
        yield made


def test_the_real_gate_is_confined_and_says_so(rig: Rig) -> None:
    peer = Peer(rig.socket)
    try:
        peer.greet()
        process = Path("/proc") / str(peer.gate.pid)
        status = dict(
            line.split(":\t", 1) for line in (process / "status").read_text().splitlines()
        )
        confined = peer.reported("confined")
        assert status["NoNewPrivs"].strip() == "1"
        assert status["Seccomp"].strip() == ("2" if confined["call_filter"] else "0")
        limits = (process / "limits").read_text()
        assert f"{MEMORY_BYTES}" in limits
        rows = {line[:25].strip(): line[25:].split() for line in limits.splitlines()}
        assert rows["Max open files"][:2] == [str(MAX_DESCRIPTORS)] * 2
        assert rows["Max file size"][:2] == ["0", "0"]
        if os.geteuid() != 0:
            # Not even its own user may look into it; the probes above have seen the same.
            with pytest.raises(PermissionError):
                os.listdir(process / "fd")
            return
        open_now = {name: os.readlink(process / "fd" / name) for name in os.listdir(process / "fd")}
        assert len(open_now) == 7, open_now
        assert [open_now[name] for name in ("0", "1", "2")] == ["/dev/null"] * 3
        others = sorted(target.split(":")[0] for name, target in open_now.items() if int(name) > 2)
        assert others == ["pipe", "pipe", "pipe", "socket"]
        for entry in (process / "environ").read_bytes().split(b"\0"):
            assert entry.split(b"=")[0] in (b"", b"PYTHONPATH", b"LC_ALL"), entry
    finally:
        peer.close()


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd,3", "zlib,6", "lzma,6", "auto,zstd"])
def test_the_confined_gate_takes_every_compression(
    rig: Rig, compression: str, tmp_path: Path
) -> None:
    make_mixed(tmp_path / "tree", 1 << 20, seed=len(compression))
    (tmp_path / "tree" / "text").write_bytes(b"the same words again and again\n" * 40_000)
    name = "c-" + compression.replace(",", "-")
    context = rig.context("backup")
    result = rig.backup(name, tmp_path / "tree", compression=compression, context=context)
    assert result.state == "done", result
    assert any("the gate is confined" in line for line in context.lines)


def test_the_gate_ends_with_its_worker(rig: Rig) -> None:
    """A gate without a worker would serve a client nobody watches."""
    code = (
        "import sys; from pathlib import Path; from borgcube.testing import hostile\n"
        f"peer = hostile.Peer({str(rig.socket)!r}, archive='orphan-1')\n"
        "peer.greet(); print(peer.gate.pid, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        gate = int(owner.stdout.readline())
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait(30)
    deadline = time.monotonic() + 30
    while Path(f"/proc/{gate}/status").exists():
        state = Path(f"/proc/{gate}/status").read_text().split("State:\t")[1][0]
        if state in "ZX":
            break
        assert time.monotonic() < deadline, "the gate outlives its worker"
        time.sleep(0.05)
