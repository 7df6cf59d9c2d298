"""The framed stream between worker, gate and vault."""

from __future__ import annotations

import socket
import struct
import threading
import time

import pytest

from borgcube.plugins.borg.wire import JSON, MAX_FRAME, Wire, WireError


def pair() -> tuple[Wire, Wire]:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return Wire(left), Wire(right)


def test_frames_arrive_as_they_were_sent() -> None:
    left, right = pair()
    left.send(JSON, b"{}", b"")
    left.send(65, b"a" * 300_000, memoryview(b"b"))
    assert right.receive() == (JSON, b"{}")
    assert right.receive() == (65, b"a" * 300_000 + b"b")


@pytest.mark.parametrize("before_reading", [True, False])
def test_closing_from_another_thread_ends_reading_as_a_closed_stream(before_reading: bool) -> None:
    """A session's end closes the wire that its data thread reads: no other error may come."""
    _left, right = pair()
    caught: list[BaseException] = []

    def read() -> None:
        if before_reading:
            time.sleep(0.1)
        try:
            right.receive()
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    time.sleep(0 if before_reading else 0.1)
    right.close()
    thread.join(5)
    assert not thread.is_alive()
    assert [type(error) for error in caught] == [WireError]
    with pytest.raises(WireError):
        right.send(JSON, b"{}")


@pytest.mark.parametrize(
    "stream",
    [b"", b"\0", struct.pack(">IB", MAX_FRAME + 1, JSON), struct.pack(">IB", 10, JSON) + b"short"],
)
def test_broken_streams_are_refused(stream: bytes) -> None:
    left, right = pair()
    left.sock.sendall(stream)
    left.close()
    with pytest.raises(WireError):
        right.receive()


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_frames_that_are_no_json_object_are_refused(payload: bytes) -> None:
    left, right = pair()
    left.send(JSON, payload)
    with pytest.raises(WireError):
        right.receive_json()
