"""What is on a client while it is backed up: nothing that would help a thief."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil

from tests.functional.daemon.conftest import Cube

# The keys of the repository, as only a test may read them.
KEYS = """
import os, sys
from borg.repository import Repository
from borg.crypto.key import RepoKey
from borg.helpers import Manifest
import borg.logger
borg.logger.configured = True
with Repository(sys.argv[1], lock=False) as repository:
    manifest, key = Manifest.load(repository, Manifest.NO_OPERATION_CHECK)
    print(key.enc_key.hex(), key.enc_hmac_key.hex(), repository.id_str)
"""


def _client_processes(cube: Cube) -> list[psutil.Process]:
    assert cube.sshd.pid is not None
    return psutil.Process(cube.sshd.pid).children(recursive=True)


def test_no_secret_and_no_address_is_on_the_client(cube: Cube) -> None:
    tree = cube.place / "tree"
    tree.mkdir()
    (tree / "big").write_bytes(os.urandom(6 << 20))
    cube.ssh_client("alpha")
    cube.plan("tree", tree, client="alpha", extra=("--upload-ratelimit", "1024"))
    env = {**cube.env, "BORG_PASSPHRASE": "correct horse", "BORG_BASE_DIR": str(cube.place / "k"),
           "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}  # fmt: skip
    shown = subprocess.run(
        [sys.executable, "-c", KEYS, str(cube.repository)], env=env, capture_output=True,
        text=True, timeout=60, check=True,
    ).stdout.split()  # fmt: skip
    secrets = [bytes.fromhex(shown[0]), bytes.fromhex(shown[1]), b"correct horse"]
    secrets += [shown[0].encode(), shown[1].encode(), os.fsencode(cube.repository)]
    secrets += [os.fsencode(cube.home), b"ipc://", b"SSH_CONNECTION=", b"SSH_CLIENT="]
    job_id = cube.begin("tree")
    cube.transferring(job_id)
    directories = cube.session_directories()
    assert len(directories) == 1
    seen: list[tuple[str, bytes]] = []
    for path in directories[0].rglob("*"):
        if path.is_file():
            seen.append((str(path), path.read_bytes()))
    files = len(seen)
    processes = [p for p in _client_processes(cube) if "borg" in " ".join(p.cmdline())]
    assert files > 5 and processes
    for process in processes:
        for what in ("cmdline", "environ"):
            data = Path(f"/proc/{process.pid}/{what}").read_bytes()
            if what == "environ" and "create" not in process.cmdline():
                # sshd tells every login shell who is there; what we start is not told.
                data = b"\0".join(
                    entry for entry in data.split(b"\0") if not entry.startswith(b"SSH_")
                )
            seen.append((f"{what} of {process.cmdline()}", data))
    for secret in secrets:
        for where, data in seen:
            assert secret not in data, f"{secret!r} is in {where}"
    assert cube.ended(job_id)["state"] == "done"
    assert cube.session_directories() == []
    left = [p.cmdline() for p in _client_processes(cube) if "borg" in " ".join(p.cmdline())]
    assert left == []
