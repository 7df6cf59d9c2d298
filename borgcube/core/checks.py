"""What checks of a repository found, in figures and in words. Pure, but for :func:`proof_of`.

A check job reports facts (``JobResult.checked``); the daemon keeps the last ones of each kind
in the repository's ``Proof``; command line and console say them with :func:`states`. Kinds:
``data`` reads every stored byte in slices, ``archives`` walks the lists of files, ``borg`` is
Borg's own ``borg check``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from borgcube.core.errors import InvalidInput
from borgcube.core.texts import _, several
from borgcube.core.untrusted import words

if TYPE_CHECKING:
    from borgcube.core.model import Proof, Repository
    from borgcube.core.store import Root

KINDS = ("data", "archives", "borg")
MAX_KEYS = 40
MAX_ARCHIVES = 100
MAX_FILES = 100
MAX_IDS = 1000
MAX_DAYS = 3650
MAX_BUDGET_S = 30 * 86400
MAX_MIB_S = 1 << 20
GOOD, WARNING, BAD = "good", "warning", "bad"


@dataclass(frozen=True)
class State:
    """What is known of one kind of check: ``level`` is good, warning or bad."""

    kind: str
    level: str
    words: str
    at: str = ""
    oldest_at: str = ""
    job: str = ""


def check_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a check job, checked; raises InvalidInput naming the field.

    ``kind``; ``budget_s`` seconds at most (0: no limit); ``days`` in which every byte is
    verified; ``max_mib_s``, how fast it reads (0: as fast as it can); ``full``, everything now.
    """
    known: dict[str, Any] = {
        "kind": "data", "budget_s": 0, "days": 0, "max_mib_s": 0, "full": False,
    }  # fmt: skip
    found = {**known, **{key: value for key, value in parameters.items() if key in known}}
    if found["kind"] not in KINDS:
        raise InvalidInput(f"There is no kind of check {str(found['kind'])[:40]!r}.",
                           next_step=f"One of: {', '.join(KINDS)}.", field="kind")  # fmt: skip
    for name, most in (("budget_s", MAX_BUDGET_S), ("days", MAX_DAYS), ("max_mib_s", MAX_MIB_S)):
        try:
            value = int(found[name])
        except (TypeError, ValueError):
            value = -1
        if not 0 <= value <= most:
            raise InvalidInput(f"{name} must be a number from 0 to {most}.", field=name)
        found[name] = value
    # From the command line and from a task's form everything is text.
    found["full"] = str(found["full"]).lower() in ("true", "yes", "1")
    return found


def clean_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return a worker's facts as small plain data: numbers, and one line of text each."""
    found: dict[str, Any] = {}
    for key, value in list(facts.items())[:MAX_KEYS]:
        if isinstance(value, bool | int | float) or value is None:
            found[words(key, limit=40)] = value
        elif isinstance(value, str):
            found[words(key, limit=40)] = words(value)
    return found


def clean_damage(damage: Mapping[str, Any]) -> dict[str, Any]:
    """Return a worker's account of damage, bounded; empty when nothing is damaged.

    ``chunks`` is how many objects; ``ids`` are the first of them; ``archives`` maps a name to
    ``files`` (some), ``count`` (how many files in all) and ``unreadable`` (its list of files).
    """
    chunks = damage.get("chunks")
    if not isinstance(chunks, int) or chunks <= 0:
        return {}
    archives = {}
    for name, facts in list(dict(damage.get("archives") or {}).items())[:MAX_ARCHIVES]:
        archives[words(name)] = {
            "files": [words(path) for path in list(facts.get("files") or ())[:MAX_FILES]],
            "count": int(facts.get("count") or 0),
            "unreadable": bool(facts.get("unreadable")),
        }
    return {
        "chunks": chunks,
        "ids": [words(one, limit=64) for one in list(damage.get("ids") or ())[:MAX_IDS]],
        "archives": archives,
        "archives_count": int(damage.get("archives_count") or len(archives)),
        "found_at": words(damage.get("found_at") or "", limit=40),
    }


def damage_words(damage: Mapping[str, Any]) -> str:
    """Return damage in one sentence, empty when there is none."""
    chunks = int(damage.get("chunks") or 0)
    if not chunks:
        return ""
    what = several("%(n)s stored object is damaged", "%(n)s stored objects are damaged", chunks)
    archives = int(damage.get("archives_count") or 0)
    if not archives:
        return _("%(what)s; no archive uses what is lost.", what=what)
    files = sum(int(one["count"]) for one in damage["archives"].values())
    return _("%(what)s: %(files)s in %(archives)s.", what=what,
             files=several("%(n)s file", "%(n)s files", files),
             archives=several("%(n)s archive", "%(n)s archives", archives))  # fmt: skip


def damaged_files(damage: Mapping[str, Any]) -> list[str]:
    """Return some of the damaged files as ``ARCHIVE: PATH``, at most 100."""
    found = []
    for name, facts in dict(damage.get("archives") or {}).items():
        if facts["unreadable"]:
            found.append(f"{name}: its list of files")
        found += [f"{name}: {path}" for path in facts["files"]]
    return found[:MAX_FILES]


def proof_of(root: Root, repository: Repository) -> Proof:
    """Return what checks found of a repository; an empty one, not stored, before the first."""
    from borgcube.core.model import Proof

    found: Proof | None = root.proofs.find("id", repository.id)
    return Proof(id=repository.id, repository=repository.name) if found is None else found


def _age_days(at: str, now: datetime) -> float | None:
    try:
        return (now - datetime.fromisoformat(at)).total_seconds() / 86400
    except (ValueError, TypeError):
        return None


def _ago(days: float) -> str:
    if days < 1:
        return _("less than a day ago")
    return several("%(n)s day ago", "%(n)s days ago", int(days))


def states(
    checked: Mapping[str, Mapping[str, Any]], *, damage: Mapping[str, Any], days: int,
    now: datetime,
) -> list[State]:  # fmt: skip
    """Return what is known of each kind of check, in the order of KINDS.

    ``days`` is the repository's promise: every byte verified in so many days.
    """
    found = []
    for kind in KINDS:
        facts = checked.get(kind) or {}
        at, job = str(facts.get("at") or ""), str(facts.get("job") or "")
        oldest_at = str(facts.get("oldest_at") or "")
        if not at:
            if kind != "borg":  # a second opinion, which need not be asked for
                found.append(
                    State(
                        kind,
                        WARNING,
                        _("No byte was verified yet.")
                        if kind == "data"
                        else _("No archive was walked yet."),
                    )
                )
            continue
        if kind == "borg":
            good = bool(facts.get("sound"))
            said = _("Borg's own check found nothing wrong.") if good else \
                _("Borg's own check found problems: see the job.")  # fmt: skip
            found.append(State(kind, GOOD if good else BAD, said, at, at, job))
            continue
        found.append(_covered(kind, facts, days=days, now=now, at=at, oldest_at=oldest_at, job=job))
    if damage and found[0].level != BAD:
        first = found[0]
        found[0] = State(first.kind, BAD, damage_words(damage), first.at, first.oldest_at,
                         first.job)  # fmt: skip
    return found


def _covered(
    kind: str, facts: Mapping[str, Any], *, days: int, now: datetime, at: str, oldest_at: str,
    job: str,
) -> State:  # fmt: skip
    is_data = kind == "data"
    noun = "bytes" if is_data else "archives"
    total, done = int(facts.get(f"{noun}_total") or 0), int(facts.get(f"{noun}_verified") or 0)
    age = _age_days(oldest_at, now)
    level = WARNING
    if not total:
        level, said = GOOD, _("There is nothing to verify yet.")
    elif done < total or age is None:
        share = min(99, 100 * done // total)
        said = _("%(share)s %% of all bytes were verified so far.", share=share) if is_data else \
            _("%(share)s %% of all archives were walked so far.", share=share)  # fmt: skip
    elif age > days:
        most = several("%(n)s day", "%(n)s days", days)
        said = _("Some bytes were last verified %(ago)s; it should be %(most)s at most.",
                 ago=_ago(age), most=most) if is_data else \
            _("Some archives were last walked %(ago)s; it should be %(most)s at most.",
              ago=_ago(age), most=most)  # fmt: skip
    else:
        level = GOOD
        said = _("Every byte was verified; the first of them %(ago)s.", ago=_ago(age)) \
            if is_data else _("Every archive was walked; the first of them %(ago)s.",
                              ago=_ago(age))  # fmt: skip
    return State(kind, level, said, at, oldest_at, job)
