"""Settings and the outermost layer: proxies, prefix, what is shown."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from borgcube.core.config import ConsoleConfig
from borgcube.core.errors import ConfigurationError
from borgcube.web import render
from borgcube.web.asgi import FrontDoor
from borgcube.web.settings import WebSettings
from tests.unit.web.loops import run


def through(config: ConsoleConfig, *, path: str = "/jobs", peer: str = "10.0.0.1", **headers: str):
    """Return the scope that pages see."""
    seen: list[dict[str, Any]] = []

    async def pages(scope: Any, receive: Any, send: Any) -> None:
        seen.append(dict(scope))

    async def live(scope: Any, receive: Any, send: Any) -> None:
        seen.append({"live": True})

    async def send(message: Any) -> None:
        seen.append({"sent": message})

    named = {"host": "127.0.0.1:8420"} | {k.replace("_", "-"): v for k, v in headers.items()}
    scope = {
        "type": "http", "path": path, "scheme": "http", "client": (peer, 1), "method": "GET",
        "headers": [(k.encode(), v.encode()) for k, v in named.items()],
    }  # fmt: skip
    door = FrontDoor(WebSettings.of(config), pages=pages, live=live)
    run(door(scope, None, send))  # type: ignore[arg-type]
    return seen[0]


@pytest.mark.parametrize("path", ["/cube/jobs", "/jobs"])
def test_the_prefix_is_known_whether_or_not_the_proxy_takes_it_off(path: str) -> None:
    config = ConsoleConfig(url="https://example.org/cube/", trusted_proxies=("10.0.0.1",))
    scope = through(config, path=path)
    assert (scope["root_path"], scope["path"]) == ("/cube", "/cube/jobs")
    assert scope["scheme"] == "https" and dict(scope["headers"])[b"host"] == b"example.org"


@pytest.mark.parametrize(
    ("changed", "named"),
    [({"listen": "8420"}, "listen"), ({"listen": "127.0.0.1:99999"}, "listen"),
     ({"certificate": "/x"}, "certificate"), ({"url": "example.org"}, "url"),
     ({"trusted_proxies": ("proxy",)}, "trusted_proxies")],
)  # fmt: skip
def test_a_bad_setting_is_named(changed: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"console\.{named}"):
        WebSettings.of(ConsoleConfig(**changed))


@given(st.text())
def test_names_are_shown_without_anything_that_acts(text: str) -> None:
    shown = render.harmless(text)
    assert all(char.isprintable() or char == " " or not char.isascii() for char in shown)
    assert not any(char in shown for char in "\x00\x1b\x9b\u202e\u200b\n\r")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (150 * 2**20, "150 MiB"),
     (3 * 2**50, "3.0 PiB"), (None, render.DASH), (True, render.DASH)],
)  # fmt: skip
def test_sizes_have_units(value: Any, shown: str) -> None:
    assert render.size(value) == shown


def test_a_time_that_is_no_time_makes_no_markup() -> None:
    assert "<script>" not in str(render.moment("<script>"))
    assert "2026-01-02T03:04:05+00:00" in str(render.moment("2026-01-02T05:04:05+02:00"))
