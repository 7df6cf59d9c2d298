"""The letter about incidents and events: its subject, its words. Pure.

An item says ``what`` it is: ``opened``, ``reminder`` or ``over`` of an incident, or an
``event``; the rest is the incident's, or the envelope's, data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from borgcube.core.letters import GOOD, TONES, Block, Letter, local, one_line
from borgcube.core.rules import worst

OPENED, REMINDER, OVER, EVENT = "opened", "reminder", "over", "event"
HEADINGS = {OPENED: "New", REMINDER: "Still open", OVER: "Over", EVENT: "Events"}
MAX_SHOWN = 50
MAX_EVENT = 600


def span(first: str, last: str) -> str:
    """Return the time between two ISO times in words: ``3 hours``."""
    try:
        passed = datetime.fromisoformat(last) - datetime.fromisoformat(first)
    except (ValueError, TypeError):
        return "some time"
    seconds = max(0, int(passed.total_seconds()))
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            number = seconds // length
            return f"{number} {unit}{'' if number == 1 else 's'}"
    return "less than a minute"


def title_of(item: Mapping[str, Any]) -> str:
    """Return an item in one line."""
    if item["what"] == EVENT:
        about = [str(item["data"][name]) for name in ("plan", "client", "repository", "archive")
                 if item["data"].get(name)]  # fmt: skip
        return one_line(f"{item['type']} {' '.join(about)}".strip())
    return one_line(item["title"])


def counted(number: int, word: str) -> str:
    """Return a number with its word: ``1 problem``, ``2 problems``."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def _numbers(items: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for item in items:
        found[item["what"]] = found.get(item["what"], 0) + 1
    return found


def subject_of(items: Sequence[Mapping[str, Any]], server: str) -> str:
    """Return the subject line of a notice."""
    found = _numbers(items)
    if len(items) == 1:
        mark = {OVER: "Over: ", REMINDER: "Still: "}.get(items[0]["what"], "")
        return one_line(f"[{server}] {mark}{title_of(items[0])}")
    parts = [
        counted(found[what], "new problem") if what == OPENED
        else f"{found[what]} still open" if what == REMINDER
        else f"{found[what]} over" if what == OVER
        else counted(found[what], "event")
        for what in HEADINGS if what in found
    ]  # fmt: skip
    return one_line(f"[{server}] {', '.join(parts)}: {title_of(items[0])}")


def severity_of(items: Sequence[Mapping[str, Any]]) -> str:
    """Return how bad a notice is: what is over is not bad any more."""
    return worst([item.get("severity", "info") for item in items if item["what"] != OVER])


def _lead(items: Sequence[Mapping[str, Any]]) -> str:
    found = _numbers(items)
    if len(items) == 1:
        only = items[0]
        if only["what"] == OVER:
            return f"It is over: {title_of(only)}."
        if only["what"] == REMINDER:
            return f"Still so: {title_of(only)}."
        return f"{title_of(only)}."
    words = []
    if found.get(OPENED):
        words.append(f"{counted(found[OPENED], 'new problem')}")
    if found.get(REMINDER):
        words.append(f"{counted(found[REMINDER], 'problem')} still open")
    if found.get(OVER):
        words.append(f"{counted(found[OVER], 'problem')} over")
    if found.get(EVENT):
        words.append(counted(found[EVENT], "event"))
    return f"{', '.join(words)}."


def _event_block(item: Mapping[str, Any], zone: str) -> Block:
    data = json.dumps(item["data"], ensure_ascii=False)
    return Block(title_of(item), (one_line(data, MAX_EVENT), local(item["at"], zone)), boxed=True)


def _block(item: Mapping[str, Any], *, url: str, zone: str, alone: bool) -> Block:
    if item["what"] == EVENT:
        return _event_block(item, zone)
    said = [one_line(item["message"], 2000)] if item["message"] else []
    if item["what"] == OVER:
        took = span(item["created_at"], item["closed_at"])
        said = [f"{one_line(item['reason'], 500)} It took {took}.".strip()]
    elif item["next_step"]:
        said.append(f"Next step: {one_line(item['next_step'], 1000)}")
    since = f"Since {local(item['created_at'], zone)}"
    if item["count"] > 1:
        since += f", seen {item['count']} times, last {local(item['last_at'], zone)}"
    facts = [f"{name} {item[key]}" for name, key in
             (("client", "client"), ("plan", "plan"), ("repository", "repository"), ("job", "job"))
             if item[key]]  # fmt: skip
    said.append(f"{since}. {', '.join(facts)}".strip())
    heading = "" if alone else title_of(item)  # alone, it is the lead already
    link = f"{url}/jobs/{item['job']}" if url and item["job"] and item["what"] != OVER else ""
    tone = GOOD if item["what"] == OVER else TONES.get(item["severity"], "")
    return Block(heading, tuple(said), tone=tone, boxed=True, link=link,
                 link_text="Look at the job")  # fmt: skip


def notice(
    items: Sequence[Mapping[str, Any]], *, server: str, url: str, zone: str, rule: str,
    more: int = 0,
) -> Letter:  # fmt: skip
    """Return the letter about some incidents and events, what is new first; ``more`` is how
    many there are that ``items`` does not list."""
    blocks: list[Block] = []
    shown = 0
    several = len(_numbers(items)) > 1
    for what, heading in HEADINGS.items():
        mine = [item for item in items if item["what"] == what]
        if mine and several:
            blocks.append(Block(heading))
        for item in mine[: max(0, MAX_SHOWN - shown)]:
            blocks.append(_block(item, url=url, zone=zone, alone=len(items) == 1))
            shown += 1
    if len(items) + more > shown:
        rest = f"And {len(items) + more - shown} more; `borgcube notify incident list` has them."
        blocks.append(Block(paragraphs=(rest,)))
    if url:
        blocks.append(Block(link=f"{url}/notifications", link_text="All open problems"))
    severity = severity_of(items)
    tone = GOOD if all(item["what"] == OVER for item in items) else TONES.get(severity, "")
    return Letter(
        title=f"BorgCube on {server}", subject=subject_of(items, server), lead=_lead(items),
        tone=tone, blocks=tuple(blocks),
        closing=f"BorgCube on {server} sends this because of the rule {rule}.",
    )  # fmt: skip


def trial_letter(*, server: str, channel: str, at: str) -> Letter:
    """Return the letter of a channel's test."""
    return Letter(
        title=f"BorgCube on {server}", tone=GOOD, subject=one_line(f"[{server}] A test"),
        lead=f"The channel {channel} works.",
        blocks=(Block(paragraphs=(f"Somebody asked for this test at {local(at)}. "
                                  "Real messages will look like it.",)),),
        closing=f"BorgCube on {server}.",
    )  # fmt: skip
