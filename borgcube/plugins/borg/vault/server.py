"""The conversations of a vault: one thread for each connection.

A worker's connection stays open as long as its session; a second connection with the
session's token carries the data and is handed to the gate. The answer to a commit goes to
the gate as well as to the worker, and the worker believes only its own connection. The
daemon asks for the list of archives, and for what a dead worker's session left.
"""

from __future__ import annotations

import logging
import secrets
import socket
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from borgcube.core.errors import JobFailed, Problem
from borgcube.plugins.borg.gate.rpc import MAX_OBJECT
from borgcube.plugins.borg.gate.verify import Rejected
from borgcube.plugins.borg.vault import (
    counts,
    maintenance,
    mending,
    onefile,
    recovery,
    verification,
)
from borgcube.plugins.borg.vault.backup import BackupSession
from borgcube.plugins.borg.vault.causes import as_answer
from borgcube.plugins.borg.vault.domains import Domain
from borgcube.plugins.borg.vault.items import ArchiveRefused
from borgcube.plugins.borg.vault.limits import ClientLimits, SessionStopped
from borgcube.plugins.borg.vault.memory import scarce
from borgcube.plugins.borg.vault.restore import RestoreSession
from borgcube.plugins.borg.vault.sample import draw
from borgcube.plugins.borg.vault.verified import Order
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

if TYPE_CHECKING:
    from borgcube.plugins.borg.vault.main import Vault

log = logging.getLogger("borgcube.vault")
CLAIM_WAIT_S = 3600.0
REPORT_EVERY_S = 0.2
_token_lock = threading.Lock()
_last_token_time = 0


def make_token(repository_id: str) -> str:
    """Return a secret session name: repository, time in ns, randomness; all in hex.

    Tokens of one repository sort by the time they were made, so that a run can tell which
    directories on a client are older than itself.
    """
    global _last_token_time
    with _token_lock:
        _last_token_time = max(time.time_ns(), _last_token_time + 1)
        return f"{repository_id[:8]}{_last_token_time:016x}{secrets.token_hex(16)}"


class SessionServer:
    """Runs the conversation of one connection in its own thread."""

    def __init__(self, vault: Vault, sock: socket.socket) -> None:
        self.vault = vault
        self.wire = Wire(sock)

    def run(self) -> None:
        """Serve one connection to its end."""
        try:
            request = self.wire.receive_json()
            if "attach" in request:
                self._attach(str(request["attach"]))
            elif request.get("op") in ("backup", "restore"):
                self._session(request)
            elif request.get("op") == "delete":
                self._delete([str(name) for name in request["archives"]])
            elif request.get("op") in ("prune", "measure", "compact"):
                self._maintain(request)
            elif request.get("op") == "mend":
                self._mend(str(request["archive"]))
            elif request.get("op") == "archives":
                self._list(frozenset(str(key) for key in request["known"]))
            elif request.get("op") == "catalog":
                self._catalog(str(request["archive"]))
            elif request.get("op") == "claim":
                self._claim(str(request["job"]))
            elif request.get("op") == "verify":
                self._verify(request)
            elif request.get("op") == "sample":
                self._sample(request)
            elif request.get("op") == "file":
                self._file(request)
        except WireError as error:
            log.debug("connection ended: %s", error)
        except Exception:
            log.exception("a connection failed")
        finally:
            self.wire.close()

    def _make_session(self, request: dict[str, Any]) -> Any:
        vault = self.vault
        token = make_token(vault.ledger.repository.id_str)
        if request["op"] == "backup":
            client = str(request.get("client", ""))
            session: Any = BackupSession(
                vault,
                token,
                archive=request["archive"],
                plan=request["plan"],
                domain=request["domain"],
                own_domain=str(request.get("own_domain", "")),
                files_cache=request.get("files_cache", "ctime,size"),
                comment=request.get("comment", ""),
                paths=[str(path) for path in request.get("paths") or ()],
                client=client,
                limits=ClientLimits.of(client, request.get("limits") or {}),
            )
        else:
            session = RestoreSession(
                vault,
                token,
                archive=request["archive"],
                paths=list(request["paths"]),
                harmless=bool(request.get("harmless")),
            )
        session.job = str(request.get("job", ""))
        session.wires = [self.wire]
        session.lock = threading.Lock()
        session.keep = True
        return session

    def _session(self, request: dict[str, Any]) -> None:
        vault = self.vault
        session = self._make_session(request)
        try:
            vault.check_alive()
            vault.sessions[session.token] = session
            vault.derive(partial(recovery.note_session, vault))
            terms = session.prepare()
            # Whose directories on a client are not left over; see remote.prepare_script.
            terms["others"] = [token for token in list(vault.sessions) if token != session.token]
            self.wire.send_json(terms)
        except Exception as error:
            vault.sessions.pop(session.token, None)
            session.close()
            log.warning("session refused: %s", error)
            self.wire.send_json(as_answer(error))
            return
        log.info("session %s of archive %s begins", session.token[-8:], session.archive)
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
            log.info("the worker of session %s is gone", session.token[-8:])
        finally:
            self._end(session)
        result = session.__dict__.get("result")
        if result is None and vault.broken is not None:
            result = {"error": vault.broken.as_data()}
        try:
            self.wire.send_json({"result": result})
        except WireError:
            pass

    def _end(self, session: Any) -> None:
        vault = self.vault
        for wire in session.wires[1:]:
            wire.close()
        with session.lock:
            try:
                if getattr(session, "result", None) is None or "error" in session.result:
                    if hasattr(session, "abandon") and vault.broken is None:
                        session.abandon() if session.keep else session.discard()
            except Exception as error:
                log.exception("session %s could not be kept as partial", session.token[-8:])
                vault.fail(error)
            finally:
                vault.sessions.pop(session.token, None)
                session.close()
                log.info("session %s ends", session.token[-8:])
        try:
            with vault.ledger.lock:
                vault.remove_superseded()
        except Exception as error:
            log.exception("superseded partial archives could not be removed")
            vault.fail(error)

    def _attach(self, token: str) -> None:
        session = self.vault.sessions.get(token)
        if session is None or len(session.wires) > 1:
            raise WireError("unknown or taken session")
        session.wires.append(self.wire)
        # A gate may have been taken over: nothing longer than the largest chunk is read.
        self.wire.max_frame = MAX_OBJECT + PUT_HEADER.size
        with session.lock:
            if hasattr(session, "put"):
                self._take_chunks(session)
            else:
                self._serve_chunks(session)

    def _take_chunks(self, session: Any) -> None:
        header = PUT_HEADER.size
        try:
            while True:
                with scarce():
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
                        self.vault.remember(session.job, session.result)
                    except (ArchiveRefused, JobFailed, Rejected) as error:
                        log.warning("archive %s not admitted: %s", session.archive, error)
                        session.result = as_answer(error)
                        session.keep = getattr(error, "keep", True)
                    self.wire.send_json({"ok": "error" not in session.result})
                else:
                    raise WireError("unexpected frame")
        except WireError:
            raise
        except (ArchiveRefused, SessionStopped) as error:
            log.warning("session %s is ended: %s", session.token[-8:], error)
            session.result, session.keep = as_answer(error), error.keep
        except Exception as error:
            # The counts in memory may be half changed: only a fresh start is safe.
            log.exception("session %s failed", session.token[-8:])
            session.result = as_answer(error)
            self.vault.fail(error)

    def _serve_chunks(self, session: Any) -> None:
        while True:
            kind, payload = self.wire.receive()
            if kind != GET or len(payload) != 32:
                raise WireError("unexpected frame")
            try:
                with scarce():
                    data = session.get(bytes(payload))
            except JobFailed as error:
                # The worker asks for the reason at the end.
                session.result = as_answer(error)
                raise WireError(str(error)) from error
            self.wire.send(DATA, data)

    def _list(self, known: frozenset[str]) -> None:
        try:
            found = recovery.list_archives(self.vault, known=known)
            self.wire.send_json({"archives": found, "quarantined": self._quarantined()})
        except WireError:
            raise
        except Exception as error:
            log.exception("the archives could not be listed")
            self.wire.send_json(as_answer(error))

    def _catalog(self, archive_id: str) -> None:
        try:
            self.vault.check_alive()
            self.wire.send_json({"files": recovery.write_catalog(self.vault, archive_id)})
        except WireError:
            raise
        except Exception as error:
            log.exception("the catalog of an archive could not be written")
            self.wire.send_json(as_answer(error))

    def _verify(self, request: dict[str, Any]) -> None:
        """Do a slice of a check, with progress; a worker that goes away ends it."""

        def report(**figures: Any) -> None:
            self.wire.send_json({"progress": figures})

        try:
            order = Order(
                kind=str(request["kind"]), budget_s=float(request["budget_s"]),
                days=int(request["days"]), bytes_per_s=int(request["bytes_per_s"]),
                full=bool(request["full"]),
            )  # fmt: skip
            self.wire.send_json(verification.run_slice(self.vault, order, report))
        except WireError:
            raise
        except Exception as error:
            log.warning("a check did not end: %s", error, exc_info=not isinstance(error, JobFailed))
            self.wire.send_json(as_answer(error))

    def _sample(self, request: dict[str, Any]) -> None:
        """Answer what a drill compares its files with."""
        try:
            self.wire.send_json(
                draw(
                    self.vault.ledger, str(request["archive"]), files=int(request["files"]),
                    most_bytes=int(request["most_bytes"]), canary=str(request["canary"]),
                    whole=Path(request["whole_into"]) if request["whole_into"] else None,
                    step=self.vault.check_alive,
                )
            )  # fmt: skip
        except WireError:
            raise
        except Exception as error:
            log.warning("no sample: %s", error, exc_info=not isinstance(error, JobFailed))
            self.wire.send_json(as_answer(error))

    def _file(self, request: dict[str, Any]) -> None:
        """Send the content of one file of an archive."""
        token = make_token(self.vault.ledger.repository.id_str)
        try:
            onefile.serve(self.vault, self.wire, token, request)
        except WireError:
            raise
        except Exception as error:
            log.warning("no file: %s", error, exc_info=not isinstance(error, JobFailed))
            self.wire.send_json(as_answer(error))

    def _claim(self, job: str) -> None:
        """Answer what a job admitted, once its session is over."""
        deadline = time.monotonic() + CLAIM_WAIT_S
        while (
            time.monotonic() < deadline
            and not self.vault.stopping
            and any(session.job == job for session in list(self.vault.sessions.values()))
        ):
            time.sleep(0.05)
        found = self.vault.admitted.get(job)
        if found is not None:
            found = {key: value for key, value in found.items() if key != "superseded"}
        self.wire.send_json({"archive": found})

    def _maintain(self, request: dict[str, Any]) -> None:
        """Prune, measure or compact, with frames of progress; ends when the worker is gone."""
        last = 0.0

        def report(**figures: Any) -> None:
            nonlocal last
            # What was deleted is told at once: the worker may not hear the end.
            if "deleted_names" in figures or time.monotonic() - last >= REPORT_EVERY_S:
                last = time.monotonic()
                self.wire.send_json({"progress": figures})

        try:
            if request["op"] == "compact":
                done = maintenance.compact(
                    self.vault, threshold=float(request["threshold"]),
                    least_share=float(request["least_share"]), report=report,
                )  # fmt: skip
            else:
                wanted = {str(name): str(key) for name, key in request["archives"].items()}
                if request["op"] == "measure":
                    done = maintenance.measure(self.vault, wanted, report=report).as_data()
                else:
                    done = maintenance.prune(
                        self.vault, wanted, report=report,
                        also_quarantined=bool(request.get("also_quarantined")),
                    ).as_data()  # fmt: skip
            self.wire.send_json({"done": done | {"quarantined": self._quarantined()}})
        except WireError:
            raise
        except Exception as error:
            log.exception("%s failed", request["op"])
            self.wire.send_json(as_answer(error))

    def _quarantined(self) -> dict[str, str]:
        return {archive_id.hex(): why for archive_id, why in self.vault.known.bad().items()}

    def _mend(self, name: str) -> None:
        """Rewrite an archive in quarantine, with progress."""

        def report(**figures: Any) -> None:
            self.wire.send_json({"progress": figures})

        try:
            done = mending.mend(self.vault, name, report)
            self.wire.send_json({"done": done | {"quarantined": self._quarantined()}})
        except WireError:
            raise
        except Exception as error:
            log.exception("an archive could not be mended")
            self.wire.send_json(as_answer(error))

    def _delete(self, names: list[str]) -> None:
        vault, ledger = self.vault, self.vault.ledger
        try:
            counts.settle(vault, lambda **_figures: None)
            with ledger.lock:
                vault.check_alive()
                if vault.sessions:
                    raise JobFailed(
                        "repository-busy",
                        Problem.REPOSITORY,
                        "A backup or restore is using the repository.",
                        next_step="Delete the archive when it is over.",
                    )
                deleted = self._delete_now([n for n in names if n in ledger.manifest.archives])
            self.wire.send_json({"deleted": deleted})
        except WireError:
            raise
        except Exception as error:
            log.exception("deletion failed")
            self.wire.send_json(as_answer(error))

    def _delete_now(self, present: list[str]) -> dict[str, str]:
        vault, ledger = self.vault, self.vault.ledger
        deleted = {name: ledger.manifest.archives[name].id.hex() for name in present}
        if not present:
            return deleted
        for name in [one for one in present if vault.known.reason(bytes.fromhex(deleted[one]))]:
            counts.recount(vault, lambda **_figures: None, without=name)
            vault.known.forget(bytes.fromhex(deleted[name]))
            present.remove(name)
        for name in present:
            ledger.check_readable(name)
        ledger.begin()
        try:
            gone = {deleted[name]: ledger.remove_archive(name) for name in present}
            ledger.commit()
        except Exception as error:
            # The counts in memory may be half changed: only a fresh start is safe.
            vault.fail(error)
            raise

        def forget() -> None:
            for domain in Domain.every(vault.state_dir / "domains"):
                domain.remove(gone)
            for archive_id in deleted.values():
                (vault.state_dir / "catalog" / f"{archive_id}.zst").unlink(missing_ok=True)

        vault.derive(forget)
        return deleted
