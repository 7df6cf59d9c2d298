"""The first user: only who holds the set-up link, once, and no default password."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from borgcube.testing.consolerig import ConsoleRig
from tests.functional.console.conftest import FAKE, REAL


def test_the_set_up_link_makes_one_administrator_and_ends(tmp_path: Path) -> None:
    with ConsoleRig(tmp_path, python_path=(str(FAKE),), disabled=REAL) as rig:
        older = rig.cli("init").split()[-1]
        link = rig.cli("console", "link").split()[-1]
        assert older != link and link.startswith(f"{rig.url}/setup?token=")
        visitor = rig.visitor()
        assert "There is no user yet" in visitor.get("/login").text
        for name in ("admin", "root", "borgcube"):
            assert visitor.log_in(name, name).status == 403
        token = parse_qs(urlsplit(link).query)["token"][0]
        path = f"/setup?token={token}"
        good = {"name": "ada", "password": "four random words", "again": "four random words"}
        for values, said in (
            ({**good, "token": "x" * 40}, "not valid"),
            ({**good, "token": token, "again": "else"}, "different"),
            ({**good, "token": token, "password": "short", "again": "short"}, "characters"),
            ({**good, "token": token, "name": "../x"}, "not a valid name"),
        ):
            refused = visitor.post("/setup", values, form=path)
            assert refused.status in (200, 400) and said in refused.text
        assert rig.call("user.list") == []
        assert visitor.post("/setup", {**good, "token": token}, form=path).status == 303
        assert "Nothing is backed up yet" in visitor.get("/").text
        again = rig.visitor().post("/setup", {**good, "token": token, "name": "eve"}, form=path)
        assert "used already" in again.text
        assert [user["name"] for user in rig.call("user.list")] == ["ada"]
        assert not (rig.home / "console-setup.json").exists()
