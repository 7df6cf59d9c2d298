"""Restore one archive to a directory of a client (or of the server, through ``local``).

What extracts on the server does so in a fence (``plugins/borg/fencing.py``). On another machine it
extracts into a directory of its own, and is moved into place (``plugins/borg/placing.py``).
"""

from __future__ import annotations

from borgcube.core.errors import JobFailed, Problem
from borgcube.core.fence import Fence
from borgcube.core.jobs import JOB_DONE, JOB_WARNING, JobContext, JobResult
from borgcube.core.transports import Connection
from borgcube.core.untrusted import last_words
from borgcube.plugins.borg import clientend, fencing, remote
from borgcube.plugins.borg.hearing import Outcome
from borgcube.plugins.borg.placing import Placing
from borgcube.plugins.borg.pull import refused
from borgcube.plugins.borg.rpcrun import DEPLOY, Limits, RemoteBorg, find_borg
from borgcube.plugins.borg.vaultclient import VaultSession


def restore(context: JobContext) -> JobResult:
    """Run the restore of the order; see ``core.engines.Engine.restore``."""
    options = context.order.parameters
    context.phase("connecting")
    connection = context.connect()
    borg = str(options.get("borg") or "borg")
    if borg != DEPLOY:
        find_borg(context, connection, borg)
    target = str(options["target"])
    here = fencing.is_here(context, connection)
    if here:
        _make_target(connection, target)
    context.phase("preparing")
    harmless = bool(options.get("server_side")) and not options.get("as_root")
    session = VaultSession(
        context.order.vault_socket,
        {
            "op": "restore",
            "archive": options["archive"],
            "paths": list(options.get("paths") or ()),
            "harmless": harmless,
        },
        check=context.check_cancelled,
    )
    context.progress(bytes_total=session.terms["size"], files=session.terms["files"])
    placing = Placing(
        connection, target, server=context.order.server_id or "server",
        token=session.terms["token"], shared=bool(options.get("shared_target")),
    )  # fmt: skip
    try:
        fence = fencing.fence_for(context, connection, session.terms, borg=borg)
        if not here:
            placing.prepare()
    except BaseException:
        session.close()
        raise
    run = RemoteBorg(context, connection, session, mode="restore", fence=fence)
    command = [
        borg,
        "extract",
        "--log-json",
        "--sparse",
        "--numeric-ids",
        "--",
        f"{remote.REPOSITORY_URL}::{remote.RESTORED_NAME}",
    ]
    if options.get("names"):
        command.remove("--numeric-ids")
    try:
        if fence is not None:
            command[0] = fencing.program(borg)
        limits = Limits.of(options)
        run.prepare(command, into=target if here else placing.into)
        context.phase("transferring")
        outcome = run.run(limits)
        context.phase("finishing")
        session.end()  # raises when the vault could not serve it
        _judge(run, outcome, fence)
        left = [] if here else placing.place(timeout_s=limits.max_duration_s)
    finally:
        session.close()
        run.clean_up()
        placing.clean_up(context.log)
    code = outcome.exit_code
    warnings = [*outcome.warnings, *outcome.errors, *left]
    return JobResult(
        state=JOB_DONE if code == 0 and not warnings else JOB_WARNING,
        data={
            "archive": options["archive"],
            "target": target,
            "files": session.terms["files"],
            "size": session.terms["size"],
        },
        warnings=warnings,
    )


def _make_target(connection: Connection, target: str) -> None:
    made = connection.run(["mkdir", "-p", "--", target], timeout_s=60)
    if made.exit_code != 0:
        raise JobFailed(
            "target-unusable",
            Problem.CLIENT,
            f"The directory {target} cannot be made: {last_words(made.stderr)}",
            next_step="Choose another directory.",
        )


def _judge(run: RemoteBorg, outcome: Outcome, fence: Fence | None) -> None:
    """Raise JobFailed when borg did not do its work."""
    code = outcome.exit_code
    warnings = [*outcome.warnings, *outcome.errors]
    if fence is not None and (failed := fencing.failure(code, fence, outcome.errors)) is not None:
        raise failed
    if outcome.refused:
        raise refused(outcome, client=run.client)
    if code != 0 and outcome.vault_lost:
        raise clientend.vault_lost(run.client)
    if (failure := clientend.killed(code, client=run.client)) is not None:
        raise failure
    last = (warnings or ["no message"])[-1]
    if (failure := clientend.not_run(code, last, client=run.client)) is not None:
        raise failure
    if code not in (1, *clientend.DONE_CODES):
        raise JobFailed(
            "borg-failed",
            Problem.CLIENT if fence is None else Problem.SERVER,
            f"borg extract ended with code {code}: {last}.",
            next_step="The job's log has all it said.",
        )
