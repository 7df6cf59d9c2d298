"""Third-party plugins: a good one adds to BorgCube, a broken one is set aside."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

from tests.functional.daemon.conftest import ROOT, Cube


def test_hello_adds_its_job_type_and_observer(bare: Cube) -> None:
    target, source = bare.place / "site", bare.place / "hello"
    # pip builds beside the sources; other tests would then find the plugin there.
    left = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT / "plugins-contrib" / "hello", source, ignore=left)
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation",
         "--target", str(target), str(source)],
        check=True, timeout=100, capture_output=True,
    )  # fmt: skip
    bare.python_path.append(str(target))
    bare.ok("init")
    bare.start()
    listed = json.loads(bare.ok("plugins", "--json"))
    hello = [plugin for plugin in listed["plugins"] if plugin["name"] == "hello"]
    assert hello and hello[0]["hooks"] == [
        "observe_event", "register_cards", "register_endpoints", "register_job_types",
        "register_pages", "register_tabs",
    ]  # fmt: skip
    started = json.loads(bare.ok("job", "start", "hello", "--set", "name=Ada", "--json"))
    job = bare.ended(started[0]["job_id"])
    assert job["state"] == "done" and job["result"] == {"greeted": "Ada"}
    bare.ok("repository", "create", "main", "--path", str(bare.repository))
    bare.local_client("here")
    (bare.place / "tree").mkdir()
    bare.plan("tree", bare.place / "tree", client="here")
    archive = bare.backup("tree")["result"]["archive"]
    assert f"a new archive: {archive}" in (bare.home / "logs" / "borgcubed.log").read_text()


def test_broken_plugin_is_quarantined_and_backups_go_on(bare: Cube) -> None:
    site = bare.place / "site"
    info = site / "broken_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[borgcube.plugins]\nbroken = broken_plugin\n")
    (site / "broken_plugin.py").write_text("raise RuntimeError('no luck today')\n")
    bare.python_path.append(str(site))
    bare.ok("init")
    bare.start()
    listed = bare.cli("plugins")
    assert listed.returncode == 1
    assert "In quarantine: broken (from broken-plugin)" in listed.stdout
    seen = bare.cli("doctor")
    assert seen.returncode == 2
    assert "broken" in seen.stdout and "no luck today" in seen.stdout
    bare.ok("repository", "create", "main", "--path", str(bare.repository))
    bare.local_client("here")
    (bare.place / "tree").mkdir()
    bare.plan("tree", bare.place / "tree", client="here")
    bare.backup("tree")
