"""The console as a process of its own, with a store that a ZEO server shares."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from borgcube.core.store import Store
from borgcube.testing.consolerig import PASSWORD, ConsoleRig
from tests.functional.console.conftest import FAKE, REAL, add_fleet
from tests.functional.console.test_live import Socket, finished

RUNZEO = Path(sys.executable).with_name("runzeo")


class SharedRig(ConsoleRig):
    """A ZEO server, a daemon without a console, and the console beside it."""

    def __init__(self, place: Path) -> None:
        self.socket = place / "zeo.sock"
        super().__init__(place, python_path=(str(FAKE),), disabled=REAL)
        path = self.home / "borgcube.toml"
        text = path.read_text().replace("enabled = true", "enabled = false")
        path.write_text(f'{text}[store]\nuri = "zeo://{self.socket}?wait_timeout=20"\n')
        self.zeo: subprocess.Popen[bytes] | None = None
        self.console: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self.zeo is None:
            self.zeo = subprocess.Popen(
                [str(RUNZEO), "-a", str(self.socket), "-f", str(self.place / "shared.fs")],
                cwd=self.place, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=(self.place / "zeo.log").open("ab"),
            )  # fmt: skip
            # The daemon waits for its store for some seconds only, and has less to do at its start.
            deadline = time.monotonic() + 60
            while not self.socket.is_socket():
                assert self.zeo.poll() is None, (self.place / "zeo.log").read_text()
                assert time.monotonic() < deadline, "the store does not answer"
                time.sleep(0.05)
        self.start_daemon()
        self.console = subprocess.Popen(
            [sys.executable, "-m", "borgcube", "console", "serve"], env=self.env,
            stdin=subprocess.DEVNULL, stderr=(self.place / "console.log").open("ab"),
        )  # fmt: skip
        self.wait_for_console(self.console)

    def stop(self) -> None:
        super().stop()
        for process in (self.console, self.zeo):
            if process is not None:
                process.terminate()
                process.wait(60)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedRig]:
    with SharedRig(tmp_path_factory.mktemp("shared")) as rig:
        add_fleet(rig)
        yield rig


def test_what_a_button_did_is_on_the_next_page(shared: SharedRig) -> None:
    visitor = shared.visitor("ada")
    for number in range(20):
        made = visitor.post("/plans/+add", {
            "name": f"p{number}", "client": "web", "repository": "main", "paths": "/etc",
            "files_cache": "ctime,size", "compression": "lz4",
        })  # fmt: skip
        assert made.status == 303, made.text
        assert visitor.get(made.location).status == 200, f"plan {number} is not there yet"
    started = visitor.post("/plans/p0/backup")
    job = started.location.rsplit("/", 1)[-1]
    assert shared.ended(job)["state"] == "done"
    assert "p0" in visitor.get(started.location).text


def test_the_console_outlives_a_daemon_that_is_restarted(shared: SharedRig) -> None:
    visitor = shared.visitor("vera")
    feed = Socket(visitor)
    feed.until(lambda: feed.messages)
    shared.stop_daemon()
    assert visitor.get("/plans/web-etc").status == 200
    away = shared.visitor("").log_in("ada", PASSWORD)
    assert away.status == 400 and "No daemon answers" in away.text
    shared.start_daemon()
    deadline = time.monotonic() + 60
    while shared.visitor("").log_in("ada", PASSWORD).status != 303:
        assert time.monotonic() < deadline
    assert visitor.get("/").status == 200
    job = shared.call("backup.start", plan="web-etc")["job_id"]
    finished(feed, job)
    feed.socket.close()


def test_the_console_cannot_write_to_the_store(shared: SharedRig) -> None:
    code = (
        "import sys; from borgcube.core.store import Store; s = Store.join(sys.argv[1])\n"
        "with s.transact() as root: root.settings['server_id'] = 'changed'\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, f"zeo://{shared.socket}"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode != 0 and "ReadOnlyError" in done.stderr


@pytest.mark.parametrize(
    ("changed", "said"),
    [("enabled = true", "console.enabled is true"), ("", "belongs to one process")],
)
def test_what_stands_in_the_way_is_said(tmp_path: Path, changed: str, said: str) -> None:
    rig = ConsoleRig(tmp_path)
    path = rig.home / "borgcube.toml"
    path.write_text(path.read_text().replace("enabled = true", changed))
    done = subprocess.run(
        [sys.executable, "-m", "borgcube", "console", "serve"], env=rig.env,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and said in done.stderr


def test_what_was_committed_before_is_always_seen(shared: SharedRig) -> None:
    writer = Store.open(f"zeo://{shared.socket}")
    reader = Store.join(f"zeo://{shared.socket}")
    try:
        for number in range(300):
            with writer.transact() as root:
                root.plugins["test"] = number
            with reader.reading() as root:
                assert root.plugins["test"] == number
    finally:
        reader.close()
        writer.close()
