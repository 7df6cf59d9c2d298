"""What must hold on this system for the promises to hold; ``borgcube doctor`` asks.

Looks only, quickly, and at what a person can mend. Called in the daemon's main thread.
"""

from __future__ import annotations

import os
import random
import stat
from collections import deque
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from borgcube.core import clocks, pruning, rereading, secrets, standing
from borgcube.core import home as places
from borgcube.core.registry import Registry
from borgcube.core.store import Root

RECENT = timedelta(days=7)
MAX_RULES = 1000
MAX_CLIENTS = 100
MAX_NAMED = 5  # archives in quarantine
MAX_EVENTS, MAX_LOOKED_AT = 20_000, 4000
Finding = dict[str, str]


def finding(level: str, message: str, next_step: str, **more: str) -> Finding:
    """Return one finding; ``level`` is ``error`` or ``warning``. ``about`` marks those that are
    incidents of their own: ``space``, ``violations`` and ``failure``."""
    return {"level": level, "message": message, "next_step": next_step, **more}


def engines(registry: Registry) -> list[Finding]:
    """Return what engines miss on this system."""
    return [
        finding(level, message, next_step)
        for engine in registry.engines.values()
        for level, message, next_step in engine.conditions()
    ]


def private_files(home: Path) -> list[Finding]:
    """Return which of the home's private places other users may enter."""
    found = []
    places_of_ours = [home, home / "store", home / "engines", places.runtime_dir(home)]
    for path in [*places_of_ours, secrets.key_file(home)]:
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
        except OSError as error:
            found.append(finding("error", f"{path}: {error.strerror}.", "Put it back."))
            continue
        if mode & 0o077:
            found.append(
                finding(
                    "error",
                    f"{path} is open to other users (mode {mode:04o}).",
                    f"Run: chmod go= {path}",
                )
            )
    return found


def repositories(records: list[tuple[str, str, str]]) -> list[Finding]:
    """Return which repositories, as (name, path, encryption), others may read in plain text."""
    found = []
    for name, path, encryption in records:
        try:
            mode = stat.S_IMODE(os.stat(path).st_mode)
        except OSError:
            continue  # said already: it is not there
        if mode & 0o077 and encryption.startswith("authenticated"):
            found.append(
                finding(
                    "error",
                    f"Repository {name} is not encrypted, and other users may enter {path}.",
                    f"Run: chmod go= {path}",
                )
            )
    return found


class JournalWatch:
    """Looks for gaps in the sequence numbers and for clients that broke a rule lately. Each
    look reads only events since the last one, and no more than a few thousand."""

    def __init__(self) -> None:
        self._expected = 0
        self._gaps: list[int] = []
        self._broken: deque[tuple[str, str, str]] = deque()  # time, client, kind

    def look(self, root: Root, *, now: datetime | None = None) -> list[Finding]:
        """Return what the journal gives reason to say."""
        journal = root.journal
        oldest = max(journal.first, journal.last - MAX_EVENTS + 1)
        self._expected = max(self._expected, oldest)
        for seq, entry in islice(journal.entries.items(min=self._expected), MAX_LOOKED_AT):
            if seq != self._expected:
                self._gaps.append(seq)
            self._expected = seq + 1
            if entry["type"] == "client.violation":
                data: dict[str, Any] = entry["data"]
                self._broken.append((entry["at"], data["client"], data["kind"]))
        since = ((now or datetime.now(UTC)) - RECENT).isoformat()
        while self._broken and self._broken[0][0] < since:
            self._broken.popleft()
        return [*map(_gap, self._gaps), *self._violations()]

    def _violations(self) -> list[Finding]:
        kinds: dict[str, list[str]] = {}
        for _, client, kind in self._broken:
            kinds.setdefault(client, []).append(kind)
        return [
            finding(
                "warning",
                f"Client {client} broke a rule {len(known)} "
                f"{'time' if len(known) == 1 else 'times'} in 7 days "
                f"({', '.join(sorted(set(known)))}).",
                "Look at it: docs/guarantees.md says what each kind means.",
                about="violations",
            )
            for client, known in sorted(kinds.items())
        ]


def journal(root: Root, *, now: datetime | None = None) -> list[Finding]:
    """Return what the newest events give reason to say, seen for the first time."""
    return JournalWatch().look(root, now=now)


def _gap(seq: int) -> Finding:
    return finding(
        "error",
        f"The journal has a gap before event {seq}.",
        "Put the store back from a backup; it was changed from outside.",
    )


def statuses(root: Root, *, looked_at: int = 2) -> list[Finding]:
    """Return where the kept status of some plans, chosen anew each time, is not what their
    jobs and archives say."""
    fleet = root.fleet
    names = [root.plans.rows[number].name for number in _some(root.plans.rows, looked_at)]
    wrong = standing.differences(root, plans=names)
    if fleet.group().total != root.plans.count():
        wrong.append(f"{fleet.group().total} plans have a status, {root.plans.count()} exist")
    return [
        finding("error", f"The kept status is wrong: {one[:200]}.", "Please report this.")
        for one in wrong[:3]
    ]


def rules(root: Root) -> list[Finding]:
    """Return which notification rules are about things that there are not."""
    return [
        finding("warning", f"Rule {rule.name}: {remark}.",
                "Correct the pattern, or nobody hears of what it was meant for.")
        for rule in root.rules.newest(MAX_RULES) if not rule.disabled
        for remark in standing.rule_remarks(root, rule)[:3]
    ]  # fmt: skip


def clients(root: Root) -> list[Finding]:
    """Return whose clock is off, and which plans should be read again after a violation."""
    found = [
        finding("warning", clocks.words(f"Client {client}", seconds), clocks.NEXT_STEP)
        for client, seconds in islice(clocks.off(root), MAX_CLIENTS)
    ]
    for plan, since in islice(root.unread.items(), MAX_CLIENTS):
        found.append(finding(
            "warning", f"Plan {plan}: its client broke a rule on {since[:10]}; files may have been "
            "changed there unseen.",
            f"When the client can be trusted again: {rereading.command(plan)}",
        ))  # fmt: skip
    return found


def unpruned(root: Root) -> list[Finding]:
    """Return which repositories grow although plans in them have a retention policy."""
    return [
        finding("warning", f"Repository {plan.repository}: plan {plan.name} has a retention "
                "policy, but no task prunes it.",
                f"Run: borgcube task add prune-{plan.repository} prune --repository "
                f"{plan.repository} --schedule SCHEDULE")
        for plan in islice(pruning.unscheduled(root), MAX_RULES)
    ]  # fmt: skip


def quarantined(root: Root) -> list[Finding]:
    """Return which repositories have archives in quarantine, and which those are."""
    found = []
    for name, status in root.fleet.repositories.items():
        count = len(status.quarantined)
        if not count:
            continue
        rows = root.archives.rows
        some = [rows[status.archives[key]] for key in islice(status.quarantined, MAX_NAMED)]
        named = "; ".join(f"{one.name} ({one.quarantine})" for one in some)
        more = f"; and {count - len(some)} more" if count > len(some) else ""
        which = "1 archive is" if count == 1 else f"{count} archives are"
        found.append(finding(
            "warning", f"Repository {name}: {which} in quarantine. {named}{more}.",
            f"Rewrite what is sound of it: borgcube archive mend {some[0].name}. Or let it go: "
            f"borgcube archive delete {some[0].name}. docs/quarantine.md says more.",
        ))  # fmt: skip
    return found


def _some(rows: Any, count: int) -> set[int]:
    """Return a few of the numbers of a table, at random."""
    if not rows:
        return set()
    low, high = rows.minKey(), rows.maxKey()
    return {int(rows.maxKey(random.randint(low, high))) for _ in range(count)}
