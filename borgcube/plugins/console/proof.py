"""Proof: what checks found of a repository, restore drills and their reports, and what stands
out. Tabs on the pages of repositories and plans, a card, and the page ``/drills``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pyramid.httpexceptions import HTTPNotFound, HTTPSeeOther
from pyramid.response import Response

from borgcube.core import checks
from borgcube.core.access import Permission
from borgcube.core.quarantine import counts
from borgcube.plugins.console import queries
from borgcube.plugins.console.resources import (
    DrillItem,
    Drills,
    PlanItem,
    RepositoryItem,
    add,
)

SHOWN = 50
SHOWN_ON_PLAN = 5
SHOWN_FILES = 20
FORMS = {"html": "text/html", "json": "application/json"}


def checks_tab(request: Any, repository: Any) -> dict[str, Any]:
    """Return what is known of a repository's checks, and what is damaged."""
    proof = checks.proof_of(request.db, repository)
    states = checks.states(
        proof.checked, damage=proof.damage, days=repository.verify_days, now=datetime.now(UTC)
    )
    damaged = []
    for name, facts in list(dict(proof.damage.get("archives") or {}).items())[:SHOWN_FILES]:
        archive = next((one for one in request.db.archives.oldest("name", name)
                        if one.repository == repository.name), None)  # fmt: skip
        damaged.append({
            "name": name, "id": archive.id if archive is not None else "",
            "files": facts["files"][:SHOWN_FILES], "unreadable": facts["unreadable"],
            "more": facts["count"] - min(len(facts["files"]), SHOWN_FILES),
        })  # fmt: skip
    return {
        "repository": repository.name, "states": states, "damaged": damaged,
        "days": repository.verify_days, "may_operate": request.me.may(Permission.CONFIGURE),
        "more": max(0, int(proof.damage.get("archives_count") or 0) - len(damaged)),
    }  # fmt: skip


def drills_tab(request: Any, plan: Any) -> dict[str, Any]:
    """Return the last drills of a plan."""
    return {
        "plan": plan, "may_operate": request.me.may(Permission.OPERATE, client=plan.client),
        "drills": request.db.drills.newest(SHOWN_ON_PLAN, plan=plan.name),
        "has_archive": bool(request.db.archives.newest(1, counts, plan=plan.name)),
    }  # fmt: skip


def attention_card(request: Any) -> dict[str, Any] | None:
    """Return the plans that are on hold and the repositories with damage, or None."""
    held = []
    for name in list(request.db.held)[:SHOWN]:
        plan = request.db.plans.find("name", name)
        if plan is not None and plan.prune_hold \
                and request.me.may(Permission.VIEW, client=plan.client):  # fmt: skip
            held.append(plan)
    damaged = []
    if request.me.may(Permission.VIEW_SERVER):
        for proof in request.db.proofs.newest(SHOWN):
            repository = request.db.repositories.find("name", proof.repository)
            if proof.damage and repository is not None and repository.id == proof.id:
                damaged.append({"name": repository.name,
                                "words": checks.damage_words(proof.damage)})  # fmt: skip
    return {"held": held, "damaged": damaged} if held or damaged else None


def check(context: RepositoryItem, request: Any) -> Any:
    """Check all of a repository now."""
    made = request.act("check.start", repository=context.record.name, full=True)
    return HTTPSeeOther(request.path_to("jobs", made["job_id"]))


def drill_now(context: PlanItem, request: Any) -> Any:
    """Try a restore of a plan's newest archive."""
    made = request.act("drill.start", plan=context.record.name)
    return HTTPSeeOther(request.path_to("jobs", made["job_id"]))


def release(context: PlanItem, request: Any) -> Any:
    """Let a plan be pruned again."""
    usual = str(request.POST.get("usual", "yes")) == "yes"
    request.act("plan.release", plan=context.record.name, usual=usual)
    return HTTPSeeOther(request.path_to("plans", context.record.name))


def drills(context: Drills, request: Any) -> dict[str, Any]:
    """List drills, newest first."""
    return {"drills": queries.visible(request, request.db.drills, SHOWN)}


def drill(context: DrillItem, request: Any) -> dict[str, Any]:
    """Show one drill."""
    found = request.act("drill.show", id=context.record.id)
    report = found["report"]
    files = report["files"][:SHOWN] if report else []
    archive = next((one for one in request.db.archives.oldest("id", context.record.archive_id)
                    if one.repository == context.record.repository), None)  # fmt: skip
    return {
        "drill": context.record, "report": report, "genuine": found["genuine"], "files": files,
        "more": context.record.files - len(files), "archive": archive,
    }  # fmt: skip


def report(context: DrillItem, request: Any) -> Response:
    """Download a report: ``?form=json`` for machines, else HTML."""
    form = str(request.params.get("form", "html"))
    if form not in FORMS:
        raise HTTPNotFound
    text = request.act("drill.report", id=context.record.id, form=form)["text"]
    if not request.words.all_shown:
        shown = request.act("drill.show", id=context.record.id)
        text = request.words.report(text, shown["report"])
    return Response(
        text.encode(), content_type=FORMS[form], charset="utf-8",
        # Saved, not shown: the page has a style of its own, which the console's policy forbids.
        content_disposition=f'attachment; filename="drill-{context.record.id}.{form}"',
    )  # fmt: skip


def includeme(config: Any) -> None:
    """Add the views."""
    add(config, drills, Drills, template="drills")
    add(config, drill, DrillItem, template="drill")
    add(config, report, DrillItem, "report")
    add(config, check, RepositoryItem, "check", permission=Permission.CONFIGURE, posts=True)
    add(config, drill_now, PlanItem, "drill", permission=Permission.OPERATE, posts=True)
    add(config, release, PlanItem, "release", permission=Permission.DELETE, posts=True)
