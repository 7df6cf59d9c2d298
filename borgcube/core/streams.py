"""What transports share: pipes, the run-to-end loop, the remote guard.

Nothing here knows a network. It is in core because plugins do not import each other.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import os
import re
import select
import selectors
import shlex
import subprocess
import time
from collections.abc import Generator, Sequence
from pathlib import Path

from borgcube.core.errors import InvalidInput, JobFailed, Problem
from borgcube.core.hostkeys import check_host, name_of
from borgcube.core.transports import ClientAddress, Completed, RemoteProcess, Source

PIPE_BYTES = 1 << 20
_BLOCK = 1 << 16
_NAME = re.compile(r"[A-Za-z0-9_.:%][A-Za-z0-9_.:%@+-]*")

# sshd leaves a command running when its connection goes. The guard, a detached loop in
# the same process group, watches sshd's process and ends the group after it. The first
# line on standard error names the group, so that terminate can reach it.
_GUARD = (
    'echo "$0 $$" >&2; p=$PPID; g=$$; '
    "( ( while kill -0 $p 2>/dev/null; do kill -0 $g 2>/dev/null || exit 0; sleep 1; done; "
    "kill -s KILL -- -$g 2>/dev/null || kill -s KILL $g ) "
    '</dev/null >/dev/null 2>&1 & ); exec "$@"'
)


def guarded_command(token: str, argv: Sequence[str]) -> str:
    """Return the shell line that runs ``argv`` and announces ``token PID`` on stderr."""
    return "exec " + shlex.join(["sh", "-c", _GUARD, token, *argv])


def kill_command(pids: Sequence[int]) -> str:
    """Return the shell line that ends the process groups of ``pids``."""
    return "; ".join(
        f"kill -s KILL -- -{pid} 2>/dev/null || kill -s KILL {pid} 2>/dev/null" for pid in pids
    )


def announced_pid(line: bytes, token: str) -> int | None:
    """Return the process ID in a guard's line, or None for any other line."""
    found = re.search(rb"(?:^|[^0-9a-f])" + token.encode() + rb" ([0-9]{1,10})\s*$", line)
    return int(found[1]) if found and int(found[1]) > 1 else None


def check_address(address: ClientAddress) -> None:
    """Refuse a host, user or port that is more than that; raises InvalidInput."""
    check_host(address.host)
    if address.user and not _NAME.fullmatch(address.user):
        raise InvalidInput(
            f"{address.user!r} is not a usable user name.",
            next_step=f"Correct the user of client {address.name}.",
        )
    if not 0 < address.port < 65536:
        raise InvalidInput(
            f"{address.port} is not a port.", next_step="Give a port from 1 to 65535."
        )


def known_hosts_name(address: ClientAddress) -> str:
    """Return the name under which known_hosts lists the host."""
    return name_of(address.host, address.port)


def fingerprint(key_type: str, key_base64: str) -> str:
    """Return ``TYPE SHA256:...`` as ssh-keygen prints it."""
    digest = hashlib.sha256(base64.b64decode(key_base64)).digest()
    return f"{key_type} SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def host_key_changed(address: ClientAddress, stored: str, offered: str) -> JobFailed:
    """Return the failure for a host that shows another key than the stored one."""
    return JobFailed(
        "host-key-changed",
        Problem.NETWORK,
        f"{address.host} shows another host key than the stored one: "
        f"stored {stored}, offered {offered}.",
        next_step="Check on the machine why its key changed, then run "
        f"`borgcube client trust {address.name}`.",
    )


def host_key_unknown(address: ClientAddress) -> JobFailed:
    """Return the failure for a host without a stored key."""
    return JobFailed(
        "host-key-unknown",
        Problem.CONFIGURATION,
        f"No host key is stored for {known_hosts_name(address)}.",
        next_step=f"Run `borgcube client trust {address.name}` and compare the fingerprint.",
    )


def login_refused(address: ClientAddress, detail: str) -> JobFailed:
    """Return the failure for a login that the host refused."""
    return JobFailed(
        "login-refused",
        Problem.CLIENT,
        f"{address.host} refused the login of {address.user or 'the current user'}: {detail}",
        next_step="Check the user name, the key and authorized_keys on the client.",
    )


def host_unreachable(address: ClientAddress, detail: str) -> JobFailed:
    """Return the failure for a host that cannot be reached."""
    return JobFailed(
        "host-unreachable",
        Problem.NETWORK,
        f"{address.host} port {address.port} cannot be reached: {detail}",
        next_step="Check that the machine is on, its address and its sshd.",
    )


def connection_lost(address: ClientAddress, detail: str = "") -> JobFailed:
    """Return the failure for a connection that broke."""
    return JobFailed(
        "connection-lost",
        Problem.NETWORK,
        f"The connection to {address.name} broke. {detail}".strip(),
        next_step="Check the network and the client, then try again.",
    )


def enlarge_pipe(descriptor: int) -> None:
    """Give a pipe a large buffer where the system allows it."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def take_descriptors(process: subprocess.Popen[bytes]) -> tuple[int, int, int]:
    """Detach a Popen's three pipes: the returned descriptors belong to the caller."""
    taken = []
    for stream in (process.stdin, process.stdout, process.stderr):
        assert stream is not None
        descriptor = os.dup(stream.fileno())
        stream.close()
        enlarge_pipe(descriptor)
        taken.append(descriptor)
    process.stdin = process.stdout = process.stderr = None
    return taken[0], taken[1], taken[2]


def blocks_of(source: Source) -> Generator[bytes, None, None]:
    """Yield the bytes of a source in blocks that are never empty."""
    for part in [source] if isinstance(source, bytes | Path) else source:
        if isinstance(part, bytes):
            if part:
                yield part
            continue
        with part.open("rb") as file:
            while block := file.read(_BLOCK):
                yield block


def run_to_end(
    process: RemoteProcess, stdin: Source, *, timeout_s: float, max_output: int
) -> Completed:
    """Feed and drain ``process`` to its end; raises JobFailed ``timeout``."""
    blocks = blocks_of(stdin)
    deadline = time.monotonic() + timeout_s
    kept = {process.stdout_fd: bytearray(), process.stderr_fd: bytearray()}
    still_open = {process.stdin_fd, *kept}
    selector = selectors.DefaultSelector()
    pending = memoryview(b"")

    def finish(descriptor: int) -> None:
        selector.unregister(descriptor)
        os.close(descriptor)
        still_open.discard(descriptor)

    try:
        selector.register(process.stdin_fd, selectors.EVENT_WRITE)
        for descriptor in still_open:
            os.set_blocking(descriptor, False)
        for descriptor in kept:
            selector.register(descriptor, selectors.EVENT_READ)
        while not still_open <= {process.stdin_fd}:
            left = deadline - time.monotonic()
            if left <= 0:
                raise _timed_out(timeout_s)
            for key, _ in selector.select(left):
                if key.fd in kept:
                    block = os.read(key.fd, _BLOCK)
                    kept[key.fd] += block[: max(0, max_output - len(kept[key.fd]))]
                    if not block:
                        finish(key.fd)
                    continue
                pending = pending or memoryview(next(blocks, b""))
                if not pending:
                    finish(key.fd)
                    continue
                try:
                    pending = pending[os.write(key.fd, pending[:_BLOCK]) :]
                except BrokenPipeError:
                    finish(key.fd)
        code = process.wait(max(0.0, deadline - time.monotonic()))
        if code is None:
            raise _timed_out(timeout_s)
        return Completed(code, bytes(kept[process.stdout_fd]), bytes(kept[process.stderr_fd]))
    except BaseException:
        process.terminate()
        raise
    finally:
        selector.close()
        for descriptor in still_open:
            os.close(descriptor)
        blocks.close()


def output_of(argv: Sequence[str], *, timeout_s: float, max_output: int) -> bytes:
    """Run a local program that talks with a host and return what it prints, up to a bound.

    It is ended when the time is over or when it prints more; what it printed until then is
    returned. Its standard error is not read.
    """
    process = subprocess.Popen(
        list(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        bufsize=0,
    )  # fmt: skip
    said, deadline = bytearray(), time.monotonic() + timeout_s
    try:
        assert process.stdout is not None
        while len(said) < max_output:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([process.stdout], [], [], left)[0]:
                break
            block = process.stdout.read(min(_BLOCK, max_output - len(said)))
            if not block:
                break
            said += block
    finally:
        process.kill()
        process.communicate()
    return bytes(said)


def _timed_out(timeout_s: float) -> JobFailed:
    return JobFailed(
        "timeout",
        Problem.CLIENT,
        f"The command did not end within {timeout_s:g} s.",
        next_step="Check the load of the client, then try again.",
    )
