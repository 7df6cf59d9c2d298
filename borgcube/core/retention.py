"""Which archives a retention policy keeps, and why: pure functions on times.

The rules are those of ``borg prune`` 1.4 (its manual, "borg prune"), number for number: the
result equals that of stock ``borg prune --dry-run --list`` on the same archives, in the same
time zone. What BorgCube adds is separate: a pinned archive stays, and so does the newest good
one. Called by the daemon (a prune), the console and the command line (previews).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from borgcube.core.errors import InvalidInput

MAX_COUNT = 100_000
HOURS_IN = {"H": 1, "d": 24, "w": 24 * 7, "m": 24 * 31, "y": 24 * 365}
_WITHIN = re.compile(r"([0-9]{1,6})([Hdwmy])\Z")
# Archives that an interrupted borg left; see "borg prune" on checkpoints.
_CHECKPOINT = re.compile(r"\.checkpoint(\.\d+)?\Z")


def _quarter_of_weeks(local: datetime) -> tuple[int, int]:
    year, week, _ = local.isocalendar()
    return year, min((week - 1) // 13, 3)


# Rule -> the period an archive belongs to, in the order in which the rules have their pick.
PERIODS: dict[str, Callable[[datetime], tuple[int, ...]]] = {
    "secondly": lambda t: (t.year, t.month, t.day, t.hour, t.minute, t.second),
    "minutely": lambda t: (t.year, t.month, t.day, t.hour, t.minute),
    "hourly": lambda t: (t.year, t.month, t.day, t.hour),
    "daily": lambda t: (t.year, t.month, t.day),
    "weekly": lambda t: t.isocalendar()[:2],
    "monthly": lambda t: (t.year, t.month),
    "quarterly_13weekly": _quarter_of_weeks,
    "quarterly_3monthly": lambda t: (t.year, (t.month - 1) // 3),
    "yearly": lambda t: (t.year,),
}
UNITS = {
    "secondly": "second", "minutely": "minute", "hourly": "hour", "daily": "day",
    "weekly": "week", "monthly": "month", "quarterly_13weekly": "quarter of 13 weeks",
    "quarterly_3monthly": "quarter", "yearly": "year",
}  # fmt: skip


@dataclass(frozen=True)
class Rules:
    """What to keep. A count of 0 is no such rule, -1 keeps one of every period.

    ``within`` is a number and a unit (H, d, w, m of 31 days, y of 365). ``last`` is what borg
    calls ``secondly``: the newest archives, one for each second.
    """

    within: str = ""
    last: int = 0
    minutely: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    quarterly_13weekly: int = 0
    quarterly_3monthly: int = 0
    yearly: int = 0

    def count_of(self, rule: str) -> int:
        """Return the count of one of borg's rules."""
        count: int = getattr(self, "last" if rule == "secondly" else rule)
        return count

    @property
    def empty(self) -> bool:
        """Whether there is no rule at all, so that nothing is kept by one."""
        return not self.within and not any(self.count_of(rule) for rule in PERIODS)

    def check(self) -> Rules:
        """Return these rules if they are valid, else raise InvalidInput."""
        if self.within:
            hours_within(self.within)
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "within" and not -1 <= value <= MAX_COUNT:
                raise InvalidInput(
                    f"{field.name} must be -1 (no bound), 0 (no such rule) or a count.",
                    field=field.name,
                )
        return self

    def words(self) -> str:
        """Return the rules in words, such as ``within 2d, daily 7, monthly 6``."""
        said = [f"within {self.within}"] if self.within else []
        for field in fields(self)[1:]:
            count = getattr(self, field.name)
            if count:
                name = field.name.replace("quarterly_", "quarterly ")
                said.append(f"{name} {'all' if count < 0 else count}")
        return ", ".join(said) or "nothing"


@dataclass(frozen=True)
class Entry:
    """One archive to judge: ``key`` is its owner's business, ``time`` is aware."""

    key: str
    name: str
    time: datetime
    pinned: str = ""


@dataclass(frozen=True)
class Verdict:
    """What becomes of an archive.

    ``rule`` and ``number`` (from 1) say what keeps it: borg's rule (``daily``, or
    ``daily[oldest]``), ``pinned``, ``newest`` or ``checkpoint``; ``why`` says it in words, and
    for one that goes, why nothing keeps it. ``by_rule`` is false for what the rules alone
    would let go.
    """

    entry: Entry
    keep: bool
    why: str
    rule: str = ""
    number: int = 0
    by_rule: bool = True


def hours_within(text: str) -> int:
    """Return the hours of a ``within``; raises InvalidInput."""
    found = _WITHIN.match(text)
    hours = int(found[1]) * HOURS_IN[found[2]] if found else 0
    if not 0 < hours <= 24 * 366 * 200:
        raise InvalidInput(
            f"{text[:40]!r} is not a span of time.", field="within",
            next_step="Give a number and a unit: H, d, w, m (31 days) or y (365 days).",
        )  # fmt: skip
    return hours


def zone_named(name: str) -> tzinfo | None:
    """Return the time zone of an IANA name, None (the server's own) for an empty one.

    Raises InvalidInput.
    """
    if not name:
        return None
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise InvalidInput(
            f"There is no time zone {name[:60]!r}.", field="zone",
            next_step="Use a name such as Europe/Berlin, or leave it empty for the server's.",
        ) from error  # fmt: skip


def moment(text: str) -> datetime:
    """Return an archive's time, aware; one without a zone is UTC, as Borg stores it.

    Raises ValueError for what is no time.
    """
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


class _Keeper:
    """Applies one rule after the other; ``kept`` is key -> (rule, number)."""

    def __init__(self, entries: list[Entry], zone: tzinfo | None) -> None:
        self.entries = entries  # newest first
        self.local = {entry.key: entry.time.astimezone(zone) for entry in entries}
        self.kept: dict[str, tuple[str, int]] = {}

    def within(self, hours: int, now: datetime) -> None:
        bound = now - timedelta(hours=hours)
        number = 0
        for entry in self.entries:
            if entry.time > bound:
                number += 1
                self.kept[entry.key] = ("within", number)

    def split(self, rule: str, count: int) -> None:
        if count == 0:
            return
        period_of = PERIODS[rule]
        last: tuple[int, ...] | None = None
        number = 0
        for entry in self.entries:
            period = period_of(self.local[entry.key])
            if period == last:
                continue
            last = period
            if entry.key not in self.kept:
                number += 1
                self.kept[entry.key] = (rule, number)
                if number == count:
                    return
        # The history is shorter than the rule: its beginning is worth keeping.
        if self.entries and number < count and self.entries[-1].key not in self.kept:
            self.kept[self.entries[-1].key] = (f"{rule}[oldest]", number + 1)

    def why_not(self, rules: Rules) -> Callable[[int], str]:
        """Return a function that says why the entry at a position is not kept."""
        active = [rule for rule in PERIODS if rules.count_of(rule)]
        if not active:
            text = f"older than {rules.within}" if rules.within else "the policy has no rule"
            return lambda _position: text
        widest = active[-1]
        period_of = PERIODS[widest]
        covered = {period_of(self.local[key]) for key in self.kept if key in self.local}

        def why(position: int) -> str:
            if period_of(self.local[self.entries[position].key]) in covered:
                return f"another archive of the same {UNITS[widest]} is kept"
            return f"older than what {widest} {rules.count_of(widest)} keeps"

        return why


def judge(
    entries: Iterable[Entry], rules: Rules, *, now: datetime, zone: tzinfo | None = None,
    newest_good: str = "",
) -> list[Verdict]:  # fmt: skip
    """Return what becomes of each archive, newest first.

    ``zone`` is the time zone in which days, weeks and years begin; None is the server's own,
    which is what borg uses. ``newest_good`` is the key of an archive that stays whatever the
    rules say. Archives of the same moment count in the reverse order of their names, as in
    borg. Pins have no say in what the rules keep, so a pin lets no other archive go.
    """
    ordered = sorted(entries, key=lambda entry: (entry.time, entry.name), reverse=True)
    checkpoints = {entry.key for entry in ordered if _CHECKPOINT.search(entry.name)}
    keeper = _Keeper([entry for entry in ordered if entry.key not in checkpoints], zone)
    if rules.within:
        keeper.within(hours_within(rules.within), now)
    for rule in PERIODS:
        keeper.split(rule, rules.count_of(rule))
    if ordered and ordered[0].key in checkpoints:
        keeper.kept[ordered[0].key] = ("checkpoint", 1)
    position = {entry.key: number for number, entry in enumerate(keeper.entries)}
    why_not = keeper.why_not(rules)
    verdicts = []
    for entry in ordered:
        kept = keeper.kept.get(entry.key)
        if kept is not None:
            rule, number = kept
            verdicts.append(Verdict(entry, True, f"{rule} #{number}", rule, number))
        elif entry.pinned:
            verdicts.append(Verdict(entry, True, f"pinned: {entry.pinned}", "pinned",
                                    by_rule=False))  # fmt: skip
        elif entry.key == newest_good:
            verdicts.append(Verdict(entry, True, "the newest good archive always stays",
                                    "newest", by_rule=False))  # fmt: skip
        elif entry.key in checkpoints:
            verdicts.append(Verdict(entry, False, "an unfinished archive, and there are newer ones",
                                    by_rule=False))  # fmt: skip
        else:
            verdicts.append(Verdict(entry, False, why_not(position[entry.key]), by_rule=False))
    return verdicts


def keeps_nothing(verdicts: Collection[Verdict]) -> bool:
    """Tell whether there are archives, and no rule keeps any of them."""
    return bool(verdicts) and not any(verdict.by_rule for verdict in verdicts)
