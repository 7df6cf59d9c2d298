"""A file of an archive is downloaded: its very bytes, or a failure that is seen."""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from borgcube.testing.consolerig import ConsoleRig, Visitor
from borgcube.web.downloads import disposition, safe_name

LARGE = random.Random(7).randbytes(20_000_000)


class Real:
    """A console over real borg, with one archive of a few files."""

    def __init__(self, rig: ConsoleRig) -> None:
        self.rig = rig
        self.tree = rig.place / "tree"
        self.tree.mkdir()
        (self.tree / "large").write_bytes(LARGE)
        os.link(self.tree / "large", self.tree / "second name")
        (self.tree / "empty").touch()
        (self.tree / 'odd "\xfc".txt').write_bytes(b"odd\n")
        (self.tree / "link").symlink_to("large")
        rig.call("repository.create", name="main", path=str(rig.place / "repo"),
                 encryption="repokey")  # fmt: skip
        rig.call("client.add", name="here", transport="local",
                 borg=str(Path(sys.executable).with_name("borg")))  # fmt: skip
        rig.call("plan.add", name="p", client="here", repository="main", paths=[str(self.tree)])
        rig.user("ada")
        job = rig.ended(rig.call("backup.start", plan="p")["job_id"], timeout_s=120)
        assert job["state"] == "done", job
        self.archive = rig.call("archive.list")[0]
        self.path = f"/archives/main/{self.archive['id']}/content"

    def key(self, name: str) -> str:
        return quote(f"{self.tree}/{name}".lstrip("/"))

    def address(self, name: str) -> str:
        return f"{self.path}?key={quote(self.key(name))}"

    def readers(self) -> int:
        return len(list((self.rig.home / "run" / "reads").glob("*")))

    def cat(self, path: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "borgcube", "archive", "cat", self.archive["name"], path],
            env=self.rig.env, capture_output=True, timeout=110, check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    with ConsoleRig(tmp_path_factory.mktemp("download")) as rig:
        yield Real(rig)


def wait_for(look: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not look():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


def test_a_file_comes_as_it_was_backed_up_over_the_console_the_api_and_the_command_line(
    real: Real,
) -> None:
    visitor = real.rig.visitor("ada")
    answer = visitor.get(real.address("large"))
    assert answer.status == 200 and answer.body == LARGE
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith('attachment; filename="large"')
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    # The further name of a hard link has no content of its own in the archive.
    assert visitor.get("/api/v1" + real.address("second name")).body == LARGE
    assert visitor.get(real.address("empty")).body == b""
    odd = visitor.get(real.address('odd "\xfc".txt'))
    assert odd.body == b"odd\n" and '"odd ___.txt"' in odd.headers["content-disposition"]
    head = visitor.ask("HEAD", real.address("large"))
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(LARGE)))
    done = real.cat(f"{real.tree}/large")
    assert done.returncode == 0 and done.stdout == LARGE, done.stderr
    wait_for(lambda: real.readers() == 0)
    listed = json.loads(visitor.get("/api/v1/audit?limit=100").text)["items"]
    trail = [one for one in listed if one["action"] == "archive.download"]
    assert {one["via"] for one in trail} == {"console", "command line"}
    assert any(one["subject"].endswith("/large") and one["user"] == "ada" for one in trail)


def test_what_is_no_file_is_refused_in_words(real: Real) -> None:
    visitor = real.rig.visitor("ada")
    for name, status, said in (
        ("link", 400, "a symbolic link"), ("", 400, "a directory"), ("nothing", 404, "no such file")
    ):  # fmt: skip
        answer = visitor.get(real.address(name))
        assert answer.status == status and said in answer.text, name
    problem = json.loads(visitor.get("/api/v1" + real.address("link")).text)
    assert problem["kind"] == "invalid-input" and problem["field"] == "key"
    done = real.cat("nothing")
    assert done.returncode == 2 and not done.stdout and b"no such file" in done.stderr
    wait_for(lambda: real.readers() == 0)


def stalled(visitor: Visitor, path: str) -> socket.socket:
    """Ask for a file and take its first bytes only."""
    sock = socket.create_connection(("127.0.0.1", visitor.port), 60)
    cookies = "; ".join(f"{name}={value}" for name, value in visitor.cookies.items())
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{visitor.port}\r\n"
                 f"Cookie: {cookies}\r\n\r\n".encode())  # fmt: skip
    assert sock.recv(12) == b"HTTP/1.1 200"
    return sock


def test_a_reader_that_leaves_makes_room_and_there_are_no_more_than_four(real: Real) -> None:
    visitor = real.rig.visitor("ada")
    readers = [stalled(visitor, real.address("large")) for _ in range(4)]
    refused = visitor.get("/api/v1" + real.address("empty"))
    assert refused.status == 429 and "being read already" in refused.text
    # Pages are served meanwhile, and the archive that is read stays.
    assert visitor.get("/").status == 200
    for one in readers:
        one.close()
    wait_for(lambda: real.readers() == 0)
    assert visitor.get(real.address("empty")).status == 200


def test_damage_in_the_middle_breaks_the_transfer_and_at_the_beginning_refuses_it(
    real: Real,
) -> None:
    (segment,) = [path for path in (real.rig.place / "repo" / "data").rglob("*")
                  if path.is_file() and path.stat().st_size > len(LARGE)]  # fmt: skip
    visitor = real.rig.visitor("ada")

    def flip(at: int) -> None:
        with segment.open("r+b") as file:
            file.seek(at)
            (byte,) = file.read(1)
            file.seek(at)
            file.write(bytes([byte ^ 1]))

    def tried(at: int) -> bytes:
        """What arrives before the transfer breaks; nothing when it was refused in words."""
        flip(at)
        try:
            assert visitor.get(real.address("large")).status == 400, "damage was sent as sound"
        except http.client.IncompleteRead as broken:
            return broken.partial
        flip(at)
        return b""

    # Chunks are stored in any order: one of these places may be in the first of the file.
    size = segment.stat().st_size
    for middle in (size // 2, size // 8, size * 7 // 8):
        arrived = tried(middle)
        if arrived:
            break
    assert arrived and LARGE.startswith(arrived)
    done = real.cat(f"{real.tree}/large")
    assert done.returncode == 2 and b"bytes are missing" in done.stderr
    assert LARGE.startswith(done.stdout) and len(done.stdout) < len(LARGE)
    flip(middle)
    assert visitor.get(real.address("large")).body == LARGE
    # Every chunk, because they are not stored in the order of the file.
    everywhere = range(100_000, segment.stat().st_size, 100_000)
    for at in everywhere:
        flip(at)
    answer = visitor.get(real.address("large"))
    assert answer.status == 400 and "cannot be read" in answer.text
    assert visitor.get("/api/v1" + real.address("large")).status == 409
    for at in everywhere:
        flip(at)
    wait_for(lambda: real.readers() == 0)


def test_an_archive_is_deleted_only_when_nobody_reads_from_it_any_more(real: Real) -> None:
    reader = stalled(real.rig.visitor("ada"), real.address("large"))
    job = real.rig.call("archive.delete", names=[real.archive["name"]])["job_id"]
    wait_for(lambda: real.rig.call("job.show", id=job)["phase"])
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        assert not real.rig.call("job.show", id=job)["finished_at"]
        time.sleep(0.1)
    assert real.rig.call("archive.list")
    reader.close()
    assert real.rig.ended(job)["state"] == "done" and not real.rig.call("archive.list")


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("etc/passwd", "passwd"), ("a/b%2Fc", "b_c"), ("x/%0D%0AX-Evil:%201", "__X-Evil_ 1"),
        ("%E2%80%AEtxt.exe", "_txt.exe"), ("x/..", "file"), ("", "file"), ("a/.bashrc", ".bashrc"),
        ("a/%FF", "\N{REPLACEMENT CHARACTER}"), ("n" * 400 + ".tar.gz", "n" * 147 + ".gz"),
    ],
)  # fmt: skip
def test_a_name_to_save_under_is_harmless(key: str, name: str) -> None:
    assert safe_name(key) == name
    header = disposition(safe_name(key))
    assert header.isascii() and header.isprintable() and header.count('"') == 2
