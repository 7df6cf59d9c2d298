"""Pull one backup: the worker's side, from login to admitted archive."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from borgcube.core import clocks
from borgcube.core.errors import FailureCause, JobFailed, Problem, Violation
from borgcube.core.jobs import JOB_DONE, JOB_WARNING, JobContext, JobResult
from borgcube.core.untrusted import words
from borgcube.plugins.borg import clientend, exclusions, remote
from borgcube.plugins.borg.clientend import DONE_CODES
from borgcube.plugins.borg.hearing import Outcome, archive_progress
from borgcube.plugins.borg.rpcrun import DEPLOY, Limits, RemoteBorg, find_borg
from borgcube.plugins.borg.vaultclient import VaultSession
from borgcube.plugins.borg.wanted import Wanted

MAX_KEPT = 4000


def create_command(borg: str, options: Mapping[str, Any]) -> list[str]:
    """Return the argv of ``borg create`` for a plan's options."""
    files_cache = options.get("files_cache") or "ctime,size"
    argv = [
        borg,
        "create",
        "--progress",
        "--log-json",
        "--checkpoint-interval",
        "0",
        "--files-cache",
        files_cache,
        "--compression",
        options.get("compression") or "lz4",
    ]
    for flag, key in (
        ("--exclude-caches", "exclude_caches"),
        ("--one-file-system", "one_file_system"),
        ("--numeric-ids", "numeric_ids"),
        ("--atime", "atime"),
        ("--sparse", "sparse"),
    ):
        if options.get(key):
            argv.append(flag)
    for name in options.get("exclude_if_present") or ():
        argv += ["--exclude-if-present", name]
    for pattern in options.get("patterns") or ():
        argv.append(f"--pattern={pattern}")
    for pattern in options.get("excludes") or ():
        argv.append(f"--exclude={pattern}")
    if options.get("upload_ratelimit_kib"):
        argv += ["--upload-ratelimit", str(int(options["upload_ratelimit_kib"]))]
    if exclusions.wanted(options):
        argv += ["--list", "--filter", "x"]
    argv += ["--", f"{remote.REPOSITORY_URL}::{options['archive']}", *options["paths"]]
    return argv


def command_line(options: Mapping[str, Any]) -> str:
    """Return what ran on the client, as one line of up to 4,000 characters to be kept."""
    named = "borg" if options.get("borg") in (None, "", DEPLOY) else str(options["borg"])
    return shlex.join(create_command(named, options))[:MAX_KEPT]


def backup(context: JobContext) -> JobResult:
    """Run the backup of the order; see ``core.engines.Engine.backup``."""
    options = context.order.parameters
    context.phase("connecting")
    connection = context.connect()
    borg = str(options.get("borg") or "borg")
    context.phase("preparing")
    session = VaultSession(
        context.order.vault_socket,
        {
            "op": "backup",
            "archive": options["archive"],
            "plan": options["plan"],
            "domain": options["domain"],
            "own_domain": options.get("own_domain") or "",
            "comment": options.get("comment") or "",
            "paths": list(options["paths"]),
            "files_cache": options.get("files_cache") or "ctime,size",
            "job": context.order.job_id,
            "client": context.order.client.name if context.order.client else "",
            "limits": options.get("limits") or {},
        },
        check=context.check_cancelled,
    )
    context.log("info", f"{session.terms['files_known']} files are known from the last archive")
    run = RemoteBorg(context, connection, session, mode="backup")
    excluded = exclusions.Excluded() if exclusions.wanted(options) else None
    run.on_message = lambda message: _take(context, message, excluded)
    try:
        wanted = run.prepare(create_command(borg, options), wanted=options["paths"])
        wanted.require_one(options["paths"])
        context.phase("transferring")
        outcome = run.run(Limits.of(options))
        context.phase("finishing")
        admitted = _end(session, outcome, client=run.client)
        if admitted is None and not outcome.version and not outcome.refused and borg != DEPLOY:
            find_borg(context, connection, borg)  # says what is wrong with it, if anything
    finally:
        session.close()
        run.clean_up()
    if admitted is not None:
        admitted["exclusions"] = _judge_exclusions(context, excluded)
    return judge(outcome, admitted, wanted=wanted, options=options, client=run.client)


def _judge_exclusions(context: JobContext, excluded: exclusions.Excluded | None) -> dict[str, Any]:
    """Return what is known of the plan's exclusions, for the archive's record."""
    if excluded is None:
        return dict(context.order.parameters.get("exclusions") or {})
    found = exclusions.judge(context.order.parameters, excluded)
    if said := exclusions.remark(found):
        context.log("warning", said)
    return found


def _end(session: VaultSession, outcome: Outcome, *, client: str) -> dict[str, Any] | None:
    """End the session; a refusal by the vault becomes one that names the client."""
    try:
        # Of a client that was refused, nothing is kept.
        return session.end(discard=bool(outcome.refused))
    except JobFailed as error:
        # A limit is no misdeed, and the vault has named the client.
        if error.cause.problem != Problem.CLIENT or error.cause.kind.startswith("limit-"):
            raise
        raise JobFailed(
            error.cause.kind,
            Problem.CLIENT,
            f"{client} was refused: {error.cause.message}.",
            next_step=error.cause.next_step,
            violation=Violation(error.cause.kind, words(error.cause.message)),
        ) from error


def _take(
    context: JobContext, message: Mapping[str, Any], excluded: exclusions.Excluded | None
) -> None:
    if excluded is not None:
        excluded.take(message)
    figures = archive_progress(dict(message))
    if figures:
        context.progress(**figures)


def judge(
    outcome: Outcome,
    admitted: dict[str, Any] | None,
    *,
    wanted: Wanted,
    options: Mapping[str, Any],
    client: str,
) -> JobResult:
    """Decide how the job ended; raises JobFailed when there is no archive."""
    if outcome.refused and admitted is None:
        raise refused(outcome, client=client)
    if admitted is None:
        last = (outcome.errors or outcome.warnings or ["no message"])[-1]
        if outcome.vault_lost:
            raise clientend.vault_lost(client)
        if (failure := clientend.killed(outcome.exit_code, client=client)) is not None:
            raise failure
        if (failure := clientend.not_run(outcome.exit_code, last, client=client)) is not None:
            raise failure
        if outcome.exit_code is None or outcome.exit_code < 0 or outcome.exit_code == 255:
            raise JobFailed(
                "connection-lost",
                Problem.NETWORK,
                f"{client} was cut off before the archive was complete ({last}).",
                next_step="Run the backup again; what was stored is reused.",
            )
        if outcome.exit_code in DONE_CODES:
            what = f"says it is done (code {outcome.exit_code}), but wrote no archive"
            raise JobFailed(
                "no-archive",
                Problem.CLIENT,
                f"{client} {what}.",
                next_step="Stock borg does not do this: look at the client.",
                violation=Violation("no-archive", what),
            )
        raise JobFailed(
            "borg-failed",
            Problem.CLIENT,
            f"{client}: borg ended with code {outcome.exit_code}: {last}.",
            next_step="The job's log has all it said.",
        )
    warnings = [f"{path}: not there" for path in wanted.missing]
    warnings += [*wanted.only_links(options["paths"]), *outcome.warnings, *outcome.errors]
    warnings += _long_names(admitted)
    code = outcome.exit_code
    state = JOB_DONE if code == 0 and not warnings else JOB_WARNING
    if code != 0 and not warnings:
        warnings = [f"borg on the client ended with code {code} after its archive was complete"]
    cause = None
    if state == JOB_WARNING:
        cause = _reason(outcome, len(warnings))
    offset = clocks.offset_of(admitted)
    if clocks.is_off(offset):
        said = clocks.words(client, offset)
        state, warnings = JOB_WARNING, [*warnings, said]
        cause = cause or FailureCause(clocks.KIND, Problem.CLIENT, said, clocks.NEXT_STEP)
    facts = dict(admitted)
    superseded = facts.pop("superseded", [])
    facts |= {"plan": options["plan"], "bytes_received": outcome.bytes_in,
              "missing_paths": [words(path) for path in wanted.missing],
              "command_line": command_line(options)}  # fmt: skip
    return JobResult(
        state=state,
        data={key: value for key, value in facts.items() if key not in ("id", "roots")}
        | {"archive": facts["name"]},
        warnings=warnings,
        archives_added=[facts],
        archives_deleted=list(superseded),
        cause=cause,
    )


def _long_names(admitted: Mapping[str, Any]) -> list[str]:
    """Return a warning for each path, of the first ones, that most file systems do not take."""
    paths, count = admitted.get("long_name_paths") or [], int(admitted.get("long_names") or 0)
    found = [f"{path}: a name of over 255 bytes, which most file systems do not take"
             for path in paths]  # fmt: skip
    if count > len(paths):
        found.append(f"{count - len(paths)} more paths have names of over 255 bytes")
    return found


def _reason(outcome: Outcome, count: int) -> FailureCause:
    """Return why a backup with its archive complete is not simply done."""
    if not outcome.committed:
        # What the client then complains of is the server's end of the connection.
        return FailureCause(
            "client-not-told",
            Problem.SERVER,
            "The archive is complete, but the server cut the client off before it was told.",
            "Nothing needs to be done for the backup itself. The logs of gate and vault say more.",
        )
    return FailureCause(
        "backup-warnings",
        Problem.CLIENT,
        f"{count} {'warning' if count == 1 else 'warnings'} on the client.",
        "The archive holds everything else.",
    )


def refused(outcome: Outcome, *, client: str) -> JobFailed:
    """Return the failure of a job whose client the gate refused."""
    return JobFailed(
        "client-refused",
        Problem.CLIENT,
        f"{client} was refused: {outcome.refused}.",
        next_step="Stock borg does not do this: look at the client before trusting it again.",
        violation=Violation(outcome.refused_kind, outcome.refused),
    )
