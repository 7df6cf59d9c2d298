"""``python -m borgcube.core.fence``: run a program that can change one directory and nothing else.

Three processes. This one, the supervisor, goes into namespaces of its own (mounts, processes, IPC,
network, host name; of users as well when it is not root), makes the view of the file system, and
watches what the program takes. The second is process 1 of the namespace: when it ends, the kernel
ends all others there; it ends with the supervisor. The third gives up its capabilities, files
(Landlock) and system calls, and becomes the program.

The program gets descriptors 0, 1 and 2 and a bare environment. Arguments hold no secret. Exit codes
are the program's own, or those that :mod:`borgcube.core.fence` names; one line on standard error,
in the form of Borg's log, says why there is no fence.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from borgcube.core.fence import (
    LEAST_CODE,
    MOST_CODE,
    OTHER_CODE,
    UNAVAILABLE,
    calls,
    layers,
    mounts,
)
from borgcube.core.fence.watch import Bounds, Watch

NEWNS, NEWCGROUP, NEWUTS, NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
NEWUSER, NEWPID, NEWNET = 0x10000000, 0x20000000, 0x40000000
NAMESPACES = NEWNS | NEWUTS | NEWIPC | NEWPID | NEWNET
LOOK_EVERY_S = 0.2
KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "TZ", "LANG", "LC_ALL", "LC_CTYPE")

CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID = 0, 1, 2, 3, 4
LINUX_IMMUTABLE, SYS_ADMIN, MKNOD, SETFCAP = 9, 21, 27, 31
EXTRACTING = (CHOWN, DAC_OVERRIDE, FOWNER)
# Set-ID bits that stay, flags of files, devices, capabilities of files.
EXTRACTING_AS_ROOT = (*EXTRACTING, FSETID, LINUX_IMMUTABLE, MKNOD, SETFCAP)

READ = layers.FS_READ_FILE | layers.FS_READ_DIR | layers.FS_EXECUTE
WRITE = (
    layers.FS_WRITE_FILE | layers.FS_TRUNCATE | layers.FS_REFER | layers.FS_REMOVE_DIR
    | layers.FS_REMOVE_FILE | layers.FS_MAKE_DIR | layers.FS_MAKE_REG | layers.FS_MAKE_FIFO
    | layers.FS_MAKE_SYM
)  # fmt: skip
DEVICES = layers.FS_MAKE_CHAR | layers.FS_MAKE_BLOCK


class NoFence(Exception):
    """It cannot be had here; the words say what is missing."""


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="borgcube-fence", description=__doc__)
    parser.add_argument("--target", required=True, help="the directory that can be written")
    parser.add_argument("--writable", action="append", default=[], metavar="DIR")
    parser.add_argument(
        "--needed",
        action="append",
        default=[],
        metavar="DIR",
        help="to be read although it is in a hidden directory",
    )
    parser.add_argument("--hide", action="append", default=[], metavar="DIR")
    parser.add_argument("--bytes", type=int, default=0)
    parser.add_argument("--files", type=int, default=0)
    parser.add_argument("--memory", type=int, default=2 << 30)
    parser.add_argument("--pid-file", help="gets the number of the supervising process")
    parser.add_argument(
        "--as-root",
        action="store_true",
        help="set-ID bits, devices and attributes of the system may be made",
    )
    parser.add_argument(
        "--try",
        action="store_true",
        dest="only_try",
        help="build the fence, say what it has, and run nothing",
    )
    parser.add_argument("command", nargs="*")
    return parser  # fmt: skip


def main() -> int:
    """Build the fence and run the command in it."""
    options = arguments().parse_args()
    layers.close_all_but({0, 1, 2})
    if not options.command and not options.only_try:
        arguments().error("a command is needed")
    return run(options)


def run(options: argparse.Namespace) -> int:
    """Run it and return the exit code."""
    libc = layers.c_library()
    try:
        if options.pid_file:
            Path(options.pid_file).write_text(f"{os.getpid()}\n", encoding="ascii")
        view = view_of(options)
        parent = os.getppid()
        separate(libc)
        libc.prctl(layers.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            return UNAVAILABLE  # whoever wanted this has gone
        mounts.enter(libc, view)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        return supervise(libc, options, view)
    except (NoFence, OSError) as error:
        return refuse(error)


def refuse(error: Exception) -> int:
    """Say why there is no fence."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    place = f" ({error.filename})" if isinstance(error, OSError) and error.filename else ""
    line = {"type": "log_message", "levelname": "ERROR", "name": "borgcube.fence",
            "message": f"no fence: {said}{place}"}  # fmt: skip
    sys.stderr.write(json.dumps(line) + "\n")
    sys.stderr.flush()
    return UNAVAILABLE


def view_of(options: argparse.Namespace) -> mounts.View:
    """Return the view with real paths; raises NoFence for a target that holds what is hidden."""
    real = os.path.realpath
    target = real(options.target)
    needed = sorted({real(path) for path in (sys.prefix, sys.base_prefix, *options.needed)})
    hidden = [real(path) for path in options.hide]
    for path in ("/", *hidden, *needed):
        if mounts.below(path, target):
            raise NoFence(f"the target {target} holds {path}")
    return mounts.View(target, [real(path) for path in options.writable], needed, hidden)


def separate(libc: Any) -> None:
    """Go into namespaces of its own; raises NoFence."""
    user, group = os.geteuid(), os.getegid()
    flags = NAMESPACES if user == 0 else NAMESPACES | NEWUSER
    if libc.unshare(flags) != 0:
        number = layers.error_number()
        raise NoFence("the kernel gives no "
                      + ("namespaces" if user == 0 else "user namespaces to this user")
                      + f": {os.strerror(number)}")  # fmt: skip
    libc.unshare(NEWCGROUP)  # not everywhere, and nothing depends on it
    if user != 0:
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")


def supervise(libc: Any, options: argparse.Namespace, view: mounts.View) -> int:
    """Start process 1 of the namespace, watch, and return the exit code."""
    ready_out, ready_in = os.pipe()
    go_out, go_in = os.pipe()
    first = os.fork()
    if first == 0:
        os.close(ready_out)
        os.close(go_in)
        be_first(libc, options, view, ready=ready_in, go=go_out)
    os.close(ready_in)
    os.close(go_out)
    layers.give_up_new_privileges(libc)
    layers.keep_capabilities(libc, (DAC_READ_SEARCH,))
    bounds = Bounds(memory=options.memory, bytes=options.bytes, files=options.files)
    watch = Watch(view.target, bounds)
    os.write(go_in, b"g")
    with os.fdopen(ready_out, "rb") as stream:
        failed = stream.read(4096)  # its end comes with the program's start
    if failed:
        os.waitpid(first, 0)
        return refuse(NoFence(failed.decode("utf-8", "replace")))
    for descriptor in (0, 1):  # whoever reads there hears of the program's end, not of ours
        os.close(descriptor)
    while True:
        signal.sigtimedwait({signal.SIGCHLD}, LOOK_EVERY_S)
        ended, status = os.waitpid(first, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            code = code if code >= 0 else 128 - code
            return OTHER_CODE if LEAST_CODE <= code <= MOST_CODE else code
        if code := watch.look():
            os.kill(first, signal.SIGKILL)
            os.waitpid(first, 0)
            return code


def be_first(
    libc: Any, options: argparse.Namespace, view: mounts.View, *, ready: int, go: int
) -> NoReturn:
    """Be process 1 of the namespace: show its processes, start the program, wait for all."""
    code = UNAVAILABLE
    try:
        libc.prctl(layers.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(layers.PR_SET_DUMPABLE, 0, 0, 0, 0)
        if os.read(go, 1) != b"g":  # the supervisor died before this one was bound to it
            os._exit(code)
        os.close(go)
        mounts.mount_proc(libc)
        program = os.fork()
        if program == 0:
            become(libc, options, view, ready=ready)
        os.close(ready)
        layers.give_up_new_privileges(libc)
        layers.keep_capabilities(libc, ())
        for descriptor in (0, 1, 2):  # their ends are the program's to signal
            os.close(descriptor)
        while True:
            ended, status = os.wait()
            if ended == program:
                code = os.waitstatus_to_exitcode(status)
                code = code if code >= 0 else 128 - code
                break
    except BaseException as error:
        tell(ready, error)
    os._exit(code)


def tell(ready: int, error: BaseException) -> None:
    """Write why there is no fence to the supervisor."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    try:
        os.write(ready, f"{said or type(error).__name__}".encode()[:4000])
    except OSError:
        pass  # the supervisor sees the exit code


def become(
    libc: Any, options: argparse.Namespace, view: mounts.View, *, ready: int
) -> NoReturn:  # fmt: skip
    """Give up what is not needed, and become the program."""
    try:
        os.set_inheritable(ready, False)
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        libc.prctl(layers.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        layers.give_up_new_privileges(libc)
        switch_on = calls.prepare(as_root=options.as_root)
        filtered = layers.call_filter_offered()
        landlock = layers.restrict_with_landlock(libc, grants_of(view, as_root=options.as_root))
        if not landlock and layers.landlock_version(libc) > 0:
            raise NoFence("Landlock does not take effect")
        kept: Sequence[int] = ()
        if os.geteuid() == 0:
            kept = EXTRACTING_AS_ROOT if options.as_root else EXTRACTING
            if options.as_root and filtered and landlock:
                kept = (*kept, SYS_ADMIN)  # attributes security.* and trusted.*
        layers.keep_capabilities(libc, kept)
        for limit, value in (
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_AS, options.memory),
            *(((resource.RLIMIT_FSIZE, options.bytes),) if options.bytes else ()),
        ):
            resource.setrlimit(limit, (value, value))
        if switch_on() != filtered:
            raise NoFence("the system-call filter does not take effect")
        if options.only_try:
            offered = {"landlock": landlock, "call_filter": filtered, "root": os.geteuid() == 0}
            os.write(1, json.dumps(offered).encode() + b"\n")
            os._exit(0)
        kept_variables = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        os.execvpe(options.command[0], options.command, kept_variables)
    except BaseException as error:
        tell(ready, error)
    os._exit(UNAVAILABLE)


def grants_of(view: mounts.View, *, as_root: bool) -> list[tuple[str, int]]:
    """Return what Landlock grants: reading everywhere, writing where it is meant to be."""
    write = READ | WRITE
    return [
        ("/", READ),
        *((f"/dev/{name}", layers.FS_READ_FILE | layers.FS_WRITE_FILE) for name in mounts.DEVICES),
        (mounts.TEMPORARY, write),
        *((path, write) for path in view.writable),
        (view.target, write | DEVICES if as_root else write),
    ]


if __name__ == "__main__":
    sys.exit(main())
