"""The bench's own sshd: loopback only, fresh keys, one cipher for both directions."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from bench.sampler import children_of

CIPHER = "aes128-gcm@openssh.com"


class Sshd:
    """A private sshd in `folder`, run in the foreground as a child of this process."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.user = getpass.getuser()
        self.identity = folder / "client_key"
        self.known_hosts = folder / "known_hosts"
        host_key = folder / "host_key"
        for key in (self.identity, host_key):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)],
                check=True,
                timeout=30,
            )
        authorized = folder / "authorized_keys"
        shutil.copy(f"{self.identity}.pub", authorized)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        public = Path(f"{host_key}.pub").read_text()
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {public}")
        config = folder / "sshd_config"
        config.write_text(
            f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {host_key}\n"
            f"AuthorizedKeysFile {authorized}\nPidFile none\nStrictModes no\nUsePAM no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            f"PermitRootLogin yes\nCiphers {CIPHER}\nMaxSessions 50\nMaxStartups 50\n"
            "Subsystem sftp internal-sftp\nLogLevel ERROR\n"
        )
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd insists on it
        program = shutil.which("sshd") or "/usr/sbin/sshd"
        self._process = subprocess.Popen(
            [program, "-D", "-f", str(config), "-E", str(folder / "sshd.log")],
            stdin=subprocess.DEVNULL,
        )
        self._wait_until_listening()

    @property
    def pid(self) -> int:
        """The number of the listening process; each session is a child of it."""
        return self._process.pid

    def wait_idle(self, timeout_seconds: float = 30) -> bool:
        """Wait until no session is left; return False when one outlives the time."""
        end = time.monotonic() + timeout_seconds
        while children_of(self.pid):
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True

    def stop(self) -> None:
        """End the listening process."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)

    def _wait_until_listening(self) -> None:
        end = time.monotonic() + 15
        while time.monotonic() < end and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        self.stop()
        raise RuntimeError("the bench's sshd did not start: see sshd.log in the work directory")
