"""The Borg engine as the rest of BorgCube sees it. Importing it imports no borg."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from borgcube.core.engines import FileStream, RepositoryFacts
from borgcube.core.errors import BorgCubeError, JobFailed
from borgcube.core.jobs import JobContext, JobResult
from borgcube.core.transports import Connection
from borgcube.core.untrusted import MAX_WORDS, words

log = logging.getLogger(__name__)

TOOL_TIMEOUT_S = 300


class BorgEngine:
    """Borg 1.4 repositories; see ``core.engines.Engine``."""

    name = "borg"

    def create(
        self, path: Path, *, encryption: str, passphrase: str, state_dir: Path
    ) -> RepositoryFacts:
        """Create a repository; ``auto`` measures which mode this processor does faster."""
        return self._tool(
            {
                "op": "create",
                "path": str(path),
                "encryption": encryption,
                "passphrase": passphrase,
                "state_dir": str(state_dir),
            }
        )

    def measure(self) -> Mapping[str, int]:
        """Measure the modes' MACs."""
        from borgcube.plugins.borg import speeds

        return speeds.measure()

    def inspect(self, path: Path, *, passphrase: str, state_dir: Path) -> RepositoryFacts:
        """Open an existing repository and list its archives."""
        return self._tool(
            {
                "op": "inspect",
                "path": str(path),
                "passphrase": passphrase,
                "state_dir": str(state_dir),
            }
        )

    def preview(self, parameters: Mapping[str, Any]) -> Sequence[str]:
        """Return the very ``borg create`` that a backup runs."""
        from borgcube.plugins.borg.pull import create_command

        return create_command(str(parameters.get("borg") or "borg"), parameters)

    def _tool(self, request: dict[str, Any]) -> RepositoryFacts:
        try:
            done = subprocess.run(
                [sys.executable, "-m", "borgcube.plugins.borg.tool"],
                input=json.dumps(request).encode() + b"\n",
                capture_output=True,
                timeout=TOOL_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise BorgCubeError(
                f"The repository could not be opened within {TOOL_TIMEOUT_S} seconds.",
                next_step="Look at its storage.",
            ) from error
        try:
            answer = json.loads(done.stdout.splitlines()[-1])
        except (ValueError, IndexError) as error:
            said = done.stderr[-MAX_WORDS:].decode("utf-8", "replace")
            log.warning("the process that opens repositories ended with code %d: %s",
                        done.returncode, words(said))  # fmt: skip
            raise BorgCubeError(
                "The repository could not be opened.", next_step="See the daemon's log."
            ) from error
        if "error" in answer:
            raise BorgCubeError(answer["error"]["message"], next_step=answer["error"]["next_step"])
        return RepositoryFacts(
            id=answer["id"], encryption=answer["encryption"], archives=tuple(answer["archives"])
        )

    def conditions(self) -> list[tuple[str, str, str]]:
        """Say which layers the gate has to do without here, and whether a fence can be built."""
        from borgcube.plugins.borg import fencing
        from borgcube.plugins.borg.gate import confine

        offered = confine.offered()
        found = []
        if not offered.landlock:
            found.append((
                "warning", "This kernel offers no Landlock: a gate that was taken over could "
                "open files that its user may open.", "Use a kernel of 5.13 or newer with it.",
            ))  # fmt: skip
        if not offered.call_filter:
            found.append((
                "warning", "There is no libseccomp.so.2: the gate runs without a filter of "
                "system calls.", "Install libseccomp2.",
            ))  # fmt: skip
        return found + fencing.conditions()

    def probe(self, connection: Connection, *, borg: str, state_dir: Path) -> str:
        """Say which borg would run on a client. One that is not built yet is not built now."""
        from borgcube.plugins.borg import binaries, rpcrun

        if borg == rpcrun.DEPLOY:
            return binaries.foreseen(connection, state_dir)
        return f"borg {rpcrun.borg_version(connection, borg)}"

    def vault_command(
        self, *, name: str, path: Path, socket: Path, state_dir: Path, partial_days: int = 14,
        free_floor_bytes: int = 0, repository_id: str = "",
    ) -> Sequence[str]:  # fmt: skip
        """Return the argv of the vault process."""
        return [
            sys.executable,
            "-m",
            "borgcube.plugins.borg.vault.main",
            "--name",
            name,
            "--path",
            str(path),
            "--socket",
            str(socket),
            "--state-dir",
            str(state_dir),
            "--partial-days",
            str(partial_days),
            "--free-floor",
            str(free_floor_bytes),
            "--id",
            repository_id,
        ]

    def adopt_state(self, shared: Path, own: Path, *, repository_id: str) -> None:
        """Move what 0.1.0 kept of a repository to a directory of its own."""
        from borgcube.plugins.borg.statedirs import adopt

        adopt(shared, own, repository_id)

    def upkeep_due(self, state_dir: Path, repository_id: str) -> datetime | None:
        """Return when the next unfinished backup is to be given up."""
        note = state_dir / repository_id / "upkeep.json"
        try:
            due = datetime.fromisoformat(json.loads(note.read_text("utf-8"))["due"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            return datetime.now(UTC)  # a vault writes it anew
        return due if due.tzinfo else due.replace(tzinfo=UTC)

    def list_archives(
        self, vault_socket: Path, *, known: Collection[str]
    ) -> Sequence[dict[str, Any]]:
        """Ask a running vault for its archives."""
        from borgcube.plugins.borg.vaultclient import ask

        answer = ask(vault_socket, {"op": "archives", "known": sorted(known)})
        reasons, complete = answer["quarantined"], answer["looked_through"]
        return [
            {**entry, "quarantined": reasons.get(entry["id"], "" if complete else None)}
            for entry in answer["archives"]
        ]

    def quarantined(self, vault_socket: Path) -> tuple[Mapping[str, str], bool]:
        """Ask a running vault which archives are in quarantine."""
        from borgcube.plugins.borg.vaultclient import ask

        answer = ask(vault_socket, {"op": "quarantined"})
        return dict(answer["quarantined"]), bool(answer["looked_through"])

    def mend_archive(self, context: JobContext) -> JobResult:
        """Rewrite an archive in quarantine."""
        from borgcube.plugins.borg.upkeep import mend

        return mend(context)

    def claim_archive(self, vault_socket: Path, *, job_id: str) -> dict[str, Any] | None:
        """Ask a running vault for the archive of a job that reported none."""
        from borgcube.plugins.borg.vaultclient import ask

        found: dict[str, Any] | None = ask(vault_socket, {"op": "claim", "job": job_id})["archive"]
        return found

    def backup(self, context: JobContext) -> JobResult:
        """Pull one backup."""
        from borgcube.plugins.borg.pull import backup

        return backup(context)

    def dry_run(self, context: JobContext) -> JobResult:
        """List what a backup would take."""
        from borgcube.plugins.borg.dryrun import dry_run

        return dry_run(context)

    def restore(self, context: JobContext) -> JobResult:
        """Restore an archive or some of its paths."""
        from borgcube.plugins.borg.push import restore

        return restore(context)

    def browse(
        self, *, state_dir: Path, repository_id: str, archive_id: str, key: str, find: str,
        start: int, limit: int,
    ) -> dict[str, Any] | None:  # fmt: skip
        """Return one page of an archive's files."""
        from borgcube.plugins.borg import catalog

        file = catalog.catalog_file(state_dir, repository_id, archive_id)
        return catalog.browse(file, key=key, find=find, start=start, limit=limit)

    def open_file(self, vault_socket: Path, *, archive_id: str, key: str) -> FileStream:
        """Ask a running vault for one file's content."""
        from borgcube.plugins.borg import vaultclient

        return vaultclient.open_file(vault_socket, archive_id=archive_id, key=key)

    def read_catalog(self, context: JobContext) -> JobResult:
        """Have the vault write the catalog of an archive."""
        from borgcube.plugins.borg.vaultclient import ask

        context.phase("reading")
        archive = str(context.order.parameters["archive_id"])
        answer = ask(
            context.order.vault_socket,
            {"op": "catalog", "archive": archive},
            check=context.check_cancelled,
        )
        return JobResult(data={"files": answer["files"], "archive_id": archive})

    def check(self, context: JobContext) -> JobResult:
        """Verify a slice of the repository, or all of it."""
        from borgcube.plugins.borg.checking import check

        result = check(context)
        with suppress(JobFailed):  # a walk finds some; the next vault tells of them as well
            reasons, result.looked_through = self.quarantined(Path(context.order.vault_socket))
            result.quarantined = dict(reasons)
        return result

    def check_alone(self, context: JobContext) -> JobResult:
        """Run ``borg check`` while nobody else has the repository."""
        from borgcube.plugins.borg.plaincheck import check

        return check(context, context.passphrase())

    def sample(
        self, context: JobContext, *, archive: str, files: int, most_bytes: int, canary: str,
        whole_into: str = "",
    ) -> dict[str, Any]:  # fmt: skip
        """Draw files of an archive by lot, with what a restore of them must be like."""
        from borgcube.plugins.borg.vaultclient import ask

        request = {"op": "sample", "archive": archive, "files": files, "most_bytes": most_bytes,
                   "canary": canary, "whole_into": whole_into}  # fmt: skip
        return ask(context.order.vault_socket, request, check=context.check_cancelled)

    def content_hash(self, kind: str, key: bytes) -> Callable[[bytes], bytes]:
        """Return the function that makes the ID of a piece of content."""
        from borgcube.plugins.borg.gate.verify import id_hash_for

        return id_hash_for(kind, key)

    def delete_archives(self, context: JobContext) -> JobResult:
        """Delete archives by name; those already gone are fine."""
        from borgcube.plugins.borg.vaultclient import delete_archives

        if context.order.parameters.get("ids"):
            from borgcube.plugins.borg.upkeep import delete

            return delete(context)
        names = [str(name) for name in context.order.parameters["archives"]]
        context.phase("deleting")
        deleted = delete_archives(context.order.vault_socket, names, check=context.check_cancelled)
        return JobResult(data={"deleted": sorted(deleted)}, archives_deleted=names)

    def prune_archives(self, context: JobContext) -> JobResult:
        """Delete the archives that are due, or measure what deleting them would free."""
        from borgcube.plugins.borg.upkeep import prune

        return prune(context)

    def compact(self, context: JobContext) -> JobResult:
        """Give the space of deleted archives back."""
        from borgcube.plugins.borg.upkeep import compact

        return compact(context)
