"""A private sshd on a loopback port, run as the current user, for tests."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from borgcube.core.transports import ClientAddress


class PrivateSSHD:
    """Use as a context manager. ``directory`` receives the keys and the configuration.

    ``prefix`` is put before the command, such as ``ip netns exec NAME`` to run it in a
    network namespace that has ``address``.
    """

    def __init__(
        self, directory: Path, *, extra_lines: Sequence[str] = (), address: str = "127.0.0.1",
        prefix: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.host, self.prefix = address, tuple(prefix)
        self.directory = directory
        self.user = getpass.getuser()
        self.identity = directory / "client_key"
        self.host_key = directory / "host_key"
        self.extra_lines = tuple(extra_lines)
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> PrivateSSHD:
        self.directory.mkdir(parents=True, exist_ok=True)
        for key in (self.identity, self.host_key):
            make_key(key)
        public = self.identity.with_suffix(".pub").read_text()
        (self.directory / "authorized_keys").write_text(public)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start sshd and wait until it answers."""
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        config = self.directory / "sshd_config"
        lines = [
            f"Port {self.port}", f"ListenAddress {self.host}", f"HostKey {self.host_key}",
            f"AuthorizedKeysFile {self.directory}/authorized_keys", "PidFile none",
            "StrictModes no", "UsePAM no", "PasswordAuthentication no",
            "KbdInteractiveAuthentication no", "PermitRootLogin yes", *self.extra_lines,
        ]  # fmt: skip
        config.write_text("\n".join(lines) + "\n")
        program = shutil.which("sshd") or "/usr/sbin/sshd"
        self._process = subprocess.Popen(
            [
                *self.prefix,
                program,
                "-D",
                "-f",
                str(config),
                "-E",
                str(self.directory / "sshd.log"),
            ],
            stdin=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                socket.create_connection((self.host, self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.02)
        self.stop()
        raise RuntimeError(f"sshd did not start; see {self.directory}/sshd.log")

    @property
    def pid(self) -> int | None:
        """The listener's process, None when it does not run."""
        return self._process.pid if self._process else None

    def stop(self) -> None:
        """Stop the listener."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def drop_connections(self) -> None:
        """Kill the process of every connection, as a broken network would look."""
        assert self._process is not None
        for child in psutil.Process(self._process.pid).children():
            child.kill()

    def change_host_key(self) -> None:
        """Restart with another host key."""
        self.stop()
        make_key(self.host_key)
        self.start()

    def known_hosts_line(self) -> str:
        """Return the line a known_hosts file needs to trust this sshd."""
        kind, key = self.host_key.with_suffix(".pub").read_text().split()[:2]
        return f"[{self.host}]:{self.port} {kind} {key}\n"

    def address(self, transport: str) -> ClientAddress:
        """Return the address of a client behind this sshd."""
        return ClientAddress(
            "tester", transport, self.host, self.port, self.user, str(self.identity)
        )


def make_key(path: Path) -> None:
    """Write a fresh Ed25519 key pair, replacing an old one."""
    path.unlink(missing_ok=True)
    path.with_suffix(".pub").unlink(missing_ok=True)
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True, timeout=20
    )


@pytest.fixture
def private_sshd() -> Iterator[PrivateSSHD]:
    """A running sshd in a directory of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="bc", ignore_cleanup_errors=True) as name,
        PrivateSSHD(Path(name)) as server,
    ):
        yield server
