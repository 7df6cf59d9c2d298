"""Every text of every page comes from the catalog: in a disguise, no plain English is left."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from borgcube.plugins.schedule_calendar import Calendar
from borgcube.testing import catalog
from borgcube.testing.consolerig import Answer, ConsoleRig
from tests.functional.console.conftest import FAKE, REAL, add_fleet
from tests.functional.console.matrix import make_records, pages

SHOWN = ("aria-label", "title", "placeholder", "alt", "data-label")
# What stands between the marks' words on a page and is no text: names, figures, units.
DATA = re.compile(
    r"\b(BorgCube|Python|borg|UTC|ID|No|KiB|MiB|GiB|TiB|B|s|ada|olga|vera|owen|web|mail|main|"
    r"(web|mail)-etc\S*|local|fake|Linux|backup|delete|restore|repokey\S*|etc|bad|nightly|calendar|mon|fri|weekly|check|at|faraway|keep|daily|standard|hostname|NAME|VALUE|desk|ops|all|https|repository\.passphrase_revealed|hello|English|reading|old|auto|nobackup|monitoring|ci|branch|backup)\b"
)


class Words(HTMLParser):
    """Collects what a reader sees or hears, but for what is code, a log or data's own words."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.named: list[str] = []
        self._skipped = 0
        self._stack: list[tuple[str, bool]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        classes = (given.get("class") or "").split()
        skips = tag in ("script", "style", "time", "pre", "textarea")
        skips = (
            skips
            or bool({"mono", "log", "avatar"} & set(classes))
            or given.get("data-figure") is not None
        )
        if tag not in ("input", "meta", "link", "img", "br", "use", "rect"):
            self._stack.append((tag, skips))
            self._skipped += skips
        self.named += [given[name] or "" for name in SHOWN if given.get(name)]

    def handle_endtag(self, tag: str) -> None:
        while self._stack:
            name, skipped = self._stack.pop()
            self._skipped -= skipped
            if name == tag:
                break

    def handle_data(self, data: str) -> None:
        if not self._skipped:
            self.found.append(data)


def plain(page: str, *told: str) -> list[str]:
    """Return the English words that are outside of a disguise. ``told`` are the daemon's."""
    words = Words()
    words.feed(page)
    left = []
    # A disguise may hold elements, and another disguise as a value.
    for text in ["\n".join(words.found), *words.named]:
        while (bare := re.sub(r"⟦[^⟦⟧]*⟧", " ", text)) != text:
            text = bare
        for part in told:
            text = text.replace(part, " ")
        text = DATA.sub(" ", re.sub(r"[\w/.-]*[/\d][\w/.:-]*", " ", text))
        if re.search(r"[A-Za-z]{2,}", text):
            left.append(" ".join(text.split()))
    return left


@pytest.fixture(scope="module")
def disguised(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsoleRig]:
    place = tmp_path_factory.mktemp("disguised")
    translations = place / "translations"
    catalog.disguise(catalog.PACKAGE, translations)
    with ConsoleRig(
        place, config=f"translations = {json.dumps(str(translations))}",
        python_path=(str(FAKE),), disabled=REAL,
    ) as rig:  # fmt: skip
        add_fleet(rig)
        yield rig


def shown(rig: ConsoleRig, path: str, *, user: str = "", language: str = "en-XA") -> Answer:
    return rig.visitor(user).get(path, **{"Accept-Language": language})


def test_no_plain_english_is_left_on_any_page(disguised: ConsoleRig, tmp_path: Path) -> None:
    visitor = disguised.visitor("ada")
    visitor.extra = {"Accept-Language": "en-XA"}
    listed = ["/events", "/plugins", "/audit", "/about", "/api", "/notifications",
              "/notifications/log"]  # fmt: skip
    paths = [path for path in pages(make_records(disguised)) if path not in listed]
    paths += ["/clients/web/connect?state=ready", "/jobs?state=lost", "/none"]
    told = [said for one in disguised.call("doctor") for said in (one["message"], one["next_step"])]
    # The calendar's words for a cron expression are its library's.
    told.append(Calendar().describe("0 3 29 2 *"))
    told += ["faraway", "here"]  # what the fake plugin calls its transports
    told += [str(job["cause"][word]) for job in disguised.call("job.list") if job["cause"]
             for word in ("message", "next_step")]  # fmt: skip
    told.append("was not reached: Connection refused. Is it up, and is the address right?")
    left = {}
    for path in paths:
        answer = visitor.get(path)
        assert answer.status in (200, 404) and 'lang="en-XA"' in answer.text, path
        page = re.sub(r'<select id="f-zone".*?</select>', "", answer.text, flags=re.S)
        if "/channels/" in path:
            page = re.sub(r"<tbody>.*?</tbody>", "", page, flags=re.S)
        if "/messages/" not in path and (words := plain(page, *told)):
            left[path] = words
    # These pages list names of events, hooks, requests, operations, or what was told:
    # here it is about what stands around them.
    for path in listed:
        page = re.sub(
            r"<tbody>.*?</tbody>|<dd.*?</dd>|<details.*?</details>|<h2>\w+</h2>",
            "",
            visitor.get(path).text,
            flags=re.S,
        )
        if words := plain(page, *told):
            left[path] = words
    refused = visitor.post("/plans/+add", {"name": "", "retries": "many"}, form="/plans/+add")
    if words := plain(refused.text):
        left["refused form"] = words
    visitor.cookies.clear()
    for path in ("/login", "/link?token=x", "/setup?token=x"):
        if words := plain(visitor.get(path).text):
            left[path] = words
    assert left == {}


def test_plain_english_would_be_found() -> None:
    assert plain("<p>⟦Ñéw ·⟧ and old</p>") and plain('<p title="Old">⟦x⟧</p>')
    assert not plain('<p class="mono">some/path</p><p>⟦ñ ⟦x⟧ ·⟧ 3.5 GiB</p>')


@pytest.mark.parametrize(
    ("asked", "given"),
    [("en-XA", "en-XA"), ("de, en-XA;q=0.5", "en-XA"), ("en-GB, en-XA;q=0.1", "en"), ("fr", "en"),
     ("*", "en"), ("", "en"), ("not a; language=1", "en"), ("../../etc", "en")],
)  # fmt: skip
def test_a_page_comes_in_the_language_that_the_browser_asks_for(
    disguised: ConsoleRig, asked: str, given: str
) -> None:
    assert f'<html lang="{given}"' in shown(disguised, "/login", language=asked).text


def test_a_language_that_was_chosen_comes_before_the_browsers(disguised: ConsoleRig) -> None:
    visitor = disguised.visitor("ada")
    done = visitor.post("/account/language", {"language": "en_XA"}, form="/account")
    assert done.status == 303 and visitor.cookies["language"] == "en_XA"
    assert 'lang="en-XA"' in visitor.get("/", **{"Accept-Language": "en"}).text
    visitor.cookies["language"] = "../../etc"
    assert 'lang="en"' in visitor.get("/").text
    visitor.cookies["language"] = "en_XA"
    visitor.post("/account/language", {"language": ""}, form="/account")
    assert 'lang="en"' in visitor.get("/").text


def test_what_the_browser_says_by_itself_is_translated_too(disguised: ConsoleRig) -> None:
    page = shown(disguised, "/login").text
    found = re.search(r'data-words="([^"]*)"', page)
    assert found is not None
    words = json.loads(found.group(1).replace("&#34;", '"').replace("&#39;", "'"))
    assert len(words) > 8 and all(text.startswith("⟦") for text in words.values())
