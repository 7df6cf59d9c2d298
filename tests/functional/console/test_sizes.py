"""What a repository holds and takes: the same on its page, over the API, on the command line."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from borgcube.plugins.console.sizes import drawing
from borgcube.testing.consolerig import ConsoleRig


def test_page_api_and_command_line_tell_the_same_sizes(console: ConsoleRig) -> None:
    told = json.loads(console.cli("repository", "show", "main", "--json"))["sizes"]
    stats = [one["stats"] for one in console.call("archive.list", repository="main")]
    wanted = sum(one.get("size", 0) for one in stats)
    assert told["held_bytes"] == wanted
    # Those of the fake engine do not say how large they are.
    assert told["unsized"] == sum("size" not in one for one in stats) > 0
    today = told["days"][-1]
    assert today["day"] == f"{datetime.now(UTC):%Y-%m-%d}" and today["archives"] >= 2
    visitor = console.visitor("vera")
    over = json.loads(visitor.get("/api/v1/repositories/main/sizes?days=30").text)
    assert (over["held_bytes"], over["days"][-1]["archives"]) == (wanted, today["archives"])
    page = visitor.get("/repositories/main").text
    assert "do not say how large they are" in page
    assert "Sizes and deduplication" in page and f'<td class="nowrap">{today["day"]}' in page
    shown = console.cli("repository", "show", "main")
    assert "held by archives" in shown and today["day"] in shown
    assert visitor.get("/api/v1/repositories/main/sizes?days=0").status == 400


def test_the_drawing_has_both_areas_on_one_scale() -> None:
    days = [
        {"day": "2026-01-01", "held_bytes": 50, "stored_bytes": 10},
        {"day": "2026-01-03", "held_bytes": 100, "stored_bytes": 0},
    ]
    made = drawing(days)
    assert made["held"] == "0,80 0.0,41.5 300.0,3.0 300,80"
    assert made["stored"] == "0,80 0.0,72.3 300.0,80.0 300,80"
