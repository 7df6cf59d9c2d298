"""Every page and every action as each role: what a role may not do is refused, what it is
offered it may do."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyramid.interfaces import IExceptionResponse, IMultiDict
from pyramid.security import NO_PERMISSION_REQUIRED

from borgcube.core.access import GRANTS, Role
from borgcube.core.config import Config, ConsoleConfig
from borgcube.core.registry import Registry
from borgcube.core.services import ServiceContext
from borgcube.core.store import Store
from borgcube.core.web import Page, Resource
from borgcube.plugins.console.resources import ClientItem, PlanItem
from borgcube.testing.consolerig import ConsoleRig, Visitor
from borgcube.web.app import make_app
from borgcube.web.settings import WebSettings
from tests.functional.console.matrix import ENDPOINTS, MATRIX, RECORDS, USERS, View, make_records

NO_TOKEN = {"csrf_token": "x" * 43}


# What is no page: the API, whose endpoints are in the matrix too, and files that anybody may have.
NO_PAGES = {"api", "__static"}


def views_of(place: Path, **rogue: Page) -> tuple[dict[str, set[str]], set[str]]:
    """Return the console's views with the methods they take, by the matrix' keys, and in words
    all views that the matrix has no way to name. ``rogue`` are further pages."""
    registry = Registry.load()
    registry.registered["register_pages"].update(rogue)
    store = Store.open(f"file://{place / 'store.fs'}")
    context = ServiceContext(place, Config(), store, registry)
    app = make_app(context, WebSettings.of(ConsoleConfig()), cookie="x",
                   hub=SimpleNamespace(progress={}))  # fmt: skip
    store.close()
    found: dict[str, set[str]] = {}
    strays = set()
    for entry in app.registry.introspector.get_category("views"):
        view = entry["introspectable"]
        where, name, function = view["context"], view["name"], view["callable"]
        if where is IExceptionResponse or (
            isinstance(where, type) and issubclass(where, BaseException)
        ):
            continue  # a page for what went wrong
        if not (isinstance(where, type) and issubclass(where, Resource)) or view["route_name"]:
            strays.add((view["route_name"] or name).partition("-")[0] or "a view on anything")
            continue
        key = f"{where.__name__} {name}".strip()
        if where.__name__ == "Collection":
            key = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        if key in found:
            # One of them would hide behind the other.
            strays.add(f"two views {key}")
        methods = view["request_methods"] or "ANY"
        found[key] = {methods} if isinstance(methods, str) else set(methods)
    return found, strays


def in_the_matrix() -> dict[str, set[str]]:
    asked = {"ConsoleRoot login": {"GET", "POST"}, "ConsoleRoot favicon.ico": {"GET"}}
    return {
        key: {m for m, who in (("GET", view.see), ("POST", view.do)) if who is not None}
        for key, view in MATRIX.items()
    } | asked


def test_every_view_is_in_the_matrix(tmp_path: Path) -> None:
    found, strays = views_of(tmp_path)
    assert found == in_the_matrix()
    assert strays == NO_PAGES


def test_no_view_can_hide_from_the_matrix(tmp_path: Path) -> None:
    """Every way to register a view that a page could think of."""

    class Hidden(Resource):
        pass

    def view(context: Any, request: Any) -> Any:
        raise AssertionError

    def include(config: Any) -> None:
        config.add_route("aside", "/aside")
        config.add_view(view, route_name="aside", permission=NO_PERMISSION_REQUIRED)
        config.add_view(view, name="anywhere")
        config.add_view(view, context=IMultiDict, name="interface")
        config.add_view(view, context=Hidden, name="any-method")
        config.add_view(view, context=Hidden, name="put", request_method="PUT")
        config.add_view(view, context=PlanItem, name="backup", request_method="DELETE")
        config.add_view(view, context=PlanItem, name="edit", request_param="x")
        config.add_view(view, context=ClientItem, name="wipe", request_method="POST")

    page = Page("rogue", "Rogue", "plan", Hidden, include)
    found, strays = views_of(tmp_path, rogue=page)
    assert strays - NO_PAGES == {
        "aside", "anywhere", "interface", "two views PlanItem backup", "two views PlanItem edit"
    }  # fmt: skip
    assert {k: m for k, m in found.items() if k not in MATRIX} == {
        "Hidden any-method": {"ANY"}, "Hidden put": {"PUT"}, "ClientItem wipe": {"POST"}
    }  # fmt: skip


def test_every_endpoint_of_the_api_is_in_the_matrix_and_asks_for_the_same() -> None:
    """That it does ask is ``test_api.py``."""
    roles = {"ada": Role.ADMINISTRATOR, "olga": Role.OPERATOR, "vera": Role.VIEWER,
             "owen": Role.OWNER}  # fmt: skip
    found = {
        endpoint.name: {user for user in USERS if endpoint.permission in GRANTS[roles[user]]}
        for endpoint in Registry.load().endpoints.values()
    }
    assert found == ENDPOINTS


@pytest.fixture(scope="module")
def known(console: ConsoleRig) -> dict[str, str]:
    return make_records(console)


# Records that belong to no client; what an owner may not see of them is not there.
NOT_OWENS = ("/repositories/main", "/policies/", "/schedules/named/", "/schedules/triggers/ci",
             "/schedules/tasks/", "/schedules/slots/", "/notifications/channels/",
             "/notifications/rules/", "/notifications/messages/", "/notifications/incidents/",
             "/repositories/old")  # fmt: skip


def cases(known: dict[str, str]) -> Iterator[tuple[str, View, str, bool]]:
    for key, view in MATRIX.items():
        if view.elsewhere:
            continue
        yield key, view, view.path.format(**known), False
        if view.other:
            yield key, view, view.other.format(**known), True


def not_this(view: View, user: str, of_another: bool) -> int:
    """Return the status of what a user may not: 404, as of what does not exist, for all records
    that it may not even look at."""
    nobodys = view.path.startswith(NOT_OWENS) and "/+" not in view.path
    name = view.path.startswith("/users/") and "/+" not in view.path
    hidden = (user == "owen" and (of_another or nobodys)) or (user != "ada" and name)
    return 404 if hidden else 403


@pytest.mark.parametrize("user", USERS)
def test_each_role_sees_its_pages_and_no_other(
    console: ConsoleRig, known: dict[str, str], user: str
) -> None:
    visitor = console.visitor(user)
    wrong = {}
    for key, view, path, of_another in cases(known):
        if view.see is None:
            continue
        may = user in view.see and not (of_another and user == "owen")
        status = visitor.get(path).status
        if status != (200 if may else not_this(view, user, of_another)):
            wrong[key, path] = status
    assert wrong == {}


@pytest.mark.parametrize("user", USERS)
def test_each_role_may_do_its_actions_and_no_other(
    console: ConsoleRig, known: dict[str, str], user: str
) -> None:
    """Asked with a form that is out of date, which is looked at after the permission: so
    nothing is done, and 400 says that it would have been."""
    visitor = console.visitor(user)
    before = console.call("job.list", limit=1)
    wrong = {}
    for key, view, path, of_another in cases(known):
        if view.do is None:
            continue
        may = user in view.do and not (of_another and user == "owen")
        status = visitor.post(path, NO_TOKEN).status
        if status != (400 if may else not_this(view, user, of_another)):
            wrong[key, path] = status
    assert wrong == {} and before == console.call("job.list", limit=1)


def test_a_stranger_is_sent_to_the_login_from_everywhere(
    console: ConsoleRig, known: dict[str, str]
) -> None:
    stranger = console.visitor()
    wrong = {}
    for key, view, path, _ in cases(known):
        if key.startswith("ConsoleRoot"):
            continue
        if view.see is not None:
            answer = stranger.get(path)
            if answer.status != 303 or not answer.location.startswith("/login?next="):
                wrong[key] = answer.status
        if view.do is not None and stranger.post(path, form="/login").status != 403:
            wrong[key] = "POST"
    assert wrong == {}


def offered(page: str) -> tuple[set[str], set[str]]:
    """Return where the links of a page lead, and where its forms go with POST."""
    links = {unescape(one) for one in re.findall(r'<a [^>]*href="(/[^"#]*)"', page)}
    forms = set()
    for tag in re.findall(r"<form [^>]*>", page):
        if 'method="post"' in tag:
            action = re.search(r'action="([^"]*)"', tag)
            forms.add(unescape(action.group(1)) if action else "")
    return links, forms


def crawl(visitor: Visitor) -> tuple[dict[str, int], dict[str, int]]:
    """Follow every link; return the pages and the actions that were offered, with what
    came of them. Of many records of a kind the first are enough."""
    pages: dict[str, int] = {}
    actions: dict[str, int] = {}
    seen: Counter[str] = Counter()
    waiting = ["/"]
    while waiting:
        path = waiting.pop(0)
        place = path.partition("?")[0]
        # A calendar leads from month to month for ever.
        if path in pages or seen[place] >= 2:
            continue
        seen[place] += 1
        answer = visitor.get(path)
        pages[path] = answer.status
        links, forms = offered(answer.text)
        waiting += sorted(link for link in links if not re.search(r"/jobs/\d{2,}|before=", link))
        for form in forms:
            target = form or path
            if target not in actions:
                actions[target] = visitor.post(target, NO_TOKEN).status
    return pages, actions


@pytest.mark.parametrize("user", USERS)
def test_a_role_is_offered_nothing_that_it_may_not_do(
    console: ConsoleRig, known: dict[str, str], user: str
) -> None:
    found, actions = crawl(console.visitor(user))
    assert {path: status for path, status in found.items() if status != 200} == {}
    assert {path: status for path, status in actions.items() if status != 400} == {}
    assert len(found) > 12 and len(actions) > 3


def hidden(found: dict[str, int], known: dict[str, str]) -> list[str]:
    """Return the pages of the matrix that no link leads to."""
    return [path for key, view, path, of_another in cases(known)
            if view.see and not of_another and path.partition("?")[0] not in found
            and not key.startswith("ConsoleRoot")]  # fmt: skip


def test_every_page_can_be_found_by_its_links(console: ConsoleRig, known: dict[str, str]) -> None:
    found, _ = crawl(console.visitor("ada"))
    plain = {path.partition("?")[0]: status for path, status in found.items()}
    assert hidden(plain, known) == []


def test_a_page_that_nobody_wrote_down_would_be_missed() -> None:
    assert hidden({"/": 200}, dict.fromkeys(RECORDS, "x"))
    made: Any = offered('<a class="x" href="/a?b=1&amp;c=2">x</a><form method="post" action="/d">')
    assert made == ({"/a?b=1&c=2"}, {"/d"})
