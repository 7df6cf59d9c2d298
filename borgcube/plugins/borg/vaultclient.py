"""A worker's side of a vault session, and of questions without one."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from borgcube.core.engines import FileStream
from borgcube.core.errors import (
    BorgCubeError,
    FailureCause,
    InvalidInput,
    JobCancelled,
    JobFailed,
    NotFound,
    Problem,
    Unreadable,
)
from borgcube.plugins.borg.wire import HEADER, JSON, Wire, WireError

ANSWER_TIMEOUT_S = 3600.0
CONNECT_TIMEOUT_S = 60.0
CHECK_EVERY_S = 0.2
MAX_ANSWER = 1 << 16


class VaultSession:
    """An open session; ending the connection ends it. Raises JobFailed with the vault's cause."""

    def __init__(
        self, socket_path: str | Path, request: dict[str, Any],
        *, check: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        """Begin one; ``check`` raises JobCancelled when the job is to stop, however long the
        vault takes to answer."""
        self.socket_path = str(socket_path)
        self._check = check or (lambda: None)
        self._over = threading.Event()
        self._wire = self._connect()
        if check is not None:
            threading.Thread(target=self._watch, name="cancel", daemon=True).start()
        try:
            self.terms = self._ask(request)
        except BaseException:
            self.close()
            raise

    def _watch(self) -> None:
        """Cut the connection when the job is cancelled: whoever waits for an answer wakes."""
        while not self._over.wait(CHECK_EVERY_S):
            try:
                self._check()
            except JobCancelled:
                try:
                    self._wire.sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
                return

    def _connect(self) -> Wire:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(CONNECT_TIMEOUT_S)
        try:
            sock.connect(self.socket_path)
            sock.settimeout(ANSWER_TIMEOUT_S)
        except OSError as error:
            raise JobFailed(
                "vault-lost",
                Problem.SERVER,
                f"The vault does not answer: {error.strerror or error}.",
                next_step="Run the job again; the vault's log says why.",
            ) from error
        return Wire(sock)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        return self.hear(request)

    def hear(self, request: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the vault's next answer, to ``request`` if there is one."""
        try:
            if request is not None:
                self._wire.send_json(request)
            answer = self._wire.receive_json()
        except WireError as error:
            self._check()
            raise JobFailed(
                "vault-lost",
                Problem.SERVER,
                "The vault ended while the job ran.",
                next_step="Run the job again; the vault's log says why.",
            ) from error
        if "error" in answer:
            cause = FailureCause.from_data(answer["error"])
            raise JobFailed(cause.kind, cause.problem, cause.message, next_step=cause.next_step)
        return answer

    def data_socket(self) -> socket.socket:
        """Return a connection attached to this session, for the gate to inherit."""
        wire = self._connect()
        wire.send_json({"attach": self.terms["token"]})
        wire.sock.settimeout(None)
        return wire.sock

    def end(self, *, discard: bool = False) -> dict[str, Any] | None:
        """End the session and return what the vault admitted, or None.

        With ``discard``, chunks that reached no archive are not kept for the next run.
        Raises JobFailed with the vault's cause, which does not name the client.
        """
        result = self._ask({"op": "end", "discard": discard}).get("result")
        self.close()
        if isinstance(result, dict) and "error" in result:
            cause = FailureCause.from_data(result["error"])
            raise JobFailed(cause.kind, cause.problem, cause.message, next_step=cause.next_step)
        return result

    def close(self) -> None:
        """Drop the connection; safe to repeat."""
        self._over.set()
        self._wire.close()


def ask(
    socket_path: str | Path, request: dict[str, Any], *, check: Callable[[], None] | None = None
) -> dict[str, Any]:
    """Ask one question; raises JobFailed with the vault's cause, and what ``check`` raises."""
    session = VaultSession(socket_path, request, check=check)
    session.close()
    return session.terms


def follow(
    socket_path: str | Path, request: dict[str, Any], *,
    on_progress: Callable[[dict[str, Any]], None], check: Callable[[], None] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Ask for work that reports its progress; return its last answer.

    The work ends when ``on_progress`` raises. Raises JobFailed with the vault's cause.
    """
    session = VaultSession(socket_path, request, check=check)
    try:
        answer = session.terms
        while "progress" in answer:
            on_progress(answer["progress"])
            answer = session.hear()
        return answer
    finally:
        session.close()


def delete_archives(
    socket_path: str, names: list[str], *, check: Callable[[], None] | None = None
) -> dict[str, str]:
    """Delete archives; return name -> archive ID of those that were there."""
    answer = ask(socket_path, {"op": "delete", "archives": names}, check=check)
    deleted: dict[str, str] = answer["deleted"]
    return deleted


def open_file(socket_path: str | Path, *, archive_id: str, key: str) -> FileStream:
    """Ask for one file's content; see ``core.engines.Engine.open_file``.

    Not through :class:`Wire`: it reads ahead, and what follows the answer is the file's.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(ANSWER_TIMEOUT_S)
    try:
        sock.connect(str(socket_path))
        question = json.dumps({"op": "file", "archive": archive_id, "key": key}).encode()
        sock.sendall(HEADER.pack(len(question), JSON) + question)
        length, kind = HEADER.unpack(_exactly(sock, HEADER.size))
        if kind != JSON or length > MAX_ANSWER:
            raise ValueError("no answer")
        answer = json.loads(_exactly(sock, length))
        if "error" in answer:
            raise _refusal(FailureCause.from_data(answer["error"]))
        sock.settimeout(None)
        return FileStream(int(answer["size"]), int(answer["mtime_ns"]), sock)
    except (OSError, ValueError, KeyError) as error:
        sock.close()
        raise Unreadable(
            "The vault does not answer.", next_step="Try again in a moment."
        ) from error
    except BaseException:
        sock.close()
        raise


def _exactly(sock: socket.socket, length: int) -> bytes:
    got = bytearray()
    while len(got) < length:
        more = sock.recv(length - len(got))
        if not more:
            raise ValueError("the vault ended")
        got += more
    return bytes(got)


def _refusal(cause: FailureCause) -> BorgCubeError:
    kinds = {"file-missing": NotFound, "file-not-regular": InvalidInput}
    return kinds.get(cause.kind, Unreadable)(cause.message, next_step=cause.next_step, field="key")
