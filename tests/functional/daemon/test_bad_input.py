"""Bad input: one clear error that names the next step, and nothing lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from tests.functional.daemon.conftest import STOCK_BORG, Cube


def test_without_a_daemon(bare: Cube) -> None:
    assert "init" in bare.refused("repository", "list")
    bare.ok("init")
    assert "serve" in bare.refused("repository", "list", code=3)
    assert "serve" in bare.refused("backup", "x", code=3)
    bare.ok("init")  # again changes nothing
    assert bare.cli("doctor").returncode == 3


def test_names_and_paths(cube: Cube) -> None:
    cube.local_client("here")
    for name in ("../up", "a/b", "", "-x", "a b", "x" * 300, "new\nline"):
        done = cube.cli("client", "add", "--transport", "local", "--", name)
        assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "already" in cube.refused("client", "add", "here", "--transport", "local")
    assert "client list" in cube.refused("client", "show", "nobody")
    where = ("--repository", "main", "--path", "/etc")
    assert "client list" in cube.refused("plan", "add", "p", "--client", "nobody", *where)
    assert "repository list" in cube.refused(
        "plan", "add", "p", "--client", "here", "--repository", "none", "--path", "/etc"
    )
    assert "absolute" in cube.refused(
        "plan", "add", "p", "--client", "here", "--repository", "main", "--path", "etc"
    )
    assert cube.cli("plan", "add", "p", "--client", "here", "--repository", "main").returncode == 2
    assert "plan list" in cube.refused("backup", "nothing")
    assert "archive list" in cube.refused("restore", "nothing", "--to-dir", "/tmp/x")


def test_repositories(cube: Cube) -> None:
    secret = cube.place / "wrong"
    secret.write_text("wrong\n")
    full = cube.place / "full"
    full.mkdir()
    (full / "file").write_text("mine")
    assert "empty" in cube.refused("repository", "create", "r", "--path", str(full))
    assert (full / "file").read_text() == "mine"
    assert "already" in cube.refused("repository", "create", "main", "--path", "/tmp/other")
    other = cube.place / "other"
    made = subprocess.run(
        [STOCK_BORG, "init", "-e", "repokey", str(other)], capture_output=True, timeout=60,
        env={**cube.env, "BORG_PASSPHRASE": "right", "BORG_BASE_DIR": str(cube.place / "bb")},
    )  # fmt: skip
    assert made.returncode == 0
    assert "import" in cube.refused("repository", "create", "r", "--path", str(other))
    assert (
        "passphrase"
        in cube.refused(
            "repository", "import", "r", "--path", str(other), "--passphrase-file", str(secret)
        ).lower()
    )
    secret.write_text("right\n")
    cube.ok("repository", "import", "r", "--path", str(other), "--passphrase-file", str(secret))


def _failed(cube: Cube, plan: str) -> dict[str, str]:
    job = cube.ended(cube.begin(plan), timeout_s=90)
    assert job["state"] == "failed", job
    assert job["cause"]["next_step"], job["cause"]
    cause: dict[str, str] = job["cause"]
    return cause


def test_clients_that_do_not_work(cube: Cube) -> None:
    tree = cube.place / "tree"
    tree.mkdir()
    cube.ok("client", "add", "gone", "--host", "127.0.0.1", "--port", "1")
    cube.plan("gone", tree, client="gone")
    assert _failed(cube, "gone")["kind"] == "host-unreachable"
    cube.ok(
        "client", "add", "unknown", "--host", "127.0.0.1", "--port", str(cube.sshd.port),
        "--user", cube.sshd.user, "--identity", str(cube.sshd.identity),
    )  # fmt: skip
    cube.plan("unknown", tree, client="unknown")
    cause = _failed(cube, "unknown")
    assert cause["kind"] == "host-key-unknown" and "client trust" in cause["next_step"]
    cube.ssh_client("none", borg="/nowhere/borg")
    cube.plan("none", tree, client="none")
    assert _failed(cube, "none")["kind"] == "borg-missing"
    old = cube.place / "old"
    old.write_text("#!/bin/sh\necho 'borg 1.1.9'\n")
    old.chmod(0o755)
    cube.ssh_client("old", borg=str(old))
    cube.plan("old", tree, client="old")
    assert _failed(cube, "old")["kind"] == "borg-version"
    cube.ssh_client("fine")
    cube.plan("nothing", cube.place / "not there", client="fine")
    assert _failed(cube, "nothing")["kind"] == "path-missing"
    cube.plan("fine", tree, client="fine")
    cube.sshd.change_host_key()
    cause = _failed(cube, "fine")
    assert cause["kind"] == "host-key-changed" and cause["message"].count("SHA256:") == 2


def test_login_shell_with_a_banner(bare: Cube) -> None:
    bare.sshd.stop()
    noisy = bare.place / "noisy"
    noisy.write_text(
        '#!/bin/sh\necho "Welcome to this host!"\necho\nexec sh -c "$SSH_ORIGINAL_COMMAND"\n'
    )
    noisy.chmod(0o755)
    bare.sshd.extra_lines = (f"ForceCommand {noisy}",)
    bare.sshd.start()
    bare.ok("init")
    bare.start()
    bare.ok("repository", "create", "main", "--path", str(bare.repository))
    (bare.place / "tree").mkdir()
    bare.ssh_client("loud")
    bare.plan("loud", bare.place / "tree", client="loud")
    job = bare.ended(bare.begin("loud"))
    assert job["state"] == "done", job["cause"]
    bare.plan("gone", bare.place / "gone", client="loud")
    assert _failed(bare, "gone")["kind"] == "path-missing"


def test_second_daemon_is_refused(cube: Cube) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "borgcube", "serve"], env=cube.env, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "already" in done.stderr
    cube.ok("repository", "list")


def test_damaged_configuration_and_missing_key(bare: Cube) -> None:
    bare.ok("init")
    settings = bare.home / "borgcube.toml"
    good = settings.read_text()
    settings.write_text("[jobs\nmax_running = many")
    done = bare.cli("serve")
    assert done.returncode == 2 and "borgcube.toml" in done.stderr
    settings.write_text(good)
    (bare.home / "master.key").rename(bare.home / "elsewhere")
    done = bare.cli("serve")
    assert done.returncode == 2 and "master key" in done.stderr.lower()
    assert bare.cli("doctor").returncode in (2, 3)


def test_interrupting_the_command_leaves_the_job(cube: Cube) -> None:
    tree = cube.place / "tree"
    tree.mkdir()
    (tree / "big").write_bytes(os.urandom(4 << 20))
    cube.local_client("here")
    cube.plan("tree", tree, client="here", extra=("--upload-ratelimit", "1024"))
    waiting = subprocess.Popen(
        [sys.executable, "-m", "borgcube", "backup", "tree", "--wait"], env=cube.env,
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        # A background job inherits it as ignored, and would then not hear it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not cube.call("job.list", state="running"):
        assert time.monotonic() < deadline and waiting.poll() is None
        time.sleep(0.1)
    time.sleep(1)  # until it follows
    waiting.send_signal(signal.SIGINT)
    _, said = waiting.communicate(timeout=20)
    assert waiting.returncode == 130
    assert "goes on" in said and "job cancel" in said
    assert "Traceback" not in said
    jobs = cube.call("job.list")
    assert cube.ended(jobs[0]["id"])["state"] == "done"


def test_unreadable_files_are_a_warning_and_still_an_archive(cube: Cube) -> None:
    tree = cube.place / "tree"
    tree.mkdir()
    (tree / "good").write_text("good")
    cube.local_client("here")
    missing = cube.place / "missing"
    cube.plan("tree", tree, missing, client="here")
    done = cube.cli("backup", "tree", "--wait")
    assert done.returncode == 1, done.stderr
    assert str(missing) in done.stdout and "archive tree-" in done.stdout
    assert len(cube.call("archive.list")) == 1
