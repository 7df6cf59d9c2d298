"""What a request says of itself: forwarding headers, host, path, before anything reads it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from a2wsgi.wsgi import build_environ
from hypothesis import given
from hypothesis import strategies as st
from webob import Request

from borgcube.core.config import ConsoleConfig
from borgcube.web.asgi import LOGIN_PATHS, FrontDoor
from borgcube.web.outside import Misdirected, plain_path
from borgcube.web.settings import WebSettings
from tests.unit.web.loops import run

PROXIED = ConsoleConfig(url="https://backup.example.org/cube", trusted_proxies=("10.0.0.1",))
LIES = ["X-Forwarded-For", "X_Forwarded_For", "x-forwarded-For", "Forwarded", "X-Real-IP",
        "X-Forwarded-Host", "X-Forwarded-Proto", "X_Forwarded_Proto", "X-Forwarded-Prefix",
        "X-Client-IP", "X-Vhm-Root", "X_Vhm_Root"]  # fmt: skip


class Outcome:
    """What came of a request at the front: a scope for the pages, or an answer."""

    def __init__(self) -> None:
        self.scope: dict[str, Any] = {}
        self.sent: list[Any] = []

    async def pages(self, scope: Any, _receive: Any, _send: Any) -> None:
        self.scope = scope

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return 200 if self.scope else int(self.sent[0].get("status", self.sent[0].get("code")))


def ask(
    *headers: tuple[str, str], config: ConsoleConfig | None = None, path: str = "/jobs",
    peer: str = "10.0.0.1", host: str = "127.0.0.1:8420", kind: str = "http",
    server: str = "192.0.2.7",
) -> Outcome:  # fmt: skip
    made = Outcome()
    sent = ([("host", host)] if host else []) + list(headers)
    scope = {
        "type": kind, "path": path, "scheme": {"http": "http", "websocket": "ws"}[kind],
        "client": (peer, 1), "method": "GET", "http_version": "1.1", "query_string": b"",
        "server": (server, 8420),
        "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in sent],
    }  # fmt: skip
    door = FrontDoor(WebSettings.of(config or ConsoleConfig()), pages=made.pages, live=made.pages)
    run(door(scope, None, made.send))  # type: ignore[arg-type]
    return made


def as_pages_see_it(scope: dict[str, Any]) -> Request:
    return Request(build_environ(scope, None))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", LIES)
@pytest.mark.parametrize("config", [ConsoleConfig(), ConsoleConfig(trusted_proxies=("10.9.9.9",))])
def test_nobody_but_a_proxy_says_where_a_request_comes_from(
    name: str, config: ConsoleConfig
) -> None:
    """Asked as the pages ask: WebOb takes X-Forwarded-For for the client by itself."""
    said = ask((name, "203.0.113.9"), config=config).scope
    seen = as_pages_see_it(said)
    assert seen.client_addr == "10.0.0.1" and seen.host == "127.0.0.1:8420"
    assert "203.0.113.9" not in json.dumps({k: str(v) for k, v in seen.environ.items()})


def test_a_proxy_is_believed_about_the_client_only_as_far_as_it_saw_it() -> None:
    lines = (("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-For", "203.0.113.9, 10.0.0.1"),
             ("X_Forwarded_For", "7.7.7.7"), ("X-Real-IP", "8.8.8.8"))  # fmt: skip
    seen = as_pages_see_it(ask(*lines, config=PROXIED).scope)
    assert seen.client_addr == "203.0.113.9" and seen.scheme == "https"
    assert seen.host == "backup.example.org"
    for rubbish in ("unknown", "<script>", "203.0.113.9:80", ""):
        said = ask(("X-Forwarded-For", f"6.6.6.6, {rubbish}"), config=PROXIED).scope
        assert said["client"][0] == "10.0.0.1", rubbish


def test_a_proxy_on_a_socket_of_both_kinds_is_known() -> None:
    said = ask(("X-Forwarded-For", "203.0.113.9"), config=PROXIED, peer="::ffff:10.0.0.1").scope
    assert said["client"][0] == "203.0.113.9"


OWN = ["127.0.0.1", "127.0.0.1:9999", "localhost", "LOCALHOST:8420", "cube.localhost", "[::1]:8420",
       "192.0.2.7", "192.0.2.7:8420"]  # fmt: skip
FOREIGN = ["evil.example", "evil.example:8420", "127.0.0.1.evil.example", "localhost.evil.example",
           "0.0.0.0", "[::]", "203.0.113.9", "xlocalhost", "inner"]  # fmt: skip


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_without_an_address_only_this_machine_s_own_names_are_good(kind: str) -> None:
    config = ConsoleConfig(listen="0.0.0.0:8420")
    assert {host: ask(host=host, config=config, kind=kind, path="/live").status for host in OWN} \
        == dict.fromkeys(OWN, 200)  # fmt: skip
    refused = 421 if kind == "http" else 4404
    found = {host: ask(host=host, config=config, kind=kind, path="/live").status
             for host in FOREIGN}  # fmt: skip
    assert found == dict.fromkeys(FOREIGN, refused)


@pytest.mark.parametrize("host", ["", "a b", "evil.example/x", "u@127.0.0.1", "127.0.0.1, evil",
                                  "127.0.0.1:", "127.0.0.1:x", "[::1"])  # fmt: skip
def test_a_host_that_is_none_is_refused(host: str) -> None:
    assert ask(host=host).status == 400


def test_with_an_address_no_other_name_is_good_not_even_the_loopback() -> None:
    config = ConsoleConfig(url="https://backup.example.org")
    good = ["backup.example.org", "BACKUP.example.org.:443", "backup.example.org:443"]
    assert [ask(host=host, config=config).status for host in good] == [200] * 3
    bad = ["127.0.0.1", "localhost:8420", "backup.example.org:80", "192.0.2.7", *FOREIGN]
    assert {host: ask(host=host, config=config).status for host in bad} == dict.fromkeys(bad, 421)


def test_a_proxy_passes_the_host_on_or_names_us_as_it_reaches_us() -> None:
    for host in ("127.0.0.1:8420", "192.0.2.7:8420", "backup.example.org"):
        assert ask(host=host, config=PROXIED).status == 200
    assert ask(host="evil.example", config=PROXIED).status == 421
    said = {"backup.example.org": 200, "evil.example": 421, "127.0.0.1": 421,
            "backup.example.org, evil.example": 400}  # fmt: skip
    for forwarded, status in said.items():
        answer = ask(("X-Forwarded-Host", forwarded), host="inner", config=PROXIED)
        assert answer.status == status, forwarded
    stranger = ask(("X-Forwarded-Host", "backup.example.org"), config=PROXIED, peer="192.0.2.3")
    assert stranger.status == 421


PLAIN = {"/login": "/login", "/login/": "/login", "//login": "/login", "/./login": "/login",
         "/login/.": "/login", "/": "/", "//": "/", "/a//b/": "/a/b"}  # fmt: skip


def test_a_path_has_one_form_for_everybody() -> None:
    assert {path: ask(path=path).scope["path"] for path in PLAIN} == PLAIN
    assert {ask(path=f"{before}{path}", config=PROXIED).scope["path"]
            for before in ("", "/cube", "//cube/") for path in ("/login", "/login/", "//login")} \
        == {"/cube/login"}  # fmt: skip
    assert ask(path="/cube", config=PROXIED).scope["path"] == "/cube"
    for path in ("/jobs/../login", "/..", "login", "http://evil.example/login", "*", ""):
        assert ask(path=path).status == 400, path


@given(st.lists(st.sampled_from(["/", "//", ".", "..", "login", "setup", "x"])).map("".join))
def test_what_is_a_login_in_any_form_waits_in_its_line(path: str) -> None:
    try:
        plain = plain_path(path)
    except Misdirected:
        return
    words = tuple(word for word in path.split("/") if word not in ("", "."))
    assert (plain in LOGIN_PATHS) == (len(words) == 1 and f"/{words[0]}" in LOGIN_PATHS)
    assert plain_path(plain) == plain


def test_cookies_are_named_for_how_they_came() -> None:
    plain, below = WebSettings.of(ConsoleConfig()), WebSettings.of(PROXIED)
    assert plain.cookie_name("x", secure=False) == below.cookie_name("x", secure=False) == "x"
    assert plain.cookie_name("x", secure=True) == "__Host-x"
    assert below.cookie_name("x", secure=True) == "__Secure-x"
