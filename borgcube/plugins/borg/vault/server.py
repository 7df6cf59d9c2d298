"""The conversations of a vault: one thread for each connection.

A worker's connection stays open as long as its session; a second connection with the
session's token carries the data and is handed to the gate. The answer to a commit goes to
the gate as well as to the worker, and the worker believes only its own connection. The
daemon asks for the list of archives, and for what a dead worker's session left.
"""

from __future__ import annotations

import logging
import socket
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from borgcube.core.errors import JobFailed, Problem
from borgcube.plugins.borg.gate.rpc import MAX_OBJECT
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
from borgcube.plugins.borg.vault.limits import ClientLimits
from borgcube.plugins.borg.vault.restore import RestoreSession
from borgcube.plugins.borg.vault.sample import draw
from borgcube.plugins.borg.vault.sessions import Session, make_token, reading
from borgcube.plugins.borg.vault.verified import Order
from borgcube.plugins.borg.wire import PUT_HEADER, Wire, WireError

if TYPE_CHECKING:
    from borgcube.plugins.borg.vault.main import Vault

log = logging.getLogger("borgcube.vault")
CLAIM_WAIT_S = 3600.0
REPORT_EVERY_S = 0.2
# A worker that takes no report for so long is given up: others wait for the end of its work.
REPORT_WAIT_S = 60.0


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
            elif request.get("op") == "quarantined":
                self.wire.send_json(self._quarantined())
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

    def _make_session(self, request: dict[str, Any]) -> Session:
        vault = self.vault
        token = make_token(vault.ledger.repository.id_str)
        job = str(request.get("job", ""))
        if request["op"] == "backup":
            client = str(request.get("client", ""))
            return BackupSession(
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
                wire=self.wire,
                job=job,
            )
        return RestoreSession(
            vault,
            token,
            archive=request["archive"],
            paths=list(request["paths"]),
            harmless=bool(request.get("harmless")),
            wire=self.wire,
            job=job,
        )

    def _session(self, request: dict[str, Any]) -> None:
        vault = self.vault
        session = self._make_session(request)
        try:
            with vault.ledger.lock:
                vault.check_alive()
                if request["op"] == "backup":
                    vault.check_writable()
                vault.sessions.begin(session)
                vault.derive(partial(recovery.note_session, vault))
            terms = session.prepare()
            # Whose directories on a client are not left over; see remote.prepare_script.
            terms["others"] = vault.sessions.tokens(but=session)
            self.wire.send_json(terms)
        except Exception as error:
            self._forget(session)
            log.warning("session refused: %s", error)
            self.wire.send_json(as_answer(error))
            return
        log.info("session %s of archive %s begins", session.token[-8:], session.archive)
        try:
            # The worker says when it is over; until then it may ask for figures.
            while True:
                question = self.wire.receive_json()
                if question.get("op") == "figures":
                    self.wire.send_json(dict(session.figures()))
                elif question.get("op") == "end":
                    # Whether a refusal of ours may be an honest client's is ours to say.
                    if session.result is None and question.get("discard"):
                        session.keep = False
                    break
        except WireError:
            log.info("the worker of session %s is gone", session.token[-8:])
        finally:
            self._end(session)
        result = session.result
        if result is None and vault.broken is not None:
            result = {"error": vault.broken.as_data()}
        try:
            self.wire.send_json({"result": result})
        except WireError:
            pass

    def _end(self, session: Session) -> None:
        """End a session whose worker has said so, or is gone."""
        vault = self.vault
        session.stop_data()
        try:
            if (session.result is None or "error" in session.result) and vault.broken is None:
                session.finish()
        except Exception as error:
            log.exception("session %s could not be ended", session.token[-8:])
            vault.fail(error)
        self._forget(session)
        log.info("session %s ends", session.token[-8:])

    def _forget(self, session: Session) -> None:
        """Take a session out of the table, and do what waited for its end."""
        vault = self.vault
        session.stop_data()
        try:
            with vault.ledger.lock:
                vault.sessions.end(session)
                vault.remove_superseded()
        except Exception as error:
            log.exception("superseded partial archives could not be removed")
            vault.fail(error)
        finally:
            session.close()  # without the lock: it waits for a thread that may need it

    def _attach(self, token: str) -> None:
        session = self.vault.sessions.get(token)
        if session is None or not session.attach(self.wire):
            raise WireError("unknown or taken session")
        # A gate may have been taken over: nothing longer than the largest chunk is read.
        self.wire.max_frame = MAX_OBJECT + PUT_HEADER.size
        try:
            session.converse(self.wire)
        finally:
            session.detach()

    def _list(self, known: frozenset[str]) -> None:
        try:
            found = recovery.list_archives(self.vault, known=known)
            self.wire.send_json({"archives": found, **self._quarantined()})
        except WireError:
            raise
        except Exception as error:
            log.exception("the archives could not be listed")
            self.wire.send_json(as_answer(error))

    def _catalog(self, archive_id: str) -> None:
        try:
            with reading(self.vault, self.wire, archive_id=archive_id):
                files = recovery.write_catalog(self.vault, archive_id)
            self.wire.send_json({"files": files})
        except WireError:
            raise
        except Exception as error:
            log.exception("the catalog of an archive could not be written")
            self.wire.send_json(as_answer(error))

    def _verify(self, request: dict[str, Any]) -> None:
        """Do a slice of a check, with progress; a worker that goes away ends it."""

        def report(**figures: Any) -> None:
            self.wire.send_json({"progress": figures})

        self.wire.give_up_after(REPORT_WAIT_S)
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
        archive = str(request["archive"])
        try:
            with reading(self.vault, self.wire, name=archive):
                found = draw(
                    self.vault.ledger, archive, files=int(request["files"]),
                    most_bytes=int(request["most_bytes"]), canary=str(request["canary"]),
                    whole=Path(request["whole_into"]) if request["whole_into"] else None,
                    step=self.vault.check_alive,
                )  # fmt: skip
            self.wire.send_json(found)
        except WireError:
            raise
        except Exception as error:
            log.warning("no sample: %s", error, exc_info=not isinstance(error, JobFailed))
            self.wire.send_json(as_answer(error))

    def _file(self, request: dict[str, Any]) -> None:
        """Send the content of one file of an archive."""
        try:
            onefile.serve(self.vault, self.wire, request)
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
            and self.vault.sessions.has_job(job)
        ):
            time.sleep(0.05)
        with self.vault.ledger.lock:
            found = self.vault.admitted.get(job)
        if found is not None:
            found = {key: value for key, value in found.items() if key != "superseded"}
        self.wire.send_json({"archive": found})

    def _maintain(self, request: dict[str, Any]) -> None:
        """Prune, measure or compact, with frames of progress; ends when the worker is gone."""
        last = 0.0
        self.wire.give_up_after(REPORT_WAIT_S)

        def report(**figures: Any) -> None:
            nonlocal last
            # What was deleted is told at once: the worker may not hear the end.
            if "deleted_names" in figures or time.monotonic() - last >= REPORT_EVERY_S:
                last = time.monotonic()
                self.wire.send_json({"progress": figures})

        try:
            if request["op"] != "measure":
                self.vault.check_writable()
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
            self.wire.send_json({"done": done | self._quarantined()})
        except WireError:
            raise
        except Exception as error:
            log.exception("%s failed", request["op"])
            self.wire.send_json(as_answer(error))

    def _quarantined(self) -> dict[str, Any]:
        """Return what is in quarantine; ``looked_through`` says that everything else is sound."""
        known = self.vault.known
        reasons = {archive_id.hex(): why for archive_id, why in known.bad().items()}
        return {"quarantined": reasons, "looked_through": not known.unknown()}

    def _mend(self, name: str) -> None:
        """Rewrite an archive in quarantine, with progress."""

        def report(**figures: Any) -> None:
            self.wire.send_json({"progress": figures})

        try:
            done = mending.mend(self.vault, name, report)
            self.wire.send_json({"done": done | self._quarantined()})
        except WireError:
            raise
        except Exception as error:
            log.exception("an archive could not be mended")
            self.wire.send_json(as_answer(error))

    def _delete(self, names: list[str]) -> None:
        vault, ledger = self.vault, self.vault.ledger
        try:
            vault.check_writable()
            counts.settle(vault, lambda **_figures: None)
            with ledger.lock:
                vault.check_alive()
                if len(vault.sessions):
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
        gone: dict[str, Any] = {}

        def change() -> None:
            gone.update({deleted[name]: ledger.remove_archive(name) for name in present})

        vault.commit(finishing=None, change=change)

        def forget() -> None:
            for domain in Domain.every(vault.state_dir / "domains"):
                domain.remove(gone)
            for archive_id in deleted.values():
                (vault.state_dir / "catalog" / f"{archive_id}.zst").unlink(missing_ok=True)

        vault.derive(forget)
        return deleted
