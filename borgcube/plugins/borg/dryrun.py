"""Say what a backup would take: ``borg create --dry-run --list`` on the client.

Nothing is stored and no vault, no key and no repository takes part: borg walks the paths
with the plan's options and prints what it meets. What it prints is the client's word,
bounded and escaped like all of it. The list goes into a file of the job (see
``core.listings``), a summary into the job's result.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from borgcube.core import home as places
from borgcube.core.errors import FailureCause, JobFailed, Problem
from borgcube.core.jobs import JOB_DONE, JOB_WARNING, JobContext, JobResult
from borgcube.core.listings import DIRECTORY, EXCLUDED, FILE, OTHER, Entry, ListingWriter
from borgcube.core.transports import Completed, Connection
from borgcube.core.untrusted import words
from borgcube.plugins.borg import clientend, exclusions, remote
from borgcube.plugins.borg.clientend import DONE_CODES
from borgcube.plugins.borg.hearing import ClientOutput, Outcome
from borgcube.plugins.borg.pull import create_command
from borgcube.plugins.borg.rpcrun import Limits, RemoteBorg
from borgcube.plugins.borg.vaultclient import VaultSession

# The list in memory: what its paths take, and each of them beside its text. About 300,000
# paths of usual length; the rest is counted only.
KEPT_BYTES = 64 << 20
ENTRY_BYTES = 120
MAX_PATH = 4096  # characters
# A client with tens of millions of files prints this much; it is counted, not kept.
MAX_OUTPUT_BYTES = 8 << 30
# What the sums of directories may take in memory; a directory costs about this beside its name.
PLACES_BYTES = 8 << 20
PLACE_BYTES = 300
SHOWN = 25
MEASURE_TIMEOUT_S = 600.0
MEASURED_AT_ONCE = 4 << 20  # characters of paths in one command
_MEASURED = re.compile(rb"(\d{1,18}) ([0-9a-f]{1,8}) ", re.ASCII)


class LoneSession(VaultSession):
    """Stands in for a vault's session where there is none: terms for a directory on the
    client that belongs to no repository, so that no run of a repository sweeps it."""

    def __init__(self) -> None:
        identity = secrets.token_hex(32)
        self.terms = {
            "token": f"{identity[:8]}{time.time_ns():016x}{secrets.token_hex(16)}",
            "repository_id": identity, "manifest_id": secrets.token_hex(32), "type_byte": 7,
        }  # fmt: skip

    def close(self) -> None:
        """Do nothing: there is no connection."""


def dry_command(borg: str, options: Mapping[str, Any]) -> list[str]:
    """Return the argv of the dry run of a plan's ``borg create``."""
    # All is listed anyway, what is left out too.
    known = {"digest": exclusions.digest(options), "unused": []}
    argv = create_command(borg, {**options, "archive": "dry-run", "exclusions": known})
    argv.remove("--progress")
    argv[2:2] = ["--dry-run", "--list"]
    return argv


@dataclass
class Listing:
    """What the client's borg lists: counted to the end, kept up to a bound."""

    kept: list[tuple[str, bool]] = field(default_factory=list)  # path, excluded
    kept_bytes: int = 0
    included: int = 0
    excluded: int = 0
    last: str = ""

    def take(self, message: Mapping[str, Any]) -> None:
        """Take one of borg's messages; what is no line of the list is left out."""
        path = message.get("path")
        if message.get("type") != "file_status" or not isinstance(path, str) or not path:
            return
        excluded = message.get("status") == "x"
        if excluded:
            self.excluded += 1
        else:
            self.included += 1
        self.last = path[:MAX_PATH]
        cost = sys.getsizeof(self.last) + ENTRY_BYTES
        if self.kept_bytes + cost <= KEPT_BYTES:
            self.kept_bytes += cost
            self.kept.append((self.last, excluded))

    @property
    def cut(self) -> bool:
        """Whether there was more than is kept."""
        return self.included + self.excluded > len(self.kept)


def dry_run(context: JobContext) -> JobResult:
    """Run the dry run of the order; see ``core.engines.Engine.dry_run``."""
    options = context.order.parameters
    borg = str(options.get("borg") or "borg")
    context.phase("connecting")
    connection = context.connect()
    context.phase("preparing")
    run = RemoteBorg(context, connection, LoneSession(), mode="backup")
    listing = Listing()
    try:
        wanted = run.prepare(dry_command(borg, options), wanted=options["paths"])
        wanted.require_one(options["paths"])
        context.phase("listing")
        outcome = _listen(context, run, listing, Limits.of(options))
    finally:
        run.clean_up()
    code = outcome.exit_code
    if (failure := clientend.killed(code, client=run.client)) is not None:
        raise failure
    if code not in DONE_CODES:
        last = (outcome.errors or outcome.warnings or ["no message"])[-1]
        if (failure := clientend.not_run(code, last, client=run.client)) is not None:
            raise failure
        raise JobFailed(
            "borg-failed", Problem.CLIENT, f"{run.client}: borg ended with code {code}: {last}.",
            next_step="The job's log has all it said.",
        )  # fmt: skip
    context.phase("measuring")
    sizes = measure(connection, [path for path, excluded in listing.kept if not excluded])
    if not sizes:
        context.log("info", "the client's stat tells no sizes: files are only counted")
    said = [*outcome.warnings, *outcome.errors]
    silent = [
        path for path in wanted.missing if not any(text.startswith(f"{path}:") for text in said)
    ]
    warnings = [
        *(f"{path}: not there" for path in silent),
        *wanted.only_links(options["paths"]),
        *said,
    ]
    state = JOB_WARNING if warnings else JOB_DONE
    data = _keep(context, listing, sizes) | {"exclusions": _unused(context, listing)}
    return JobResult(
        state=state, data=data,
        warnings=warnings,
        cause=None if state == JOB_DONE else FailureCause(
            "backup-warnings", Problem.CLIENT, f"{len(warnings)} warnings on the client.",
            "A backup would take everything else.",
        ),
    )  # fmt: skip


def _unused(context: JobContext, listing: Listing) -> dict[str, Any]:
    if not exclusions.are_in(context.order.parameters):
        return {}
    excluded = exclusions.Excluded(cut=listing.cut)
    for path, left_out in listing.kept:
        if left_out:
            excluded.add(path)
    found = exclusions.judge(context.order.parameters, excluded)
    if said := exclusions.remark(found):
        context.log("warning", said)
    return found


def _listen(context: JobContext, run: RemoteBorg, listing: Listing, limits: Limits) -> Outcome:
    process = run.connection.start(["sh", f"{run.directory}/run"])
    if not remote.skip_banner(process.stdout_fd):
        process.terminate()
        for descriptor in (process.stdin_fd, process.stdout_fd, process.stderr_fd):
            os.close(descriptor)
        raise JobFailed(
            "login-output", Problem.CLIENT,
            "The login prints something other than the output of the command.",
            next_step="Try `ssh CLIENT true`: it must print nothing.",
        )  # fmt: skip
    outcome = run.outcome
    output = ClientOutput(outcome, context.log)
    output.on_message = listing.take
    reader = threading.Thread(target=output.read, args=(process.stderr_fd,), daemon=True)
    reader.start()
    started = time.monotonic()
    output.last_sign = started
    try:
        while True:
            outcome.exit_code = process.wait(0.2)
            if outcome.exit_code is not None:
                break
            context.check_cancelled()
            context.progress(files=listing.included, path=words(listing.last, limit=MAX_PATH))
            now = time.monotonic()
            if now - output.last_sign > limits.idle_timeout_s:
                raise run.violated(
                    "client-silent", f"listed nothing for {limits.idle_timeout_s:.0f} s",
                    next_step="Look at the client.",
                )  # fmt: skip
            if now - started > limits.max_duration_s:
                raise run.violated(
                    "client-overtime", f"took more than {limits.max_duration_s:.0f} s",
                    next_step="Look at the client, or give the plan a longer --max-duration.",
                )  # fmt: skip
            if output.received > MAX_OUTPUT_BYTES:
                raise run.violated(
                    "client-output", f"printed more than {MAX_OUTPUT_BYTES >> 30} GiB",
                    next_step="Stock borg does not do this: look at the client.",
                )  # fmt: skip
        run.directory = ""  # the script removed it before it ended
    finally:
        if outcome.exit_code is None:
            process.terminate()
        for descriptor in (process.stdin_fd, process.stdout_fd):
            os.close(descriptor)
        reader.join(timeout=30)
    context.progress(files=listing.included)
    return outcome


def measure(connection: Connection, paths: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Return size in bytes and file mode of paths on the client, by path.

    A command for some megabytes of paths at a time, with GNU's stat; empty where there is none.
    What comes back is the client's word too.
    """
    found: dict[str, tuple[int, int]] = {}
    deadline = time.monotonic() + MEASURE_TIMEOUT_S
    block: list[str] = []
    waiting = 0
    for path in paths:
        if "\0" not in path:
            block.append(path)
            waiting += len(path)
        if waiting >= MEASURED_AT_ONCE:
            if not _measure(connection, block, found, deadline - time.monotonic()):
                return found
            block, waiting = [], 0
    if block:
        _measure(connection, block, found, deadline - time.monotonic())
    return found


def _measure(
    connection: Connection, paths: Iterable[str], found: dict[str, tuple[int, int]],
    timeout_s: float,
) -> bool:  # fmt: skip
    """Add what the client says of some paths; False when it says nothing."""
    wanted = {os.fsencode(path): path for path in paths}
    done: Completed = connection.run(
        ["xargs", "-0", "stat", "--printf", "%s %f %n\\0", "--"],
        stdin=b"".join(name + b"\0" for name in wanted), timeout_s=max(1.0, timeout_s),
        max_output=sum(map(len, wanted)) + 32 * len(wanted),
    )  # fmt: skip
    before = len(found)
    for line in done.stdout.split(b"\0"):
        match = _MEASURED.match(line)
        path = wanted.get(line[match.end() :]) if match else None
        if match and path is not None:
            found[path] = (int(match.group(1)), int(match.group(2), 16))
    return len(found) > before


def kind_of(mode: int) -> str:
    """Return what a file mode is: file, directory or another thing."""
    return {0o10: FILE, 0o04: DIRECTORY}.get((mode >> 12) & 0o17, OTHER)


def summary(entries: Iterable[Entry]) -> dict[str, Any]:
    """Return files, directories and bytes in all, and where most of them are: the largest
    files, and directories two levels below the root."""
    files = directories = size = 0
    by_place: dict[str, list[int]] = {}
    places_bytes = 0
    largest: list[tuple[int, str]] = []
    for entry in entries:
        if entry.kind == EXCLUDED:
            continue
        directories += entry.kind == DIRECTORY
        if entry.kind == DIRECTORY:
            continue
        files += 1
        length = entry.size or 0 if entry.kind == FILE else 0
        size += length
        parent = "/".join(PurePosixPath(entry.path).parts[:3]).replace("//", "/", 1)
        cost = 0 if parent in by_place else sys.getsizeof(parent) + PLACE_BYTES
        if places_bytes + cost <= PLACES_BYTES:
            places_bytes += cost
            sums = by_place.setdefault(parent, [0, 0])
            sums[0] += 1
            sums[1] += length
        if length:
            largest.append((length, entry.path))
            if len(largest) > 50 * SHOWN:
                largest = sorted(largest, reverse=True)[:SHOWN]
    most = sorted(by_place.items(), key=lambda item: (-item[1][1], -item[1][0]))[:SHOWN]
    return {
        "files": files, "directories": directories, "size": size,
        "places": [{"path": words(path, limit=MAX_PATH), "files": n, "size": b}
                   for path, (n, b) in most],
        "largest": [{"path": words(path, limit=MAX_PATH), "size": b}
                    for b, path in sorted(largest, reverse=True)[:SHOWN]],
    }  # fmt: skip


def _keep(
    context: JobContext, listing: Listing, sizes: Mapping[str, tuple[int, int]]
) -> dict[str, Any]:
    with ListingWriter(places.job_dir(context.home, context.order.job_id)) as writer:

        def entries() -> Iterator[Entry]:
            for path, excluded in listing.kept:
                size, mode = sizes.get(path, (None, 0o100000))
                kind = EXCLUDED if excluded else kind_of(mode)
                entry = Entry(kind, words(path, limit=MAX_PATH), size if kind == FILE else None)
                writer.write(entry)
                yield entry

        found = summary(entries())
    return {
        **found, "included": listing.included, "excluded": listing.excluded,
        "kept": writer.written, "cut": listing.cut or writer.full, "measured": bool(sizes),
    }  # fmt: skip
