"""The two contestants: stock `borg create` through ssh, and the `borgcube` command."""

from __future__ import annotations

import os
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.sampler import Sampler, Usage
from bench.sshd import CIPHER, Sshd

RUN_TIMEOUT_SECONDS = 3600
COMPRESSION = "lz4"


@dataclass(frozen=True)
class Result:
    """One timed backup: wall seconds, and the usage of either side."""

    wall_seconds: float
    client: Usage
    server: Usage
    sessions_left: bool


class Contestant(Protocol):
    """What the scenarios need of either side of the comparison."""

    name: str

    def new_repository(self, label: str, source: Path) -> None:
        """Make an empty repository, and all needed to back up `source` into it."""

    def add_source(self, label: str, source: Path, *, client: str) -> None:
        """Let another client back up `source` into the repository `label`."""

    def backup(self, label: str, *, clients: Sequence[str] = ("",)) -> Result:
        """Back up once into the repository `label`, timed; several clients do it at once."""

    def stop(self) -> None:
        """End what was started."""


def _script(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def _run(arguments: list[str], env: dict[str, str], log: Path, timeout_seconds: float) -> int:
    with log.open("ab") as out:
        out.write(f"$ {shlex.join(arguments)}\n".encode())
        out.flush()
        return subprocess.run(
            arguments,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            timeout=timeout_seconds,
        ).returncode


def _timed(
    commands: Sequence[tuple[list[str], dict[str, str]]],
    *,
    log: Path,
    root_side: str,
    roots: dict[str, list[int]],
    sshd: Sshd,
) -> Result:
    """Run commands at the same time, each with its environment, with the sampler on.

    Their CPU time counts to `root_side`; the wall time is that of the last to end.
    """
    sampler = Sampler(roots)
    sampler.start()
    processes: list[subprocess.Popen[bytes]] = []
    with log.open("ab") as out:
        for arguments, _ in commands:
            out.write(f"$ {shlex.join(arguments)}\n".encode())
        out.flush()
        before = os.times()
        begin = time.perf_counter()
        try:
            for arguments, env in commands:
                process = subprocess.Popen(
                    arguments, env=env, stdin=subprocess.DEVNULL, stdout=out,
                    stderr=subprocess.STDOUT,
                )  # fmt: skip
                processes.append(process)
                sampler.add_root(root_side, process.pid)
            codes = [process.wait(RUN_TIMEOUT_SECONDS) for process in processes]
        except BaseException:
            _end(processes)
            sampler.stop()
            raise
        wall = time.perf_counter() - begin
        after = os.times()
    idle = sshd.wait_idle()
    # Only these children were waited for in between, so the difference is their whole trees.
    spent = (after.children_user + after.children_system) - (
        before.children_user + before.children_system
    )
    usage = sampler.stop(waited_cpu={root_side: spent})
    for code, (arguments, _) in zip(codes, commands, strict=True):
        # A warning too: then something was not backed up, and the time means nothing.
        if code != 0:
            raise RuntimeError(f"{shlex.join(arguments[:3])} ended with {code}: see {log}")
    return Result(wall, usage["client"], usage["server"], not idle)


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


class Stock:
    """Stock Borg: the client pushes over ssh to `borg serve` behind the same sshd."""

    name = "stock"
    lock_wait_seconds = 0  # 0: an ideal queue instead of Borg's own lock

    def __init__(self, folder: Path, sshd: Sshd, encryption: str) -> None:
        folder.mkdir(parents=True)
        self._folder, self._sshd, self._encryption = folder, sshd, encryption
        self._log = folder / "stock.log"
        self._sources: dict[tuple[str, str], Path] = {}
        self._count = 0
        passphrase = folder / "passphrase"
        passphrase.touch(mode=0o600)
        passphrase.write_text(secrets.token_hex(16))
        rsh = [
            *("ssh", "-F", "/dev/null", "-c", CIPHER, "-i", str(sshd.identity)),
            *("-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=20"),
            *("-o", f"UserKnownHostsFile={sshd.known_hosts}", "-o", "StrictHostKeyChecking=yes"),
        ]
        self._env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "BORG_BASE_DIR": str(folder / "base"),
            "BORG_PASSCOMMAND": shlex.join(["cat", str(passphrase)]),
            "BORG_RSH": shlex.join(rsh),
            "BORG_REMOTE_PATH": _script("borg"),
        }

    def _url(self, label: str) -> str:
        return f"ssh://{self._sshd.user}@127.0.0.1:{self._sshd.port}{self._folder}/{label}"

    def new_repository(self, label: str, source: Path) -> None:
        """Run `borg init` through the sshd."""
        command = [_script("borg"), "init", "-e", self._encryption, self._url(label)]
        if _run(command, self._env, self._log, 120) != 0:
            raise RuntimeError(f"borg init failed: see {self._log}")
        self._sources[label, ""] = source
        self._sshd.wait_idle()

    def add_source(self, label: str, source: Path, *, client: str) -> None:
        """Note it; a client of stock Borg needs nothing before its first `borg create`."""
        self._sources[label, client] = source

    def _env_of(self, client: str) -> dict[str, str]:
        # Another machine has other caches.
        return {**self._env, "BORG_BASE_DIR": str(self._folder / f"base{client}")}

    def backup(self, label: str, *, clients: Sequence[str] = ("",)) -> Result:
        """Run `borg create` of each; client: they and their ssh; server: the sshd sessions."""
        self._count += 1
        # They wait for each other. Borg looks at its lock every tenth of the time that it may
        # wait, so that much is lost; with flock, one begins as soon as another has ended.
        wait, turn = [], []
        if len(clients) > 1 and self.lock_wait_seconds:
            wait = ["--lock-wait", str(self.lock_wait_seconds)]
        elif len(clients) > 1:
            turn = ["flock", str(self._folder / "turn")]
        commands = [
            [
                *(*turn, _script("borg"), "create", *wait, "--compression", COMPRESSION),
                *(
                    f"{self._url(label)}::run{self._count}{client}",
                    str(self._sources[label, client]),
                ),
            ]
            for client in clients
        ]
        return _timed(
            [(one, self._env_of(client)) for one, client in zip(commands, clients, strict=True)],
            log=self._log,
            root_side="client",
            roots={"client": [], "server": [self._sshd.pid]},
            sshd=self._sshd,
        )

    def stop(self) -> None:
        """Nothing runs on."""


class Cube:
    """BorgCube, driven by its command line as a person would."""

    name = "borgcube"

    def __init__(self, folder: Path, sshd: Sshd, encryption: str) -> None:
        folder.mkdir(parents=True)
        self._folder, self._sshd, self._encryption = folder, sshd, encryption
        self._log = folder / "borgcube.log"
        self._env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "BORGCUBE_HOME": str(folder / "home"),
        }
        if "PYTHONPATH" in os.environ:  # a checkout that is not the installed one
            self._env["PYTHONPATH"] = os.environ["PYTHONPATH"]
        self._clients: set[str] = set()
        self._command("init")
        with (folder / "serve.log").open("ab") as out:
            self._daemon = subprocess.Popen(
                [_script("borgcube"), "serve"],
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait_until_reachable()
            self._add_client("alpha")
        except BaseException:
            self.stop()
            raise

    @property
    def daemon_pid(self) -> int:
        """The number of the daemon's process."""
        return self._daemon.pid

    def _command(self, *words: str) -> None:
        code = _run([_script("borgcube"), *words], self._env, self._log, 120)
        if code != 0:
            raise RuntimeError(f"borgcube {' '.join(words[:2])} ended with {code}: see {self._log}")

    def _wait_until_reachable(self) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end and self._daemon.poll() is None:
            listing = [_script("borgcube"), "repository", "list"]
            if _run(listing, self._env, self._log, 30) == 0:
                return
            time.sleep(0.3)
        raise RuntimeError(f"the daemon did not answer: see {self._folder / 'serve.log'}")

    def _add_client(self, name: str) -> None:
        self._command(
            *("client", "add", name, "--transport", "openssh", "--host", "127.0.0.1"),
            *("--port", str(self._sshd.port), "--user", self._sshd.user),
            *("--identity", str(self._sshd.identity), "--borg", _script("borg")),
            "--accept-host-key",
        )
        self._clients.add(name)

    def add_source(self, label: str, source: Path, *, client: str) -> None:
        """Add the client, if it is new, and its plan."""
        if client not in self._clients:
            self._add_client(client)
        self._command(
            *("plan", "add", f"{label}{client}", "--client", client, "--repository", label),
            *("--path", str(source), "--compression", COMPRESSION),
        )

    def new_repository(self, label: str, source: Path) -> None:
        """Make a repository and a plan of the same name."""
        where = str(self._folder / label)
        self._command(
            *("repository", "create", label, "--path", where, "--encryption", self._encryption)
        )
        self._command(
            *("plan", "add", label, "--client", "alpha", "--repository", label),
            *("--path", str(source), "--compression", COMPRESSION),
        )

    def backup(self, label: str, *, clients: Sequence[str] = ("",)) -> Result:
        """Run `borgcube backup --wait`; client: sshd sessions; server: daemon and command."""
        plans = [f"{label}{client}" for client in clients]
        return _timed(
            [([_script("borgcube"), "backup", *plans, "--wait"], self._env)],
            log=self._log,
            root_side="server",
            roots={"client": [self._sshd.pid], "server": [self._daemon.pid]},
            sshd=self._sshd,
        )

    def stop(self) -> None:
        """End the daemon; it ends its own children."""
        self._daemon.terminate()
        try:
            self._daemon.wait(60)
        except subprocess.TimeoutExpired:
            self._daemon.kill()
            self._daemon.wait(10)
