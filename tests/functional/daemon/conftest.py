"""A whole BorgCube: a daemon with its real plugins, a repository, a private sshd, the CLI."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from borgcube.cli import main as command_line
from borgcube.cli.control import Control
from borgcube.core.errors import BorgCubeError
from borgcube.core.home import init_home
from borgcube.testing.sshd import PrivateSSHD

ROOT = Path(__file__).parents[3]
STOCK_BORG = str(Path(sys.executable).with_name("borg"))
DEBIAN_BORG = "/usr/bin/borg"
ENDED = ("done", "warning", "failed", "cancelled", "lost")


class Cube:
    """A home, its daemon and what a test does with them."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.home = place / "home"
        self.repository = place / "repository"
        self.clients_tmp = place / "tmp"  # where the local client keeps session directories
        self.clients_tmp.mkdir()
        self.sshd = PrivateSSHD(place / "sshd")
        self.python_path = [str(ROOT)]
        self.more_env: dict[str, str] = {}
        self.daemon: subprocess.Popen[bytes] | None = None

    @property
    def env(self) -> dict[str, str]:
        return {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.place), "LANG": "C.UTF-8", "BORGCUBE_HOME": str(self.home),
            "PYTHONPATH": ":".join(self.python_path), "TMPDIR": str(self.clients_tmp),
            **self.more_env,
        }  # fmt: skip

    def cli(
        self, *words: str, stdin: str = "", timeout_s: float = 110
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "borgcube", *words], env=self.env, input=stdin,
            capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip

    def ok(self, *words: str, timeout_s: float = 110) -> str:
        done = self.cli(*words, timeout_s=timeout_s)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def arrange(self, *words: str) -> str:
        """Run a command in this process, for what a test needs to have and is not about:
        the same command line and daemon, without a Python that starts and imports first."""
        said, complained = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
            code = command_line.run(["--home", str(self.home), *words])
        assert code == 0, (words, said.getvalue(), complained.getvalue())
        return said.getvalue()

    def refused(self, *words: str, code: int = 2) -> str:
        """Run a command that must be refused with one line; return that line."""
        done = self.cli(*words)
        assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
        lines = done.stderr.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("borgcube: "), done.stderr
        return lines[0]

    def call(self, method: str, **params: Any) -> Any:
        with Control(self.home) as control:
            return control.call(method, **params)

    def state_dir(self, repository: str = "main") -> Path:
        """Where the engine keeps what belongs to one repository; the daemon runs."""
        found = self.call("repository.show", name=repository)
        return self.home / "engines" / "borg" / "repositories" / str(found["id"])

    @property
    def own_state_dir(self) -> Path:
        """The same of the only repository there is; the daemon may be stopped."""
        (found,) = (self.home / "engines" / "borg" / "repositories").iterdir()
        return found

    def start(self) -> None:
        self.daemon = subprocess.Popen(
            [sys.executable, "-m", "borgcube", "serve"], env=self.env,
            stdin=subprocess.DEVNULL, stderr=(self.place / "serve.log").open("ab"),
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(BorgCubeError, OSError):
                self.call("ping")
                return
            assert self.daemon.poll() is None, (self.place / "serve.log").read_text()
            assert time.monotonic() < deadline, "the daemon does not answer"
            time.sleep(0.05)

    def stop(self) -> None:
        if self.daemon is not None:
            self.daemon.terminate()
            assert self.daemon.wait(90) == 0
            self.daemon = None

    def ssh_client(self, name: str, *, transport: str = "openssh", borg: str = STOCK_BORG) -> None:
        self.arrange(
            "client", "add", name, "--transport", transport, "--host", "127.0.0.1",
            "--port", str(self.sshd.port), "--user", self.sshd.user,
            "--identity", str(self.sshd.identity), "--borg", borg, "--accept-host-key",
        )  # fmt: skip

    def local_client(self, name: str, *, borg: str = STOCK_BORG) -> None:
        self.arrange("client", "add", name, "--transport", "local", "--borg", borg)

    def plan(self, name: str, *paths: Path, client: str, extra: tuple[str, ...] = ()) -> None:
        self.arrange(
            "plan", "add", name, "--client", client, "--repository", "main",
            *(word for path in paths for word in ("--path", str(path))), *extra,
        )  # fmt: skip

    def begin(self, plan: str) -> str:
        return str(self.call("backup.start", plan=plan)["job_id"])

    def until(self, job_id: str, condition: Any, *, timeout_s: float = 60) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            job: dict[str, Any] = self.call("job.show", id=job_id)
            if condition(job):
                return job
            time.sleep(0.05)
        log = "\n".join(self.call("job.log", id=job_id)["lines"])
        raise AssertionError(f"job stays {job}\n{log}")

    def ended(self, job_id: str, *, timeout_s: float = 60) -> dict[str, Any]:
        return self.until(job_id, lambda job: job["state"] in ENDED, timeout_s=timeout_s)

    def transferring(self, job_id: str) -> dict[str, Any]:
        """Wait until a backup has sent something, so that it can be disturbed."""
        return self.until(
            job_id,
            lambda job: job["phase"] == "transferring" and job["progress"].get("bytes_new", 0) > 0,
        )

    def backup(self, plan: str, *, state: str = "done") -> dict[str, Any]:
        job = self.ended(self.begin(plan))
        assert job["state"] == state, (job["cause"], job["warnings"])
        return job

    def part(self, module: str) -> psutil.Process:
        """Return the one process of the daemon's that runs a module."""
        found = self.part_or_none(module)
        assert found is not None, module
        return found

    def part_or_none(self, module: str) -> psutil.Process | None:
        """Return it, or None when there is none."""
        assert self.daemon is not None
        found = []
        for process in psutil.Process(self.daemon.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):  # it ends while we look
                if f"borgcube.{module}" in process.cmdline():
                    found.append(process)
        assert len(found) <= 1, found
        return found[0] if found else None

    def session_directories(self) -> list[Path]:
        """Return what sessions left on the clients, which share the temporary directory."""
        server = self.call("ping")["server_id"]
        return [
            path
            for base in (self.clients_tmp, Path(tempfile.gettempdir()))
            for path in base.glob(f"borgcube-{server}-*")
        ]

    def plain_borg(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run borg without BorgCube; the daemon must be stopped."""
        assert self.daemon is None
        env = {
            **self.env, "BORG_PASSPHRASE": "correct horse",
            "BORG_BASE_DIR": str(self.place / "plain"),
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
        }  # fmt: skip
        return subprocess.run(
            [STOCK_BORG, *words], env=env, capture_output=True, text=True, timeout=110,
            cwd=self.place, check=False,
        )  # fmt: skip

    def check_clean(self) -> None:
        """Stop BorgCube and let plain borg verify all data."""
        self.stop()
        done = self.plain_borg("check", "--verify-data", str(self.repository))
        assert done.returncode == 0 and not done.stderr.strip(), done.stderr


@contextmanager
def bare_cube() -> Iterator[Cube]:
    """Make a place with nothing in it yet but a running sshd, and leave nothing of it."""
    with tempfile.TemporaryDirectory(prefix="bcf", ignore_cleanup_errors=True) as name:
        cube = Cube(Path(name))
        with cube.sshd:
            try:
                yield cube
            finally:
                if cube.daemon is not None:
                    cube.daemon.terminate()
                    try:
                        cube.daemon.wait(60)
                    except subprocess.TimeoutExpired:
                        cube.daemon.kill()


def set_up(cube: Cube) -> Cube:
    """Start the daemon and create the encrypted repository ``main``."""
    init_home(cube.home)
    cube.start()
    secret = cube.place / "secret"
    secret.write_text("correct horse\n")
    cube.arrange(
        "repository", "create", "main", "--path", str(cube.repository),
        "--encryption", "repokey", "--passphrase-file", str(secret),
    )  # fmt: skip
    return cube


@pytest.fixture
def bare() -> Iterator[Cube]:
    """A place with nothing in it yet but a running sshd."""
    with bare_cube() as cube:
        yield cube


@pytest.fixture
def cube(bare: Cube) -> Cube:
    """A running daemon with an encrypted repository ``main``."""
    return set_up(bare)
