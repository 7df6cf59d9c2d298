"""One OpenSSH login: a master process with its control socket, and commands over it.

The client is not trusted: nothing is forwarded, no local command runs, host keys come from
BorgCube's own file only. Options stand on the command line, which wins over any ssh_config.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from borgcube.core import streams
from borgcube.core.errors import InvalidInput, JobFailed
from borgcube.core.hostkeys import MAX_KEYS, parse_line
from borgcube.core.transports import ClientAddress, Completed, Source, TransportContext
from borgcube.core.untrusted import words

_FIXED = (
    "BatchMode=yes", "StrictHostKeyChecking=yes", "GlobalKnownHostsFile=/dev/null",
    "KnownHostsCommand=none", "VerifyHostKeyDNS=no", "NoHostAuthenticationForLocalhost=no",
    "UpdateHostKeys=no", "ForwardAgent=no", "ForwardX11=no", "ClearAllForwardings=yes",
    "Tunnel=no", "PermitLocalCommand=no", "EscapeChar=none", "RequestTTY=no",
    "RemoteCommand=none", "ControlPersist=no", "Compression=no", "ServerAliveInterval=15",
    "ServerAliveCountMax=4", "CheckHostIP=no", "LogLevel=ERROR",
    "Ciphers=aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,"
    "aes128-ctr,aes256-ctr",
)  # fmt: skip


MAX_LISTING = 256 << 10  # of ssh-keyscan
KILL_S = 10.0


def ssh_command(
    address: ClientAddress, context: TransportContext, socket: Path | None, *, alias: bool = False
) -> list[str]:
    """Return ssh with every option it is always given, without host and command.

    Host keys are looked up by our own name of the host, wherever an ssh_config leads, when some
    were trusted for the client, or when ``alias`` says so.
    """
    known_hosts = str(context.known_hosts).replace("%", "%%")
    argv = ["ssh", "-F", str(address.options.get("ssh_config") or "/dev/null"),
            "-S", str(socket or "none")]  # fmt: skip
    options = [*_FIXED, f'UserKnownHostsFile="{known_hosts}"']
    options.append(f"ConnectTimeout={max(1, int(context.connect_timeout_s))}")
    if alias or address.host_keys:
        options.append(f"HostKeyAlias={streams.known_hosts_name(address)}")
    if address.identity:
        options += [f'IdentityFile="{address.identity}"', "IdentitiesOnly=yes"]
    elif not address.options.get("ssh_config"):
        # No key was given, so none is used: not one of the server's own user, nor of an agent.
        options += ["IdentityFile=none", "IdentitiesOnly=yes", "IdentityAgent=none"]
    for option in options:
        argv += ["-o", option]
    argv += ["-p", str(address.port)]
    return [*argv, "-l", address.user] if address.user else argv


class OpenSSHProcess:
    """A command over the master; the descriptors are those of a local ssh."""

    def __init__(self, connection: OpenSSHConnection, argv: Sequence[str]) -> None:
        self._connection = connection
        token = secrets.token_hex(8)
        self._process = connection.spawn(streams.guarded_command(token, argv))
        self.stdin_fd, self.stdout_fd, self.stderr_fd = streams.take_descriptors(self._process)
        try:
            self.pid = self._announcement(token)
        except BaseException:
            self._process.kill()
            self._process.wait()
            for descriptor in (self.stdin_fd, self.stdout_fd, self.stderr_fd):
                os.close(descriptor)
            raise

    def _announcement(self, token: str) -> int:
        line = b""
        deadline = time.monotonic() + self._connection.context.connect_timeout_s
        while len(line) < 1 << 16:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self.stderr_fd], [], [], left)[0]:
                break
            byte = os.read(self.stderr_fd, 1)  # one at a time: what follows is the caller's
            if not byte:
                break
            line += byte
            if byte == b"\n":
                pid = streams.announced_pid(line, token)
                if pid is not None:
                    return pid
                line = b""
        raise streams.connection_lost(self._connection.address, "The command did not start.")

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Return the exit code or None; raises JobFailed when the connection broke."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        if code == 255 and not self._connection.alive(grace_s=0.3):
            raise streams.connection_lost(self._connection.address)
        return code if code >= 0 else 128 - code

    def running(self) -> bool:
        """Whether the command has not ended yet."""
        return self._process.poll() is None

    def terminate(self) -> None:
        """Kill the remote process group, then the local ssh."""
        if self.running():
            self._connection.kill_remote([self.pid])
            self._process.terminate()


class OpenSSHConnection:
    """One login, kept by a master that ends with the thread that connected."""

    def __init__(self, address: ClientAddress, context: TransportContext) -> None:
        self.address = address
        self.context = context
        self._started: list[OpenSSHProcess] = []
        self._socket = context.runtime_dir / f"s{secrets.token_hex(4)}"
        setpriv = shutil.which("setpriv")
        guard = [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []
        base = ssh_command(address, context, self._socket)
        with tempfile.TemporaryFile() as errors:
            self._master = subprocess.Popen(
                [*guard, *base, "-M", "-N", "--", address.host],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors,
                start_new_session=True,
            )  # fmt: skip
            try:
                self._await_login(errors)
            except BaseException:
                self.close()
                raise

    def _await_login(self, errors: IO[bytes]) -> None:
        deadline = time.monotonic() + self.context.connect_timeout_s + 5
        while not self._socket.exists():
            if self._master.poll() is not None:
                errors.seek(0)
                raise self._failure(errors.read(1 << 16).decode("utf-8", "replace"))
            if time.monotonic() > deadline:
                raise streams.host_unreachable(self.address, "the login took too long")
            time.sleep(0.01)

    def _failure(self, text: str) -> JobFailed:
        last = words((text.strip().splitlines() or ["no reason given"])[-1], limit=300)
        if "IDENTIFICATION HAS CHANGED" in text or "Host key verification failed" in text:
            stored = self._stored_keys()
            if not stored:
                return streams.host_key_unknown(self.address)
            offered = self._offered_keys()
            return streams.host_key_changed(
                self.address, ", ".join(stored), ", ".join(offered) or "not readable"
            )
        if "Permission denied" in text or "authentication failures" in text:
            return streams.login_refused(self.address, last)
        return streams.host_unreachable(self.address, last)

    def _stored_keys(self) -> list[str]:
        found = subprocess.run(
            ["ssh-keygen", "-F", streams.known_hosts_name(self.address),
             "-f", str(self.context.known_hosts)],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False,
        )  # fmt: skip
        return _fingerprints(found.stdout)

    def _offered_keys(self) -> list[str]:
        found = streams.output_of(
            ["ssh-keyscan", "-T", "3", "-p", str(self.address.port), "--", self.address.host],
            timeout_s=5, max_output=MAX_LISTING,
        )  # fmt: skip
        return _fingerprints(found)

    def alive(self, *, grace_s: float = 0.0) -> bool:
        """Whether the login still stands, after giving a dying master ``grace_s``."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._master.wait(grace_s)
        return self._master.poll() is None

    def spawn(self, command: str, *, unheard: bool = False) -> subprocess.Popen[bytes]:
        """Start a local ssh that runs ``command`` over the master, never past it; ``unheard``
        when nobody reads what it prints."""
        if not self.alive():
            raise streams.connection_lost(self.address)
        base = ssh_command(self.address, self.context, self._socket)
        return subprocess.Popen(
            # The proxy command fails: without its master, ssh must not log in by itself.
            [*base, "-o", "ControlMaster=no", "-o", "ProxyCommand=false", "--",
             self.address.host, command],
            stdin=subprocess.DEVNULL if unheard else subprocess.PIPE,
            stdout=subprocess.DEVNULL if unheard else subprocess.PIPE,
            stderr=subprocess.DEVNULL if unheard else subprocess.PIPE, bufsize=0,
        )  # fmt: skip

    def kill_remote(self, pids: Sequence[int]) -> threading.Thread | None:
        """Kill remote process groups in the background."""
        try:
            process = self.spawn(streams.kill_command(pids), unheard=True)
        except JobFailed:
            return None

        def reap() -> None:
            try:
                process.wait(KILL_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

        thread = threading.Thread(target=reap, daemon=True)
        thread.start()
        return thread

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: Source = b"",
        timeout_s: float = 60.0,
        max_output: int = 1 << 20,
    ) -> Completed:
        """Run to its end."""
        process = self.start(argv)
        return streams.run_to_end(process, stdin, timeout_s=timeout_s, max_output=max_output)

    def start(self, argv: Sequence[str]) -> OpenSSHProcess:
        """Start a command whose streams the caller handles."""
        self._started = [one for one in self._started if one.running()]
        process = OpenSSHProcess(self, argv)
        self._started.append(process)
        return process

    def close(self) -> None:
        """End every command and the login."""
        pids = [one.pid for one in self._started if one.running()]
        thread = self.kill_remote(pids) if pids else None
        if thread is not None:
            thread.join(5)
        self._started.clear()
        if self._master.poll() is None:
            self._master.terminate()
            try:
                self._master.wait(5)
            except subprocess.TimeoutExpired:
                self._master.kill()
                self._master.wait()
        self._socket.unlink(missing_ok=True)


def _fingerprints(listing: bytes) -> list[str]:
    prints = []
    for line in listing.decode("ascii", "replace").splitlines():
        with contextlib.suppress(InvalidInput):
            _, key = parse_line(line)
            prints.append(f"{key.algorithm} {key.fingerprint}")
    return sorted(prints)[:MAX_KEYS]
