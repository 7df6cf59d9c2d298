"""Schemathesis against a real console: requests made from the API's own description.

``python -m borgcube.testing.apifuzz --seconds 90 --seed 1 --plugins DIRECTORY`` starts a
daemon with its console, a small fleet and, from the directory, plugins that touch nothing
outside of their test (a checkout has them in ``tests/unit/daemon/fakeplugin``). It prints
what Schemathesis says and ends with its exit code. Names in paths and bodies are often those
of the fleet, or nearly every request would be for what is not there.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import tomli_w

from borgcube.testing.consolerig import ConsoleRig

REAL = ("borg", "backup", "restore", "transport_openssh", "transport_paramiko", "transport_local")
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_headers_conformance", "response_schema_conformance", "negative_data_rejection",
    "unsupported_method", "allow_header_conformance",
)  # fmt: skip
HOOKS = """
import random
import schemathesis

KNOWN = {known!r}
OWN = {own!r}
CHOICE = random.Random(1)

@schemathesis.hook
def before_call(context, case, kwargs):
    words = case.path_parameters
    known = KNOWN.get(case.path.split("/")[1])
    if words and known and CHOICE.random() < 0.7:
        words.update(CHOICE.choice(known))
    if case.path.startswith("/tokens/") and words.get("id") == OWN:
        words["id"] = "none"  # or the rest of the run would do nothing
"""


def known_of(rig: ConsoleRig) -> dict[str, list[dict[str, str]]]:
    """Return the path parameters of what there is, by the first word of a path."""
    plans, jobs = ("web-etc", "mail-etc"), rig.call("job.list", limit=4)
    return {
        "clients": [{"name": name} for name in ("web", "mail")],
        "plans": [{"name": name} for name in plans], "repositories": [{"name": "main"}],
        "users": [{"name": name} for name in ("vera", "owen")],
        "jobs": [{"id": job["id"]} for job in jobs],
        "archives": [{"repository": "main", "id": a["id"]} for a in rig.call("archive.list")],
        "tokens": [{"id": token["id"]} for token in rig.call("token.list", user="vera")],
    }  # fmt: skip


def seed(rig: ConsoleRig) -> str:
    """Make the fleet and return an administrator's token."""
    rig.call("repository.create", name="main", path=str(rig.place / "repo"), passphrase="right")
    for name in ("web", "mail"):
        rig.call("client.add", name=name, transport="local")
        rig.call("plan.add", name=f"{name}-etc", client=name, repository="main", paths=["/etc"])
    rig.user("ada")
    rig.user("vera", "viewer")
    rig.user("owen", "owner", "web")
    for name in ("web", "mail"):
        rig.ended(rig.call("backup.start", plan=f"{name}-etc")["job_id"])
    for number in range(5):
        rig.call("token.add", name=f"decoy{number}", user="vera")
    return str(rig.call("token.add", name="fuzz", user="ada", scope=["all"])["token"])


def fuzz(
    rig: ConsoleRig, token: str, *, number: int, seconds: int = 0, examples: int = 0,
    leave_out: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """Run Schemathesis for about so many seconds, or with so many requests for each
    operation, and return how it ended. ``leave_out`` names operations."""
    place = rig.place
    # The token is in a private file: arguments are anybody's to read.
    settings = place / "schemathesis.toml"
    settings.touch(mode=0o600)
    settings.write_text(tomli_w.dumps({
        "headers": {"Authorization": f"Bearer {token}"}, "hooks": str(place / "fuzzhooks.py"),
    }))  # fmt: skip
    own = next(t["id"] for t in rig.call("token.list", user="ada") if t["name"] == "fuzz")
    (place / "fuzzhooks.py").write_text(HOOKS.format(known=known_of(rig), own=own))
    command = [
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(settings), "run",
        f"{rig.url}/api/v1/openapi.json", "--checks", ",".join(CHECKS), "--seed", str(number),
        "--phases", "coverage,fuzzing" if seconds else "fuzzing",
        "--continue-on-failure", "--no-color",
    ]  # fmt: skip
    command += ["--max-time", str(seconds)] if seconds else ["--max-examples", str(examples)]
    for name in leave_out:
        command += ["--exclude-operation-id", name]
    return subprocess.run(
        command, cwd=place, env={**os.environ, "NO_COLOR": "1", "COLUMNS": "120"}, text=True,
        capture_output=True, timeout=seconds + 300, check=False,
    )  # fmt: skip


def mistakes(rig: ConsoleRig) -> list[str]:
    """Return the lines of the daemon's log that say that we made a mistake."""
    log = (rig.home / "logs" / "borgcubed.log").read_text("utf-8", "replace")
    return [line for line in log.splitlines() if " ERROR " in line and any(
        words in line for words in (" failed", "mistake", "main loop", "could not"))
        and "observe" not in line and "failed on event" not in line]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Schemathesis against a console of its own.")
    parser.add_argument("--seconds", type=int, default=90)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plugins", default="tests/unit/daemon/fakeplugin", metavar="DIRECTORY")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="borgcube-apifuzz-") as name:
        place = Path(name)
        os.environ["BORGCUBE_FAKE_ROOT"] = str(place / "root")
        plugins = (str(Path(options.plugins).absolute()),)
        with ConsoleRig(place, python_path=plugins, disabled=REAL) as rig:
            done = fuzz(rig, seed(rig), seconds=options.seconds, number=options.seed)
            print(done.stdout, done.stderr)
            wrong = mistakes(rig)
            print(f"{len(wrong)} mistakes in the daemon's log", *wrong[:20], sep="\n")
    return done.returncode or bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
