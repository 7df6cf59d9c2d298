"""The daily or weekly letter: how safe everything is, what ran, what failed, what to do.

Reads the store (in the watch's thread, or for a preview) and writes a letter as data. What it
lists is bounded, what it counts is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from borgcube.core import lifecycle
from borgcube.core.alarms import KINDS
from borgcube.core.letters import BAD, GOOD, PLAIN, TONES, WARN, Block, Letter, local, one_line
from borgcube.core.notices import counted, span
from borgcube.core.rules import about_its_subjects, rank, worst
from borgcube.core.silence import Expectations, moment
from borgcube.core.standing import unused_exclusions
from borgcube.core.store import Root

PERIOD = {"daily": timedelta(days=1), "weekly": timedelta(days=7)}
MAX_LISTED = 12
MAX_JOBS = 200_000
MAX_PLANS = 100_000
PAGE = 500
WHOSE = {"client": "the client's", "network": "the network's", "server": "this server's",
         "repository": "the repository's", "configuration": "the configuration's"}  # fmt: skip


def size(count: float) -> str:
    """Return bytes with a binary unit."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < 1024 or unit == "TiB":
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError


@dataclass
class Figures:
    """What the letter is made of."""

    plans: int = 0
    safe: int = 0
    never: list[str] = field(default_factory=list)
    silent: list[tuple[str, str, str]] = field(default_factory=list)
    empty: list[tuple[str, str, str]] = field(default_factory=list)
    unused: list[tuple[str, str, str]] = field(default_factory=list)
    protected: int = 0
    ran: dict[str, int] = field(default_factory=dict)
    failed: dict[str, Any] = field(default_factory=dict)
    read: int = 0
    stored: int = 0
    grew: dict[str, int] = field(default_factory=dict)
    archives: int = 0
    incidents: list[Any] = field(default_factory=list)
    over: int = 0


def _pages(table: Any) -> Iterator[Any]:
    """Yield records, newest first, without holding all of them."""
    before: int | None = None
    seen = 0
    while seen < MAX_JOBS:
        batch = table.newest(PAGE, before=before)
        yield from batch
        seen += len(batch)
        if len(batch) < PAGE:
            return
        before = table.number_of(batch[-1])


def _look_at_plans(
    root: Root, rule: Any, expected: Expectations, now: datetime, found: Figures
) -> None:
    for plan in root.plans.newest(MAX_PLANS):
        subject = {"plan": plan.name, "client": plan.client, "repository": plan.repository}
        if not about_its_subjects(rule, subject):
            continue
        found.plans += 1
        status = root.fleet.status(plan.name)
        last = local(status.archive_at, rule.zone) if status and status.archive else ""
        if status is None or not status.archive:
            found.never.append(plan.name)
        else:
            found.protected += status.size
            if not status.size and _holds_nothing(root, status):
                found.empty.append((plan.name, plan.client, last))
            if (plan.excludes or plan.patterns) and (missed := unused_exclusions(root, plan)):
                found.unused.append((plan.name, plan.client, ", ".join(missed)))
        due = expected.due_by(plan)
        if due is not None and due < now:
            found.silent.append((plan.name, plan.client, last or "never"))
        elif last:
            found.safe += 1


def _holds_nothing(root: Root, status: Any) -> bool:
    archive = root.archives.rows.get(status.archive_number)
    return archive is not None and archive.stats.get("files") == 0


def _look_at_runs(root: Root, rule: Any, since: str, found: Figures) -> None:
    for job in _pages(root.jobs):
        if job.created_at < since:
            break
        if job.state not in lifecycle.ENDED or not about_its_subjects(rule, job.as_data()):
            continue
        found.ran[job.state] = found.ran.get(job.state, 0) + 1
        if job.state in (lifecycle.FAILED, lifecycle.LOST):
            found.failed.setdefault(job.plan or job.repository or job.type, job)
    for archive in _pages(root.archives):
        if archive.created_at < since:
            break
        if not about_its_subjects(rule, archive.as_data()):
            continue
        new = int(archive.stats.get("new_size") or 0)
        found.archives += 1
        found.read += int(archive.stats.get("size") or 0)
        found.stored += new
        name = archive.plan or archive.name
        found.grew[name] = found.grew.get(name, 0) + new


def figures(
    root: Root, rule: Any, expected: Expectations, now: datetime, since: datetime
) -> Figures:
    """Return what happened from ``since`` to ``now`` to what a rule is about."""
    found = Figures()
    start = since.isoformat(timespec="milliseconds")
    _look_at_plans(root, rule, expected, now, found)
    _look_at_runs(root, rule, start, found)
    for incident in root.incidents.newest(MAX_PLANS, state="open"):
        if about_its_subjects(rule, incident.as_data()):
            found.incidents.append(incident)
    found.incidents.sort(key=lambda one: (-rank(one.severity), one.created_at))
    for incident in root.incidents.newest(PAGE, state="closed"):
        found.over += incident.closed_at >= start and about_its_subjects(rule, incident.as_data())
    return found


def _lead(found: Figures) -> tuple[str, str]:
    """Return the sentence that matters most, and its tone."""
    if not found.plans:
        return "There is no plan yet, so nothing is backed up.", WARN
    behind = found.plans - found.safe
    bad = sum(1 for one in found.incidents if one.severity == "error")
    if not behind and not bad:
        every = "The plan has" if found.plans == 1 else f"All {found.plans} plans have"
        said = f"{every} a backup in time."
        return (said, WARN) if found.incidents else (f"{said} No problem is open.", GOOD)
    if not behind:
        every = "The plan has" if found.plans == 1 else f"All {found.plans} plans have"
        open_ones = f"{counted(bad, 'serious problem')} {'is' if bad == 1 else 'are'} open"
        return f"{every} a backup in time, but {open_ones}.", BAD
    verb = "has" if behind == 1 else "have"
    return f"{behind} of {counted(found.plans, 'plan')} {verb} no backup in time.", BAD


def _table(
    heading: str, head: tuple[str, ...], rows: Sequence[tuple[str, ...]], **more: Any
) -> Block:  # fmt: skip
    said = tuple(more.pop("paragraphs", ()))
    if len(rows) > MAX_LISTED:
        said = (*said, f"The first {MAX_LISTED} of {len(rows)}:")
    clean = tuple(tuple(one_line(cell, 120) for cell in row) for row in rows[:MAX_LISTED])
    return Block(heading, said, head=head, rows=clean, **more)


def _ran(found: Figures, period: str) -> Block:
    total = sum(found.ran.values())
    if not total:
        return Block("What ran", (f"Nothing ran in the last {period}.",))
    went = found.ran.get("done", 0)
    words = {"warning": "with warnings", "failed": "failed", "lost": "lost when the server stopped",
             "cancelled": "cancelled"}  # fmt: skip
    rest = [f"{found.ran[state]} {text}" for state, text in words.items() if found.ran.get(state)]
    said = f"{counted(total, 'job')} in the last {period}: {went} went well"
    said += f", {', '.join(rest)}." if rest else "."
    added = (
        (
            f"{counted(found.archives, 'new archive')} of {size(found.read)}, for which "
            f"{size(found.stored)} were stored anew."
        )
        if found.archives
        else "No new archive."
    )
    return Block("What ran", (said, added))  # fmt: skip


def _blocks(found: Figures, *, url: str, zone: str, period: str, now: datetime) -> list[Block]:
    at = now.isoformat(timespec="milliseconds")
    blocks = []
    if found.incidents:
        rows = [(one.title, KINDS.get(one.kind, one.kind), span(one.created_at, at))
                for one in found.incidents]  # fmt: skip
        blocks.append(_table("Open problems", ("Problem", "What it means", "For"), rows))
    if found.silent:
        blocks.append(_table("Silent plans", ("Plan", "Client", "Newest archive"), found.silent,
                             paragraphs=("They should have an archive by now.",)))  # fmt: skip
    if found.never:
        names = ", ".join(found.never[:MAX_LISTED])
        more = len(found.never) - MAX_LISTED
        blocks.append(Block("Never backed up", (
            f"{names}{f' and {more} more' if more > 0 else ''}.",
        )))  # fmt: skip
    blocks.append(_ran(found, period))
    if found.failed:
        rows = [
            (name, str((job.cause or {}).get("message") or "It was lost when the server stopped."),
             WHOSE.get(str((job.cause or {}).get("problem", "server")), ""))
            for name, job in sorted(found.failed.items())
        ]  # fmt: skip
        blocks.append(_table("What failed", ("What", "Why", "Whose problem"), rows))
    if found.empty:
        blocks.append(_table("Plans that found nothing", ("Plan", "Client", "Newest archive"),
                             found.empty, paragraphs=(
            "Their newest archive holds no file: a mount may be missing, or a pattern leaves "
            "everything out.",)))  # fmt: skip
    if found.unused:
        blocks.append(_table("Exclusions that match nothing", ("Plan", "Client", "Exclusion"),
                             found.unused, paragraphs=(
            "No path of their newest backup matches them: it may be a slip of the pen.",
            )))  # fmt: skip
    grew = sorted(((new, name) for name, new in found.grew.items() if new), reverse=True)[:5]
    if grew:
        blocks.append(_table("What grew", ("Plan", "Stored anew"),
                             [(name, size(new)) for new, name in grew]))  # fmt: skip
    steps = list(dict.fromkeys(
        one_line(f"{one.title}: {one.next_step}", 500) for one in found.incidents
        if one.next_step and not one.acknowledged_by
    ))[:5]  # fmt: skip
    if steps:
        blocks.append(Block("Next steps", tuple(f"{i}. {text}" for i, text in enumerate(steps, 1))))
    if url:
        blocks.append(Block(link=url, link_text="Open the console"))
    return blocks


def write(
    root: Root, rule: Any, expected: Expectations, now: datetime, *, server: str, url: str
) -> tuple[Letter, str]:
    """Return a rule's letter of now, and its severity."""
    span_of_it = PERIOD.get(rule.digest, PERIOD["daily"])
    period = "7 days" if rule.digest == "weekly" else "24 hours"
    since = now - span_of_it
    planned = moment(rule.next_digest_at)
    if planned is not None and planned <= now:
        since = min(since, planned - span_of_it)  # it comes late: what was missed is in it
    found = figures(root, rule, expected, now, since)
    lead, tone = _lead(found)
    solved = f"{counted(found.over, 'problem')} went away in this time." if found.over else ""
    first = Block(paragraphs=tuple(text for text in (
        f"{found.safe} of {counted(found.plans, 'plan')} are up to date; their newest archives "
        f"protect {size(found.protected)}." if found.plans else "", solved,
    ) if text))  # fmt: skip
    at = now.isoformat(timespec="milliseconds")
    letter = Letter(
        title=f"{'Weekly' if rule.digest == 'weekly' else 'Daily'} letter from {server}, "
        f"{local(at, rule.zone)}",
        subject=one_line(f"[{server}] {lead}"), lead=lead, tone=tone,
        blocks=(first, *_blocks(found, url=url, zone=rule.zone, period=period, now=now)),
        closing=f"BorgCube on {server} sends this because of the rule {rule.name}.",
    )  # fmt: skip
    severity = {GOOD: "info", WARN: "warning", BAD: "error"}.get(tone, "info")
    return letter, worst([severity, *(one.severity for one in found.incidents)])


__all__ = ["PLAIN", "TONES", "Figures", "figures", "write"]
