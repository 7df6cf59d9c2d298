"""The vault process: serve sessions on a unix socket until SIGTERM.

A worker's connection stays open as long as its session; a second connection with the
session's token carries the data and is handed to the gate. The answer to a commit goes to
the gate as well as to the worker, and the worker believes only its own connection.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import logging
import os
import secrets
import signal
import socket
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from borgcube.core.errors import JobFailed, Problem
from borgcube.plugins.borg import borgenv
from borgcube.plugins.borg.malloc import keep_large_buffers
from borgcube.plugins.borg.wire import (
    COMMIT,
    DATA,
    GET,
    MANIFEST,
    PUT,
    PUT_HEADER,
    Wire,
    WireError,
)

log = logging.getLogger("borgcube.vault")


class Vault:
    """The opened repository and its sessions."""

    def __init__(self, opened: Any, state_dir: Path) -> None:
        from borgcube.plugins.borg.vault.ledger import Ledger

        self.ledger = Ledger(opened)
        self.state_dir = state_dir
        self.pool = ThreadPoolExecutor(max(2, os.cpu_count() or 2), thread_name_prefix="seal")
        self.sealing: dict[bytes, Future[None]] = {}
        self.sessions: dict[str, Any] = {}
        self.broken = ""
        self.stopping = False

    def others(self, session: Any) -> bool:
        """Tell whether another session is open."""
        return any(other is not session for other in self.sessions.values())

    def relied_upon(self, chunk_id: bytes, *, but: Any) -> bool:
        """Tell whether another session uploaded the same chunk."""
        return any(
            other.relies_on(chunk_id)
            for other in self.sessions.values()
            if other is not but and hasattr(other, "relies_on")
        )

    def check_alive(self) -> None:
        """Raise when the vault is shutting down or broken."""
        if self.stopping or self.broken:
            raise JobFailed(
                "vault-stopped",
                Problem.SERVER,
                self.broken or "The vault is stopping.",
                next_step="Run the backup again.",
            )

    def commit(self, *, finishing: Any) -> None:
        """Commit, with the chunks of every other open session referenced; under the lock."""
        partials = [
            session
            for session in self.sessions.values()
            if session is not finishing
            and hasattr(session, "write_partial")
            and session.write_partial()
        ]
        self.ledger.commit()
        for session in partials:
            session.remember_partial()

    def fail(self, error: BaseException) -> None:
        """Give up after a failed write: uncommitted chunks are gone, sessions are retried."""
        self.broken = f"The repository cannot be written: {error}."
        log.error("giving up: %s", error)
        for session in list(self.sessions.values()):
            for wire in session.wires:
                wire.close()


def _cause_of(error: BaseException) -> dict[str, Any]:
    from borgcube.plugins.borg.vault.items import ArchiveRefused

    if isinstance(error, JobFailed):
        return error.cause.as_data()
    if isinstance(error, ArchiveRefused):
        return {
            "kind": error.kind,
            "problem": "client",
            "message": str(error),
            "next_step": "Set its clock, then run the backup again; what was stored is reused."
            if error.kind == "client-clock"
            else "Look at the client: stock borg does not do this.",
        }
    if isinstance(error, OSError):
        return {
            "kind": "repository-write-failed",
            "problem": "repository",
            "message": f"The repository cannot be written: {error.strerror or error}.",
            "next_step": "Make room on its storage, then run the backup again.",
        }
    return {
        "kind": "internal-error",
        "problem": "server",
        "message": f"{type(error).__name__} in the vault.",
        "next_step": "See the vault's log.",
    }


class SessionServer:
    """Runs the conversation of one connection in its own thread."""

    def __init__(self, vault: Vault, sock: socket.socket) -> None:
        self.vault = vault
        self.wire = Wire(sock)

    def run(self) -> None:
        """Serve one worker or data connection to its end."""
        try:
            request = self.wire.receive_json()
            if "attach" in request:
                self._attach(str(request["attach"]))
            elif request.get("op") in ("backup", "restore"):
                self._session(request)
            elif request.get("op") == "delete":
                self._delete([str(name) for name in request["archives"]])
        except WireError as error:
            log.debug("connection ended: %s", error)
        except Exception:
            log.exception("a connection failed")
        finally:
            self.wire.close()

    def _session(self, request: dict[str, Any]) -> None:
        from borgcube.plugins.borg.vault.backup import BackupSession
        from borgcube.plugins.borg.vault.restore import RestoreSession

        vault, token = self.vault, secrets.token_hex(16)
        if request["op"] == "backup":
            session: Any = BackupSession(
                vault,
                token,
                archive=request["archive"],
                plan=request["plan"],
                domain=request["domain"],
                files_cache=request.get("files_cache", "ctime,size"),
                comment=request.get("comment", ""),
            )
        else:
            session = RestoreSession(
                vault,
                token,
                archive=request["archive"],
                paths=list(request["paths"]),
                harmless=bool(request.get("harmless")),
            )
        session.wires = [self.wire]
        session.keep = True
        session.lock = threading.Lock()
        try:
            vault.check_alive()
            vault.sessions[token] = session
            self.wire.send_json(session.prepare())
        except Exception as error:
            vault.sessions.pop(token, None)
            session.close()
            log.warning("session refused: %s", error)
            self.wire.send_json({"error": _cause_of(error)})
            return
        log.info("session %s of archive %s begins", token[:8], session.archive)
        try:
            # The worker says when it is over; until then it may ask for figures.
            while True:
                question = self.wire.receive_json()
                if question.get("op") == "figures":
                    self.wire.send_json(
                        {
                            "bytes_new": getattr(session, "bytes_new", 0),
                            "chunks_new": getattr(session, "chunks_new", 0),
                        }
                    )
                elif question.get("op") == "end":
                    session.keep = session.keep and not question.get("discard")
                    break
        except WireError:
            log.info("the worker of session %s is gone", token[:8])
        finally:
            self._end(session)
        try:
            self.wire.send_json({"result": session.__dict__.get("result")})
        except WireError:
            pass

    def _end(self, session: Any) -> None:
        vault = self.vault
        for wire in session.wires[1:]:
            wire.close()
        with session.lock:
            try:
                if getattr(session, "result", None) is None or "error" in session.result:
                    if hasattr(session, "abandon") and not vault.broken:
                        session.abandon() if session.keep else session.discard()
            except Exception as error:
                log.exception("session %s could not be kept as partial", session.token[:8])
                vault.fail(error)
            finally:
                vault.sessions.pop(session.token, None)
                session.close()
                log.info("session %s ends", session.token[:8])

    def _attach(self, token: str) -> None:
        session = self.vault.sessions.get(token)
        if session is None or len(session.wires) > 1:
            raise WireError("unknown or taken session")
        session.wires.append(self.wire)
        with session.lock:
            if hasattr(session, "put"):
                self._take_chunks(session)
            else:
                self._serve_chunks(session)

    def _take_chunks(self, session: Any) -> None:
        from borgcube.plugins.borg.gate.verify import Rejected
        from borgcube.plugins.borg.vault.items import ArchiveRefused

        header = PUT_HEADER.size
        try:
            while True:
                kind, payload = self.wire.receive()
                if session.result is not None:
                    raise WireError("a frame after the end of the session")
                if kind == PUT and len(payload) > header:
                    chunk_id, size = PUT_HEADER.unpack_from(payload)
                    session.put(chunk_id, size, memoryview(payload)[header:])
                elif kind == MANIFEST:
                    session.manifest_plain = bytes(payload)
                elif kind == COMMIT:
                    try:
                        session.result = session.admit()
                    except (ArchiveRefused, JobFailed, Rejected) as error:
                        log.warning("archive %s not admitted: %s", session.archive, error)
                        session.result = {"error": _cause_of(error)}
                        session.keep = getattr(error, "keep", True)
                    self.wire.send_json({"ok": "error" not in session.result})
                else:
                    raise WireError("unexpected frame")
        except WireError:
            raise
        except ArchiveRefused as error:
            session.result, session.keep = {"error": _cause_of(error)}, error.keep
        except Exception as error:
            # The counts in memory may be half changed: only a fresh start is safe.
            log.exception("session %s failed", session.token[:8])
            session.result = {"error": _cause_of(error)}
            self.vault.fail(error)

    def _serve_chunks(self, session: Any) -> None:
        while True:
            kind, payload = self.wire.receive()
            if kind != GET or len(payload) != 32:
                raise WireError("unexpected frame")
            self.wire.send(DATA, session.get(bytes(payload)))

    def _delete(self, names: list[str]) -> None:
        vault, ledger = self.vault, self.vault.ledger
        try:
            with ledger.lock:
                if vault.sessions:
                    raise JobFailed(
                        "repository-busy",
                        Problem.REPOSITORY,
                        "A backup or restore is using the repository.",
                        next_step="Delete the archive when it is over.",
                    )
                present = [name for name in names if name in ledger.manifest.archives]
                ledger.begin()
                deleted = {name: ledger.manifest.archives[name].id.hex() for name in present}
                for name in present:
                    ledger.remove_archive(name)
                if present:
                    ledger.commit()
                    for index in (vault.state_dir / "domains").glob("*/chunks"):
                        index.unlink()
                for archive_id in deleted.values():
                    (vault.state_dir / "catalog" / f"{archive_id}.zst").unlink(missing_ok=True)
            self.wire.send_json({"deleted": deleted})
        except Exception as error:
            log.exception("deletion failed")
            self.wire.send_json({"error": _cause_of(error)})


def _die_with_parent() -> None:
    """Ask Linux for SIGTERM when the parent dies (prctl(2), PR_SET_PDEATHSIG)."""
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)
    except (AttributeError, OSError):
        log.debug("no parent death signal on this system")


def serve(path: Path, listen: Path, state_dir: Path, passphrase: str) -> int:
    """Open the repository and serve ``listen``; returns the exit code."""
    from borgcube.plugins.borg.vault.opened import OpenedRepository

    try:
        opened = OpenedRepository(path, passphrase)
    except Exception as error:
        print(json.dumps({"error": _cause_of(error)}), flush=True)
        log.warning("cannot open %s: %s", path, error)
        return 2
    vault_dir = state_dir / opened.repository.id_str
    shutil_sessions = vault_dir / "sessions"
    if shutil_sessions.exists():
        import shutil

        shutil.rmtree(shutil_sessions)
    vault_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    vault = Vault(opened, vault_dir)
    listen.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old_mask = os.umask(0o177)
    server.bind(str(listen))
    os.umask(old_mask)
    server.listen(16)
    server.settimeout(0.5)

    def stop(_signal: int, _frame: Any) -> None:
        vault.stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print(json.dumps({"ready": True}), flush=True)
    threads: list[threading.Thread] = []
    while not vault.stopping and not vault.broken:
        try:
            sock, _ = server.accept()
        except TimeoutError:
            continue
        sock.settimeout(None)
        thread = threading.Thread(target=SessionServer(vault, sock).run, daemon=True)
        thread.start()
        threads = [*(one for one in threads if one.is_alive()), thread]
    for session in list(vault.sessions.values()):
        for wire in session.wires:
            wire.close()
    for thread in threads:
        thread.join(timeout=30)
    listen.unlink(missing_ok=True)
    opened.close()
    return 2 if vault.broken else 0


def main() -> int:
    """Entry point of ``python -m borgcube.plugins.borg.vault.main``."""
    parser = argparse.ArgumentParser(prog="borgcube-vault")
    parser.add_argument("--name", required=True)
    parser.add_argument("--path", type=Path, required=True)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--state-dir", type=Path, required=True)
    options = parser.parse_args()
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    keep_large_buffers()
    _die_with_parent()
    passphrase = sys.stdin.readline().rstrip("\n")
    os.umask(0o077)
    borgenv.prepare(options.state_dir)
    return serve(options.path, options.socket, options.state_dir, passphrase)


if __name__ == "__main__":
    sys.exit(main())
