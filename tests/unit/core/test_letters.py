"""Letters: harmless whatever is in them, and whole after a while in the store."""

from __future__ import annotations

import json
from html.parser import HTMLParser

from hypothesis import given, settings
from hypothesis import strategies as st

from borgcube.core import notices
from borgcube.core.letters import Block, Letter, as_html, as_text, one_line

NASTY = st.text(min_size=1).map(lambda text: text + "<script>x</script>\r\nBcc: a@b\x1b[2J")
ALLOWED = {"html", "head", "meta", "title", "body", "table", "tr", "td", "th", "div", "p", "a",
           "br"}  # fmt: skip


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)


def item(what: str, **values: object) -> dict[str, object]:
    return {
        "what": what, "id": "1", "key": "plan-failed:web", "kind": "plan-failed",
        "severity": "error", "client": "web", "plan": "web", "repository": "main", "job": "7",
        "title": "Plan web: the backup failed", "message": "No.", "next_step": "Look.",
        "count": 1, "created_at": "2026-03-02T12:00:00+00:00",
        "last_at": "2026-03-02T12:00:00+00:00", "closed_at": "2026-03-02T15:00:00+00:00",
        "reason": "Job 8 made an archive.", **values,
    }  # fmt: skip


@settings(deadline=None)
@given(NASTY, NASTY, NASTY)
def test_a_letter_runs_nothing_and_breaks_no_header(title: str, said: str, cell: str) -> None:
    items = [item("opened", title=title, message=said), item("reminder", title=said),
             item("over", reason=cell),
             {"what": "event", "type": "x.y", "at": "", "data": {"plan": title}}]  # fmt: skip
    letter = notices.notice(items, server=one_line(cell, 80), url="https://x.example",
                            zone="UTC", rule="all")  # fmt: skip
    tags = Tags()
    tags.feed(as_html(letter))
    assert tags.tags <= ALLOWED
    assert not {name for name in tags.attributes if name.startswith("on") or name == "src"}
    assert all(char.isprintable() or char == "\n" for char in as_text(letter))
    assert letter.subject.isprintable() and len(letter.subject) <= 160


@settings(deadline=None)
@given(st.text(), st.lists(st.tuples(st.text(), st.text()), max_size=3))
def test_a_letter_survives_the_store(text: str, rows: list[tuple[str, str]]) -> None:
    letter = Letter("t", text, blocks=(Block("h", (text,), ("a", "b"), tuple(rows), link="l"),))
    assert Letter.from_data(json.loads(json.dumps(letter.as_data()))) == letter


def test_a_subject_says_what_matters() -> None:
    two = [item("opened"), item("over", title="Plan mail: the backup failed")]
    assert notices.subject_of(two, "vault") == (
        "[vault] 1 new problem, 1 over: Plan web: the backup failed"
    )
    assert notices.subject_of(two[1:], "vault") == "[vault] Over: Plan mail: the backup failed"


def test_a_long_list_is_cut_and_counted() -> None:
    letter = notices.notice([item("opened")] * 200, server="s", url="", zone="UTC", rule="all",
                            more=1000)  # fmt: skip
    text = as_text(letter)
    assert text.count("No.") == notices.MAX_SHOWN and "And 1150 more" in text
