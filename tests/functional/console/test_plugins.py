"""Pages, cards and tabs of a plugin are shown; what a plugin breaks takes only itself away."""

from __future__ import annotations

from pathlib import Path

from borgcube.testing.apiclient import Api
from borgcube.testing.consolerig import ConsoleRig
from tests.functional.console.conftest import FAKE, REAL

HELLO = Path(__file__).parents[3] / "plugins-contrib" / "hello"
RUDE = """
from borgcube.core.api import Endpoint
from borgcube.core.hookspecs import hookimpl
from borgcube.core.web import Card, Page, Resource, Tab

def fail(*_):
    raise RuntimeError("rude")

@hookimpl
def register_pages():
    return [Page("rude", "Rude", "event", Resource, fail)]

@hookimpl
def register_cards():
    return [Card("rude", "Rude", "rude:none.jinja2", fail),
            Card("ruder", "Ruder", "rude:none.jinja2", lambda request: {})]

@hookimpl
def register_endpoints():
    bad = {"type": "no such type"}
    return [Endpoint(name="rude", method="GET", path="/rude", summary="Fail", handler=fail),
            Endpoint(name="ruder", method="POST", path="/ruder", summary="Be wrong",
                     handler=fail, body=bad),
            Endpoint(name="thief", method="GET", path="/clients", summary="Hide", handler=fail)]

@hookimpl
def register_tabs():
    return [Tab("rude", "Rude", "client", "rude:none.jinja2", fail)]
"""


def installed(place: Path, **modules: str) -> str:
    """Make entry points as an installation would; return the directory."""
    for name in modules:
        info = place / f"{name}-1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[borgcube.plugins]\n{name} = {modules[name]}\n")
    return str(place)


def test_a_plugin_shows_its_page_card_and_tab_and_a_rude_one_spoils_nothing(
    tmp_path: Path,
) -> None:
    packages = installed(tmp_path / "packages", hello="borgcube_hello", rude="rude")
    (tmp_path / "packages" / "rude.py").write_text(RUDE)
    paths = (str(FAKE), str(HELLO), packages)
    with ConsoleRig(tmp_path, python_path=paths, disabled=REAL) as rig:
        rig.user("ada")
        rig.call("client.add", name="web", transport="local")
        job = rig.call("job.start", type="hello", parameters={"name": "<Ada>"})["job_id"]
        assert rig.ended(job)["state"] == "done"
        visitor = rig.visitor("ada")
        page = visitor.get("/hello")
        assert page.status == 200 and "&lt;Ada&gt;" in page.text
        dashboard = visitor.get("/")
        assert dashboard.status == 200 and "1 greeting<" in dashboard.text
        assert 'href="/hello"' in dashboard.text and "card-rude" not in dashboard.text
        client = visitor.get("/clients/web")
        assert client.status == 200 and "Hello, web." in client.text
        assert "tab-rude" not in client.text
        assert visitor.get("/rude").status == 404
        rig.call("schedule.add", name="nightly", spec="daily at 02:00")
        form = "/schedules/+task?type=hello"
        assert 'name="hello.name"' in visitor.get(form).text
        typed = {"name": "greet", "schedule": "nightly", "hello.name": "<Bob>"}
        assert visitor.post(form, typed, form=form).status == 303
        assert rig.call("task.show", name="greet")["parameters"] == {"name": "<Bob>"}
        api = Api(rig.port, rig.call("token.add", name="t", user="ada", scope=["all"])["token"])
        api.document = api.get("/openapi.json")
        assert api.get("/greetings") == {"greeted": ["<Ada>"]}
        assert api.get("/clients")["items"] and "/ruder" not in api.document["paths"]
        rude = Api(rig.port, api.token).ask("GET", "/rude")
        assert rude.status == 500 and b"rude" not in rude.body
        assert 'id="greetings"' in visitor.get("/api").text
        log = (rig.home / "logs" / "borgcubed.log").read_text()
        assert "the page rude cannot be used" in log and "the tab rude cannot be drawn" in log
