"""The demonstration behind ``bin/demo``: real backups over real SSH, and every byte back.

It uses the ``borgcube`` command as a person would, in a directory that it throws away.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from borgcube.cli import output
from borgcube.cli.access import console_url
from borgcube.cli.control import Control
from borgcube.core.errors import BorgCubeError
from borgcube.testing.sshd import PrivateSSHD
from borgcube.testing.trees import compare_trees, make_nasty_tree

DOCUMENTS = Path("/usr/share/doc")
REAL_SECOND = (DOCUMENTS, Path("/usr/lib/python3"))
READ_ALLOWANCE = 64 << 20  # what a borg reads to start: Python, its own modules, the cache


class Difference(Exception):
    """Something is not as it must be; the message says what."""


class ReadMeter(threading.Thread):
    """Measures how many bytes the borg below an sshd reads, from /proc, while it runs."""

    def __init__(self, sshd_pid: int) -> None:
        super().__init__(name="read-meter", daemon=True)
        self._sshd = psutil.Process(sshd_pid)
        self._done = threading.Event()
        self._read: dict[int, int] = {}

    def run(self) -> None:
        """Look fifty times a second."""
        while not self._done.wait(0.02):
            for process in self._sshd.children(recursive=True):
                try:
                    if "create" in process.cmdline():
                        self._read[process.pid] = process.io_counters().read_chars
                except psutil.Error:
                    continue

    def finish(self) -> int:
        """Return the bytes that the largest reader read."""
        self._done.set()
        self.join(5)
        return max(self._read.values(), default=0)


def console_port() -> int:
    """Return the console's usual port if it is free, else another one."""
    for wanted in (8420, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", wanted))
            except OSError:
                continue
            port: int = probe.getsockname()[1]
            return port
    raise Difference("no port is free on the loopback")


class Demo:
    """The parts of a running demonstration."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.home = place / "home"
        self.repository = place / "repository"
        self.tree = place / "alpha"
        self.env = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
            "HOME": str(place / "user"), "LANG": "C.UTF-8",
            "TERM": os.environ.get("TERM", "dumb"), "BORGCUBE_HOME": str(self.home),
        }  # fmt: skip
        self.sshd = PrivateSSHD(place / "sshd")
        self.daemon: subprocess.Popen[bytes] | None = None
        self.proved: list[str] = []

    def borgcube(self, *words: str, allowed: Sequence[int] = (0,), show: bool = True) -> None:
        """Run the command and show it; raises Difference when its exit code is not allowed."""
        if show:
            output.console().print(f"[bold]$[/bold] borgcube {shlex.join(words)}")
        code = subprocess.run(
            [sys.executable, "-m", "borgcube", *words], env=self.env,
            stdin=subprocess.DEVNULL, timeout=3600, check=False,
        ).returncode  # fmt: skip
        if code not in allowed:
            raise Difference(f"`borgcube {shlex.join(words)}` ended with {code}")

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        self.daemon = subprocess.Popen(
            [sys.executable, "-m", "borgcube", "serve"], env=self.env,
            stdin=subprocess.DEVNULL, stderr=(self.place / "serve.log").open("ab"),
            start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while True:
            try:
                with Control(self.home) as control:
                    control.call("ping", timeout_s=5)
                return
            except BorgCubeError:
                if self.daemon.poll() is not None or time.monotonic() > deadline:
                    raise Difference(
                        f"the daemon did not start: {(self.place / 'serve.log').read_text()}"
                    ) from None
                time.sleep(0.1)

    def stop(self) -> None:
        """Stop the daemon."""
        if self.daemon is None:
            return
        self.daemon.terminate()
        try:
            self.daemon.wait(120)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            self.daemon.wait(10)
        self.daemon = None

    def archives(self, plan: str) -> list[dict[str, object]]:
        """Return a plan's archives, newest first."""
        with Control(self.home) as control:
            found = control.call("archive.list")
        return [archive for archive in found if archive["plan"] == plan]

    def compare(self, original: Path, copy: Path) -> None:
        """Compare two trees with all metadata; raises Difference."""
        found = compare_trees(original, copy, ignore_unreadable=os.geteuid() != 0)
        if found:
            shown = "\n  ".join(output.harmless(line) for line in found[:20])
            raise Difference(f"{copy} differs from {original} in {len(found)} points:\n  {shown}")

    def set_up(self, *, big_bytes: int, small_files: int) -> None:
        """Make the trees, the home, the repository, two clients and their plans."""
        step("A tree with all that naive backup tools get wrong")
        make_nasty_tree(self.tree, big_bytes=big_bytes, small_files=small_files)
        # Borg never trusts the newest change time it saw: let that be a small file's.
        time.sleep(0.1)
        (self.tree / "newest").write_text("the newest file\n")
        Path(self.env["HOME"]).mkdir()
        step("A server, an encrypted repository and two clients")
        self.sshd.__enter__()
        self.borgcube("init", "--console", f"127.0.0.1:{console_port()}")
        self.start()
        self.borgcube("repository", "create", "main", "--path", str(self.repository))
        borg = str(Path(sys.executable).with_name("borg"))
        self.borgcube(
            "client", "add", "alpha", "--transport", "openssh", "--host", "127.0.0.1",
            "--port", str(self.sshd.port), "--user", self.sshd.user,
            "--identity", str(self.sshd.identity), "--borg", borg, "--accept-host-key",
        )  # fmt: skip
        self.borgcube("client", "test", "alpha")
        self.borgcube("client", "add", "this-server", "--transport", "local", "--borg", borg)
        self.borgcube(
            "plan", "add", "alpha", "--client", "alpha", "--repository", "main",
            "--path", str(self.tree), "--path", str(DOCUMENTS), "--sparse",
        )  # fmt: skip
        self.borgcube(
            "plan", "add", "this-server", "--client", "this-server", "--repository", "main",
            *(word for path in REAL_SECOND if path.is_dir() for word in ("--path", str(path))),
        )  # fmt: skip

    def backups(self) -> None:
        """Back up both at the same time, then alpha again unchanged."""
        fine = (0,) if os.geteuid() == 0 else (0, 1)
        step("Both clients at the same time, into the one repository")
        self.borgcube("backup", "alpha", "this-server", "--wait", allowed=fine)
        with Control(self.home) as control:
            jobs = [job for job in control.call("job.list") if job["type"] == "backup"]
        overlap = max(job["started_at"] for job in jobs) < min(j["finished_at"] for j in jobs)
        if len(jobs) != 2 or not overlap:
            raise Difference("the two backups did not run at the same time")
        self.proved.append("two clients backed up into one repository at the same time")
        time.sleep(1.1)  # files as new as the backup itself are read again, for safety
        step("Alpha again, unchanged")
        assert self.sshd.pid is not None
        meter = ReadMeter(self.sshd.pid)
        meter.start()
        self.borgcube("backup", "alpha", "--wait", allowed=fine)
        read = meter.finish()
        newest = self.archives("alpha")[0]["stats"]
        assert isinstance(newest, dict)
        held, sent = newest["size"], newest["bytes_received"]
        if not 0 < read < min(held / 2, READ_ALLOWANCE):
            raise Difference(f"borg read {output.size(read)} on the unchanged client")
        line = (
            f"unchanged: the archive holds {output.size(held)}; borg on the client read "
            f"{output.size(read)} in all (itself included) and sent {output.size(sent)}"
        )
        output.say(f"  {line}")
        self.proved.append(line)

    def restores(self) -> None:
        """Restore alpha's archive to the client and compare everything."""
        step("Restore to the client, and compare content and metadata")
        archive, target = str(self.archives("alpha")[0]["name"]), self.place / "restored"
        self.borgcube("restore", archive, "--to-client", f"alpha:{target}", "--wait")
        for original in (self.tree, DOCUMENTS):
            self.compare(original, target / str(original).lstrip("/"))
            output.say(f"  {original}: identical")
        with Control(self.home) as control:
            server = control.call("ping")["server_id"]
        left = list(Path(tempfile.gettempdir()).glob(f"borgcube-{server}-*"))
        if left:
            raise Difference(f"something is left on the client: {left}")
        self.proved.append("the restored trees are identical, with all metadata")
        self.proved.append("nothing is left on the client")

    def console(self) -> None:
        """Ask the console for its login page; it must be up and say what it is."""
        step("The console, beside the daemon")
        address = console_url(self.home)
        with urllib.request.urlopen(f"{address}/login", timeout=60) as answer:
            page = answer.read().decode()
        if "<h1>Log in</h1>" not in page:
            raise Difference(f"{address}/login does not show a login")
        self.proved.append(f"the console answered at {address}")

    def plain_borg(self) -> None:
        """Stop BorgCube; check and extract with plain borg."""
        step("BorgCube stops; plain borg checks and extracts")
        with Control(self.home) as control:
            passphrase = control.call("repository.passphrase", name="main")["passphrase"]
        archive = str(self.archives("this-server")[0]["name"])
        self.stop()
        secret = self.place / "passphrase"
        secret.touch(mode=0o600)
        secret.write_text(passphrase)
        env = {
            **{key: value for key, value in self.env.items() if key != "BORGCUBE_HOME"},
            "BORG_PASSCOMMAND": shlex.join(["cat", str(secret)]),
            "BORG_BASE_DIR": str(self.place / "borg"),
        }
        out = self.place / "extracted"
        out.mkdir()
        for words in (
            ["check", "--verify-data", "--progress", str(self.repository)],
            ["extract", f"{self.repository}::{archive}"],
        ):
            output.console().print(f"[bold]$[/bold] borg {shlex.join(words)}")
            progress = None if sys.stderr.isatty() else subprocess.PIPE
            done = subprocess.run(
                [str(Path(sys.executable).with_name("borg")), *words], env=env, cwd=out,
                stdin=subprocess.DEVNULL, stderr=progress, timeout=3600, check=False,
            )  # fmt: skip
            if done.returncode != 0:
                said = (done.stderr or b"").decode("utf-8", "replace")[-2000:]
                raise Difference(f"`borg {words[0]}` ended with {done.returncode} {said}")
        for original in REAL_SECOND:
            if original.is_dir():
                self.compare(original, out / str(original).lstrip("/"))
                output.say(f"  {original}: identical")
        self.proved.append("plain borg check --verify-data is clean without BorgCube")
        self.proved.append("plain borg extract gives the same trees")

    def close(self) -> None:
        """End what was started."""
        self.stop()
        self.sshd.stop()


def step(text: str) -> None:
    """Say what comes next."""
    output.console().print(f"\n[bold cyan]== {text}[/bold cyan]")


def _summary(demo: Demo, began: float) -> None:
    step(f"All of it held, in {time.monotonic() - began:.0f} seconds")
    for line in demo.proved:
        output.console().print(f"[green]✓[/green] {line}")


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Run the demonstration; 0 when everything held, 1 and the reason when not."""
    parser = argparse.ArgumentParser(prog="bin/demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the daemon running at the end")
    parser.add_argument("--small", action="store_true", help="less data, for a quick look")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupted)
    began = time.monotonic()
    place = Path(tempfile.mkdtemp(prefix="bcdemo-"))
    os.umask(0o022)
    demo = Demo(place)
    kept = False
    try:
        demo.set_up(
            big_bytes=(30 if options.small else 300) * 10**6,
            small_files=500 if options.small else 5000,
        )
        demo.backups()
        demo.restores()
        demo.console()
        demo.plain_borg()
        _summary(demo, began)
        if options.keep:
            demo.start()
            kept = True
            assert demo.daemon is not None
            step("It is yours")
            output.say(f"The daemon runs as process {demo.daemon.pid}. Look around with:")
            output.say(f"  export BORGCUBE_HOME={demo.home}")
            output.say("  .venv/bin/borgcube archive list")
            output.say("  .venv/bin/borgcube events --follow")
            output.say(f"The console is at {console_url(demo.home)}. To get in:")
            demo.borgcube("user", "add", "demo", "--role", "administrator", show=False)
            output.say(f"End it: kill {demo.daemon.pid} {demo.sshd.pid} && rm -rf {place}")
        return 0
    except (Difference, BorgCubeError, OSError, subprocess.SubprocessError) as error:
        output.console(stderr=True).print(f"\n[red]The demonstration failed:[/red] {error}")
        log = demo.home / "logs" / "borgcubed.log"
        if log.exists():
            output.complain("the end of the daemon's log:")
            sys.stderr.write(output.harmless_lines(log.read_text(errors="replace")[-3000:]))
        return 1
    except KeyboardInterrupt:
        output.complain("Interrupted; cleaning up.")
        return 130
    finally:
        if not kept:
            demo.close()
            _remove(place)


def _remove(place: Path) -> None:
    for path in (place, *place.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)  # trees with read-only directories
    shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
