"""What the console shows of checks, drills and what stands out, with the real engine."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from borgcube.testing.apiclient import Api
from borgcube.testing.consolerig import ConsoleRig

BORG = str(Path(sys.executable).with_name("borg"))


def test_checks_drills_and_holds_are_shown_and_acted_on(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(30):
        (source / f"file-{number}").write_bytes(os.urandom(3000))
    with ConsoleRig(tmp_path) as rig:
        rig.call("repository.create", name="main", path=str(tmp_path / "repository"))
        for name in ("web", "mail"):
            rig.call("client.add", name=name, transport="local", borg=BORG)
        rig.call("plan.add", name="web-data", client="web", repository="main", paths=[str(source)])
        rig.user("ada")
        rig.user("vera", "viewer")
        rig.user("owen", "owner", "web")
        rig.user("mia", "owner", "mail")
        rig.ended(rig.call("backup.start", plan="web-data")["job_id"])
        ada = rig.visitor("ada")
        page = ada.get("/repositories/main").text
        assert "No byte was verified yet." in page and "Check everything now" in page
        done = ada.post("/repositories/main/check", form="/repositories/main")
        rig.ended(done.location.rpartition("/")[2])
        assert "Every byte was verified" in ada.get("/repositories/main").text
        done = ada.post("/plans/web-data/drill", form="/plans/web-data")
        job = rig.ended(done.location.rpartition("/")[2])
        assert job["state"] == "done", job

        # The report can be read and saved, by those who may see the client.
        for name in ("ada", "vera", "owen"):
            visitor = rig.visitor(name)
            assert "Passed" in visitor.get("/drills").text
            drill = rig.call("drill.list")[0]
            path = f"/drills/{drill['id']}"
            assert drill["sha256"] in visitor.get(path).text
            saved = visitor.get(f"{path}/report")
            assert saved.headers["content-disposition"].startswith("attachment")
            assert drill["archive"] in saved.text and "Passed" in saved.text
            report = json.loads(visitor.get(f"{path}/report?form=json").body)
            assert report["restored"]["files"] == 30
            assert visitor.get(f"{path}/report?form=exe").status == 404
        mia = rig.visitor("mia")
        assert "No restore was tried yet" in mia.get("/drills").text
        assert mia.get(path).status == 404 and mia.get(f"{path}/report").status == 404

        # The API says and does the same, and keeps to its description.
        token = rig.call("token.add", name="all", user="ada", scope=["all"])["token"]
        api = Api(rig.port, token)
        api.document = api.get("/openapi.json")
        assert api.get("/repositories/main/checks")["states"][0]["level"] == "good"
        begun = api.ask("POST", "/repositories/main/checks", {"kind": "archives", "full": True})
        assert begun.status == 202 and rig.ended(json.loads(begun.body)["job"])["state"] == "done"
        assert api.get("/drills?plan=web-data")["items"][0]["id"] == drill["id"]
        assert api.get(f"{path}/report")["genuine"]
        assert api.ask("POST", "/plans/web-data/release", {"usual": True}).status == 400
        other = Api(rig.port, rig.call("token.add", name="all", user="mia", scope=["all"])["token"])
        assert other.ask("GET", path).status == 404

        # An empty source holds the plan; only who configures may release it.
        for file in source.iterdir():
            file.unlink()
        rig.ended(rig.call("backup.start", plan="web-data")["job_id"])
        page = ada.get("/plans/web-data").text
        assert "It holds no file at all, usually 30." in page and "It is well" in page
        assert "It holds no file at all" in ada.get("/").text
        assert "stands out" in ada.get("/archives").text
        vera = rig.visitor("vera")
        assert "It is well" not in vera.get("/plans/web-data").text
        assert vera.post("/plans/web-data/release", form="/account").status == 403
        assert ada.post("/plans/web-data/release", form="/plans/web-data").status == 303
        assert "It holds no file" not in ada.get("/").text
        (entry,) = [
            one for one in rig.call("events.since", seq=0) if one["type"] == "plan.released"
        ]
        assert entry["data"]["accepted"]
