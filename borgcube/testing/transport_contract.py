"""The contract of transports as tests: subclass it and give the ``reach`` fixture.

``reach`` yields ``(transport, address, context)`` of a client that can be logged in to.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from borgcube.core.errors import JobFailed
from borgcube.core.transports import ClientAddress, Connection, Transport, TransportContext

Reach = tuple[Transport, ClientAddress, TransportContext]


def running_with(marker: str) -> bool:
    """Whether a process with ``marker`` as one of its arguments runs on this machine."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cmdline()[-1:] == [marker]:
                return True
    return False


def becomes(condition: Callable[[], bool], *, within_s: float = 8.0) -> bool:
    """Wait until ``condition`` holds; False when it does not in time."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


class TransportContract:
    """Every transport passes these."""

    @pytest.fixture
    def connection(self, reach: Reach) -> Iterator[Connection]:
        transport, address, context = reach
        connection = transport.connect(address, context)
        yield connection
        connection.close()

    def test_exit_codes_arrive(self, connection: Connection) -> None:
        for code in (0, 1, 77, 255):
            assert connection.run(["sh", "-c", f"exit {code}"]).exit_code == code

    def test_arguments_arrive_exactly(self, connection: Connection) -> None:
        arguments = ["a b", "", "'", '"', "x\ny", "$HOME", "*", "`id`", "\\", "-n", "ä", "!#~;&|"]
        result = connection.run(["printf", "%s\\0", *arguments])
        assert result.stdout.decode().split("\0")[:-1] == arguments

    def test_stdin_bytes_and_file(self, connection: Connection, tmp_path: Path) -> None:
        data = os.urandom(300_000)
        file = tmp_path / "input"
        file.write_bytes(data)
        assert connection.run(["cat"], stdin=data).stdout == data
        assert connection.run(["cat"], stdin=file).stdout == data
        several: list[bytes | Path] = [b"first", file, b"", b"last"]
        assert connection.run(["cat"], stdin=several).stdout == b"first" + data + b"last"
        assert connection.run(["cat"]).stdout == b""

    def test_streams_stay_apart(self, connection: Connection) -> None:
        result = connection.run(["sh", "-c", "echo out; echo err >&2"])
        assert (result.stdout, result.stderr) == (b"out\n", b"err\n")

    def test_fifty_megabytes_both_ways(self, connection: Connection) -> None:
        block = os.urandom(1 << 20)
        process = connection.start(["cat"])

        def feed() -> None:
            with os.fdopen(process.stdin_fd, "wb") as stream:
                for _ in range(50):
                    stream.write(block)

        feeder = threading.Thread(target=feed)
        feeder.start()
        seen, expected = hashlib.sha256(), hashlib.sha256()
        with os.fdopen(process.stdout_fd, "rb") as stream:
            while data := stream.read(1 << 20):
                seen.update(data)
        feeder.join(30)
        for _ in range(50):
            expected.update(block)
        assert seen.digest() == expected.digest()
        assert process.wait(10) == 0
        os.close(process.stderr_fd)

    def test_timeout_kills(self, connection: Connection) -> None:
        marker = f"91{time.time_ns() % 10**9}"
        with pytest.raises(JobFailed) as failure:
            connection.run(["sleep", marker], timeout_s=1)
        assert failure.value.cause.kind == "timeout"
        assert becomes(lambda: not running_with(marker))

    def test_output_is_cut_and_drained(self, connection: Connection) -> None:
        result = connection.run(["head", "-c", "5000000", "/dev/zero"], max_output=1000)
        assert (result.exit_code, len(result.stdout)) == (0, 1000)

    def test_terminate_and_close_leave_no_process(self, connection: Connection) -> None:
        for end in ("terminate", "close"):
            marker = f"92{time.time_ns() % 10**9}"
            process = connection.start(["sh", "-c", 'sleep "$0"; true', marker])
            assert becomes(lambda m=marker: running_with(m))  # type: ignore[misc]
            if end == "terminate":
                process.terminate()
            else:
                connection.close()
            assert becomes(lambda m=marker: not running_with(m)), end  # type: ignore[misc]
            for descriptor in (process.stdin_fd, process.stdout_fd, process.stderr_fd):
                os.close(descriptor)

    def test_two_commands_at_once(self, connection: Connection) -> None:
        first, second = connection.start(["cat"]), connection.start(["cat"])
        for process, text in ((second, b"two"), (first, b"one")):
            os.write(process.stdin_fd, text)
            assert os.read(process.stdout_fd, 10) == text
            os.close(process.stdin_fd)
            assert os.read(process.stdout_fd, 10) == b""
            assert process.wait(10) == 0
            os.close(process.stdout_fd)
            os.close(process.stderr_fd)
