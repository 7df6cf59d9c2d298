"""A client that does what no backup does, in a real job over real SSH."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.functional.daemon.conftest import Cube

# Takes borg's place on the client: speaks to the gate through BORG_RSH, as borg would.
EVIL = """#!{python}
import os, shlex, subprocess, sys
import msgpack

if "--version" in sys.argv:
    print("borg 1.4.5")
    sys.exit(0)
rsh = subprocess.Popen([os.environ["BORG_RSH"], "borgcube", "borg", "serve"],
                       stdin=subprocess.PIPE, stdout=subprocess.PIPE)
unpacker = msgpack.Unpacker(raw=True, strict_map_key=False)

def call(method, **arguments):
    message = {{b"i": 7, b"m": method, b"a": arguments}}
    if method == "negotiate":
        message = (1, 7, b"negotiate", ({{b"client_data": {{b"client_version": (1, 4, 5)}}}},))
    rsh.stdin.write(msgpack.packb(message, use_bin_type=False))
    rsh.stdin.flush()
    while True:
        for answer in unpacker:
            return answer
        data = os.read(rsh.stdout.fileno(), 65536)
        if not data:
            sys.exit(2)
        unpacker.feed(data)

call("negotiate")
{deed}
"""
OPEN = 'call("open", path=b"/r", create=False, lock=True, lock_wait=1)\n'
DEEDS = {
    "reads a chunk": OPEN + 'call("get", id=b"x" * 32)',
    "lists": OPEN + 'call("list", limit=10, marker=None)',
    "deletes": OPEN + 'call("delete", id=b"x" * 32)',
    "checks": OPEN + 'call("check", repair=True, save_space=False)',
    "saves a key": OPEN + 'call("save_key", keydata=b"mine")',
    "destroys": OPEN + 'call("destroy")',
    "opens another path": 'call("open", path=b"/srv/other", create=False, lock=True, lock_wait=1)',
}


@pytest.fixture
def evil(cube: Cube) -> Cube:
    (cube.place / "tree").mkdir()
    (cube.place / "tree" / "file").write_text("content")
    cube.ssh_client("mallory", borg=str(cube.place / "evil"))
    cube.plan("evil", cube.place / "tree", client="mallory")
    cube.local_client("honest")
    cube.plan("honest", cube.place / "tree", client="honest")
    return cube


def test_every_misdeed_is_refused_and_named(evil: Cube) -> None:
    evil.backup("honest")
    for deed, code in DEEDS.items():
        program = evil.place / "evil"
        program.write_text(EVIL.format(python=sys.executable, deed=code))
        program.chmod(0o755)
        job = evil.ended(evil.begin("evil"))
        assert job["state"] == "failed", deed
        assert job["cause"]["kind"] == "client-refused", (deed, job["cause"])
        assert job["cause"]["problem"] == "client"
        assert len(job["cause"]["message"]) > 30, job["cause"]
        shown = evil.cli("job", "show", job["id"]).stdout
        assert job["cause"]["message"] in shown
    assert evil.session_directories() == []
    assert [archive["plan"] for archive in evil.call("archive.list")] == ["honest"]
    evil.backup("honest")
    evil.check_clean()


def test_another_archive_name_is_refused(evil: Cube) -> None:
    program = evil.place / "evil"
    borg = Path(sys.executable).with_name("borg")
    program.write_text(
        f'#!/bin/sh\nfor a; do shift; case "$a" in *::*) a="${{a%%::*}}::mine";; esac; '
        f'set -- "$@" "$a"; done\nexec {borg} "$@"\n'
    )
    program.chmod(0o755)
    job = evil.ended(evil.begin("evil"))
    assert job["state"] == "failed"
    assert job["cause"]["problem"] == "client", job["cause"]
    assert evil.call("archive.list") == []
    evil.check_clean()
