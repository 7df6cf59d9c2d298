"""A plugin for the daemon's tests: an engine with a real vault process, a transport, and
job types that end in every way a job can."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from borgcube.core.engines import FileStream, RepositoryFacts
from borgcube.core.errors import (
    BorgCubeError,
    FailureCause,
    InvalidInput,
    JobFailed,
    Problem,
    Violation,
)
from borgcube.core.home import job_dir
from borgcube.core.hookspecs import hookimpl
from borgcube.core.hostkeys import HostKey, from_texts
from borgcube.core.jobs import JobContext, JobResult
from borgcube.core.listings import Entry, ListingWriter
from borgcube.core.transports import Completed
from borgcube.core.untrusted import words

VAULT = """
import json, signal, sys
secret = sys.stdin.readline().strip()
if secret != "right":
    print(json.dumps({"error": {"kind": "passphrase-wrong", "problem": "repository",
          "message": "The passphrase is wrong.", "next_step": "Give the right one."}}), flush=True)
    sys.exit(1)
open(sys.argv[1], "w").write("vault")
print(json.dumps({"ready": True}), flush=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
signal.pause()
"""


class FakeEngine:
    name = "fake"

    def create(self, path: Path, *, encryption: str, passphrase: str, state_dir: Path):
        # Fuzzed paths are anywhere; what is made for them is below a test's own place.
        path = Path(os.environ.get("BORGCUBE_FAKE_ROOT", "/")) / path.relative_to("/")
        if path.exists():
            raise BorgCubeError(f"{path} exists.", next_step="Choose another path.")
        path.mkdir(parents="BORGCUBE_FAKE_ROOT" in os.environ)
        return RepositoryFacts(hashlib.sha256(bytes(path)).hexdigest(), encryption)

    def measure(self):
        return {"repokey": 900_000_000, "repokey-blake2": 400_000_000}

    def inspect(self, path: Path, *, passphrase: str, state_dir: Path):
        old = {"id": "e1", "name": "old", "start": "2020-01-01T00:00:00+00:00", "files": 3}
        return RepositoryFacts(hashlib.sha256(bytes(path)).hexdigest(), "repokey", (old,))

    def conditions(self):
        return [("warning", "The fake engine keeps nothing.", "Use a real one.")]

    def probe(self, connection: Any, *, borg: str, state_dir: Path) -> str:
        return connection.run([borg, "--version"]).stdout.decode().strip()

    def vault_command(self, *, name: str, socket: Path, partial_days: int, **_: Any):
        return [sys.executable, "-c", VAULT, str(socket)]

    def upkeep_due(self, state_dir: Path, repository_id: str):
        told = state_dir / f"due-{repository_id}"
        return datetime.fromisoformat(told.read_text()) if told.exists() else None

    def list_archives(self, vault_socket: Path, *, known: Any):
        """What a test put into a file beside the socket, else what is known."""
        told = vault_socket.parent / "archives.json"
        if told.exists():
            return json.loads(told.read_text())
        return [{"id": key, "name": ""} for key in known]

    def browse(self, *, archive_id: str, key: str, find: str, start: int, limit: int, **_: Any):
        """Two directories, one of them with a hostile name; nothing of imported archives."""
        if archive_id == "e1":
            return None
        made = {
            "": [("etc", "d"), ("%1B%5B2J%3Cb%3E%0A", "d"), ("%FF", "-")],
            "etc": [(f"etc/f{number:03}", "-") for number in range(450)],
        }  # fmt: skip
        listed = [pair for group in made.values() for pair in group] if find else made.get(key, [])
        found = [pair for pair in listed if find in pair[0]]
        return {"total": len(found), "cut": False, "entries": [
            {"key": key, "name": words(unquote(key.rpartition("/")[2])), "kind": kind,
             "size": 1024, "files": 1, "mtime_ns": 1_600_000_000_000_000_000}
            for key, kind in found[start : start + limit]
        ]}  # fmt: skip

    def open_file(self, vault_socket: Path, *, archive_id: str, key: str) -> FileStream:
        """1024 bytes for each file that is listed."""
        if not key.startswith("etc/f") and key != "%FF":
            raise InvalidInput("This is a directory, not a file.", next_step="Restore it.")
        ours, theirs = socket.socketpair()
        with ours:
            ours.sendall(b"x" * 1024)
        return FileStream(1024, 0, theirs)

    def claim_archive(self, vault_socket: Path, *, job_id: str):
        told = vault_socket.parent / f"claim-{job_id}.json"
        return json.loads(told.read_text()) if told.exists() else None


class Connection:
    def run(self, argv: Any, **_: Any) -> Completed:
        if argv[0] == "sh":
            return Completed(0, b"ok Linux x86_64\n", b"")
        return Completed(0, b"borg 1.4.5\n", b"")

    def close(self) -> None:
        pass


class Local:
    name = "local"

    def connect(self, address: Any, context: Any) -> Connection:
        return Connection()

    def scan_host_keys(self, address: Any, context: Any) -> list[HostKey]:
        """What a test put into the file that an option of the client names."""
        told = address.options.get("offered")
        return from_texts(Path(told).read_text().splitlines()) if address.host and told else []


class Faraway(Local):
    name = "faraway"


class Backup:
    """What it does is told by the plan's comment."""

    name = "backup"
    needs_vault = True
    needs_client = True

    def run(self, context: JobContext) -> JobResult:
        parameters = context.order.parameters
        assert Path(context.order.vault_socket).read_text() == "vault"
        assert parameters["domain"] and parameters["borg"] == "borg"
        assert context.runtime_dir.is_dir() and context.engine().name == "fake"
        context.connect()
        context.phase("reading")
        context.progress(files=1)
        match parameters["comment"]:
            case "bug":
                raise RuntimeError("the secret is right\x1b[2J")
            case "cause":
                raise JobFailed("host-unreachable", Problem.NETWORK, "No.", next_step="Wait.")
            case "violation" if not parameters.get("reread"):
                raise JobFailed(
                    "client-refused", Problem.CLIENT, "It was refused.", next_step="Look at it.",
                    violation=Violation("wrong-id", "a chunk that is not what it says"),
                )  # fmt: skip
            case "die":
                os._exit(7)
            case "long":
                while True:
                    time.sleep(0.05)
                    context.check_cancelled()
            case "deaf":
                time.sleep(600)
        files = 0 if parameters["comment"] == "empty" else 1
        context.log("info", "a\x1b[31mname", path="x\ny")
        entry = {"id": f"id-{parameters['archive']}", "name": parameters["archive"], "files": files}
        data: dict[str, Any] = {"files": 1}
        clocks = {"ahead": 82_800.0, "on time": 0.5}
        if (off := clocks.get(parameters["comment"])) is not None:
            entry["clock_offset_s"] = data["clock_offset_s"] = off
        return JobResult(data=data, archives_added=[entry])


class Catalog:
    name = "catalog"
    needs_vault = True
    needs_client = False

    def run(self, context: JobContext) -> JobResult:
        return JobResult(data={"archive_id": context.order.parameters["archive_id"]})


class Restore:
    """Restores nothing; its order is what a test looks at."""

    name = "restore"
    needs_vault = True
    needs_client = True

    def run(self, context: JobContext) -> JobResult:
        return JobResult(data={"files": 0})


class DryRun:
    """Lists 250 files, one of them with a hostile name."""

    name = "dry-run"
    needs_vault = False
    needs_client = True

    def run(self, context: JobContext) -> JobResult:
        assert not context.order.vault_socket
        context.phase("listing")
        names = [f"/etc/file{number:03}" for number in range(249)]
        with ListingWriter(job_dir(context.home, context.order.job_id)) as writer:
            for name in [*names, "/etc/<script>alert(1)</script>"]:
                writer.write(Entry("file", name, 1024))
            writer.write(Entry("excluded", "/etc/left.tmp"))
        big = {"path": "/etc/large", "size": 1024}
        return JobResult(data={
            "included": 250, "excluded": 1, "files": 250, "directories": 0, "size": 256_000,
            "kept": 251, "cut": False, "measured": True, "largest": [big],
            "places": [{"path": "/etc", "files": 250, "size": 256_000}],
        })  # fmt: skip


class Delete:
    name = "archive-delete"
    needs_vault = False
    needs_client = False

    def run(self, context: JobContext) -> JobResult:
        return JobResult(
            state="warning",
            warnings=["careful"],
            archives_deleted=context.order.parameters["archives"],
            cause=FailureCause("w", Problem.SERVER, "w"),
        )


class Mend:
    """Says that an archive was written anew, one item left out."""

    name = "archive-mend"
    needs_vault = True
    needs_client = False

    def run(self, context: JobContext) -> JobResult:
        asked = context.order.parameters
        told = context.runtime_dir.parent / "mend-waits"
        context.progress(archives_looked_at=3, archives_to_look_at=10)
        while told.exists():
            time.sleep(0.05)
            context.check_cancelled()
        return JobResult(
            state="warning", data={"archive": asked["archive"], "items": 4, "left_out": 1},
            warnings=["left out: etc/bad: it climbs"], looked_through=True,
            archives_mended=[
                {"id": "mended", "name": asked["archive"], "was": asked["archive_id"]}
            ],
        )  # fmt: skip


class Prune:
    """Deletes what it is told to, in words only."""

    name = "prune"
    needs_vault = True
    needs_client = False

    def run(self, context: JobContext) -> JobResult:
        parameters = context.order.parameters
        if parameters["dry_run"]:
            return JobResult(data={"would_free_bytes": 5}, warnings=parameters["notes"])
        told = context.runtime_dir.parent / "prune-waits"
        while told.exists():
            time.sleep(0.05)
            context.check_cancelled()
        return JobResult(
            state="warning" if parameters["notes"] else "done",
            data={"plans": parameters["plans"], "compacted_bytes": 7},
            warnings=parameters["notes"],
            archives_deleted=list(parameters["archives"].values()),
        )


class Here(Local):
    """Says of itself that it reaches the server's own machine."""

    name = "here"
    runs_here = True


@hookimpl
def register_job_types() -> list[Any]:
    return [Backup(), DryRun(), Catalog(), Restore(), Delete(), Mend(), Prune()]


@hookimpl
def register_engines() -> list[Any]:
    return [FakeEngine()]


@hookimpl
def register_transports() -> list[Any]:
    return [Local(), Faraway(), Here()]


@hookimpl
def observe_event(event: dict[str, Any]) -> None:
    raise RuntimeError("observers must not matter")
