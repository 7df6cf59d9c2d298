"""Check a repository: the worker's side. The vault reads, this one asks and reports."""

from __future__ import annotations

from typing import Any

from borgcube.core import checks
from borgcube.core.errors import FailureCause, Problem
from borgcube.core.jobs import JOB_DONE, JOB_WARNING, JobContext, JobResult
from borgcube.plugins.borg.vaultclient import follow

DEFAULT_DAYS = 30
MIB = 1 << 20
REPAIR = (
    "Look at the disk first. A backup of the same files mends what it can; for the rest see "
    "docs/checks.md, Repair. Nothing was changed."
)


def check(context: JobContext) -> JobResult:
    """Run the check of the order; see ``core.engines.Engine.check``."""
    parameters = checks.check_parameters(context.order.parameters)
    kind = parameters["kind"]
    context.phase("reading" if kind == "data" else "walking archives")

    def on_progress(figures: dict[str, Any]) -> None:
        context.check_cancelled()
        context.progress(**figures)

    answer = follow(
        context.order.vault_socket,
        {
            "op": "verify", "kind": kind, "budget_s": parameters["budget_s"],
            "days": parameters["days"] or DEFAULT_DAYS,
            "bytes_per_s": parameters["max_mib_s"] * MIB, "full": parameters["full"],
        },
        on_progress=on_progress, check=context.check_cancelled,
    )  # fmt: skip
    context.phase("finishing")
    return judge(context, dict(answer["checked"]), dict(answer["damage"]))


def judge(context: JobContext, facts: dict[str, Any], damage: dict[str, Any]) -> JobResult:
    """Say how a check ended."""
    shown = checks.clean_damage(damage)
    result = JobResult(data=dict(facts), checked=facts, damage=damage)
    rate = facts.get("slice_bytes", 0) / max(0.001, facts["seconds"]) / MIB
    if facts["kind"] == "data":
        context.log("info", f"{facts['slice_bytes']:,} bytes in {facts['slice_chunks']:,} objects "
                            f"read in {facts['seconds']} s ({rate:.0f} MiB/s)")  # fmt: skip
    else:
        context.log("info", f"{facts['slice_items']:,} files and directories of "
                            f"{facts['slice_archives']:,} archives walked")  # fmt: skip
    if shown:
        for line in checks.damaged_files(shown):
            context.log("error", f"damaged: {line}")
        result.state = "failed"
        result.cause = FailureCause(
            "damage-found", Problem.REPOSITORY, str(checks.damage_words(shown)), REPAIR
        )
    elif facts.get("slack_damaged"):
        result.state = JOB_WARNING
        text = (
            f"{facts['slack_damaged']} segments have a damaged entry that no archive uses: "
            "nothing is lost."
        )
        result.warnings = [text]
        result.cause = FailureCause(
            "unused-damage", Problem.REPOSITORY, text, "Look at the disk; see docs/checks.md."
        )
    else:
        result.state = JOB_DONE
    return result
